/**
 * Where a scan goes on: version u8, hash slot u16, flag u8, key. Flag 0: no key, at the beginning of the
 * slot; 1: behind this key, the last one seen; 2: at this key. Pins are not named: keys keep their place
 * in the order of their hash slot, so a cursor stays good when keys are pinned and unpinned.
 */
import { KvError } from '../errors.js';
import { behindKey } from '../router/pins.js';
import { slot as slotNumber, slotCount, slotOf, type Slot } from '../router/slot.js';

const version = 1;
const headBytes = 4;

export interface ScanPosition {
  /** By hash. */
  readonly slot: Slot;
  /** The first key that may come; empty: any. */
  readonly from: Uint8Array;
}

export function encodeCursor({ slot, from }: ScanPosition): Uint8Array {
  // At the smallest key behind another one: programs that know no pins know this form alone.
  const isBehind = from.at(-1) === 0 && from.byteLength > 1;
  const key = isBehind ? from.subarray(0, -1) : from;
  const bytes = Buffer.alloc(headBytes + key.byteLength);
  bytes[0] = version;
  bytes.writeUInt16BE(slot, 1);
  bytes[3] = from.byteLength === 0 ? 0 : isBehind ? 1 : 2;
  bytes.set(key, headBytes);
  return bytes;
}

/** Throws KvError KV_INVALID for bytes that no scan gave out. */
export function decodeCursor(cursor: Uint8Array): ScanPosition {
  const bytes = Buffer.from(cursor.buffer, cursor.byteOffset, cursor.byteLength);
  const slot = bytes.byteLength >= headBytes ? bytes.readUInt16BE(1) : slotCount;
  if (bytes[0] !== version || slot >= slotCount || (bytes[3] ?? 3) > 2) {
    throw new KvError(
      'cursor: these bytes were not given out by a scan of this version; begin anew without a cursor',
      {
        code: 'KV_INVALID',
        outcome: 'notApplied',
      },
    );
  }
  const key = bytes.subarray(headBytes);
  const from = bytes[3] === 1 ? behindKey(key) : bytes[3] === 2 ? key : new Uint8Array();
  return { slot: slotNumber(slot), from };
}

export interface ScanStart {
  readonly prefix?: Uint8Array;
  readonly slot: Slot | undefined;
  readonly cursor: Uint8Array | undefined;
  readonly afterKey: Uint8Array | undefined;
}

/**
 * Where a request begins: at its cursor, after its key, or at the first slot. Throws KvError
 * KV_INVALID when that lies outside the slot it asks for: it would be given keys of another one.
 */
export function startOf({
  prefix = new Uint8Array(),
  slot,
  cursor,
  afterKey,
}: ScanStart): ScanPosition {
  const position =
    cursor !== undefined
      ? decodeCursor(cursor)
      : afterKey === undefined
        ? { slot: undefined, from: new Uint8Array() }
        : { slot: slotOf(afterKey), from: behindKey(afterKey) };
  const start = position.slot ?? slot ?? slotNumber(0);
  if (slot !== undefined && start !== slot) {
    throw new KvError(
      `the scan asks for slot ${slot} and goes on in slot ${start}: send the slot it began with`,
      { code: 'KV_INVALID', outcome: 'notApplied' },
    );
  }
  // No key of this scan comes before its prefix.
  return { slot: start, from: Buffer.compare(position.from, prefix) < 0 ? prefix : position.from };
}
