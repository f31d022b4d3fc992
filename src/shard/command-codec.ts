/**
 * Commands of a shard as bytes: encoded once by the leader, then the same bytes are the payload of
 * the Raft entry, on the wire and on every disk. Big-endian.
 *
 *   command     = version u8, kind u8, log time u64, body
 *   writes (1)    count u32, then each: flags u8 (1: session), [client id 16, sequence u64,
 *                 first unacknowledged u64, not after u64], operation
 *   expire (2)    count u32, then each: slot u16, due u64, kind u8 (1 key, 2 session), revision u64, key
 *   time (3)      (nothing)
 *   found (4)     count u32, then each: first slot u16, last slot u16
 *   hash (5)      (nothing)
 *   step (6)      of a migration, as in migration-step.ts
 *   pin (7)       a step of a pin, as in pin-step.ts
 *   operation   = kind u8: put (1) key, value, ttl u64, condition, flags u8 (1: return previous)
 *                          delete (2) key, condition, flags; increment (3) key, delta i64 as f64, ttl u64
 *                          transaction (4) counts u32 x 3, compares, then, else; get (5) key
 *   condition   = kind u8: none (0), absent (1), revision (2) u64
 *   key, value  = length u32, bytes
 */
import { ByteReader, ByteWriter } from '../bytes.js';
import type { SlotSpan } from '../router/slot-spans.js';
import { decodeStep, encodeStep, type MigrationStep } from './migration-step.js';
import { decodePinStep, encodePinStep, type PinStep } from './pin-step.js';
import type {
  Compare,
  Condition,
  Operation,
  Session,
  Transaction,
  Write,
  WriteOperation,
} from './command.js';

const version = 1;
const commandKind = { writes: 1, expire: 2, time: 3, found: 4, hash: 5, step: 6, pin: 7 } as const;
const operationKind = { put: 1, delete: 2, increment: 3, transaction: 4, get: 5 } as const;
const conditionKind = { none: 0, absent: 1, revision: 2 } as const;
const compareKind = { exists: 1, revision: 2, value: 3 } as const;
const dueKinds = { key: 1, session: 2 } as const;
const clientIdBytes = 16;
/** Behind version and kind; then the count of a command of writes. */
const logTimeAt = 2;
const countAt = logTimeAt + 8;

/** A key or session record that is due to go: judged again when it is applied. */
export interface Due {
  readonly slot: number;
  readonly dueMs: number;
  readonly kind: 'key' | 'session';
  /** Of the key; 0 for a session. A newer put has another one, and stays. */
  readonly revision: number;
  /** User key, or client id. */
  readonly key: Uint8Array;
}

/** A write with the bytes of its operation, whose hash tells it from another write. */
export interface DecodedWrite extends Write {
  readonly operationBytes: Uint8Array;
}

export type Command =
  | {
      readonly kind: 'writes';
      readonly logTimeMs: number;
      readonly writes: readonly DecodedWrite[];
    }
  | { readonly kind: 'expire'; readonly logTimeMs: number; readonly due: readonly Due[] }
  /** Log time alone. Applied by everybody, proposed by nobody yet: every other command carries it. */
  | { readonly kind: 'time'; readonly logTimeMs: number }
  /** The slots that a shard is born with, at epoch 1. Only the first one counts (rule D30). */
  | { readonly kind: 'found'; readonly logTimeMs: number; readonly slots: readonly SlotSpan[] }
  /** Changes nothing but log time: every replica takes the hash of its state where it stands. */
  | { readonly kind: 'hash'; readonly logTimeMs: number }
  | { readonly kind: 'step'; readonly logTimeMs: number; readonly step: MigrationStep }
  | { readonly kind: 'pin'; readonly logTimeMs: number; readonly step: PinStep };

/** A command of an unknown version or kind: this program is too old for the log, and must stop (D16). */
export class UnknownCommand extends Error {
  override readonly name = 'UnknownCommand';
}

function begin(kind: number, logTimeMs: number): ByteWriter {
  const writer = new ByteWriter();
  writer.u8(version);
  writer.u8(kind);
  writer.u64(logTimeMs);
  return writer;
}

export function encodeWrites(writes: readonly Write[], logTimeMs: number): Uint8Array {
  const encoder = new WritesEncoder();
  encoder.addAll(writes);
  return encoder.take(logTimeMs);
}

/** A command of writes that come one by one; its log time is known last. */
export class WritesEncoder {
  count = 0;
  private readonly writer = begin(commandKind.writes, 0);

  constructor() {
    this.writer.u32(0);
  }

  get byteLength(): number {
    return this.writer.size;
  }

  /** All of them, or none when one cannot be encoded: then it throws. */
  addAll(writes: readonly Write[]): void {
    const before = this.writer.size;
    try {
      for (const write of writes) this.add(write);
    } catch (error) {
      this.writer.rewind(before);
      throw error;
    }
    this.count += writes.length;
  }

