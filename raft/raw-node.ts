/**
 * The handle on one member of one group: inputs in, one `Ready` out. No I/O, no clock, no Promise.
 */
import type { Message } from './message.js';
import type { EntryId, Ready } from './ready.js';
import type {
  Entry, HardState, LogIndex, Member, Membership, MembershipAt, ReplicaId, SnapshotMeta, Term, TermRun,
} from './types.js';

/** Limits and switches, validated by the constructor; all counts and bytes are per member. */
export interface RaftOptions {
  readonly id: ReplicaId;
  /** A follower campaigns after [electionTicks, 2 * electionTicks) ticks of silence. */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** Ticks a lease lasts, counted from the send of the round that earned it; 0 = no lease. */
  readonly leaseTicks: number;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  readonly entryBytesMax: number;
  readonly messageBytesMax: number;
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  readonly uncommittedBytesMax: number;
  /** Recent entries kept in memory; older ones are asked for by `Ready.fetches`. */
  readonly windowBytesMax: number;
  /** A leader whose persist batch or apply has not moved for this many ticks steps down. */
  readonly stalledTicksMax: number;
  /** Ticks after a restart during which no vote is granted (rule D03); 0 for a first start. */
  readonly silentTicks: number;
  /** A learner within this many entries of the last index, for one round, is promoted. */
  readonly promoteLagMax: number;
  /** Unsigned 32-bit seed: the only source of randomness. */
  readonly seed: number;
}

/** What the Raft log gives back after a restart; for a new group see `newGroupState`. */
export interface RestoredState {
  readonly hardState: HardState;
  /** First index of the log present; `firstIndex - 1` is the last index of the snapshot. */
  readonly firstIndex: LogIndex;
  /** Last index on disk, `firstIndex - 1` if the log is empty. */
  readonly lastIndex: LogIndex;
  /** Terms of [firstIndex - 1, lastIndex]; the first run covers firstIndex - 1. */
  readonly termRuns: readonly TermRun[];
  /** Memberships in force, ascending; the first is the one at firstIndex - 1. */
  readonly memberships: readonly MembershipAt[];
  /** A suffix of the log for the window, possibly empty. */
  readonly tail: readonly Entry[];
  /** Of the state machine; committed entries after it are applied again. */
  readonly appliedIndex: LogIndex;
  /** Restoring marker found (rule D15): do not campaign until a snapshot has been installed. */
  readonly restoring: boolean;
}

/** Adds learners or voters, removes members; carries the index it was based on (rule D06). */
export interface MembershipChange {
  /** Index of the membership this change was computed from: refused when another is in force. */
  readonly basedOn: LogIndex;
  readonly addVoters: readonly Member[];
  /** Learners; with `promote` the leader turns them into voters itself once they caught up. */
  readonly addLearners: readonly Member[];
  readonly remove: readonly ReplicaId[];
}

export type ProposeVerdict =
  | { readonly kind: 'appended'; readonly term: Term; readonly index: LogIndex }
  | { readonly kind: 'notLeader'; readonly leader: ReplicaId }
  | {
      readonly kind: 'refused';
      readonly reason:
        | 'tooLarge' | 'overloaded' | 'transferring' | 'membershipPending' | 'staleMembership' | 'invalidMembership';
    };

export type ReadVerdict =
  /** The answer comes in `Ready.readStates` under this context. */
  | { readonly kind: 'pending' }
  /** Lease valid: read at this index, then check `leaseValid(term)` again before answering. */
  | { readonly kind: 'lease'; readonly index: LogIndex; readonly term: Term }
  | { readonly kind: 'notLeader'; readonly leader: ReplicaId }
  | { readonly kind: 'refused'; readonly reason: 'overloaded' | 'noQuorumYet' };

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';

/** What the leader knows of one member. */
export interface ProgressView {
  readonly id: ReplicaId;
  readonly match: LogIndex;
  readonly next: LogIndex;
  readonly state: 'probe' | 'replicate' | 'snapshot';
  readonly learner: boolean;
  readonly recentlyActive: boolean;
}

/** A plain copy, for status output, metrics and invariants. */
export interface RaftStatus {
  readonly id: ReplicaId;
  readonly role: Role;
  readonly term: Term;
  readonly vote: ReplicaId;
  readonly leader: ReplicaId;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly persistedIndex: LogIndex;
  readonly commitIndex: LogIndex;
  readonly appliedIndex: LogIndex;
  readonly membership: MembershipAt;
  readonly transferTo: ReplicaId;
  readonly restoring: boolean;
  /** Empty unless leader. */
  readonly progress: readonly ProgressView[];
  /** Messages dropped, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
}

/** The state of a group that never ran: an empty log and the first membership at index 0. */
export declare function newGroupState(membership: Membership): RestoredState;

export declare class RawNode {
  constructor(options: RaftOptions, state: RestoredState);
  tick(): void;
  /** Never throws on remote input: stale, foreign or malformed messages are dropped and counted. */
  step(message: Message): void;
  /** Campaign now (tests, and a first start of a single-member group). */
  campaign(): void;
  propose(data: Uint8Array): ProposeVerdict;
  proposeMembership(change: MembershipChange): ProposeVerdict;
  /** `context` is unique on this replica for ever (rule D08). Works on leader and follower. */
  readIndex(context: string): ReadVerdict;
  /** Lease only: may a read that was begun in `term` still be answered now? (D03, R30) */
  leaseValid(term: Term): boolean;
  /** Hands leadership to `to`, or to the best follower for `noReplica`. False when impossible. */
  transferLeadership(to: ReplicaId): boolean;
  /** Cheap: is there anything in `ready()`? */
  hasReady(): boolean;
  ready(): Ready;
  /**
   * The persist batch of the last `ready()` is durable. `last` is the (term, index) of its last
   * entry (or of its log reset), undefined if it held only a hard state.
   */
  persisted(last: EntryId | undefined): void;
  applied(index: LogIndex): void;
  entriesFetched(fetch: { readonly purpose: 'send' | 'apply'; readonly to: ReplicaId; readonly from: LogIndex }, entries: readonly Entry[]): void;
  /** The message that offers a snapshot to `to`, in the current term; undefined if not leader. */
  snapshotMessage(to: ReplicaId, snapshot: SnapshotMeta): Message | undefined;
  snapshotSent(result: { readonly to: ReplicaId; readonly index: LogIndex; readonly ok: boolean }): void;
  /** The restore asked for by `Ready.restore` ended; `ok` false: keep the old state, ask again. */
  restored(snapshot: SnapshotMeta, ok: boolean): void;
  /** The log on disk now begins at `firstIndex`; allowed up to the applied index + 1. */
  compacted(firstIndex: LogIndex): void;
  /** Peers on `node` became unreachable: their progress falls back to probing. */
  unreachable(replica: ReplicaId): void;
  termAt(index: LogIndex): Term | undefined;
  status(): RaftStatus;
  readonly isLeader: boolean;
  readonly term: Term;
  readonly leader: ReplicaId;
}
