/** How often each slot is read and written, as the leader sees it: to find the hot ones. */
import type { Clock } from '../observe/clock.js';
import type { Slot } from '../router/slot.js';

/** Operations are counted for so long before they count as a rate, ms. */
const windowMs = 10_000;

export class SlotLoad {
  private readonly clock: Clock;
  private startedMs: number;
  /** Operations since the start of the node. */
  total = 0;
  private current = new Map<Slot, number>();
  /** Of the last whole window. */
  private before: ReadonlyMap<Slot, number> = new Map();

  constructor(clock: Clock) {
    this.clock = clock;
    this.startedMs = clock.monotonicMs();
  }

  count(slot: Slot): void {
    this.total++;
    this.current.set(slot, (this.current.get(slot) ?? 0) + 1);
  }

  /** Called with each batch of operations, so that nothing is counted into an old window. */
  turn(): void {
    const passedMs = this.clock.monotonicMs() - this.startedMs;
    if (passedMs < windowMs) return;
    this.before = passedMs < 2 * windowMs ? this.current : new Map();
    this.current = new Map();
    this.startedMs += Math.floor(passedMs / windowMs) * windowMs;
  }

  /** Operations per second in the last whole window. */
  rateOf(slot: Slot): number {
    return ((this.before.get(slot) ?? 0) * 1000) / windowMs;
  }
}
