/** What the client does with its callers' requests: keys, checks, sessions. */
import {
  ReadLevel,
  type OperationMessage,
  type SessionMessage,
  type TxnRequest,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { slotOf } from '../router/slot.js';
import type { SessionToken } from './session-token.js';

/** What `batch` has under way at once. */
const sliceLengthMax = 10_000;
const sliceBytesMax = 16 * 1024 * 1024;

export function withSession(
  operation: OperationMessage,
  session: SessionMessage,
): OperationMessage {
  if (operation.put) return { put: { ...operation.put, session } };
  if (operation.delete) return { delete: { ...operation.delete, session } };
  if (operation.increment) return { increment: { ...operation.increment, session } };
  return operation;
}

/** A read with a token and no level of its own is one that the token is for. */
export function withToken(operation: OperationMessage, token: SessionToken): OperationMessage {
  const { get, put, delete: del, increment } = operation;
  const header = token.headerOf(get ? slotOf(get.key) : 'none');
  if (get) return { get: { ...get, level: get.level ?? ReadLevel.AT_LEAST, header } };
  if (put) return { put: { ...put, header } };
  if (del) return { delete: { ...del, header } };
  if (increment) return { increment: { ...increment, header } };
  return operation;
}

/** Followers may answer a read at this level. */
export function isForAnyReplica(level: number | undefined): boolean {
  return level === ReadLevel.STALE || level === ReadLevel.AT_LEAST;
}

/**
 * Checks the fields of a transaction. Its first key decides where it goes: the server refuses one over
 * several slots. Throws KvError.
 */
export function checkTxn({
  compare = [],
  then = [],
  else: otherwise = [],
}: TxnRequest): Uint8Array {
  const operations = [...then, ...otherwise];
  for (const { key } of compare) checkBytes('key', key);
  for (const operation of operations) checkMessage(operation);
  const key = compare[0]?.key ?? keyOf(operations[0] ?? {});
  if (key !== undefined) return key;
  throw new KvError('a transaction needs at least one compare or operation', {
    code: 'KV_INVALID',
    outcome: 'notApplied',
  });
}

/** Undefined: it writes nothing, or its key is none. */
export function keyWritten(message: OperationMessage): Uint8Array | undefined {
  const key: unknown = message.get ? undefined : keyOf(message);
  return key instanceof Uint8Array ? key : undefined;
}

function keyOf(message: OperationMessage): Uint8Array | undefined {
  return (message.get ?? message.put ?? message.delete ?? message.increment)?.key;
}

/** A string here would be taken for base64 by the encoder: refused before it does harm. */
export function checkBytes(field: string, value: unknown): void {
  if (value instanceof Uint8Array) return;
  throw new KvError(`${field} must be a Uint8Array, got ${typeof value}: encode text as UTF-8`, {
    code: 'KV_INVALID',
    outcome: 'notApplied',
  });
}

export function checkMessage(message: OperationMessage): void {
  const { get, put, delete: del, increment } = message;
  if (!get && !put && !del && !increment) return;
  checkBytes('key', keyOf(message));
  if (put) checkBytes('value', put.value);
}

/** Up to the bounds of a slice, at least one. */
export function sliceFrom(
  operations: readonly OperationMessage[],
  from: number,
): OperationMessage[] {
  const slice: OperationMessage[] = [];
  let bytes = 0;
  for (let at = from; at < operations.length && slice.length < sliceLengthMax; at++) {
    const operation = operations[at] ?? {};
    bytes += operation.put?.value?.byteLength ?? 0;
    if (slice.length > 0 && bytes > sliceBytesMax) break;
    slice.push(operation);
  }
  return slice;
}
