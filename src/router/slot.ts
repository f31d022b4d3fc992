/**
 * Key -> slot: CRC16 (XMODEM) of the key, or of its tag, modulo 16384. The tag is what stands
 * between the first `{` and the first `}` behind it; an empty one does not count, and then the
 * whole key is hashed. The same function as Redis Cluster's, so that tags and tools carry over. Pure.
 */

/** One of 16384 key buckets, 0 to 16383; or a pin, from there up (pins.ts). */
export type Slot = number & { readonly __brand: 'Slot' };

export const slotCount = 16384;
/** The last id that a pin can have: the two behind it are areas of a replica's keys. */
export const pinSlotMax = 65533;

const openBrace = 0x7b;
const closeBrace = 0x7d;
const polynomial = 0x1021;

/** CRC16 of each single byte. */
const table = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ ((crc & 0x8000) === 0 ? 0 : polynomial);
  return crc & 0xffff;
});

/** The slot of a key. `key` is 1 byte or more. */
export function slotOf(key: Uint8Array): Slot {
  const open = key.indexOf(openBrace);
  const close = open < 0 ? -1 : key.indexOf(closeBrace, open + 1);
  const tagged = close > open + 1;
  const crc = tagged ? crc16(key, open + 1, close) : crc16(key, 0, key.byteLength);
  return (crc % slotCount) as Slot;
}

function crc16(bytes: Uint8Array, from: number, to: number): number {
  let crc = 0;
  for (let at = from; at < to; at++) {
    crc = ((crc << 8) & 0xffff) ^ (table[(crc >> 8) ^ (bytes[at] ?? 0)] ?? 0);
  }
  return crc;
}

/** Checks and brands a slot number. Throws RangeError outside 0 to 16383. */
export function slot(value: number): Slot {
  if (!Number.isInteger(value) || value < 0 || value >= slotCount) {
    throw new RangeError(`slot must be an integer from 0 to ${slotCount - 1}, got ${value}`);
  }
  return value as Slot;
}

/** As `slot`, pins included: 0 to 65533. */
export function anySlot(value: number): Slot {
  if (!Number.isInteger(value) || value < 0 || value > pinSlotMax)
    throw new RangeError(`slot must be an integer from 0 to ${pinSlotMax}, got ${value}`);
  return value as Slot;
}
