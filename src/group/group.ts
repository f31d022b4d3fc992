/**
 * A Raft group as a service: what the floors above may ask of it.
 */
import type {
  Generation,
  GroupId,
  LogIndex,
  MembershipAt,
  MembershipChange,
  NodeId,
  RaftStatus,
  ReplicaId,
  Term,
} from '../../raft/index.js';

/**
 * What became of a proposal (rule D04).
 *
 * - `applied`: committed and applied here; `result` is the state machine's.
 * - `notApplied`: surely without effect: it was never appended, or an entry of another term is
 *   committed at its index.
 * - `unknown`: it may survive elsewhere (stepped down, truncated, snapshot installed over it, closed).
 */
export type ProposeOutcome<R> =
  | { readonly kind: 'applied'; readonly index: LogIndex; readonly term: Term; readonly result: R }
  | {
      readonly kind: 'notApplied';
      readonly reason:
        | 'notLeader'
        | 'overloaded'
        | 'tooLarge'
        | 'transferring'
        | 'membershipPending'
        | 'staleMembership'
        | 'invalidMembership'
        | 'closed'
        | 'overwritten';
    }
  | { readonly kind: 'unknown'; readonly reason: 'steppedDown' | 'snapshotInstalled' | 'closed' };

/** `ready`: the state machine has applied all a linearizable read must see. */
export type ReadOutcome =
  | {
      readonly kind: 'ready';
      readonly index: LogIndex;
      /**
       * Call after the read and before answering: false when a lease has run out meanwhile; then
       * ask again. Always true for a read confirmed by a round.
       */
      readonly stillValid: () => boolean;
    }
  | {
      readonly kind: 'notReady';
      readonly reason: 'notLeader' | 'overloaded' | 'noQuorum' | 'closed' | 'restoring';
    };

export interface Group<R> {
  readonly id: GroupId;
  readonly replica: ReplicaId;
  /** Of this replica, as long as it lives (rule D07). */
  readonly generation: Generation;
  readonly isLeader: boolean;
  readonly term: Term;
  /** The node that leads, as far as this replica knows. */
  readonly leaderNode: NodeId | undefined;
  readonly appliedIndex: LogIndex;
  /** In force now, committed or not. The same object until it changes. */
  readonly membership: MembershipAt;
  /**
   * It can answer nothing: its state is being rebuilt from a snapshot, or its generation is over and
   * the replica as a whole is to be replaced (rule D07).
   */
  readonly isRestoring: boolean;
  /** Monotonic ms (of the node's clock) at which this replica last knew itself caught up with its
   *  leader's commit index; bounds the age of a stale read. */
  readonly caughtUpAtMs: number;
  /** `done` is called exactly once, never synchronously. The bytes are the entry's payload. */
  propose(data: Uint8Array, done: (outcome: ProposeOutcome<R>) => void): void;
  /** Calls `run` at the end of this turn of the event loop, in time for what it proposes to go out then. */
  atEndOfTurn(run: () => void): void;
  /** Works on leader and follower. `done` is called exactly once. */
  readIndex(options: { readonly lease: boolean }, done: (outcome: ReadOutcome) => void): void;
  changeMembership(
    change: MembershipChange,
    done: (outcome: ProposeOutcome<undefined>) => void,
  ): void;
  transferLeadership(to: ReplicaId): boolean;
  /** Who knows says that the group is of this generation: a replica of a lower one falls silent. */
  learnGeneration(generation: Generation): void;
  /** Ends the quiet of the group (rule D05): somebody may be lost, this replica among them. */
  rouse(): void;
  status(): RaftStatus;
  /** Counters and queue lengths, for metrics. */
  figures(): GroupFigures;
  /** Hash over the state machine's keys and values, at the index that is applied now. */
  hash(): Promise<ReplicaHash>;
  /** The hash at an index whose command asked for it. */
  hashAt(index: LogIndex): HashAt;
}

export type GroupFigures = Readonly<Record<string, number>>;

export interface ReplicaHash {
  readonly appliedIndex: LogIndex;
  /** SHA-256, hexadecimal. */
  readonly hash: string;
  readonly pairs: number;
  /** As the state machine counts them. */
  readonly keys: number;
}

/**
 * `pending`: the index is not applied yet, or the hash is being computed. `missing`: the replica came
 * past the index without one (a restart, a snapshot), or has forgotten it.
 */
export type HashAt =
  { readonly kind: 'hash'; readonly hash: ReplicaHash } | { readonly kind: 'pending' | 'missing' };
