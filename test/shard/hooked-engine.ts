/** The engine in memory, with a place where a test can do something in the middle of a read. */
import {
  MemoryEngine,
  type EngineIterator,
  type IterateOptions,
  type Pair,
} from '../../storage/index.js';

export class HookedEngine extends MemoryEngine {
  /** Called after a read was begun and before it is answered. */
  onGet: (() => Promise<void>) | undefined;
  onPage: (() => Promise<void>) | undefined;
  gets = 0;
  iterators = 0;
  opened = 0;

  override async getMany(
    keys: readonly Uint8Array[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    this.gets++;
    const values = await super.getMany(keys);
    const hook = this.onGet;
    this.onGet = undefined;
    await hook?.();
    return values;
  }

  override iterate(options: IterateOptions): EngineIterator {
    const view = super.iterate(options);
    this.iterators++;
    this.opened++;
    return {
      next: async (): Promise<readonly Pair[]> => {
        const page = await view.next();
        const hook = this.onPage;
        this.onPage = undefined;
        await hook?.();
        return page;
      },
      close: async (): Promise<void> => {
        this.opened--;
        await view.close();
      },
    };
  }
}
