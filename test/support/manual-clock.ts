/** A clock that moves only when a test says so. Turns of the event loop stay real. */
import type { Cancel, Clock } from '../../src/observe/clock.js';

interface Timer {
  readonly fire: () => void;
  readonly everyMs: number | undefined;
  dueMs: number;
}

/** Turns without anything scheduled after which nothing is expected to come any more. */
const quietTurns = 6;
const turnsMax = 20_000;

export class ManualClock implements Clock {
  private nowMs = 0;
  private readonly timers = new Set<Timer>();
  private scheduled = 0;
  /** 2026-01-01, plus what passed; a test may move it. */
  wallOffsetMs = Date.UTC(2026, 0, 1);

  monotonicMs(): number {
    return this.nowMs;
  }

  wallMs(): number {
    return this.nowMs + this.wallOffsetMs;
  }

  every(intervalMs: number, tick: () => void): Cancel {
    return this.add({ fire: tick, everyMs: intervalMs, dueMs: this.nowMs + intervalMs });
  }

  after(delayMs: number, fire: () => void): Cancel {
    return this.add({ fire, everyMs: undefined, dueMs: this.nowMs + delayMs });
  }

  /** Timers that are set. */
  get timersSet(): number {
    return this.timers.size;
  }

  endOfTurn(run: () => void): void {
    this.scheduled++;
    setImmediate(run);
  }

  /** Time passes while the event loop stands still: no timer has fired yet. */
  stall(ms: number): void {
    this.nowMs += ms;
  }

  /** Time passes in one jump, as after a stalled event loop: each timer fires at most once. */
  jump(ms: number): void {
    this.nowMs += ms;
    for (const timer of [...this.timers]) {
      if (timer.dueMs > this.nowMs || !this.timers.has(timer)) continue;
      if (timer.everyMs === undefined) this.timers.delete(timer);
      else timer.dueMs = this.nowMs + timer.everyMs;
      timer.fire();
    }
  }

  /** Lets everything run that was begun, until the event loop has been quiet for some turns. */
  async settle(): Promise<void> {
    let seen = this.scheduled;
    for (let turn = 0, quiet = 0; quiet < quietTurns; turn++) {
      if (turn > turnsMax) throw new Error(`not quiet after ${turnsMax} turns`);
      await new Promise((resolve) => setImmediate(resolve));
      quiet = this.scheduled === seen ? quiet + 1 : 0;
      seen = this.scheduled;
    }
  }

  private add(timer: Timer): Cancel {
    this.timers.add(timer);
    return () => {
      this.timers.delete(timer);
    };
  }
}
