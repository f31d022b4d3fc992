/**
 * Deadlines of all calls in flight on this node, watched by one timer: a timer per call would cost
 * more than the call, and none while nobody waits. Resolution 10 ms; a deadline fires late by up to that,
 * never early.
 */
import type { Cancel, Clock } from '../observe/clock.js';

const resolutionMs = 10;

/** A wait with an end. `expire` is called at most once, and not after the wait was left. */
export interface Expiring {
  /** Monotonic ms of the node's clock. */
  readonly deadlineMs: number;
  expire(): void;
}

export class Deadlines {
  private readonly waiting = new Set<Expiring>();
  private stop: Cancel | undefined;
  private closed = false;
  /** None of those that wait is due earlier. */
  private soonestMs = Number.POSITIVE_INFINITY;
  private readonly clock: Clock;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Begins to watch. The owner calls `leave` when its wait is over. */
  enter(wait: Expiring): void {
    this.waiting.add(wait);
    this.soonestMs = Math.min(this.soonestMs, wait.deadlineMs);
    if (this.closed) return;
    this.stop ??= this.clock.every(resolutionMs, () => {
      this.expireDue();
    });
  }

  leave(wait: Expiring): void {
    this.waiting.delete(wait);
  }

  get size(): number {
    return this.waiting.size;
  }

  close(): void {
    this.closed = true;
    this.stop?.();
    this.waiting.clear();
  }

  private expireDue(): void {
    if (this.waiting.size === 0) {
      this.stop?.();
      this.stop = undefined;
      return;
    }
    const now = this.clock.monotonicMs();
    if (now < this.soonestMs) return;
    this.soonestMs = Number.POSITIVE_INFINITY;
    for (const wait of this.waiting) {
      if (wait.deadlineMs > now) {
        this.soonestMs = Math.min(this.soonestMs, wait.deadlineMs);
        continue;
      }
      this.waiting.delete(wait);
      wait.expire();
    }
  }
}
