/** Random commands over few keys and few clients, so that they meet one another often. */
import fc from 'fast-check';
import type { Compare, Condition, Operation, Session, Write } from '../../src/shard/command.js';
import { bytes, clientId } from './command-texts.js';

/** Two slots with three keys each. */
export const keys = ['{1}a', '{1}b', '{1}c', '{2}a', '{2}b', '{2}c'];
const keyIn = (tag: number): fc.Arbitrary<Uint8Array> =>
  fc.constantFrom('a', 'b', 'c').map((name) => bytes(`{${tag}}${name}`));
const anyKey = fc.constantFrom(...keys).map(bytes);

const value = fc
  .oneof(
    { weight: 3, arbitrary: fc.integer({ min: -5, max: 5 }).map(String) },
    fc.constantFrom('x', '', '-0', '007', '9007199254740991', '-9007199254740991', '1e3', ' 1'),
    fc.constant('y'.repeat(40)),
  )
  .map(bytes);
const ttlMs = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 300 }));
const delta = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: -4, max: 4 }) },
  fc.constantFrom(Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER),
);
const condition: fc.Arbitrary<Condition> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({ kind: 'none' } as const) },
  fc.constant({ kind: 'absent' } as const),
  fc.record({ kind: fc.constant('revision' as const), revision: fc.nat(12) }),
);

function operationOn(key: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Operation> {
  return fc.oneof(
    fc.record({
      kind: fc.constant('put' as const),
      key,
      value,
      ttlMs,
      condition,
      returnPrevious: fc.boolean(),
    }),
    fc.record({
      kind: fc.constant('delete' as const),
      key,
      condition,
      returnPrevious: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('increment' as const), key, delta, ttlMs }),
    fc.record({ kind: fc.constant('get' as const), key }),
  );
}

function compareOn(key: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Compare> {
  return fc.oneof(
    fc.record({ kind: fc.constant('exists' as const), key, exists: fc.boolean() }),
    fc.record({ kind: fc.constant('revision' as const), key, revision: fc.nat(12) }),
    fc.record({ kind: fc.constant('value' as const), key, value }),
  );
}

function transactionOn(key: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Write['operation']> {
  return fc.record({
    kind: fc.constant('transaction' as const),
    compare: fc.array(compareOn(key), { maxLength: 2 }),
    then: fc.array(operationOn(key), { maxLength: 4 }),
    else: fc.array(operationOn(key), { maxLength: 4 }),
  });
}

const operation: fc.Arbitrary<Write['operation']> = fc.oneof(
  {
    weight: 5,
    arbitrary: operationOn(anyKey).map((each): Write['operation'] =>
      each.kind === 'get' ? { kind: 'transaction', compare: [], then: [each], else: [] } : each,
    ),
  },
  { weight: 2, arbitrary: transactionOn(keyIn(1)) },
  { weight: 2, arbitrary: transactionOn(keyIn(2)) },
  { weight: 1, arbitrary: transactionOn(anyKey) },
);

/** `notAfterMs` counts from the time at which it is proposed. */
const session: fc.Arbitrary<Session> = fc
  .record({
    clientId: fc.integer({ min: 1, max: 3 }).map(clientId),
    sequence: fc.integer({ min: 1, max: 14 }),
    finished: fc.nat(14),
    notAfterMs: fc.integer({ min: 0, max: 400 }),
  })
  .map(({ finished, ...each }) => ({
    ...each,
    firstUnacknowledged: Math.min(finished, each.sequence),
  }));

export type Step =
  | { readonly kind: 'writes'; readonly writes: readonly Write[] }
  /** A write that was sent before, once more: how many writes ago. */
  | { readonly kind: 'repeat'; readonly ago: number }
  /** What is due, as a leader finds it. */
  | { readonly kind: 'expire' }
  /** An expire command of before, once more: how many ago. */
  | { readonly kind: 'lateExpire'; readonly ago: number }
  | { readonly kind: 'time' };

export interface TimedStep {
  readonly step: Step;
  /** Against the highest log time so far: a new leader's clock may be behind. */
  readonly passedMs: number;
}

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('writes' as const),
      writes: fc.array(
        fc.record({ operation, session: fc.option(session, { nil: undefined, freq: 2 }) }),
        { minLength: 1, maxLength: 3 },
      ),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('repeat' as const), ago: fc.nat(8) }),
  },
  { weight: 3, arbitrary: fc.constant({ kind: 'expire' } as const) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('lateExpire' as const), ago: fc.nat(3) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'time' } as const) },
);

export const steps = (maxLength: number): fc.Arbitrary<readonly TimedStep[]> =>
  fc.array(
    fc.record({
      step,
      passedMs: fc.oneof(
        { weight: 4, arbitrary: fc.nat(60) },
        { weight: 1, arbitrary: fc.integer({ min: -80, max: -1 }) },
        { weight: 1, arbitrary: fc.integer({ min: 200, max: 500 }) },
      ),
    }),
    { minLength: 1, maxLength, size: 'max' },
  );
