/**
 * The leader's time (rule D22): the maximum of the log's time and the median of the voters' clocks
 * at its election, and from there on its own monotonic clock. A jump of the wall clock does nothing.
 */
import type { Clock } from '../observe/clock.js';

/** A clock that is this far ahead of the log is reported; time goes on all the same. */
const jumpMsMax = 24 * 3_600_000;

export class LogTime {
  private readonly clock: Clock;
  private baseMs = 0;
  private sinceMs = 0;
  private readonly onJump: (jumpMs: number) => void;

  constructor(clock: Clock, onJump: (jumpMs: number) => void) {
    this.clock = clock;
    this.onJump = onJump;
  }

  /** At election. `logTimeMs` is 0 in a log without commands. */
  begin(logTimeMs: number, clockMedianMs: number): void {
    const jumpMs = clockMedianMs - logTimeMs;
    if (logTimeMs > 0 && Math.abs(jumpMs) > jumpMsMax) this.onJump(jumpMs);
    this.baseMs = Math.max(logTimeMs, Math.floor(clockMedianMs));
    this.sinceMs = this.clock.monotonicMs();
  }

  /** Whole milliseconds since 1970; never below `appliedMs`. */
  now(appliedMs: number): number {
    const nowMs = this.baseMs + Math.floor(this.clock.monotonicMs() - this.sinceMs);
    if (nowMs >= appliedMs) return nowMs;
    // A slot that came brought the later time of the shard that it left: it goes on from there.
    this.baseMs = appliedMs;
    this.sinceMs = this.clock.monotonicMs();
    return appliedMs;
  }
}
