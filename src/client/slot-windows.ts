/**
 * How far the writes of one slot may run ahead of the oldest that has no answer.
 *
 * A slot remembers the last 1,024 writes of a client; what is pushed out can be retried no more: its
 * outcome stays unknown (rule D21). Between the oldest write without an answer and the newest that
 * was sent lie fewer than 500, also at the moment when any of them is applied; so fewer than 1,000
 * come after it in the slot's record, and it is still known when it is sent again.
 */
import type { Slot } from '../router/slot.js';
import type { Operation } from './operation.js';

const spanMax = 500;

interface Window {
  /** Place of the next write, from 0. */
  next: number;
  /** No write below this place is open. */
  lowest: number;
  readonly open: Map<Operation, number>;
  readonly places: Set<number>;
  /** In the order they began. */
  readonly waiting: Set<Operation>;
}

export class SlotWindows {
  private readonly windows = new Map<Slot, Window>();
  private readonly admit: (operation: Operation) => void;

  /** `admit`: the operation may be sent. */
  constructor(admit: (operation: Operation) => void) {
    this.admit = admit;
  }

  enter(slot: Slot, operation: Operation): void {
    let window = this.windows.get(slot);
    if (window === undefined) {
      window = { next: 0, lowest: 0, open: new Map(), places: new Set(), waiting: new Set() };
      this.windows.set(slot, window);
    }
    window.waiting.add(operation);
    this.advance(slot, window);
  }

  /** The operation has ended, answered or not: nobody will send it again. */
  leave(slot: Slot, operation: Operation): void {
    const window = this.windows.get(slot);
    if (window === undefined) return;
    window.waiting.delete(operation);
    const place = window.open.get(operation);
    if (place === undefined) return;
    window.open.delete(operation);
    window.places.delete(place);
    while (window.lowest < window.next && !window.places.has(window.lowest)) window.lowest += 1;
    this.advance(slot, window);
  }

  private advance(slot: Slot, window: Window): void {
    for (const operation of window.waiting) {
      if (window.next - window.lowest >= spanMax) return;
      window.waiting.delete(operation);
      const place = window.next++;
      window.open.set(operation, place);
      window.places.add(place);
      this.admit(operation);
    }
    if (window.open.size === 0 && window.waiting.size === 0) this.windows.delete(slot);
  }
}
