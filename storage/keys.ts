/**
 * The key layout of the state engine (rule D25), all numbers big-endian, so that byte order is the
 * order of (group, replica, slot, instance, kind, user key, subkey):
 *
 *   [group u32][replica u32] [slot u16] [instance u64] [kind u8] [user key, escaped] [subkey]
 *
 * A slot is one contiguous range, and so is each instance of it: an instance is the migration that
 * brought the slot (0 at first), so a late range delete of a dead instance never touches a live one.
 * User keys are escaped (00 -> 00 FF, end = 00 01), so that keys of any bytes keep their order, none
 * is a prefix of another, and all keys with a common prefix are one range.
 */
import type { GroupId, ReplicaId } from '../raft/index.js';
import type { KeyRange } from './engine.js';

/**
 * What a key is for. `change` and `tombstone` are there only while the slot migrates; 4 to 9, and 12
 * and up, are free.
 */
export const KeyKind = { value: 1, session: 2, expiry: 3, change: 10, tombstone: 11 } as const;
export type KeyKind = (typeof KeyKind)[keyof typeof KeyKind];

/** Slots: 0 to 16383 by hash, up to 65533 for pins, and two areas of the replica itself. */
const machineArea = 0xfffe;
const replicaArea = 0xffff;
const prefixBytes = 8;
const headBytes = prefixBytes + 2 + 8 + 1;
const escape = 0x00;
const escapedZero = 0xff;
const terminator = 0x01;

/** The first 8 bytes of every key of a replica. */
export function replicaPrefix(group: GroupId, replica: ReplicaId): Uint8Array {
  const prefix = Buffer.allocUnsafe(prefixBytes);
  prefix.writeUInt32BE(group, 0);
  prefix.writeUInt32BE(replica, 4);
  return prefix;
}

/** Every key of a replica: what is dropped when it is removed. */
export function replicaRange(prefix: Uint8Array): KeyRange {
  return { start: prefix, end: afterPrefix(prefix) };
}

/** The state machine's own keys: what a snapshot carries. Not the marks of the group layer. */
export function machineRange(prefix: Uint8Array): KeyRange {
  return { start: prefix, end: areaKey(prefix, replicaArea, '') };
}

/** A key of the state machine that belongs to no slot. `name`: ASCII. */
export function machineKey(prefix: Uint8Array, name: string): Uint8Array {
  return areaKey(prefix, machineArea, name);
}

/** A mark of the group layer: not part of snapshots. `name`: ASCII. */
export function replicaKey(prefix: Uint8Array, name: string): Uint8Array {
  return areaKey(prefix, replicaArea, name);
}

function areaKey(prefix: Uint8Array, area: number, name: string): Uint8Array {
  const key = Buffer.allocUnsafe(prefixBytes + 2 + name.length);
  key.set(prefix);
  key.writeUInt16BE(area, prefixBytes);
  key.write(name, prefixBytes + 2, 'latin1');
  return key;
}

export interface SlotPlace {
  readonly slot: number;
  /** Safe integer: the migration that brought the slot, 0 at first. */
  readonly instance: number;
}

/** A key inside a slot. `subkey` follows the terminated user key unescaped. */
export function slotKey(
  prefix: Uint8Array,
  place: SlotPlace,
  kind: KeyKind,
  userKey: Uint8Array,
  subkey?: Uint8Array,
): Uint8Array {
  const escaped = escapedLength(userKey);
  const key = Buffer.allocUnsafe(headBytes + escaped + 2 + (subkey?.byteLength ?? 0));
  writeHead(key, prefix, place, kind);
  let at = writeEscaped(key, headBytes, userKey);
  key[at++] = escape;
  key[at++] = terminator;
  if (subkey !== undefined) key.set(subkey, at);
  return key;
}

/** All keys of a slot, whatever instance. */
export function slotRange(prefix: Uint8Array, slot: number): KeyRange {
  const start = Buffer.allocUnsafe(prefixBytes + 2);
  start.set(prefix);
  start.writeUInt16BE(slot, prefixBytes);
  return { start, end: afterPrefix(start) };
}

