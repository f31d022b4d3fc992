/** How long slots of a migration stand still: those at hand, and those of the last handovers. */
import type { Clock } from '../observe/clock.js';

const freezesKept = 1000;

export class FreezeWatch {
  private readonly clock: Clock;
  /** Monotonic; undefined: none stands still. */
  private sinceMs: number | undefined;
  private readonly list: number[] = [];
  private untold = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** From now on, and no earlier. */
  begin(): void {
    this.sinceMs = this.clock.monotonicMs();
  }

  /** They stand still; if that is news, since now as far as is known. */
  notice(): void {
    this.sinceMs ??= this.clock.monotonicMs();
  }

  /** None stands still; those that did were not handed over. */
  giveUp(): void {
    this.sinceMs = undefined;
  }

  /** Those that stood still are served again, by the target. */
  end(): void {
    if (this.sinceMs === undefined) return;
    this.untold = Math.round(this.ms);
    this.sinceMs = undefined;
    this.list.push(this.untold);
    if (this.list.length > freezesKept) this.list.shift();
  }

  get isOn(): boolean {
    return this.sinceMs !== undefined;
  }

  /** 0 when none stands still. */
  get ms(): number {
    return this.sinceMs === undefined ? 0 : this.clock.monotonicMs() - this.sinceMs;
  }

  /** Of the last handovers, ms, oldest first. */
  get ended(): readonly number[] {
    return this.list;
  }

  /** Of the last handover, until it is told; 0 when that is not known, as it began under another driver. */
  get untoldMs(): number {
    return this.untold;
  }

  told(): void {
    this.untold = 0;
  }
}
