/**
 * The change index of a slot that is exported: one key for each record that a change touched, in the
 * order of changes, written in the same batch as the change. Replicated state, so that whoever leads
 * the source goes on with it (R70); it names records and does not hold them.
 *
 * Index key: [slot place, kind change] user key = migration u64, change u64, record kind u8, key.
 */
import {
  decodeSlotKey,
  KeyKind,
  kindRange,
  slotKey,
  type KeyRange,
  type SlotPlace,
} from '../../storage/index.js';

/** Records that travel with a slot. */
export type RecordKind = typeof KeyKind.value | typeof KeyKind.session;

export interface IndexedChange {
  readonly migration: number;
  readonly change: number;
  readonly kind: RecordKind;
  /** User key, or client id. */
  readonly key: Uint8Array;
}

const headBytes = 17;

export function changeKey(
  prefix: Uint8Array,
  place: SlotPlace,
  { migration, change, kind, key }: IndexedChange,
): Uint8Array {
  const name = Buffer.allocUnsafe(headBytes + key.byteLength);
  name.writeBigUInt64BE(BigInt(migration), 0);
  name.writeBigUInt64BE(BigInt(change), 8);
  name[16] = kind;
  name.set(key, headBytes);
  return slotKey(prefix, place, KeyKind.change, name);
}

export function decodeChangeKey(bytes: Uint8Array): IndexedChange {
  const { userKey } = decodeSlotKey(bytes);
  const name = Buffer.from(userKey.buffer, userKey.byteOffset, userKey.byteLength);
  return {
    migration: Number(name.readBigUInt64BE(0)),
    change: Number(name.readBigUInt64BE(8)),
    kind: name[16] === KeyKind.session ? KeyKind.session : KeyKind.value,
    key: name.subarray(headBytes),
  };
}

/** All entries of a migration. */
export function changesOf(prefix: Uint8Array, place: SlotPlace, migration: number): KeyRange {
  const name = Buffer.alloc(8);
  name.writeBigUInt64BE(BigInt(migration));
  return kindRange(prefix, place, KeyKind.change, name);
}

/** The entries of a migration behind a change. */
export function changesAfter(
  prefix: Uint8Array,
  place: SlotPlace,
  { migration, change }: Pick<IndexedChange, 'migration' | 'change'>,
): KeyRange {
  const name = Buffer.alloc(16);
  name.writeBigUInt64BE(BigInt(migration), 0);
  name.writeBigUInt64BE(BigInt(change + 1), 8);
  const { start } = kindRange(prefix, place, KeyKind.change, name);
  return { start, end: changesOf(prefix, place, migration).end };
}
