/** The state engine as one process has it: its writes take their time, and after its end nothing answers. */
import type {
  Engine,
  EngineBatch,
  EngineIterator,
  IterateOptions,
  KeyRange,
  MemoryEngine,
} from '../../../storage/index.js';
import type { Life } from './life.js';

export class LivedEngine implements Engine {
  private readonly inner: MemoryEngine;
  private readonly life: Life;
  private readonly delayMs: () => number;

  constructor(inner: MemoryEngine, life: Life, delayMs: () => number) {
    this.inner = inner;
    this.life = life;
    this.delayMs = delayMs;
  }

  async getMany(keys: readonly Uint8Array[]): Promise<readonly (Uint8Array | undefined)[]> {
    if (this.life.isOver) return never();
    return this.inner.getMany(keys);
  }

  iterate(options: IterateOptions): EngineIterator {
    const { life } = this;
    if (life.isOver) return { next: never, close: () => Promise.resolve() };
    const iterator = this.inner.iterate(options);
    return {
      next: () => (life.isOver ? never() : iterator.next()),
      close: () => iterator.close(),
    };
  }

  batch(): EngineBatch {
    return this.inner.batch();
  }

  async write(batch: EngineBatch, options: { readonly sync: boolean }): Promise<void> {
    if (this.life.isOver) return never();
    await this.inner.write(batch, options);
    await this.pause();
  }

  async clear(range: KeyRange): Promise<void> {
    if (this.life.isOver) return never();
    await this.pause();
    if (this.life.isOver) return never();
    await this.inner.clear(range);
    await this.pause();
  }

  statistics(): Readonly<Record<string, number>> {
    return this.inner.statistics();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  private pause(): Promise<void> {
    const ms = this.delayMs();
    if (ms === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.life.after(ms, resolve);
    });
  }
}

/** What a dead process waits for. */
function never(): Promise<never> {
  return new Promise<never>(() => undefined);
}
