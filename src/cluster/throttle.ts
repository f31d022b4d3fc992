/** Keeps to a rate, which may change at any time: says how long to wait before the next piece. */
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
