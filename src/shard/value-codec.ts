/**
 * What stands behind a key in the state engine.
 *
 *   value   = version u8, type u8 (1 string), generation u32 (of collections, 0), revision u64,
 *             ordinal u16 (within its transaction), expires at u64 (log time ms, 0 never), bytes
 *   session = version u8, change number u64, floor u64, last not_after u64, count u16, then each:
 *             sequence u64, hash u32, length u32 of the command, not after u64, result (length u32,
 *             bytes)
 */
import { KeyKind } from '../../storage/index.js';
import { ByteReader, ByteWriter } from '../bytes.js';

const version = 1;
/** 2: with the number of its last change. */
const sessionVersion = 2;
const stringType = 1;
export const valueHeadBytes = 24;

export interface StoredValue {
  readonly revision: number;
  readonly ordinal: number;
  readonly expiresAtMs: number;
  readonly bytes: Uint8Array;
}

function check(found: number, known: number, what: string): void {
  if (found !== known)
    throw new RangeError(`${what} of version ${found}, this program knows ${known}`);
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
  check(bytes[0] ?? 0, version, 'value');
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
  /** The slot's change number when it was written: tells a newer record from an older one (D20). */
  readonly change: number;
  /** Sequences below it are finished and forgotten. */
  readonly floor: number;
  /** When log time has passed it, no repetition can be accepted any more: the record may go. */
  readonly lastNotAfterMs: number;
  readonly entries: readonly SessionEntry[];
}

export function encodeSessionRecord(record: SessionRecord): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(sessionVersion);
  writer.u64(record.change);
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
  check(reader.u8(), sessionVersion, 'session record');
  const change = reader.u64();
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
  return { change, floor, lastNotAfterMs, entries };
}

/** The change that wrote a record. `kind`: KeyKind.value, or else a session's. Throws as decoding does. */
export function changeOf(kind: number, stored: Uint8Array): number {
  return kind === KeyKind.value ? decodeValue(stored).revision : decodeSessionRecord(stored).change;
}
