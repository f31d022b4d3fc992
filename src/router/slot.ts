/**
 * Key -> slot: CRC16 (XMODEM) of the key, or of the part between the first `{` and the next `}`
 * when that is not empty, modulo 16384. The same function as Redis Cluster's, so that tags and
 * tools carry over. Pure.
 */
import slotOfKey from 'cluster-key-slot';

/** One of 16384 key buckets, 0 to 16383. */
export type Slot = number & { readonly __brand: 'Slot' };

export const slotCount = 16384;

/** The slot of a key. `key` is 1 byte or more. */
export function slotOf(key: Uint8Array): Slot {
  return slotOfKey(Buffer.from(key.buffer, key.byteOffset, key.byteLength)) as Slot;
}

/** Checks and brands a slot number. Throws RangeError outside 0 to 16383. */
export function slot(value: number): Slot {
  if (!Number.isInteger(value) || value < 0 || value >= slotCount) {
    throw new RangeError(`slot must be an integer from 0 to ${slotCount - 1}, got ${value}`);
  }
  return value as Slot;
}
