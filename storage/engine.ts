/**
 * The state engine: an ordered map from bytes to bytes that holds the state machines of all
 * replicas on this node. Two implementations, RocksDB and memory, one contract suite.
 *
 * Nothing written without `sync` is promised to survive a crash of the machine (it does survive a
 * crash of the process); the Raft log above it makes good for that, because data and applied index
 * go into one batch, and the log is kept from the *durable* applied index on.
 *
 * Any failed write leaves the engine broken: every later call rejects with `EngineFailure`, and
 * the node must stop.
 */

/** Keys from `start` (inclusive) to `end` (exclusive), in byte order. */
export interface KeyRange {
  readonly start: Uint8Array;
  readonly end: Uint8Array;
}

/** Writes gathered for one atomic batch. Keys and values must not be touched afterwards. */
export interface EngineBatch {
  put(key: Uint8Array, value: Uint8Array): void;
  delete(key: Uint8Array): void;
  /** Number of operations so far, and bytes of their keys and values. */
  readonly length: number;
  readonly bytes: number;
}

export interface IterateOptions extends KeyRange {
  readonly reverse?: boolean;
  /** Keys and values together per page; at least one pair is returned. */
  readonly pageBytesMax: number;
  /** Pairs per page. */
  readonly pageLengthMax?: number;
  readonly keysOnly?: boolean;
}

export interface Pair {
  readonly key: Uint8Array;
  /** Empty with `keysOnly`. */
  readonly value: Uint8Array;
}

/** Pages of one iteration: one consistent view, taken when it was opened. Close it, always. */
export interface EngineIterator {
  /**
   * The next page; empty at the end. Rejects with `EngineClosed` after `close()`: an empty page would
   * pass for the end, and what was left for the whole.
   */
  next(): Promise<readonly Pair[]>;
  close(): Promise<void>;
}

export interface Engine {
  /** Values in the order of `keys`; undefined where there is none. All from one moment. */
  getMany(keys: readonly Uint8Array[]): Promise<readonly (Uint8Array | undefined)[]>;
  iterate(options: IterateOptions): EngineIterator;
  batch(): EngineBatch;
  /** Atomic. With `sync` durable on return, together with everything written before it. */
  write(batch: EngineBatch, options: { readonly sync: boolean }): Promise<void>;
  /** Drops all keys of the range. Not part of any batch (rule D26): never reorder around it. */
  clear(range: KeyRange): Promise<void>;
  /** Figures for metrics; names as the engine gives them. */
  statistics(): Readonly<Record<string, number>>;
  /** Waits for operations in flight, then closes; later calls reject with `EngineClosed`. */
  close(): Promise<void>;
}

/** A failed read or write, or damage met: the node must stop and say so. `cause` has the reason. */
export class EngineFailure extends Error {
  override readonly name = 'EngineFailure';
}

/** A call after `close()`, of the engine or of the iterator. */
export class EngineClosed extends Error {
  override readonly name = 'EngineClosed';
}