  /** Takes the last of them back. */
  rewind({ count, byteLength }: Pick<WritesEncoder, 'count' | 'byteLength'>): void {
    this.writer.rewind(byteLength);
    this.count = count;
  }

  private add({ operation, session }: Write): void {
    this.writer.u8(session === undefined ? 0 : 1);
    if (session !== undefined) encodeSession(this.writer, session);
    encodeOperation(this.writer, operation);
  }

  /** Nothing can be added afterwards. */
  take(logTimeMs: number): Uint8Array {
    this.writer.patchU64(logTimeAt, logTimeMs);
    this.writer.patchU32(countAt, this.count);
    return this.writer.take();
  }
}

export function encodeExpire(due: readonly Due[], logTimeMs: number): Uint8Array {
  const writer = begin(commandKind.expire, logTimeMs);
  writer.u32(due.length);
  for (const each of due) {
    writer.u16(each.slot);
    writer.u64(each.dueMs);
    writer.u8(dueKinds[each.kind]);
    writer.u64(each.revision);
    writer.sized(each.key);
  }
  return writer.take();
}

export function encodeTime(logTimeMs: number): Uint8Array {
  return begin(commandKind.time, logTimeMs).take();
}

export function encodeFound(slots: readonly SlotSpan[], logTimeMs: number): Uint8Array {
  const writer = begin(commandKind.found, logTimeMs);
  encodeSpans(writer, slots);
  return writer.take();
}

export function encodeHash(logTimeMs: number): Uint8Array {
  return begin(commandKind.hash, logTimeMs).take();
}

export function encodeMigrationStep(step: MigrationStep, logTimeMs: number): Uint8Array {
  const writer = begin(commandKind.step, logTimeMs);
  encodeStep(writer, step);
  return writer.take();
}

export function encodePinCommand(step: PinStep, logTimeMs: number): Uint8Array {
  const writer = begin(commandKind.pin, logTimeMs);
  encodePinStep(writer, step);
  return writer.take();
}

/** Without decoding the rest. */
export function isHash(command: Uint8Array): boolean {
  return command[0] === version && command[1] === commandKind.hash;
}

export function encodeSpans(writer: ByteWriter, slots: readonly SlotSpan[]): void {
  writer.u32(slots.length);
  for (const { first, last } of slots) {
    writer.u16(first);
    writer.u16(last);
  }
}

/** Throws RangeError for spans that end before they begin. */
export function decodeSpans(reader: ByteReader): readonly SlotSpan[] {
  return reader.list(() => {
    const [first, last] = [reader.u16(), reader.u16()];
    if (last < first) throw new RangeError(`slots from ${first} to ${last}`);
    return { first, last };
  });
}

/** Throws UnknownCommand; on damaged bytes RangeError. Both stop the node: the log is checksummed. */
export function decodeCommand(bytes: Uint8Array): Command {
  const reader = new ByteReader(bytes);
  const found = reader.u8();
  if (found !== version)
    throw new UnknownCommand(
      `command version ${found}, this program knows ${version}: use a newer one`,
    );
  const kind = reader.u8();
  const command = decodeBody(reader, kind, reader.u64());
  reader.end('command');
  return command;
}

function decodeBody(reader: ByteReader, kind: number, logTimeMs: number): Command {
  switch (kind) {
    case commandKind.writes:
      return { kind: 'writes', logTimeMs, writes: reader.list(() => decodeWrite(reader)) };
    case commandKind.expire:
      return { kind: 'expire', logTimeMs, due: reader.list(() => decodeDue(reader)) };
    case commandKind.time:
      return { kind: 'time', logTimeMs };
    case commandKind.found:
      return { kind: 'found', logTimeMs, slots: decodeSpans(reader) };
    case commandKind.hash:
      return { kind: 'hash', logTimeMs };
    case commandKind.step:
      return { kind: 'step', logTimeMs, step: decodeStep(reader) };
    case commandKind.pin:
      return { kind: 'pin', logTimeMs, step: decodePinStep(reader) };
    default:
      throw new UnknownCommand(`command kind ${kind}: use a newer program`);
  }
}

function encodeSession(writer: ByteWriter, session: Session): void {
  // Here it fails one call; in the log it would stop every replica.
  if (session.clientId.byteLength !== clientIdBytes)
    throw new RangeError(`client id of ${session.clientId.byteLength} bytes`);
  writer.raw(session.clientId);
  writer.u64(session.sequence);
  writer.u64(session.firstUnacknowledged);
  writer.u64(session.notAfterMs);
}

function decodeWrite(reader: ByteReader): DecodedWrite {
  const session = reader.bool() ? decodeSession(reader) : undefined;
  const from = reader.position;
  const operation = decodeOperation(reader);
  if (operation.kind === 'get') throw new RangeError('a get is no write');
  return { session, operation, operationBytes: reader.since(from) };
}

