/** Random commands and results, for round trips and damage. */
import fc from 'fast-check';
import type { Due } from '../../src/shard/command-codec.js';
import type {
  Compare,
  Condition,
  KeyValue,
  Operation,
  OperationResult,
  Session,
  Write,
  WriteOperation,
  WriteResult,
} from '../../src/shard/command.js';

const count = fc.oneof(
  fc.nat(5),
  fc.maxSafeNat(),
  fc.constantFrom(2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER),
);
const blob = (min: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: min, maxLength: 20 }).map((each) => Buffer.from(each));
const key = blob(1);
const value = blob(0);
const condition: fc.Arbitrary<Condition> = fc.oneof(
  fc.constant({ kind: 'none' } as const),
  fc.constant({ kind: 'absent' } as const),
  fc.record({ kind: fc.constant('revision' as const), revision: count }),
);

const operation: fc.Arbitrary<WriteOperation> = fc.oneof(
  fc.record({
    kind: fc.constant('put' as const),
    key,
    value,
    ttlMs: count,
    condition,
    returnPrevious: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('delete' as const),
    key,
    condition,
    returnPrevious: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('increment' as const),
    key,
    delta: fc.maxSafeInteger(),
    ttlMs: count,
  }),
);
const inner: fc.Arbitrary<Operation> = fc.oneof(
  operation,
  fc.record({ kind: fc.constant('get' as const), key }),
);
const compare: fc.Arbitrary<Compare> = fc.oneof(
  fc.record({ kind: fc.constant('exists' as const), key, exists: fc.boolean() }),
  fc.record({ kind: fc.constant('revision' as const), key, revision: count }),
  fc.record({ kind: fc.constant('value' as const), key, value }),
);
const session: fc.Arbitrary<Session> = fc.record({
  clientId: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((each) => Buffer.from(each)),
  sequence: count,
  firstUnacknowledged: count,
  notAfterMs: count,
});

export const anyCount = count;
export const anyWrite: fc.Arbitrary<Write> = fc.record({
  operation: fc.oneof(
    operation,
    fc.record({
      kind: fc.constant('transaction' as const),
      compare: fc.array(compare, { maxLength: 3 }),
      then: fc.array(inner, { maxLength: 3 }),
      else: fc.array(inner, { maxLength: 3 }),
    }),
  ),
  session: fc.option(session, { nil: undefined }),
});

export const anyDue: fc.Arbitrary<Due> = fc.record({
  slot: fc.nat(16383),
  dueMs: count,
  kind: fc.constantFrom('key' as const, 'session' as const),
  revision: count,
  key,
});

const keyValue: fc.Arbitrary<KeyValue> = fc.record({
  key,
  value,
  revision: count,
  expiresAtMs: count,
});
const previous = fc.option(keyValue, { nil: undefined });
const simpleResult: fc.Arbitrary<OperationResult> = fc.oneof(
  fc.record({ kind: fc.constant('get' as const), kv: previous }),
  fc.record({
    kind: fc.constant('put' as const),
    applied: fc.boolean(),
    revision: count,
    previous,
  }),
  fc.record({
    kind: fc.constant('delete' as const),
    applied: fc.boolean(),
    existed: fc.boolean(),
    revision: count,
    previous,
  }),
  fc.record({
    kind: fc.constant('increment' as const),
    value: fc.maxSafeInteger(),
    revision: count,
  }),
);

export const anyResult: fc.Arbitrary<WriteResult> = fc.oneof(
  simpleResult,
  fc.record({
    kind: fc.constant('transaction' as const),
    succeeded: fc.boolean(),
    results: fc.array(simpleResult, { maxLength: 4 }),
    revision: count,
  }),
  fc.record({
    kind: fc.constant('refused' as const),
    refusal: fc.constantFrom(
      'wrongShard' as const,
      'notInteger' as const,
      'outOfRange' as const,
      'sessionExpired' as const,
      'sessionForgotten' as const,
      'sessionMismatch' as const,
      'tooManySlots' as const,
    ),
  }),
);

/** The bytes with one of them changed, some cut off, or one too many. */
export function damaged(
  whole: Uint8Array,
  { at, flip, how }: { readonly at: number; readonly flip: number; readonly how: number },
): Uint8Array {
  const place = at % whole.byteLength;
  if (how === 0) return whole.subarray(0, place);
  if (how === 1) return Buffer.concat([whole, Buffer.from([flip])]);
  const copy = Buffer.from(whole);
  copy[place] = (copy[place] ?? 0) ^ flip;
  return copy;
}

export const anyDamage = fc.record({
  at: fc.nat(4096),
  flip: fc.integer({ min: 1, max: 255 }),
  how: fc.nat(4),
});
