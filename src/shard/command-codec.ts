/**
 * Commands as bytes: the payload of a Raft entry, encoded once by the leader.
 *
 *   [version u8][kind u8][log time varint] then by kind
 *     writes    [count] ([session flag]([client id 16][sequence][first unacknowledged][not after])?
 *                [operation])*
 *     expire    [count] ([1][key][revision] | [2][slot][client id 16])*
 *     grant     [count] ([from][to])*
 *     setGates  [gates]
 *
 * Decoding is strict. What cannot be decoded was written by a newer program or is damaged: the node
 * must stop, because skipping a command would make this replica differ (rule D16, R41).
 */
import { ByteReader } from './byte-reader.js';
import { ByteWriter } from './byte-writer.js';
import type { Command, Compare, Condition, Due, Operation, Session, SlotRange } from './command.js';
import type { Transaction, Write, WriteOperation } from './command.js';

const version = 1;
const clientIdBytes = 16;
const commandKind = { writes: 1, expire: 2, grant: 3, setGates: 4 } as const;
const operationKind = { put: 1, delete: 2, increment: 3, get: 4, transaction: 5 } as const;
const conditionKind = { none: 0, absent: 1, revision: 2 } as const;
const compareKind = { exists: 1, revision: 2, value: 3 } as const;
const dueKind = { value: 1, session: 2 } as const;

/** A write as it came out of an entry, with the bytes of its operation for the dedup record. */
export interface DecodedWrite extends Write {
  readonly operationBytes: Uint8Array;
}

export type DecodedCommand =
  | (Omit<Extract<Command, { kind: 'writes' }>, 'writes'> & {
      readonly writes: readonly DecodedWrite[];
    })
  | Exclude<Command, { kind: 'writes' }>;

const writer = new ByteWriter();

/** The bytes of a command. Throws RangeError for numbers that are no safe integers from 0 up. */
export function encodeCommand(command: Command): Uint8Array {
  try {
    writer.byte(version);
    writer.byte(commandKind[command.kind]);
    writer.varint(command.logTimeMs);
    writeBody(command);
    return writer.take();
  } catch (error) {
    writer.reset();
    throw error;
  }
}

function writeBody(command: Command): void {
  switch (command.kind) {
    case 'writes':
      writer.varint(command.writes.length);
      for (const write of command.writes) writeWrite(write);
      break;
    case 'expire':
      writer.varint(command.due.length);
      for (const due of command.due) writeDue(due);
      break;
    case 'grant':
      writer.varint(command.slots.length);
      for (const { from, to } of command.slots) {
        writer.varint(from);
        writer.varint(to);
      }
      break;
    case 'setGates':
      writer.varint(command.gates);
      break;
  }
}

function writeWrite({ operation, session }: Write): void {
  writer.flag(session !== undefined);
  if (session !== undefined) {
    writeClientId(session.clientId);
    writer.varint(session.sequence);
    writer.varint(session.firstUnacknowledged);
    writer.varint(session.notAfterMs);
  }
  writeOperation(operation);
}

function writeClientId(clientId: Uint8Array): void {
  if (clientId.byteLength !== clientIdBytes)
    throw new RangeError(`a client id has 16 bytes, got ${clientId.byteLength}`);
  writer.raw(clientId);
}

function writeOperation(operation: Operation | Transaction): void {
  writer.byte(operationKind[operation.kind]);
  switch (operation.kind) {
    case 'put':
      writer.bytes(operation.key);
      writer.bytes(operation.value);
      writer.varint(operation.ttlMs);
      writeCondition(operation.condition);
      writer.flag(operation.returnPrevious);
      break;
    case 'delete':
      writer.bytes(operation.key);
      writeCondition(operation.condition);
      writer.flag(operation.returnPrevious);
      break;
    case 'increment':
      writer.bytes(operation.key);
      writer.integer(operation.delta);
      writer.varint(operation.ttlMs);
      break;
    case 'get':
      writer.bytes(operation.key);
      break;
    case 'transaction':
      writer.varint(operation.compare.length);
      for (const compare of operation.compare) writeCompare(compare);
      writer.varint(operation.then.length);
      for (const each of operation.then) writeOperation(each);
      writer.varint(operation.else.length);
      for (const each of operation.else) writeOperation(each);
      break;
  }
}

function writeCondition(condition: Condition): void {
  writer.byte(conditionKind[condition.kind]);
  if (condition.kind === 'revision') writer.varint(condition.revision);
}

function writeCompare(compare: Compare): void {
  writer.byte(compareKind[compare.kind]);
  writer.bytes(compare.key);
  switch (compare.kind) {
    case 'exists':
      writer.flag(compare.exists);
      break;
    case 'revision':
      writer.varint(compare.revision);
      break;
    case 'value':
      writer.bytes(compare.value);
      break;
  }
}

function writeDue(due: Due): void {
  writer.byte(dueKind[due.kind]);
  if (due.kind === 'value') {
    writer.bytes(due.key);
    writer.varint(due.revision);
  } else {
    writer.varint(due.slot);
    writeClientId(due.clientId);
  }
}

