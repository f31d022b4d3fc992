/**
 * The nouns of the algorithm: terms, indexes, ids, entries, hard state and membership.
 *
 * Terms and indexes are plain numbers (safe integers, asserted where bytes are decoded); ids are
 * branded, because nobody may add two of them or pass one for another. Index 0 means "none": the
 * first entry of a log has index 1 (paper, figure 2).
 *
 * 2^53 is enough: at a million entries a second it lasts 285 years.
 */

/** Raft's logical time. 0 before the first election, then rising by one or more per campaign. */
export type Term = number;

/** Position of an entry in a group's log, from 1. 0 means "none". */
export type LogIndex = number;

/**
 * Names the last forced recovery of a group and rises with each; 0: there was none. A safe integer.
 * Members of different generations are different groups that happen to have the same ids and a common
 * past (rule D07): so no two recoveries may ever be given the same one.
 */
export type Generation = number;

/** A process of the cluster. 1 to 2^32-1. */
export type NodeId = number & { readonly __brand: 'NodeId' };

/** A Raft group on the wire and on disk. 0 is the metadata group, shards count from 1. */
export type GroupId = number & { readonly __brand: 'GroupId' };

/**
 * A member of one group, 1 to 2^32-1. Issued anew for every addition and never used twice in a
 * group, so that a replica removed and added again on the same node cannot meet its own old log or
 * vote. The node that hosts it is part of the membership, not of the id.
 */
export type ReplicaId = number & { readonly __brand: 'ReplicaId' };

/** No leader known, no vote cast. Never the id of a replica. */
export const noReplica = 0 as ReplicaId;

const idMax = 0xffff_ffff;

function assertId(kind: string, value: number, min: number): void {
  if (!Number.isInteger(value) || value < min || value > idMax) {
    throw new RangeError(`${kind} must be an integer from ${min} to ${idMax}, got ${value}`);
  }
}

/** Checks and brands a node id. Throws RangeError outside 1 to 2^32-1. */
export function nodeId(value: number): NodeId {
  assertId('node id', value, 1);
  return value as NodeId;
}

/** Checks and brands a group id. Throws RangeError outside 0 to 2^32-1. */
export function groupId(value: number): GroupId {
  assertId('group id', value, 0);
  return value as GroupId;
}

/** Checks and brands a replica id. Throws RangeError outside 1 to 2^32-1. */
export function replicaId(value: number): ReplicaId {
  assertId('replica id', value, 1);
  return value as ReplicaId;
}

/**
 * What an entry is for. The numbers are the ones on disk and on the wire.
 *
 * - `noop`: the entry a leader appends on election (paper §8, thesis §6.4); `data` is empty.
 * - `command`: `data` is opaque to Raft and goes to the state machine.
 * - `membership`: `data` is `encodeMembership(...)`; in force from the moment it is appended
 *   (thesis §4.1), and undone when it is truncated.
 */
export const EntryKind = { noop: 0, command: 1, membership: 2 } as const;
export type EntryKind = (typeof EntryKind)[keyof typeof EntryKind];

/** A slot in the log. Immutable once built; `data` is never touched again by its giver. */
export interface Entry {
  readonly index: LogIndex;
  readonly term: Term;
  readonly kind: EntryKind;
  readonly data: Uint8Array;
}

/**
 * What a member must not forget across a crash (paper, figure 2 "persistent state"; commit is kept
 * as a hint only, so that a restart needs no leader to begin applying).
 */
export interface HardState {
  readonly term: Term;
  /** The candidate this member voted for in `term`, or `noReplica`. */
  readonly vote: ReplicaId;
  readonly commit: LogIndex;
}

/** One member of a group and the node that hosts it. */
export interface Member {
  readonly id: ReplicaId;
  readonly node: NodeId;
}

/**
 * Who is in the group. A joint configuration when `outgoing` is not empty: then every decision
 * needs a majority of `incoming` and a majority of `outgoing` (paper §6, thesis §4.3).
 *
 * All arrays are sorted by replica id without duplicates. `members` lists every replica named in
 * the other arrays exactly once, with its node. A replica is never voter and learner of the
 * incoming side at once; `learnersNext` are voters of `outgoing` that become learners on leaving.
 */
export interface Membership {
  readonly incoming: readonly ReplicaId[];
  readonly outgoing: readonly ReplicaId[];
  readonly learners: readonly ReplicaId[];
  readonly learnersNext: readonly ReplicaId[];
  /** A joint configuration with this flag is left by the leader itself as soon as it commits. */
  readonly autoLeave: boolean;
  readonly members: readonly Member[];
}

/** A membership and the index of the entry (or snapshot) that brought it. */
export interface MembershipAt {
  readonly index: LogIndex;
  readonly membership: Membership;
}

/** A run of entries of one term: all indexes from `from` up to the next run's `from` - 1. */
export interface TermRun {
  readonly from: LogIndex;
  readonly term: Term;
}

/** Names a state machine image: everything up to `index`, whose entry had `term`. */
export interface SnapshotMeta {
  readonly index: LogIndex;
  readonly term: Term;
  /** The membership in force at `index`, with the index of the entry that brought it. */
  readonly membership: MembershipAt;
}
