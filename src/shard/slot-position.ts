/** How far a slot has come: what a session token holds of it (rule D24). */
import type { Slot } from '../router/slot.js';

export interface SlotPosition {
  readonly slot: Slot;
  readonly epoch: number;
  /** The slot's change number. */
  readonly revision: number;
  /**
   * Log time that a replica must have reached as well, ms: expiry hides a key before a change removes
   * it, so the revision alone would let the key come back. 0: any.
   */
  readonly logTimeMs: number;
}

/** Each number at least as high: epoch and revision both only rise, also when the slot moves (D20). */
export function reaches(
  position: Omit<SlotPosition, 'slot'>,
  wanted: Omit<SlotPosition, 'slot'>,
): boolean {
  return (
    position.epoch >= wanted.epoch &&
    position.revision >= wanted.revision &&
    position.logTimeMs >= wanted.logTimeMs
  );
}

/** Raises what is known of the slot, number by number. */
export function mergePosition(
  positions: Map<Slot, SlotPosition>,
  { slot, epoch, revision, logTimeMs }: SlotPosition,
): void {
  const known = positions.get(slot);
  positions.set(slot, {
    slot,
    epoch: Math.max(epoch, known?.epoch ?? 0),
    revision: Math.max(revision, known?.revision ?? 0),
    logTimeMs: Math.max(logTimeMs, known?.logTimeMs ?? 0),
  });
}
