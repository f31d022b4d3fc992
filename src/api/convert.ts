/**
 * Decoded requests -> the shard's operations, checked against the limits; results -> replies.
 *
 * Decoded bytes alias the received buffer. A write is encoded into its command before the call
 * ends, and a read keeps its key only until it is answered, so nothing here needs a copy.
 */
import type {
  CompareMessage,
  DeleteRequest,
  GetReply,
  IncrementRequest,
  OperationMessage,
  OperationResultMessage,
  PutRequest,
  ReplyHeader,
  SessionMessage,
  TxnRequest,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import type {
  Compare,
  Condition,
  KeyValue,
  Operation,
  OperationResult,
  Refusal,
  Session,
  Transaction,
  WriteOperation,
} from '../shard/command.js';
import type { Slot } from '../router/slot.js';
import { movingRetryMs } from '../shard/shard-errors.js';
import type { ApiLimits } from './limits.js';

const sequenceMax = Number.MAX_SAFE_INTEGER;
const clientIdBytes = 16;

export function invalid(message: string): KvError {
  return new KvError(message, { code: 'KV_INVALID', outcome: 'notApplied' });
}

export function overLimit(what: string, size: number, limit: number): KvError {
  return new KvError(`${what} is ${size}, the limit is ${limit}`, {
    code: 'KV_TOO_LARGE',
    outcome: 'notApplied',
    limit,
    size,
  });
}

/** Throws KvError for an empty or oversized key. */
export function checkKey(key: Uint8Array, limits: ApiLimits): void {
  if (key.byteLength === 0) throw invalid('key is empty: a key has at least 1 byte');
  if (key.byteLength > limits.keyBytesMax) {
    throw overLimit('key length in bytes', key.byteLength, limits.keyBytesMax);
  }
}

function checkValue(value: Uint8Array, limits: ApiLimits): void {
  if (value.byteLength > limits.valueBytesMax) {
    throw overLimit('value length in bytes', value.byteLength, limits.valueBytesMax);
  }
}

function checkCount(name: string, value: number): void {
  // A uint64 beyond 2^53 arrives as an inexact number.
  if (!Number.isSafeInteger(value) || value < 0) {
    throw invalid(`${name} must be an integer from 0 to ${sequenceMax}, got ${value}`);
  }
}

export function sessionOf(message: SessionMessage | null | undefined): Session | undefined {
  if (message === null || message === undefined) return undefined;
  const { clientId, sequence, firstUnacknowledged = 0, notAfterMs = 0 } = message;
  if (clientId.byteLength !== clientIdBytes) {
    throw invalid(
      `session.client_id must be ${clientIdBytes} random bytes, got ${clientId.byteLength}`,
    );
  }
  checkCount('session.sequence', sequence);
  checkCount('session.first_unacknowledged', firstUnacknowledged);
  checkCount('session.not_after_ms', notAfterMs);
  if (sequence === 0) throw invalid('session.sequence counts from 1, got 0');
  // One above it must still be a number, as the floor of what is forgotten.
  if (sequence >= sequenceMax) throw invalid(`session.sequence must lie below ${sequenceMax}`);
  if (firstUnacknowledged > sequence) {
    throw invalid(
      `session.first_unacknowledged (${firstUnacknowledged}) is above the sequence (${sequence}) of this write`,
    );
  }
  return { clientId, sequence, firstUnacknowledged, notAfterMs };
}

function conditionOf(
  ifAbsent: boolean | undefined,
  ifRevision: number | null | undefined,
): Condition {
  const revision = ifRevision ?? undefined;
  if (ifAbsent === true && revision !== undefined) {
    throw invalid('if_absent and if_revision exclude each other: send one of them');
  }
  if (ifAbsent === true) return { kind: 'absent' };
  if (revision === undefined) return { kind: 'none' };
  checkCount('if_revision', revision);
  return { kind: 'revision', revision };
}

export function putOf(request: PutRequest, limits: ApiLimits): WriteOperation {
  checkKey(request.key, limits);
  checkValue(request.value, limits);
  const ttlMs = request.ttlMs ?? 0;
  checkCount('ttl_ms', ttlMs);
  return {
    kind: 'put',
    key: request.key,
    value: request.value,
    ttlMs,
    condition: conditionOf(request.ifAbsent, request.ifRevision),
    returnPrevious: request.returnPrevious ?? false,
  };
}

export function deleteOf(request: DeleteRequest, limits: ApiLimits): WriteOperation {
  checkKey(request.key, limits);
  return {
    kind: 'delete',
    key: request.key,
    condition: conditionOf(false, request.ifRevision),
    returnPrevious: request.returnPrevious ?? false,
  };
}

export function incrementOf(request: IncrementRequest, limits: ApiLimits): WriteOperation {
  checkKey(request.key, limits);
  if (!Number.isSafeInteger(request.delta)) {
    throw new KvError(`delta must lie within +-(2^53 - 1), got ${request.delta}`, {
      code: 'KV_OUT_OF_RANGE',
      outcome: 'notApplied',
    });
  }
  const ttlMs = request.ttlMs ?? 0;
  checkCount('ttl_ms', ttlMs);
  return { kind: 'increment', key: request.key, delta: request.delta, ttlMs };
}

/** One element of a batch or transaction. */
export function operationOf(message: OperationMessage, limits: ApiLimits): Operation {
  if (message.put) return putOf(message.put, limits);
  if (message.get) {
    checkKey(message.get.key, limits);
    return { kind: 'get', key: message.get.key };
  }
  if (message.delete) return deleteOf(message.delete, limits);
  if (message.increment) return incrementOf(message.increment, limits);
  throw invalid('an operation is empty: set one of get, put, delete, increment');
}

/** The session inside an element of a batch. */
export function operationSession(message: OperationMessage): Session | undefined {
  return sessionOf(message.put?.session ?? message.delete?.session ?? message.increment?.session);
}

function compareOf(message: CompareMessage, limits: ApiLimits): Compare {
  const { key, exists, revision, value } = message;
  checkKey(key, limits);
  if (exists !== null && exists !== undefined) return { kind: 'exists', key, exists };
  if (revision !== null && revision !== undefined) {
    checkCount('compare.revision', revision);
    return { kind: 'revision', key, revision };
  }
  if (value !== null && value !== undefined) return { kind: 'value', key, value };
  throw invalid('a compare is empty: set one of exists, revision, value');
}

export function transactionOf(request: TxnRequest, limits: ApiLimits): Transaction {
  const compare = (request.compare ?? []).map((each) => compareOf(each, limits));
  const whenTrue = (request.then ?? []).map((each) => operationOf(each, limits));
  const whenFalse = (request.else ?? []).map((each) => operationOf(each, limits));
  const length = compare.length + whenTrue.length + whenFalse.length;
  if (length === 0) throw invalid('the transaction is empty: give compare, then or else');
  if (length > limits.batchLengthMax)
    throw overLimit('number of operations', length, limits.batchLengthMax);
  return { kind: 'transaction', compare, then: whenTrue, else: whenFalse };
}

/** Every key a transaction touches, compares included. */
export function transactionKeys(transaction: Transaction): Uint8Array[] {
  return [...transaction.compare, ...transaction.then, ...transaction.else].map((each) => each.key);
}

export function getReply(kv: KeyValue | undefined, header: ReplyHeader): GetReply {
  return kv === undefined ? { header, found: false } : { header, found: true, kv };
}

/** A result inside the reply to a batch or transaction. */
export function resultMessage(
  result: OperationResult,
  header: ReplyHeader | undefined,
): OperationResultMessage {
  switch (result.kind) {
    case 'get':
      return {
        get:
          result.kv === undefined
            ? { header, found: false }
            : { header, found: true, kv: result.kv },
      };
    case 'put':
      return {
        put: {
          header,
          applied: result.applied,
          revision: result.revision,
          previous: result.previous,
        },
      };
    case 'delete':
      return {
        delete: {
          header,
          applied: result.applied,
          existed: result.existed,
          revision: result.revision,
          previous: result.previous,
        },
      };
    case 'increment':
      return { increment: { header, value: result.value, revision: result.revision } };
  }
}

const refusals: Readonly<
  Record<Refusal, { code: KvError['code']; outcome: KvError['outcome']; message: string }>
> = {
  wrongShard: {
    code: 'KV_WRONG_SHARD',
    outcome: 'notApplied',
    message:
      'the slot of this key is not owned by this shard: ask for the slot map and go to its owner',
  },
  moving: {
    code: 'KV_MOVING',
    outcome: 'notApplied',
    message: 'the slot of this key is about to move to another shard: try again in a moment',
  },
  notInteger: {
    code: 'KV_NOT_INTEGER',
    outcome: 'notApplied',
    message: 'the key holds no decimal integer: increment works on counters only',
  },
  outOfRange: {
    code: 'KV_OUT_OF_RANGE',
    outcome: 'notApplied',
    message: 'the sum would leave +-(2^53 - 1): the counter is unchanged',
  },
  sessionExpired: {
    code: 'KV_SESSION_EXPIRED',
    outcome: 'unknown',
    message:
      'this write came after its not_after time: an earlier attempt may have been applied; read to find out',
  },
  sessionForgotten: {
    code: 'KV_SESSION_FORGOTTEN',
    outcome: 'unknown',
    message:
      "this sequence is below the client's first_unacknowledged: its record was dropped; read to find out",
  },
  sessionMismatch: {
    code: 'KV_SESSION_MISMATCH',
    outcome: 'notApplied',
    message: 'this sequence was used for another write: a client numbers every write anew',
  },
  tooManySlots: {
    code: 'KV_INVALID',
    outcome: 'notApplied',
    message: 'the keys of a transaction lie in more than one slot: give them the same {tag}',
  },
};

/** What apply refused, as the error the client sees. */
export function refusalError(refusal: Refusal, pin?: Slot): KvError {
  const { code, outcome, message } = refusals[refusal];
  const retry = refusal === 'moving' ? { retryAfterMs: movingRetryMs } : {};
  return new KvError(message, {
    code,
    outcome,
    ...retry,
    ...(pin === undefined ? {} : { pinSlot: pin }),
  });
}

/** `key`: one that this node knows to belong to the pin; undefined: it has not heard of it yet. */
export function acrossPin(pin: Slot, key: Uint8Array | undefined): KvError {
  const which =
    key === undefined ? 'one of them' : `'${Buffer.from(key.subarray(0, 64)).toString('utf8')}'`;
  return new KvError(
    `the keys of a transaction lie in more than one slot: ${which} is pinned, and pin ${pin} is a slot of ` +
      'its own; pin all of them by one prefix, or unpin it (quorate slot unpin)',
    { code: 'KV_INVALID', outcome: 'notApplied', pinSlot: pin },
  );
}
