/** What a member is told, what it is given back after a restart, and the verdicts it returns. */
import type {
  Entry,
  HardState,
  LogIndex,
  Member,
  MembershipAt,
  ReplicaId,
  Term,
  TermRun,
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
        | 'tooLarge'
        | 'overloaded'
        | 'transferring'
        | 'membershipPending'
        | 'staleMembership'
        | 'invalidMembership';
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
