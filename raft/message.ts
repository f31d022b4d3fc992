/**
 * What members of a group say to one another. One union, discriminated by `type`; every kind has
 * the same head in the same field order, and is built by exactly one function in this folder, so
 * that each kind has one hidden class.
 *
 * `from` and `to` are replica ids: a message addressed to another replica id than the receiver's
 * is dropped and counted, which keeps a late message from reaching a replica that was removed and
 * added again under a new id.
 *
 * Any of them may be lost, doubled, late by minutes or overtaken by others. None is a call that waits
 * for its answer: an answer is a message like any other, and says by itself what it answers.
 */
import type { Entry, LogIndex, ReplicaId, SnapshotMeta, Term } from './types.js';

interface Head<T extends string> {
  readonly type: T;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  /** The sender's term; for `preVote` the term it would campaign in, its own term + 1. */
  readonly term: Term;
}

/** RequestVote (paper, figure 2), and its rehearsal that raises no term (thesis §9.6). */
export interface VoteRequest extends Head<'vote' | 'preVote'> {
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  /** Set when the old leader asked for this campaign: voters then ignore their leader's lease. */
  readonly transfer: boolean;
}

/** Answer to either. A refused pre-vote carries the voter's own term, a granted one the asked. */
export interface VoteReply extends Head<'voteReply' | 'preVoteReply'> {
  readonly granted: boolean;
}

/** AppendEntries (paper, figure 2). May be empty: a probe, or news of the commit index. */
export interface AppendRequest extends Head<'append'> {
  readonly prevIndex: LogIndex;
  readonly prevTerm: Term;
  readonly commit: LogIndex;
  readonly entries: readonly Entry[];
}

/**
 * Answer to an append. Accepted: `index` is the last index now known to match the leader's log
 * *and* durable here. Rejected: `index` repeats the request's prevIndex, and (hintIndex, hintTerm)
 * is the receiver's best guess of where the logs agree (paper §5.3, last paragraphs).
 *
 * Rejected with `index` 0 asks for a snapshot: nothing can conflict at index 0, so no other
 * rejection has it. So speaks a member whose state machine was damaged or half replaced, which no
 * entries can mend (rules D13, D15).
 */
export interface AppendReply extends Head<'appendReply'> {
  readonly index: LogIndex;
  readonly rejected: boolean;
  readonly hintIndex: LogIndex;
  readonly hintTerm: Term;
}

/** Keeps followers from campaigning; `round` proves leadership to the reads of that round. */
export interface Heartbeat extends Head<'heartbeat'> {
  /** min(match index of the receiver, commit index): safe to adopt without a log check. */
  readonly commit: LogIndex;
  readonly round: number;
  /** No more will follow until something happens: the group falls quiet (rule D05). */
  readonly quiet: boolean;
}

/**
 * `round` repeats that of the heartbeat: the sender followed when it was sent, or later. 0 with a
 * higher term tells a leader of an older term that it is none any more; no heartbeat has round 0.
 */
export interface HeartbeatReply extends Head<'heartbeatReply'> {
  readonly round: number;
}

/**
 * Begins the transfer of a state machine image. The bytes travel beside the messages (the driver's
 * business); this message carries what the algorithm must know.
 */
export interface SnapshotRequest extends Head<'snapshot'> {
  readonly snapshot: SnapshotMeta;
}

/**
 * The leader asks the receiver to campaign at once (thesis §3.10), which has its whole log. Its lease is
 * over from the moment of sending, whatever becomes of the campaign (rule D03).
 */
export interface TimeoutNow extends Head<'timeoutNow'> {
  readonly reserved: 0;
}

/** A follower asks the leader for a read index; answered when leadership is confirmed (§6.4). */
export interface ReadIndexRequest extends Head<'readIndex'> {
  /** Unique on the asking replica for ever, also across restarts; never used for a retry. */
  readonly context: string;
}

/** `index` 0 with `refused` when the receiver is not the leader or cannot serve reads yet. */
export interface ReadIndexReply extends Head<'readIndexReply'> {
  readonly context: string;
  readonly index: LogIndex;
  readonly refused: boolean;
}

/** Everything there is to say. Adding a kind: core.ts, message-check.ts and describe.ts close the union. */
export type Message =
  | VoteRequest
  | VoteReply
  | AppendRequest
  | AppendReply
  | Heartbeat
  | HeartbeatReply
  | SnapshotRequest
  | TimeoutNow
  | ReadIndexRequest
  | ReadIndexReply;

export type MessageType = Message['type'];
