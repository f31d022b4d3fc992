/**
 * What stands behind a key in the state engine.
 *
 *   value   = version u8, type u8 (1 string), generation u32 (of collections, 0), revision u64,
 *             ordinal u16 (within its transaction), expires at u64 (log time ms, 0 never), bytes
 *   session = version u8, floor u64, last not_after u64, count u16, then each: sequence u64,
 *             hash u32, length u32 of the command, not after u64, result (length u32, bytes)
 *   slot    = version u8, state u8, epoch u64, instance u64, change number u64, flags u8 (1 expiring)
 */
import { ByteReader, ByteWriter } from '../bytes.js';

const version = 1;
const stringType = 1;
export const valueHeadBytes = 24;

export interface StoredValue {
  readonly revision: number;
  readonly ordinal: number;
  readonly expiresAtMs: number;
  readonly bytes: Uint8Array;
}

function check(found: number, what: string): void {
  if (found !== version)
    throw new RangeError(`${what} of version ${found}, this program knows ${version}`);
}

export function encodeValue(value: StoredValue): Uint8Array {
  const bytes = Buffer.allocUnsafe(valueHeadBytes + value.bytes.byteLength);
  bytes[0] = version;
  bytes[1] = stringType;
  bytes.writeUInt32BE(0, 2);
  bytes.writeUInt32BE(Math.floor(value.revision / 2 ** 32), 6);
  bytes.writeUInt32BE(value.revision >>> 0, 10);
  bytes.writeUInt16BE(value.ordinal, 14);
  bytes.writeUInt32BE(Math.floor(value.expiresAtMs / 2 ** 32), 16);
  bytes.writeUInt32BE(value.expiresAtMs >>> 0, 20);
  bytes.set(value.bytes, valueHeadBytes);
  return bytes;
}

function safe(high: number, low: number): number {
  const value = high * 2 ** 32 + low;
  if (!Number.isSafeInteger(value)) throw new RangeError(`value: ${value} is no safe integer`);
  return value;
}

/** The bytes of the result alias `stored`. */
export function decodeValue(stored: Uint8Array): StoredValue {
  const bytes = Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength);
  check(bytes[0] ?? 0, 'value');
  if (bytes[1] !== stringType)
    throw new RangeError(`value of type ${bytes[1]}, this program knows strings`);
  if (bytes.byteLength < valueHeadBytes)
    throw new RangeError(`value of ${bytes.byteLength} bytes, its head has ${valueHeadBytes}`);
  return {
    revision: safe(bytes.readUInt32BE(6), bytes.readUInt32BE(10)),
    ordinal: bytes.readUInt16BE(14),
    expiresAtMs: safe(bytes.readUInt32BE(16), bytes.readUInt32BE(20)),
    bytes: bytes.subarray(valueHeadBytes),
  };
}

/** One finished write of a client: its repetition is answered from here (rule D21). */
export interface SessionEntry {
  readonly sequence: number;
  /** CRC-32 and length of the operation's bytes: another write under the same sequence is a bug. */
  readonly hash: number;
  readonly length: number;
  readonly notAfterMs: number;
  readonly result: Uint8Array;
}

/** All that is remembered of one client in one slot. */
export interface SessionRecord {
  /** Sequences below it are finished and forgotten. */
  readonly floor: number;
  /** When log time has passed it, no repetition can be accepted any more: the record may go. */
  readonly lastNotAfterMs: number;
  readonly entries: readonly SessionEntry[];
}

export function encodeSessionRecord(record: SessionRecord): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(version);
  writer.u64(record.floor);
  writer.u64(record.lastNotAfterMs);
  writer.u16(record.entries.length);
  for (const entry of record.entries) {
    writer.u64(entry.sequence);
    writer.u32(entry.hash);
    writer.u32(entry.length);
    writer.u64(entry.notAfterMs);
    writer.sized(entry.result);
  }
  return writer.take();
}

export function decodeSessionRecord(stored: Uint8Array): SessionRecord {
  const reader = new ByteReader(stored);
  check(reader.u8(), 'session record');
  const [floor, lastNotAfterMs, count] = [reader.u64(), reader.u64(), reader.u16()];
  const entries: SessionEntry[] = [];
  for (let n = 0; n < count; n++) {
    entries.push({
      sequence: reader.u64(),
      hash: reader.u32(),
      length: reader.u32(),
      notAfterMs: reader.u64(),
      result: reader.sized(),
    });
  }
  reader.end('session record');
  return { floor, lastNotAfterMs, entries };
}

/** The states of a slot at one shard; a migration walks through them (source and target). */
export const SlotOwnership = {
  absent: 0,
  owned: 1,
  exporting: 2,
  frozen: 3,
  handedOver: 4,
  importing: 5,
  ready: 6,
} as const;
export type SlotOwnership = (typeof SlotOwnership)[keyof typeof SlotOwnership];

export interface SlotState {
  readonly ownership: SlotOwnership;
  readonly epoch: number;
  /** The migration that brought the slot, 0 at first: part of the keys of its data. */
  readonly instance: number;
  /** Number of the last change to the slot's data; never goes back (rule D20). */
  readonly change: number;
  /** Something in the slot has expired or will: worth looking at after a restart. */
  readonly expiring: boolean;
}

/** A slot that this shard never had. */
export const absentSlotState: SlotState = {
  ownership: SlotOwnership.absent,
  epoch: 0,
  instance: 0,
  change: 0,
  expiring: false,
};

/** A slot that this shard was born with, and that was never written. */
export const firstSlotState: SlotState = {
  ownership: SlotOwnership.owned,
  epoch: 1,
  instance: 0,
  change: 0,
  expiring: false,
};

const ownerships = new Set<number>(Object.values(SlotOwnership));

export function encodeSlotState(state: SlotState): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(version);
  writer.u8(state.ownership);
  writer.u64(state.epoch);
  writer.u64(state.instance);
  writer.u64(state.change);
  writer.bool(state.expiring);
  return writer.take();
}

export function decodeSlotState(stored: Uint8Array): SlotState {
  const reader = new ByteReader(stored);
  check(reader.u8(), 'slot state');
  const ownership = reader.u8();
  if (!ownerships.has(ownership)) throw new RangeError(`slot ownership ${ownership}`);
  // One of the numbers of SlotOwnership, as just checked.
  const known = ownership as SlotOwnership;
  const state = {
    ownership: known,
    epoch: reader.u64(),
    instance: reader.u64(),
    change: reader.u64(),
    expiring: reader.bool(),
  };
  reader.end('slot state');
  return state;
}
