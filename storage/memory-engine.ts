/**
 * The state engine in memory: RocksDB's twin for tests and simulation, with faults on demand, and a
 * choice for nodes whose state may be rebuilt from the Raft log.
 */
import {
  EngineClosed,
  EngineFailure,
  type Engine,
  type EngineBatch,
  type EngineIterator,
  type IterateOptions,
  type KeyRange,
  type Pair,
} from './engine.js';
import { OperationList, type EngineOperation } from './operation-list.js';

/** Bytes as text of the same order: latin1 keeps each byte as one code unit. */
const textOf = (key: Uint8Array): string =>
  Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1');

const addedSlack = 1024;

/**
 * A sorted map; what is iterated is copied (references only), so every iteration is one view. Keys are
 * put in order when they are looked at in order: a splice for each new key would cost the length of
 * the whole list.
 */
class SortedMap {
  readonly values: Map<string, Pair>;
  /** In order; may hold keys that were deleted since. */
  private keys: string[] = [];
  /** In no order: not in `keys`, or deleted and put again; at most about twice what is held. */
  private added: string[] = [];

  constructor(values: Iterable<[string, Pair]> = []) {
    this.values = new Map(values);
    this.added = [...this.values.keys()];
  }

  set(text: string, pair: Pair): void {
    if (!this.values.has(text)) this.added.push(text);
    this.values.set(text, pair);
    // A key that comes and goes, with nobody looking, must not pile up here.
    if (this.added.length > 2 * this.values.size + addedSlack) this.order();
  }

  delete(text: string): void {
    this.values.delete(text);
  }

  range({ start, end }: KeyRange): readonly Pair[] {
    if (this.added.length > 0 || this.keys.length > 2 * this.values.size) this.order();
    const pairs: Pair[] = [];
    const last = this.find(textOf(end));
    for (let at = this.find(textOf(start)); at < last; at++) {
      const pair = this.values.get(this.keys[at] ?? '');
      if (pair !== undefined) pairs.push(pair);
    }
    return pairs;
  }

  /** Merges the new keys in, and leaves the deleted ones out. */
  private order(): void {
    const { keys, values } = this;
    const added = this.added.sort(compareTexts);
    const merged: string[] = [];
    const take = (text: string): void => {
      if (merged[merged.length - 1] !== text && values.has(text)) merged.push(text);
    };
    let next = 0;
    for (const key of keys) {
      for (; next < added.length && (added[next] ?? key) < key; next++) take(added[next] ?? key);
      take(key);
    }
    for (; next < added.length; next++) take(added[next] ?? '');
    this.keys = merged;
    this.added = [];
  }

  /** Position of the first key not below `text`. */
  private find(text: string): number {
    let low = 0;
    let high = this.keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.keys[middle] ?? '') < text) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** By code units, which for latin1 are bytes; `sort` alone does the same, but says so less. */
const compareTexts = (a: string, b: string): number => (a < b ? -1 : Number(a > b));

type Change = { readonly operations: readonly EngineOperation[] } | { readonly clear: KeyRange };

export class MemoryEngine implements Engine {
  private live = new SortedMap();
  /** What a power cut surely leaves; `unsynced` are the changes since. */
  private durable = new SortedMap();
  private unsynced: Change[] = [];
  private broken: EngineFailure | undefined;
  private closed = false;
  private failNext: Error | undefined;

  /** The next write fails with this cause, and with it the engine. */
  failNextWrite(cause: Error): void {
    this.failNext = cause;
  }

  /** How many changes a power cut could lose. */
  get unsyncedLength(): number {
    return this.unsynced.length;
  }

  /**
   * An engine as it would be found after a power cut: everything synced, and the first `kept` of the
   * later changes. This one is closed.
   */
  crash(kept = 0): MemoryEngine {
    this.closed = true;
    const after = new MemoryEngine();
    for (const change of this.unsynced.slice(0, kept)) applyTo(this.durable, change);
    after.durable = this.durable;
    after.live = new SortedMap(this.durable.values);
    return after;
  }

  async getMany(keys: readonly Uint8Array[]): Promise<readonly (Uint8Array | undefined)[]> {
    this.check();
    return Promise.resolve(keys.map((key) => this.live.values.get(textOf(key))?.value));
  }

  iterate(options: IterateOptions): EngineIterator {
    this.check();
    const pairs = [...this.live.range(options)];
    if (options.reverse === true) pairs.reverse();
    return new MemoryIterator(pairs, options, () => {
      this.check();
    });
  }

  batch(): EngineBatch {
    return new OperationList();
  }

  async write(batch: EngineBatch, { sync }: { readonly sync: boolean }): Promise<void> {
    this.check();
    if (!(batch instanceof OperationList)) throw new TypeError('the batch is of another engine');
    this.failIfAsked();
    this.change({ operations: batch.operations });
    if (sync) this.sync();
    return Promise.resolve();
  }

  async clear(range: KeyRange): Promise<void> {
    this.check();
    this.failIfAsked();
    this.change({ clear: range });
    return Promise.resolve();
  }

  statistics(): Readonly<Record<string, number>> {
    return { keys: this.live.values.size, unsynced: this.unsynced.length };
  }

  async close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  private change(change: Change): void {
    applyTo(this.live, change);
    this.unsynced.push(change);
  }

  private sync(): void {
    for (const change of this.unsynced) applyTo(this.durable, change);
    this.unsynced = [];
  }

  private failIfAsked(): void {
    if (this.failNext === undefined) return;
    this.broken = new EngineFailure(`state engine: write failed: ${this.failNext.message}`, {
      cause: this.failNext,
    });
    throw this.broken;
  }

  private check(): void {
    if (this.closed) throw new EngineClosed('state engine is closed');
    if (this.broken !== undefined) throw this.broken;
  }
}

function applyTo(map: SortedMap, change: Change): void {
  if ('clear' in change) {
    for (const { key } of map.range(change.clear)) map.delete(textOf(key));
    return;
  }
  for (const { key, value } of change.operations) {
    if (value === undefined) map.delete(textOf(key));
    else map.set(textOf(key), { key, value });
  }
}

const noValue = new Uint8Array();

class MemoryIterator implements EngineIterator {
  private at = 0;
  private closed = false;
  private readonly pairs: readonly Pair[];
  private readonly options: IterateOptions;
  private readonly check: () => void;

  constructor(pairs: readonly Pair[], options: IterateOptions, check: () => void) {
    this.pairs = pairs;
    this.options = options;
    this.check = check;
  }

  async next(): Promise<readonly Pair[]> {
    this.check();
    if (this.closed) throw new EngineClosed('the iterator is closed');
    const { pageBytesMax, pageLengthMax = Infinity, keysOnly = false } = this.options;
    const page: Pair[] = [];
    let bytes = 0;
    while (this.at < this.pairs.length && page.length < pageLengthMax) {
      const pair = this.pairs[this.at];
      if (pair === undefined) break;
      bytes += pair.key.byteLength + (keysOnly ? 0 : pair.value.byteLength);
      if (page.length > 0 && bytes > pageBytesMax) break;
      page.push(keysOnly ? { key: pair.key, value: noValue } : pair);
      this.at++;
    }
    return Promise.resolve(page);
  }

  async close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}
