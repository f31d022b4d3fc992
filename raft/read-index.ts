/**
 * Reads that wait for proof that this leader still leads (thesis §6.4).
 *
 * All reads that arrive between two `ready()` join one round: a heartbeat with the round's number to
 * everybody. The round is confirmed once a quorum of every active configuration has answered it or
 * a later one. A read's index is the commit index at the moment its round began, never a later
 * round's (R34), and acknowledgements of earlier rounds prove nothing for it.
 */
import type { LogIndex, ReplicaId } from './types.js';

/** Reads waiting on one member: 65,536 contexts of some 30 bytes stay below 4 MiB. */
export const readsMax = 65_536;

export interface WaitingRead {
  readonly context: string;
  /** Who asked: this replica, or the follower that forwarded it. */
  readonly from: ReplicaId;
}

interface Round {
  readonly number: number;
  readonly index: LogIndex;
  readonly reads: readonly WaitingRead[];
}

export class ReadRounds {
  /** Not yet in a round; also those that wait for the first commit of the term. */
  private gathered: WaitingRead[] = [];
  private readonly rounds: Round[] = [];

  get isEmpty(): boolean {
    return this.gathered.length === 0 && this.rounds.length === 0;
  }

  get hasGathered(): boolean {
    return this.gathered.length > 0;
  }

  get length(): number {
    return this.rounds.reduce((sum, round) => sum + round.reads.length, this.gathered.length);
  }

  add(read: WaitingRead): void {
    this.gathered.push(read);
  }

  begin(number: number, index: LogIndex): void {
    this.rounds.push({ number, index, reads: this.gathered });
    this.gathered = [];
  }

  /** Rounds up to and including `number` are confirmed: their reads, in order of arrival. */
  confirm(number: number, release: (read: WaitingRead, index: LogIndex) => void): void {
    while (this.rounds.length > 0 && (this.rounds[0]?.number ?? Infinity) <= number) {
      const round = this.rounds.shift();
      for (const read of round?.reads ?? []) release(read, round?.index ?? 0);
    }
  }

  /** Leadership is lost: nobody confirms these any more. */
  takeAll(): readonly WaitingRead[] {
    const all = [...this.rounds.flatMap((round) => round.reads), ...this.gathered];
    this.rounds.length = 0;
    this.gathered = [];
    return all;
  }
}

/**
 * The leader's lease: until when no other leader can have been elected. Counted in ticks from the
 * *send* of a round that a quorum answered (R32), shorter than an election timeout by the drift
 * that clocks may have (R31).
 */
export class Lease {
  private readonly leaseTicks: number;
  private readonly sent: { readonly round: number; readonly tick: number }[] = [];
  private untilTick = 0;
  /** TimeoutNow was sent in this term: the receiver may be leader before the lease ends (D03). */
  private ended = false;

  constructor(leaseTicks: number) {
    this.leaseTicks = leaseTicks;
  }

  roundSent(round: number, tick: number): void {
    if (this.leaseTicks > 0) this.sent.push({ round, tick });
  }

  roundConfirmed(round: number): void {
    let last: number | undefined;
    while (this.sent.length > 0 && (this.sent[0]?.round ?? Infinity) <= round)
      last = this.sent.shift()?.tick;
    if (last !== undefined) this.untilTick = Math.max(this.untilTick, last + this.leaseTicks);
  }

  end(): void {
    this.ended = true;
  }

  isValid(tick: number): boolean {
    return !this.ended && this.leaseTicks > 0 && tick < this.untilTick;
  }
}