/** All keys of one instance of a slot. */
export function instanceRange(prefix: Uint8Array, place: SlotPlace): KeyRange {
  const head = Buffer.allocUnsafe(headBytes);
  writeHead(head, prefix, place, KeyKind.value);
  const start = head.subarray(0, headBytes - 1);
  return { start, end: afterPrefix(start) };
}

/** All keys of one kind in a slot whose user key begins with `userPrefix` (empty: all). */
export function kindRange(
  prefix: Uint8Array,
  place: SlotPlace,
  kind: KeyKind,
  userPrefix: Uint8Array = new Uint8Array(),
): KeyRange {
  const start = Buffer.allocUnsafe(headBytes + escapedLength(userPrefix));
  writeHead(start, prefix, place, kind);
  writeEscaped(start, headBytes, userPrefix);
  return { start, end: afterPrefix(start) };
}

/** All keys of an instance from one kind to another, both included. */
export function kindsRange(
  prefix: Uint8Array,
  place: SlotPlace,
  first: KeyKind,
  last: KeyKind,
): KeyRange {
  return {
    start: kindRange(prefix, place, first).start,
    end: kindRange(prefix, place, last).end,
  };
}

export interface SlotKeyParts extends SlotPlace {
  readonly kind: number;
  readonly userKey: Uint8Array;
  readonly subkey: Uint8Array;
}

/** Takes a key of `slotKey` apart. Throws RangeError for anything else: damage, or a bug. */
export function decodeSlotKey(bytes: Uint8Array): SlotKeyParts {
  const key = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (key.byteLength < headBytes + 2)
    throw new RangeError(`engine key of ${key.byteLength} bytes is too short`);
  const slot = key.readUInt16BE(prefixBytes);
  const instance = key.readUInt32BE(prefixBytes + 2) * 2 ** 32 + key.readUInt32BE(prefixBytes + 6);
  const userKey = Buffer.allocUnsafe(key.byteLength - headBytes);
  let length = 0;
  for (let at = headBytes; at < key.byteLength; at++) {
    const byte = key[at] ?? 0;
    if (byte !== escape) {
      userKey[length++] = byte;
      continue;
    }
    const next = key[++at];
    if (next === terminator) {
      const kind = key[headBytes - 1] ?? 0;
      return {
        slot,
        instance,
        kind,
        userKey: userKey.subarray(0, length),
        subkey: key.subarray(at + 1),
      };
    }
    if (next !== escapedZero) break;
    userKey[length++] = 0;
  }
  throw new RangeError('engine key has no terminated user key');
}

function writeHead(
  key: Buffer,
  prefix: Uint8Array,
  { slot, instance }: SlotPlace,
  kind: KeyKind,
): void {
  key.set(prefix);
  key.writeUInt16BE(slot, prefixBytes);
  key.writeUInt32BE(Math.floor(instance / 2 ** 32), prefixBytes + 2);
  key.writeUInt32BE(instance >>> 0, prefixBytes + 6);
  key[headBytes - 1] = kind;
}

function escapedLength(userKey: Uint8Array): number {
  let length = userKey.byteLength;
  for (let n = 0; n < userKey.byteLength; n++) if (userKey[n] === escape) length++;
  return length;
}

function writeEscaped(key: Buffer, from: number, userKey: Uint8Array): number {
  let at = from;
  for (let n = 0; n < userKey.byteLength; n++) {
    const byte = userKey[n] ?? 0;
    key[at++] = byte;
    if (byte === escape) key[at++] = escapedZero;
  }
  return at;
}

/** The first key behind all keys that begin with `prefix`. */
export function afterPrefix(prefix: Uint8Array): Uint8Array {
  const end = Buffer.from(prefix);
  for (let at = end.byteLength - 1; at >= 0; at--) {
    const byte = end[at] ?? 0;
    if (byte === 0xff) continue;
    end[at] = byte + 1;
    return end.subarray(0, at + 1);
  }
  throw new RangeError('no key lies behind a prefix of FF bytes only');
}
