/**
 * What a Raft group needs of its state machine. `shard` and `meta` implement it; `group` knows
 * nothing else about them.
 *
 * Deterministic: what `apply` writes and returns depends on the entries and the state before, never
 * on a clock, on configuration or on the node (R41). A rejected command is a result; a throw out of
 * `apply` is a bug and stops the node.
 */
import type { Entry } from '../../raft/index.js';
import type { EngineBatch, KeyRange } from '../../storage/index.js';

export interface Applied<R> {
  /** One result per entry, in order. */
  readonly results: readonly R[];
  /** Ranges to drop once the batch is written (rule D26: clears are not part of a batch). */
  readonly clears: readonly KeyRange[];
}

export interface StateMachine<R> {
  /** All keys of this replica in the engine lie in this range; snapshots carry just these. */
  readonly range: KeyRange;
  /** (Re)builds every cache from the engine: at start, and after a snapshot was installed (D15). */
  load(): Promise<void>;
  /**
   * Applies committed commands in order and puts their writes into `batch`; the applier adds the
   * applied index to the same batch and writes it. Reads see the engine and the batch so far. The
   * next call comes only after the batch was written.
   */
  apply(commands: readonly Entry[], batch: EngineBatch): Promise<Applied<R>>;
  /** The batch of the last `apply` is in the engine: what readers may see moves on, with the data. */
  written(): void;
  /** The command wants the hash of the state right behind it to be taken (applying it does nothing). */
  asksForHash(command: Uint8Array): boolean;
  /** What users would count, as of `written`; 0 where there is nothing to count. */
  readonly keys: number;
  /** Leadership came or went: only a leader proposes on its own (expiry, log time). */
  onLeadership(leadership: Leadership): void;
}

export interface Leadership {
  readonly leading: boolean;
  /**
   * Median of the voters' wall clocks as this node estimates them, ms since 1970 (rule D22); only
   * meaningful while leading.
   */
  readonly clockMedianMs: number;
}
