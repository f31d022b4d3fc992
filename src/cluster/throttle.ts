/** Keeps to a rate: says how long to wait after each piece. */
import type { Clock } from '../observe/clock.js';

/** Ahead of the rate by this much nobody waits: shorter waits cost more than they are worth. */
const slackMs = 20;
/** Time that was not used is not made up for beyond this. */
const idleMsMax = 100;

export class Throttle {
  private readonly clock: Clock;
  /** When what was sent so far should have been sent. */
  private dueMs = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** After sending so many bytes, the milliseconds to wait; the rate may be another one each time. */
  take(bytes: number, bytesPerSecond: number): number {
    const nowMs = this.clock.monotonicMs();
    this.dueMs = Math.max(this.dueMs, nowMs - idleMsMax) + (bytes / bytesPerSecond) * 1000;
    const waitMs = this.dueMs - nowMs;
    return waitMs > slackMs ? waitMs : 0;
  }
}
