/**
 * The clock of one node: it has an offset and a rate of its own, and it counts ticks.
 *
 * Its driver asks how many ticks are due before *every* input, not only when its timer fires. A
 * node that was stopped for seconds otherwise answers its first read by a lease that ended long ago
 * (R30), or takes a heartbeat that waited in its queue first and then all missed ticks at once, and
 * campaigns inside the lease it has just confirmed.
 */
export interface ClockSetting {
  /** Milliseconds by which the clock is ahead at the beginning of the run. */
  readonly offsetMs: number;
  /** Local milliseconds per true millisecond; 1 is a perfect clock. */
  readonly rate: number;
  readonly tickMs: number;
}

export class LocalClock {
  private counted = 0;
  private readonly setting: ClockSetting;
  private readonly trueNow: () => number;

  constructor(setting: ClockSetting, trueNow: () => number) {
    this.setting = setting;
    this.trueNow = trueNow;

    this.skipDue();
  }

  /** Ticks that have passed since the last call, at most `max`: the rest is forgotten. */
  takeDue(max: number): number {
    const due = this.passed - this.counted;
    this.counted += due;
    return Math.min(due, max);
  }

  /** Forgets all ticks so far, as a process does that has just started. */
  skipDue(): void {
    this.counted = this.passed;
  }

  /** True milliseconds until the next tick, a microsecond more so that rounding cannot miss it. */
  get untilNextMs(): number {
    const { offsetMs, rate, tickMs } = this.setting;
    const next = (this.passed + 1) * tickMs;
    return Math.max(0, (next - offsetMs) / rate - this.trueNow()) + 0.001;
  }

  private get passed(): number {
    const { offsetMs, rate, tickMs } = this.setting;
    return Math.floor((this.trueNow() * rate + offsetMs) / tickMs);
  }
}
