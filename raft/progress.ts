/**
 * What the leader knows of one other member, and how fast it may be fed.
 *
 * - `probe`: where the logs agree is not known: one append at a time.
 * - `replicate`: pipelined; `next` runs ahead of `match` within a window of messages and bytes.
 * - `snapshot`: its next entry is compacted away; nothing is sent until a snapshot is there.
 */
import type { LogIndex, ReplicaId } from './types.js';

export class Progress {
  readonly id: ReplicaId;
  learner: boolean;
  /** Known to be durable there and equal to ours. Rises only. */
  match: LogIndex = 0;
  next: LogIndex;
  state: 'probe' | 'replicate' | 'snapshot' = 'probe';
  /** In `probe`: one is under way; sent again with the next heartbeat round. */
  probing = false;
  /** The heartbeat round in which it was sent. */
  probeRound = 0;
  /** Index of the snapshot that is being sent; 0 when none was begun. */
  snapshotIndex: LogIndex = 0;
  /** A range of the log is being read for it. */
  fetching = false;
  /** Heard from since the last check of the quorum. */
  active = false;
  /** Highest heartbeat round it has answered in this term. */
  round = 0;
  /** Learner: last index when its present round of catching up began (thesis §4.2.1). */
  catchUpTo: LogIndex = 0;
  private readonly flying: { readonly last: LogIndex; readonly bytes: number }[] = [];
  private flyingBytes = 0;

  constructor(id: ReplicaId, next: LogIndex, learner: boolean) {
    this.id = id;
    this.next = next;
    this.learner = learner;
  }

  isPaused(messagesMax: number, bytesMax: number): boolean {
    if (this.fetching || this.state === 'snapshot') return true;
    if (this.state === 'probe') return this.probing;
    return this.flying.length >= messagesMax || this.flyingBytes >= bytesMax;
  }

  sent(last: LogIndex, bytes: number): void {
    if (this.state === 'probe') {
      this.probing = true;
      return;
    }
    this.next = last + 1;
    this.flying.push({ last, bytes });
    this.flyingBytes += bytes;
  }

  /** An acknowledgement up to `index`. True when it says something new. */
  acknowledged(index: LogIndex): boolean {
    while (this.flying.length > 0 && (this.flying[0]?.last ?? 0) <= index) {
      this.flyingBytes -= this.flying.shift()?.bytes ?? 0;
    }
    this.next = Math.max(this.next, index + 1);
    if (index <= this.match) return false;
    this.match = index;
    return true;
  }

  becomeProbe(next: LogIndex): void {
    this.clear();
    this.state = 'probe';
    this.next = Math.max(next, this.match + 1);
    this.probing = false;
  }

  becomeReplicate(): void {
    this.clear();
    this.state = 'replicate';
    this.next = this.match + 1;
  }

  becomeSnapshot(): void {
    this.clear();
    this.state = 'snapshot';
    this.snapshotIndex = 0;
  }

  private clear(): void {
    this.flying.length = 0;
    this.flyingBytes = 0;
    this.fetching = false;
    this.snapshotIndex = 0;
  }
}
