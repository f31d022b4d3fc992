/**
 * Reads that wait for proof that this leader still leads (thesis §6.4).
 *
 * All reads that arrive between two `ready()` join one round: a heartbeat with the round's number to
 * everybody. The round is confirmed once a quorum of every active configuration has answered it or
 * a later one. A read's index is the commit index at the moment its round began, never a later
 * round's (R34), and acknowledgements of earlier rounds prove nothing for it.
 *
 * Linearizable, since: every write answered before the read arrived was committed before that moment
 * by us, or by an earlier leader, and then lies below our no-op; and nobody newer was elected before
 * it, or the quorum would have known. Nothing is written to the log, and no clock is asked.
 */
import type { LogIndex, ReplicaId } from './types.js';

/** Reads waiting on one member: 65,536 contexts of some 30 bytes stay below 4 MiB. */
export const readsMax = 65_536;

/** A read that has no index yet, or an index that is not proved yet. */
export interface WaitingRead {
  readonly context: string;
  /** Who asked: this replica, or the follower that forwarded it. */
  readonly from: ReplicaId;
}

/** Reads that were gathered before one round of heartbeats left, and share its fate. */
interface Round {
  readonly number: number;
  readonly index: LogIndex;
  readonly reads: readonly WaitingRead[];
}

/** The reads of one leadership: gathered, then in a round, then released or given back. */
export class ReadRounds {
  /** Not yet in a round; also those that wait for the first commit of the term. */
  private gathered: WaitingRead[] = [];
  /** By ascending number. Each holds at least one read, so `readsMax` bounds them, too. */
  private readonly rounds: Round[] = [];

  /** Nobody waits for anything. */
  get isEmpty(): boolean {
    return this.gathered.length === 0 && this.rounds.length === 0;
  }

  /** Reads that want a round to begin. */
  get hasGathered(): boolean {
    return this.gathered.length > 0;
  }

  /** Of all that wait, for `readsMax`. */
  get length(): number {
    return this.rounds.reduce((sum, round) => sum + round.reads.length, this.gathered.length);
  }

  add(read: WaitingRead): void {
    this.gathered.push(read);
  }

  /** `index`: the commit index now, with the heartbeats of round `number` about to leave. */
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
 * The leader's lease: until when no other leader can have been elected (thesis §6.4.1). Counted in
 * ticks from the *send* of a round that a quorum answered (R32), shorter than an election timeout by
 * the drift that clocks may have (R31).
 *
 * Who answered the round promised by that to help nobody else to leadership for an election timeout,
 * from a moment after its send. Any new leader needs one of them. So until the lease ends, the commit
 * index here is the highest there is, and a read may be answered without asking anybody.
 *
 * The promise outlives what followers may forget: a restarted one keeps silent for as long (D03). It
 * is broken by one thing only, TimeoutNow, and the leader sends that itself.
 */
export class Lease {
  private readonly leaseTicks: number;
  /** Rounds not yet confirmed, ascending; check-quorum bounds how long they can gather. */
  private readonly sent: { readonly round: number; readonly tick: number }[] = [];
  /** Never goes back: a late answer to an older round ends no lease. */
  private untilTick = 0;
  /** TimeoutNow was sent in this term: the receiver may be leader before the lease ends (D03). */
  private ended = false;

  /** 0: there is none, ever. */
  constructor(leaseTicks: number) {
    this.leaseTicks = leaseTicks;
  }

  /** `tick` may be early, never late: a lease that begins too early ends too early. */
  roundSent(round: number, tick: number): void {
    if (this.leaseTicks > 0) this.sent.push({ round, tick });
  }

  /** A quorum has answered `round` or later ones, in each active configuration (D03). */
  roundConfirmed(round: number): void {
    let last: number | undefined;
    while (this.sent.length > 0 && (this.sent[0]?.round ?? Infinity) <= round)
      last = this.sent.shift()?.tick;
    if (last !== undefined) this.untilTick = Math.max(this.untilTick, last + this.leaseTicks);
  }

  /** Over for now: a group that falls quiet has none (rule D03). The next confirmed round begins another. */
  lapse(): void {
    this.sent.length = 0;
    this.untilTick = 0;
  }

  /** For the rest of the term, also when the transfer fails: TimeoutNow may arrive at any time. */
  end(): void {
    this.ended = true;
  }

  /** `tick` must not be early: see `Replica.now`. */
  isValid(tick: number): boolean {
    return !this.ended && this.leaseTicks > 0 && tick < this.untilTick;
  }
}
