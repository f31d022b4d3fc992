/** Results of writes as bytes, for session records: a repetition gets the very same answer. */
import { ByteReader, ByteWriter } from '../bytes.js';
import type { KeyValue, OperationResult, Refusal, WriteResult } from './command.js';

const kinds = { get: 1, put: 2, delete: 3, increment: 4, transaction: 5, refused: 6 } as const;
const refusals: readonly Refusal[] = [
  'wrongShard',
  'notInteger',
  'outOfRange',
  'sessionExpired',
  'sessionForgotten',
  'sessionMismatch',
  'tooManySlots',
  'moving',
];

export function encodeResult(result: WriteResult): Uint8Array {
  const writer = new ByteWriter();
  write(writer, result);
  return writer.take();
}

function write(writer: ByteWriter, result: WriteResult): void {
  writer.u8(kinds[result.kind]);
  switch (result.kind) {
    case 'get':
      writeKv(writer, result.kv);
      break;
    case 'put':
      writer.bool(result.applied);
      writer.u64(result.revision);
      writeKv(writer, result.previous);
      break;
    case 'delete':
      writer.bool(result.applied);
      writer.bool(result.existed);
      writer.u64(result.revision);
      writeKv(writer, result.previous);
      break;
    case 'increment':
      writer.f64(result.value);
      writer.u64(result.revision);
      break;
    case 'transaction':
      writer.bool(result.succeeded);
      writer.u64(result.revision);
      writer.u32(result.results.length);
      for (const each of result.results) write(writer, each);
      break;
    case 'refused':
      writer.u8(refusals.indexOf(result.refusal));
      break;
  }
}

function writeKv(writer: ByteWriter, kv: KeyValue | undefined): void {
  writer.bool(kv !== undefined);
  if (kv === undefined) return;
  writer.sized(kv.key);
  writer.sized(kv.value);
  writer.u64(kv.revision);
  writer.u64(kv.expiresAtMs);
}

export function decodeResult(bytes: Uint8Array): WriteResult {
  const reader = new ByteReader(bytes);
  const result = read(reader);
  reader.end('result');
  return result;
}

function read(reader: ByteReader): WriteResult {
  const kind = reader.u8();
  if (kind === kinds.transaction) {
    const [succeeded, revision] = [reader.bool(), reader.u64()];
    return {
      kind: 'transaction',
      succeeded,
      revision,
      results: reader.list(() => readOperation(reader, reader.u8())),
    };
  }
  if (kind === kinds.refused) {
    const refusal = refusals[reader.u8()];
    if (refusal === undefined) throw new RangeError('unknown refusal in a session record');
    return { kind: 'refused', refusal };
  }
  return readOperation(reader, kind);
}

function readOperation(reader: ByteReader, kind: number): OperationResult {
  switch (kind) {
    case kinds.get:
      return { kind: 'get', kv: readKv(reader) };
    case kinds.put:
      return {
        kind: 'put',
        applied: reader.bool(),
        revision: reader.u64(),
        previous: readKv(reader),
      };
    case kinds.delete:
      return {
        kind: 'delete',
        applied: reader.bool(),
        existed: reader.bool(),
        revision: reader.u64(),
        previous: readKv(reader),
      };
    case kinds.increment:
      return { kind: 'increment', value: reader.f64(), revision: reader.u64() };
    default:
      throw new RangeError(`result kind ${kind} in a session record`);
  }
}

function readKv(reader: ByteReader): KeyValue | undefined {
  if (!reader.bool()) return undefined;
  return {
    key: reader.sized(),
    value: reader.sized(),
    revision: reader.u64(),
    expiresAtMs: reader.u64(),
  };
}
