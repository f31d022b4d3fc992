/** Short ways to write commands down, for the tests of the shard. */
import type {
  Compare,
  Condition,
  Operation,
  Session,
  Transaction,
  Write,
  WriteOperation,
} from '../../src/shard/command.js';

type Put = Extract<WriteOperation, { kind: 'put' }>;
type Delete = Extract<WriteOperation, { kind: 'delete' }>;
type Increment = Extract<WriteOperation, { kind: 'increment' }>;

export const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
export const text = (value: Uint8Array): string => Buffer.from(value).toString('latin1');

export const always: Condition = { kind: 'none' };
export const ifAbsent: Condition = { kind: 'absent' };
export const ifRevision = (revision: number): Condition => ({ kind: 'revision', revision });

export function put(key: string, value: string, more: Partial<Put> = {}): Put {
  return {
    kind: 'put',
    key: bytes(key),
    value: bytes(value),
    ttlMs: 0,
    condition: always,
    returnPrevious: false,
    ...more,
  };
}

export function remove(key: string, more: Partial<Delete> = {}): Delete {
  return { kind: 'delete', key: bytes(key), condition: always, returnPrevious: false, ...more };
}

export function increment(key: string, delta: number, ttlMs = 0): Increment {
  return { kind: 'increment', key: bytes(key), delta, ttlMs };
}

export function get(key: string): Extract<Operation, { kind: 'get' }> {
  return { kind: 'get', key: bytes(key) };
}

export function transaction(
  compare: readonly Compare[],
  then: readonly Operation[],
  otherwise: readonly Operation[] = [],
): Transaction {
  return { kind: 'transaction', compare, then, else: otherwise };
}

/** 16 bytes from a small number. */
export const clientId = (number: number): Uint8Array => Buffer.alloc(16, number);

export function session(client: number, sequence: number, more: Partial<Session> = {}): Session {
  return {
    clientId: clientId(client),
    sequence,
    firstUnacknowledged: 0,
    notAfterMs: 1_000_000,
    ...more,
  };
}

/** A write without a session, or under one. */
export function write(operation: Write['operation'], under?: Session): Write {
  return { operation, session: under };
}
