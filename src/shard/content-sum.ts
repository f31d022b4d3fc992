/**
 * A sum over the records of a slot, kept up with every write: equal contents have equal sums, whatever
 * the order in which they came. Compared at a handover, where it finds our own mistakes (a record lost,
 * kept, or of another version); it is no defence against somebody who makes records up.
 *
 * Of each record 48 bits, made of two CRC-32; sums are modulo 2^48, so they stay exact in a number.
 */
import { crc32 } from 'node:zlib';

const modulus = 2 ** 48;

/** Of one record. `kind`: KeyKind; `key`: the user key or client id; `stored`: as it is in the engine. */
export function recordSum(kind: number, key: Uint8Array, stored: Uint8Array): number {
  const keyCrc = crc32(key, kind);
  const storedCrc = crc32(stored);
  const low = scatter(keyCrc ^ scatter(storedCrc + stored.byteLength));
  const high = scatter(storedCrc ^ scatter(keyCrc + key.byteLength)) & 0xffff;
  return high * 2 ** 32 + low;
}

export function addSum(sum: number, record: number): number {
  return (sum + record) % modulus;
}

export function subtractSum(sum: number, record: number): number {
  return (sum - record + modulus) % modulus;
}

/** Every bit of the result hangs on every bit of the argument (the finish of MurmurHash3, public domain). */
function scatter(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
