/**
 * What the leader knows of one other member, and how fast it may be fed.
 *
 * - `probe`: where the logs agree is not known: one append at a time.
 * - `replicate`: pipelined; `next` runs ahead of `match` within a window of messages and bytes.
 * - `snapshot`: its next entry is compacted away; nothing is sent until a snapshot is there.
 *
 *   probe -> replicate      an answer shows where the logs agree
 *   replicate -> probe      a refusal, or a broken connection: something was lost on the way
 *   any -> snapshot         what it needs has left the log, or its state machine is gone
 *   snapshot -> probe       the transfer ended, well or not: it says itself where it is
 *   snapshot -> replicate   an acknowledgement shows that our log reaches back to what it has
 *
 * Invariant: match < next, and match <= lastIndex. `match` is knowledge and decides commits; `next` is
 * a guess and only decides what is sent (paper, figure 2; pipelining, thesis §10.2.1).
 */
import type { LogIndex, ReplicaId } from './types.js';

/** Lives as long as the leadership, or until its replica is removed. */
export class Progress {
  readonly id: ReplicaId;
  learner: boolean;
  /** Known to be durable there and equal to ours. Rises only. */
  match: LogIndex = 0;
  /** The next entry to be sent. */
  next: LogIndex;
  state: 'probe' | 'replicate' | 'snapshot' = 'probe';
  /** In `probe`: one is under way; sent again with the next heartbeat round. */
  probing = false;
  /** The heartbeat round in which it was sent. */
  probeRound = 0;
  /** A range of the log is being read for it. */
  fetching = false;
  /** Heard from since the last check of the quorum (thesis §6.2): any answer of this term counts. */
  active = false;
  /** Highest heartbeat round it has answered in this term. */
  round = 0;
  /** Learner: last index when its present round of catching up began (thesis §4.2.1). */
  catchUpTo: LogIndex = 0;
  /** `replicate`: appends sent and not acknowledged, in order of their last index. */
  private readonly flying: { readonly last: LogIndex; readonly bytes: number }[] = [];
  private flyingBytes = 0;

  constructor(id: ReplicaId, next: LogIndex, learner: boolean) {
    this.id = id;
    this.next = next;
    this.learner = learner;
  }

  /**
   * Nothing more for now. Both limits bound what a follower can find in its queue after a stall, and
   * what is sent in vain after a refusal: with 256 messages of 64 KiB that is 16 MiB.
   */
  isPaused(messagesMax: number, bytesMax: number): boolean {
    if (this.fetching || this.state === 'snapshot') return true;
    if (this.state === 'probe') return this.probing;
    return this.flying.length >= messagesMax || this.flyingBytes >= bytesMax;
  }

  /** Optimistic: as if it had arrived. A probe is repeated from the same place instead. */
  sent(last: LogIndex, bytes: number): void {
    if (this.state === 'probe') {
      this.probing = true;
      return;
    }
    this.next = last + 1;
    this.flying.push({ last, bytes });
    this.flyingBytes += bytes;
  }

  /**
   * An acknowledgement up to `index`. True when it says something new. Late and doubled ones lower
   * nothing: what was durable there in this term still is (rule D01: no replica forgets and stays).
   */
  acknowledged(index: LogIndex): boolean {
    while (this.flying.length > 0 && (this.flying[0]?.last ?? 0) <= index) {
      this.flyingBytes -= this.flying.shift()?.bytes ?? 0;
    }
    this.next = Math.max(this.next, index + 1);
    if (index <= this.match) return false;
    this.match = index;
    return true;
  }

  /** What was in flight is taken for lost. Below `match` there is nothing left to find out. */
  becomeProbe(next: LogIndex): void {
    this.clear();
    this.state = 'probe';
    this.next = Math.max(next, this.match + 1);
    this.probing = false;
  }

  /** The place is found: from here on it is fed without waiting for each answer. */
  becomeReplicate(): void {
    this.clear();
    this.state = 'replicate';
    this.next = this.match + 1;
  }

  /** Appends would be refused anyway, until the image has arrived. Heartbeats go on. */
  becomeSnapshot(): void {
    this.clear();
    this.state = 'snapshot';
  }

  private clear(): void {
    this.flying.length = 0;
    this.flyingBytes = 0;
    this.fetching = false;
  }
}