function decodeSession(reader: ByteReader): Session {
  return {
    clientId: reader.raw(clientIdBytes),
    sequence: reader.u64(),
    firstUnacknowledged: reader.u64(),
    notAfterMs: reader.u64(),
  };
}

function decodeDue(reader: ByteReader): Due {
  const slot = reader.u16();
  const dueMs = reader.u64();
  const kind = decodeDueKind(reader.u8());
  return { slot, dueMs, kind, revision: reader.u64(), key: reader.sized() };
}

function decodeDueKind(kind: number): Due['kind'] {
  if (kind === dueKinds.key) return 'key';
  if (kind === dueKinds.session) return 'session';
  throw new UnknownCommand(`due kind ${kind}: use a newer program`);
}

function encodeOperation(writer: ByteWriter, operation: Operation | Transaction): void {
  writer.u8(operationKind[operation.kind]);
  switch (operation.kind) {
    case 'put':
      writer.sized(operation.key);
      writer.sized(operation.value);
      writer.u64(operation.ttlMs);
      encodeCondition(writer, operation.condition);
      writer.u8(operation.returnPrevious ? 1 : 0);
      break;
    case 'delete':
      writer.sized(operation.key);
      encodeCondition(writer, operation.condition);
      writer.u8(operation.returnPrevious ? 1 : 0);
      break;
    case 'increment':
      writer.sized(operation.key);
      writer.f64(operation.delta);
      writer.u64(operation.ttlMs);
      break;
    case 'get':
      writer.sized(operation.key);
      break;
    case 'transaction':
      encodeTransaction(writer, operation);
      break;
  }
}

function encodeTransaction(writer: ByteWriter, transaction: Transaction): void {
  writer.u32(transaction.compare.length);
  for (const compare of transaction.compare) encodeCompare(writer, compare);
  writer.u32(transaction.then.length);
  for (const operation of transaction.then) encodeOperation(writer, operation);
  writer.u32(transaction.else.length);
  for (const operation of transaction.else) encodeOperation(writer, operation);
}

function encodeCondition(writer: ByteWriter, condition: Condition): void {
  writer.u8(conditionKind[condition.kind]);
  if (condition.kind === 'revision') writer.u64(condition.revision);
}

function encodeCompare(writer: ByteWriter, compare: Compare): void {
  writer.u8(compareKind[compare.kind]);
  writer.sized(compare.key);
  if (compare.kind === 'exists') writer.u8(compare.exists ? 1 : 0);
  else if (compare.kind === 'revision') writer.u64(compare.revision);
  else writer.sized(compare.value);
}

function decodeOperation(
  reader: ByteReader,
): WriteOperation | Transaction | Extract<Operation, { kind: 'get' }> {
  const kind = reader.u8();
  if (kind === operationKind.transaction) return decodeTransaction(reader);
  return decodeSimple(reader, kind);
}

function decodeSimple(reader: ByteReader, kind: number): Operation {
  switch (kind) {
    case operationKind.put: {
      const [key, value, ttlMs] = [reader.sized(), reader.sized(), reader.u64()];
      return {
        kind: 'put',
        key,
        value,
        ttlMs,
        condition: decodeCondition(reader),
        returnPrevious: reader.bool(),
      };
    }
    case operationKind.delete:
      return {
        kind: 'delete',
        key: reader.sized(),
        condition: decodeCondition(reader),
        returnPrevious: reader.bool(),
      };
    case operationKind.increment:
      return { kind: 'increment', key: reader.sized(), delta: reader.f64(), ttlMs: reader.u64() };
    case operationKind.get:
      return { kind: 'get', key: reader.sized() };
    default:
      throw new UnknownCommand(`operation kind ${kind}: use a newer program`);
  }
}

function decodeTransaction(reader: ByteReader): Transaction {
  const compare = reader.list(() => decodeCompare(reader));
  const then = reader.list(() => decodeSimple(reader, reader.u8()));
  return {
    kind: 'transaction',
    compare,
    then,
    else: reader.list(() => decodeSimple(reader, reader.u8())),
  };
}

function decodeCondition(reader: ByteReader): Condition {
  const kind = reader.u8();
  if (kind === conditionKind.none) return { kind: 'none' };
  if (kind === conditionKind.absent) return { kind: 'absent' };
  if (kind === conditionKind.revision) return { kind: 'revision', revision: reader.u64() };
  throw new UnknownCommand(`condition kind ${kind}: use a newer program`);
}

function decodeCompare(reader: ByteReader): Compare {
  const kind = reader.u8();
  const key = reader.sized();
  if (kind === compareKind.exists) return { kind: 'exists', key, exists: reader.bool() };
  if (kind === compareKind.revision) return { kind: 'revision', key, revision: reader.u64() };
  if (kind === compareKind.value) return { kind: 'value', key, value: reader.sized() };
  throw new UnknownCommand(`compare kind ${kind}: use a newer program`);
}