/** What an entry says; bytes in it alias the entry. Throws MalformedBytes (see above). */
export function decodeCommand(bytes: Uint8Array): DecodedCommand {
  const reader = new ByteReader(bytes, 'command');
  const found = reader.byte();
  if (found !== version) throw reader.malformed(`has version ${found}, this program knows 1`);
  const kind = reader.byte();
  const logTimeMs = reader.varint();
  const command = readBody(reader, kind, logTimeMs);
  reader.end();
  return command;
}

function readBody(reader: ByteReader, kind: number, logTimeMs: number): DecodedCommand {
  switch (kind) {
    case commandKind.writes:
      return { kind: 'writes', logTimeMs, writes: readList(reader, readWrite) };
    case commandKind.expire:
      return { kind: 'expire', logTimeMs, due: readList(reader, readDue) };
    case commandKind.grant:
      return { kind: 'grant', logTimeMs, slots: readList(reader, readSlotRange) };
    case commandKind.setGates:
      return { kind: 'setGates', logTimeMs, gates: reader.varint() };
    default:
      throw reader.malformed(`is of kind ${kind}, unknown to this program`);
  }
}

function readList<T>(reader: ByteReader, readOne: (reader: ByteReader) => T): T[] {
  const length = reader.count();
  const list: T[] = [];
  for (let n = 0; n < length; n++) list.push(readOne(reader));
  return list;
}

function readWrite(reader: ByteReader): DecodedWrite {
  const session = reader.flag() ? readSession(reader) : undefined;
  const from = reader.at;
  const operation = readWritten(reader);
  return { operation, session, operationBytes: reader.since(from) };
}

function readSession(reader: ByteReader): Session {
  const clientId = reader.raw(clientIdBytes);
  const sequence = reader.varint();
  const firstUnacknowledged = reader.varint();
  return { clientId, sequence, firstUnacknowledged, notAfterMs: reader.varint() };
}

function readWritten(reader: ByteReader): WriteOperation | Transaction {
  const kind = reader.byte();
  if (kind === operationKind.transaction) {
    const compare = readList(reader, readCompare);
    const whenTrue = readList(reader, readOperation);
    return { kind: 'transaction', compare, then: whenTrue, else: readList(reader, readOperation) };
  }
  const operation = readOperationOf(kind, reader);
  if (operation.kind === 'get') throw reader.malformed('has a get that is no part of a transaction');
  return operation;
}

function readOperation(reader: ByteReader): Operation {
  return readOperationOf(reader.byte(), reader);
}

function readOperationOf(kind: number, reader: ByteReader): Operation {
  switch (kind) {
    case operationKind.put: {
      const key = reader.bytes();
      const value = reader.bytes();
      const ttlMs = reader.varint();
      const condition = readCondition(reader);
      return { kind: 'put', key, value, ttlMs, condition, returnPrevious: reader.flag() };
    }
    case operationKind.delete: {
      const key = reader.bytes();
      const condition = readCondition(reader);
      return { kind: 'delete', key, condition, returnPrevious: reader.flag() };
    }
    case operationKind.increment: {
      const key = reader.bytes();
      const delta = reader.integer();
      return { kind: 'increment', key, delta, ttlMs: reader.varint() };
    }
    case operationKind.get:
      return { kind: 'get', key: reader.bytes() };
    default:
      throw reader.malformed(`has an operation of kind ${kind}, unknown to this program`);
  }
}

function readCondition(reader: ByteReader): Condition {
  const kind = reader.byte();
  switch (kind) {
    case conditionKind.none:
      return { kind: 'none' };
    case conditionKind.absent:
      return { kind: 'absent' };
    case conditionKind.revision:
      return { kind: 'revision', revision: reader.varint() };
    default:
      throw reader.malformed(`has a condition of kind ${kind}, unknown to this program`);
  }
}

function readCompare(reader: ByteReader): Compare {
  const kind = reader.byte();
  const key = reader.bytes();
  switch (kind) {
    case compareKind.exists:
      return { kind: 'exists', key, exists: reader.flag() };
    case compareKind.revision:
      return { kind: 'revision', key, revision: reader.varint() };
    case compareKind.value:
      return { kind: 'value', key, value: reader.bytes() };
    default:
      throw reader.malformed(`has a compare of kind ${kind}, unknown to this program`);
  }
}

function readDue(reader: ByteReader): Due {
  const kind = reader.byte();
  switch (kind) {
    case dueKind.value: {
      const key = reader.bytes();
      return { kind: 'value', key, revision: reader.varint() };
    }
    case dueKind.session: {
      const slot = reader.varint();
      return { kind: 'session', slot, clientId: reader.raw(clientIdBytes) };
    }
    default:
      throw reader.malformed(`has a due thing of kind ${kind}, unknown to this program`);
  }
}

function readSlotRange(reader: ByteReader): SlotRange {
  const from = reader.varint();
  return { from, to: reader.varint() };
}
