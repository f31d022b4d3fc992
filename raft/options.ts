/** What a member is told, what it is given back after a restart, and the verdicts it returns. */
import type {
  Entry,
  Generation,
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
  /** 1 to electionTicks - 1; a third of it or less, so that a lost heartbeat starts no election. */
  readonly heartbeatTicks: number;
  /** Ticks a lease lasts, counted from the send of the round that earned it; 0 = no lease. */
  readonly leaseTicks: number;
  /** Ask before raising the term (thesis §9.6): one that was cut off disturbs nobody on its return. */
  readonly preVote: boolean;
  /** A leader that hears no quorum steps down (thesis §6.2). A lease needs it. */
  readonly checkQuorum: boolean;
  /** A larger command is refused. */
  readonly entryBytesMax: number;
  /** Entries of one append; a single larger entry is sent alone. At least 1. */
  readonly messageBytesMax: number;
  /** Appends not acknowledged, per follower. At least 1; times messageBytesMax is what may pile up. */
  readonly inflightMessagesMax: number;
  /** The same in bytes of entries; exceeded by one message at most. */
  readonly inflightBytesMax: number;
  /** Own entries not committed: beyond, proposals are refused as overloaded. One is always taken. */
  readonly uncommittedBytesMax: number;
  /** Recent entries kept in memory; older ones are asked for by `Ready.fetches`. */
  readonly windowBytesMax: number;
  /** A leader whose persist batch or apply has not moved for this many ticks steps down. */
  readonly stalledTicksMax: number;
  /**
   * Ticks after a restart during which no vote is granted (rule D03); 0 for a first start. As long as
   * a promise to a leader lasts, electionTicks, when any member uses leases.
   */
  readonly silentTicks: number;
  /**
   * A leader to whom nothing has happened for this many ticks lets the group fall quiet: no more
   * heartbeats, and no elections, until something happens or `wake` is called (rule D05). 0 = never.
   */
  readonly quietTicks: number;
  /** A learner within this many entries of the last index, for one round, is promoted; -1: never. */
  readonly promoteLagMax: number;
  /** Unsigned 32-bit seed: the only source of randomness. */
  readonly seed: number;
}

/** What the Raft log gives back after a restart; for a new group see `newGroupState`. */
export interface RestoredState {
  /** Of this replica, for as long as it runs (rule D07). */
  readonly generation: Generation;
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
  /** Learners; the leader turns them into voters itself once they caught up (`promoteLagMax`). */
  readonly addLearners: readonly Member[];
  readonly remove: readonly ReplicaId[];
}

/**
 * - `appended`: in the leader's log as (term, index), and no more than that.
 * - `notLeader`: nothing happened; `leader` is where to ask, or `noReplica`.
 * - `refused`: nothing happened. `overloaded` and `transferring` pass with time, `membershipPending`
 *   with the change under way; `staleMembership` wants a change computed anew (rule D06);
 *   `tooLarge` and `invalidMembership` never pass.
 */
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

/** What `readIndex` could do at once. `refused` and `notLeader`: no read state will follow. */
export type ReadVerdict =
  /** The answer comes in `Ready.readStates` under this context. */
  | { readonly kind: 'pending' }
  /** Lease valid: read at this index, then check `leaseValid(term)` again before answering. */
  | { readonly kind: 'lease'; readonly index: LogIndex; readonly term: Term }
  | { readonly kind: 'notLeader'; readonly leader: ReplicaId }
  | { readonly kind: 'refused'; readonly reason: 'overloaded' | 'noQuorumYet' };

/** Learners are followers, too: their kind is in the membership. */
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
  readonly generation: Generation;
  /** A higher generation that was heard of: this replica takes part in nothing any more. 0: none. */
  readonly outdatedBy: Generation;
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
  /** The group has fallen quiet, as far as this member knows. */
  readonly quiet: boolean;
  /** Empty unless leader. */
  readonly progress: readonly ProgressView[];
  /** Messages dropped, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
}
