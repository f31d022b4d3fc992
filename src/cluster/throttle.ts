/** The pace of a migration: its rate, which may change at any time, and rests for the sake of clients. */
import type { Clock } from '../observe/clock.js';

/** Ahead of the rate by this much nobody waits: shorter waits cost more than they are worth. */
const slackMs = 20;
/** Time that was not used is not made up for beyond this. */
const idleMsMax = 100;

export class Throttle {
  private readonly clock: Clock;
  /** Bytes sent ahead of the rate, as of `atMs`; below 0: behind it. */
  private ahead = 0;
  private atMs: number;

  constructor(clock: Clock) {
    this.clock = clock;
    this.atMs = clock.monotonicMs();
  }

  add(bytes: number): void {
    this.ahead += bytes;
  }

  /** Until the next piece may go, if the rate stays so; 0: it may. Asked again, it counts from then on. */
  waitMs(bytesPerSecond: number): number {
    const nowMs = this.clock.monotonicMs();
    const perMs = bytesPerSecond / 1000;
    this.ahead = Math.max(this.ahead - (nowMs - this.atMs) * perMs, -idleMsMax * perMs);
    this.atMs = nowMs;
    const waitMs = this.ahead / perMs;
    return waitMs > slackMs ? waitMs : 0;
  }
}

/** Operations per second from which on a shard counts as busy. */
const busyOperations = 100;
const restMsMax = 1000;

/** Where clients are busy, as long again as a piece of work took is theirs alone. */
export class Courtesy {
  private readonly clock: Clock;
  private begunMs = 0;
  private restedMs = 0;
  private operations = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** `operations`: that clients had asked for by now. */
  begin(operations: number): void {
    this.begunMs = this.clock.monotonicMs();
    this.restedMs = 0;
    this.operations = operations;
  }

  /** Time since the beginning in which nothing was done anyway. */
  rested(ms: number): void {
    this.restedMs += ms;
  }

  /** Milliseconds to rest when the piece is done. */
  restMs(operations: number): number {
    const tookMs = this.clock.monotonicMs() - this.begunMs;
    const isBusy = (operations - this.operations) * 1000 >= tookMs * busyOperations;
    return isBusy ? Math.min(restMsMax, Math.max(0, tookMs - 2 * this.restedMs)) : 0;
  }
}
