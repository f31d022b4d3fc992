/**
 * What the core wants done. The driver asks with `RawNode.ready()`, does it in the order of the
 * fields, and reports back with the completions of `RawNode`.
 *
 * One *persist batch* (hardState, entries, logReset) is in flight at a time: until the driver has
 * called `persisted()` for it, `ready()` leaves these fields and `messagesAfterPersist` empty;
 * everything else keeps flowing, so that heartbeats and appends never wait for this disk
 * (thesis §10.2.1).
 *
 * A crash may fall between any two of the duties. What was not done is then lost like a message: the
 * core has promised nobody anything of it, since promises are among the duties and come after what
 * they are about.
 */
import type { Entry, HardState, LogIndex, ReplicaId, SnapshotMeta, Term } from './types.js';
import type { Message } from './message.js';

/** (term, index) of an entry; also names a completion, so that a late one is recognised. */
export interface EntryId {
  readonly term: Term;
  readonly index: LogIndex;
}

/**
 * Entries wanted from the Raft log, because they are below the window in memory: for a slow
 * follower (`purpose: 'send'`) or to be applied after a restart (`purpose: 'apply'`). Answer with
 * `entriesFetched`; fewer entries than asked are fine, none means "compacted away meanwhile".
 */
export interface Fetch {
  readonly purpose: 'send' | 'apply';
  /** The follower for `send`; `noReplica` for `apply`. */
  readonly to: ReplicaId;
  readonly from: LogIndex;
  /** Inclusive. */
  readonly last: LogIndex;
  readonly bytesMax: number;
}

/**
 * A read may be answered from the state machine once it has applied `index`. `index` is
 * `undefined` when the read was refused (not leader any more, leader unknown): ask again elsewhere.
 */
export interface ReadState {
  readonly context: string;
  readonly index: LogIndex | undefined;
}

/** All lists are the driver's from here on; their elements are shared, and nobody changes them. */
export interface Ready {
  /** Send now, in any order; may be lost. Never addressed to this replica. */
  readonly messages: readonly Message[];
  /**
   * Append to the Raft log, synced together with `entries` and `logReset`. With `logReset` it is kept or
   * lost as one: its commit index may lie in what the reset brings.
   */
  readonly hardState: HardState | undefined;
  /** Entries at or above the first of these indexes are replaced by these. */
  readonly entries: readonly Entry[];
  /** The state machine was restored: the log now begins after `logReset.index`, and is empty. */
  readonly logReset: SnapshotMeta | undefined;
  /**
   * Send only after that batch is durable: each is a promise about this disk. One addressed to this
   * replica itself (its own vote) goes back in through `step()`.
   */
  readonly messagesAfterPersist: readonly Message[];
  /** Apply in order, then `applied(index)`. Always persisted here, never above the commit index. */
  readonly committed: readonly Entry[];
  /** Release each once the applied index has reached its own; refused ones at once. */
  readonly readStates: readonly ReadState[];
  /** Each is answered by `entriesFetched`, once. */
  readonly fetches: readonly Fetch[];
  /** Followers that need a snapshot: send one at least as new as the log's first index - 1. */
  readonly snapshotsWanted: readonly ReplicaId[];
  /** A snapshot was accepted: restore the state machine from it, then `restored()`. */
  readonly restore: (SnapshotMeta & { readonly from: ReplicaId }) | undefined;
}
