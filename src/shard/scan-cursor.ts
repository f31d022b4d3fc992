/**
 * Where a scan goes on: version u8, slot u16, flag u8 (1: a key follows), the last key seen.
 */
import { KvError } from '../errors.js';
import { slot as slotNumber, slotCount, slotOf, type Slot } from '../router/slot.js';

const version = 1;
const headBytes = 4;

export interface ScanPosition {
  readonly slot: Slot;
  /** Go on after this key; undefined: from the beginning of the slot. */
  readonly after: Uint8Array | undefined;
}

export function encodeCursor({ slot, after }: ScanPosition): Uint8Array {
  const bytes = Buffer.alloc(headBytes + (after?.byteLength ?? 0));
  bytes[0] = version;
  bytes.writeUInt16BE(slot, 1);
  bytes[3] = after === undefined ? 0 : 1;
  if (after !== undefined) bytes.set(after, headBytes);
  return bytes;
}

/** Throws KvError KV_INVALID for bytes that no scan gave out. */
export function decodeCursor(cursor: Uint8Array): ScanPosition {
  const bytes = Buffer.from(cursor.buffer, cursor.byteOffset, cursor.byteLength);
  const slot = bytes.byteLength >= headBytes ? bytes.readUInt16BE(1) : slotCount;
  if (bytes[0] !== version || slot >= slotCount || (bytes[3] ?? 2) > 1) {
    throw new KvError(
      'cursor: these bytes were not given out by a scan of this version; begin anew without a cursor',
      {
        code: 'KV_INVALID',
        outcome: 'notApplied',
      },
    );
  }
  return { slot: slotNumber(slot), after: bytes[3] === 1 ? bytes.subarray(headBytes) : undefined };
}

interface ScanStart {
  readonly slot: Slot | undefined;
  readonly cursor: Uint8Array | undefined;
  readonly afterKey: Uint8Array | undefined;
}

/**
 * Where a request begins: at its cursor, after its key, or at the first slot. Throws KvError
 * KV_INVALID when that lies outside the slot it asks for: it would be given keys of another one.
 */
export function startOf({ slot, cursor, afterKey }: ScanStart): ScanPosition {
  const position =
    cursor !== undefined
      ? decodeCursor(cursor)
      : { slot: afterKey === undefined ? undefined : slotOf(afterKey), after: afterKey };
  const start = position.slot ?? slot ?? slotNumber(0);
  if (slot !== undefined && start !== slot) {
    throw new KvError(
      `the scan asks for slot ${slot} and goes on in slot ${start}: send the slot it began with`,
      { code: 'KV_INVALID', outcome: 'notApplied' },
    );
  }
  return { slot: start, after: position.after };
}
