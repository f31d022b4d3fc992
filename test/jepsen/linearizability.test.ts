import { expect } from 'chai';
import fc from 'fast-check';
import { checkLinearizability, decide } from '../../jepsen/checkers/linearizability.js';
import { shrink } from '../../jepsen/checkers/counter-example.js';
import { appendList, counter, register, type ModelOf } from '../../jepsen/checkers/models.js';
import type { Operation } from '../../jepsen/history.js';
import {
  cleanHistory,
  Dice,
  doublesElement,
  inventsElement,
  losesElement,
  readsDirty,
  readsFuture,
  readsStale,
  reordersRead,
} from './histories.js';

/** A short way to write `client op value @ from..to`. */
function operation(
  at: readonly [number, number],
  what: Partial<Operation> & Pick<Operation, 'op'>,
): Operation {
  return { client: 1, key: 'k', callNs: at[0], returnNs: at[1], status: 'ok', ...what };
}

/** All orders of all subsets that leave out nothing but what has an unknown outcome. */
function explainedByTrying(operations: readonly Operation[], modelOf: ModelOf): boolean {
  const relevant = operations.filter(({ status }) => status !== 'fail');
  const model = modelOf(relevant);
  const go = (state: string | number, left: readonly Operation[]): boolean => {
    if (left.every(({ status }) => status === 'info')) return true;
    return left.some((next) => {
      // Nothing that is left out may have returned before the next one was called.
      const comesFirst = left.every(
        (other) => other === next || other.status === 'info' || other.returnNs >= next.callNs,
      );
      const after = comesFirst ? model.step(state, next) : undefined;
      return (
        after !== undefined &&
        go(
          after,
          left.filter((other) => other !== next),
        )
      );
    });
  };
  return go(model.initial, relevant);
}

const times = fc.record({ callNs: fc.nat(12), tookNs: fc.nat(8) });
const status = fc.constantFrom<Operation['status']>('ok', 'ok', 'ok', 'info', 'fail');
const small = fc.constantFrom(null, 1, 2, 3);

type Intent = Partial<Operation> & Pick<Operation, 'op'>;

const registerIntent: fc.Arbitrary<Intent> = fc.oneof(
  fc.record({ op: fc.constant('read' as const), output: small }),
  fc.record({ op: fc.constant('write' as const), value: small }),
  fc.record({
    op: fc.constant('cas' as const),
    expected: small,
    value: small,
    output: fc.boolean(),
  }),
);

const prefixes = [[], [1], [1, 2], [2], [2, 1], [1, 2, 3]];
const listIntent: fc.Arbitrary<Intent> = fc.oneof(
  fc.record({ op: fc.constant('read' as const), output: fc.constantFrom(...prefixes) }),
  fc.record({ op: fc.constant('append' as const), value: fc.integer({ min: 1, max: 3 }) }),
);

const counterIntent: fc.Arbitrary<Intent> = fc.oneof(
  fc.record({ op: fc.constant('read' as const), output: fc.nat(4) }),
  fc.record({ op: fc.constant('add' as const), value: fc.integer({ min: -1, max: 2 }) }),
  fc.record({
    op: fc.constant('add' as const),
    value: fc.constant(1),
    output: fc.integer({ min: 0, max: 4 }),
  }),
);

function smallHistory(intent: fc.Arbitrary<Intent>): fc.Arbitrary<Operation[]> {
  const one = fc
    .tuple(intent, times, status)
    .map(([what, { callNs, tookNs }, outcome]) =>
      operation([callNs, callNs + tookNs], { ...what, status: outcome }),
    );
  return fc.array(one, { minLength: 1, maxLength: 7 });
}

const models = [
  { name: 'register', modelOf: register, intent: registerIntent },
  { name: 'append list', modelOf: appendList, intent: listIntent },
  { name: 'counter', modelOf: counter, intent: counterIntent },
] as const;

describe('the search for a linearization', () => {
  for (const { name, modelOf, intent } of models) {
    it(`agrees with trying all orders on 5,000 small histories of a ${name}`, () => {
      let explained = 0;
      fc.assert(
        fc.property(smallHistory(intent), (operations) => {
          const expected = explainedByTrying(operations, modelOf);
          if (expected) explained++;
          expect(decide(operations, modelOf)).to.equal(
            expected ? 'linearizable' : 'notLinearizable',
          );
        }),
        { numRuns: 5000 },
      );
      expect(explained, 'histories of both kinds').to.be.within(500, 4500);
    });
  }

  const kinds = [
    { kind: 'register', modelOf: register },
    { kind: 'list', modelOf: appendList },
    { kind: 'counter', modelOf: counter },
  ] as const;
  for (const { kind, modelOf } of kinds) {
    it(`finds nothing in 30 clean histories of a ${kind} with unknown outcomes`, function () {
      this.timeout(60_000);
      for (let seed = 1; seed <= 30; seed++) {
        const plan = { seed, kind, operations: 300, clients: 10, lostShare: 0.05 };
        const decision = decide(cleanHistory(plan), modelOf, { msMax: Infinity });
        expect(decision, `seed ${seed}`).to.equal('linearizable');
      }
    });
  }

  const spoiled = [
    { what: 'a lost append', kind: 'list', modelOf: appendList, spoil: losesElement },
    { what: 'a doubled append', kind: 'list', modelOf: appendList, spoil: doublesElement },
    { what: 'a reordered read', kind: 'list', modelOf: appendList, spoil: reordersRead },
    { what: 'an invented element', kind: 'list', modelOf: appendList, spoil: inventsElement },
    { what: 'a stale list', kind: 'list', modelOf: appendList, spoil: readsStale },
    { what: 'a list from the future', kind: 'list', modelOf: appendList, spoil: readsFuture },
    { what: 'a failed append read', kind: 'list', modelOf: appendList, spoil: readsDirty },
    { what: 'a value from the future', kind: 'register', modelOf: register, spoil: readsFuture },
    { what: 'a failed write read', kind: 'register', modelOf: register, spoil: readsDirty },
    { what: 'a stale sum', kind: 'counter', modelOf: counter, spoil: undefined },
  ] as const;
  for (const { what, kind, modelOf, spoil } of spoiled) {
    it(`sees ${what} in each of 20 histories`, function () {
      this.timeout(60_000);
      let tried = 0;
      for (let seed = 1; tried < 20; seed++) {
        const plan = { seed, kind, operations: 120, clients: 8, lostShare: 0.03 };
        const clean = cleanHistory(plan);
        const dice = new Dice(seed);
        const history = spoil === undefined ? offByOne(clean) : spoil(clean, dice);
        if (history === undefined) continue;
        tried++;
        expect(decide(history, modelOf), `seed ${seed}`).to.equal('notLinearizable');
      }
    });
  }

  it('sees most stale reads of a register', () => {
    // Not all of them: what overlaps, or a deletion, may explain that an old value is back.
    let caught = 0;
    let tried = 0;
    for (let seed = 1; tried < 40; seed++) {
      const plan = {
        seed,
        kind: 'register',
        operations: 120,
        clients: 4,
        lostShare: 0.02,
      } as const;
      const history = readsStale(cleanHistory(plan), new Dice(seed));
      if (history === undefined) continue;
      tried++;
      if (decide(history, register) === 'notLinearizable') caught++;
    }
    expect(caught).to.be.at.least(32);
  });

  it('says that it is undecided when a limit ends it', () => {
    const plan = { seed: 7, kind: 'register', operations: 200, clients: 20, lostShare: 0 } as const;
    const verdict = checkLinearizability(cleanHistory(plan), register, { statesMax: 20 });
    expect(verdict.valid).to.equal('unknown');
    expect(verdict.details.join()).to.match(/undecided: key k/);
  });

  it('takes an operation of unknown outcome long after its client gave up', () => {
    const history = [
      operation([0, 10], { op: 'write', value: 1, status: 'info' }),
      operation([20, 30], { op: 'write', value: 2 }),
      operation([40, 50], { op: 'read', output: 2 }),
      operation([60, 70], { op: 'read', output: 1 }),
    ];
    expect(decide(history, register)).to.equal('linearizable');
    const again = [...history, operation([80, 90], { op: 'read', output: 2 })];
    expect(decide(again, register)).to.equal('notLinearizable');
  });

  it('judges each key by itself', () => {
    const lost = [
      operation([0, 1], { op: 'write', value: 1, key: 'a' }),
      operation([2, 3], { op: 'read', output: null, key: 'b' }),
    ];
    expect(checkLinearizability(lost, register).valid).to.equal(true);
  });
});

/** One sum in the middle is told one too low, where nothing runs at the same time. */
function offByOne(clean: readonly Operation[]): Operation[] | undefined {
  const alone = clean.filter((one) => one.op === 'read' && one.status === 'ok');
  const read = alone[alone.length >> 1];
  return clean.map((one) => (one === read ? { ...one, output: Number(one.output) - 1000 } : one));
}

describe('the counter-example of a history that is not linearizable', () => {
  const fails = (some: readonly Operation[]): boolean =>
    decide(some, register) === 'notLinearizable';

  it('is a few operations that cannot be explained by themselves', function () {
    this.timeout(60_000);
    let tried = 0;
    for (let seed = 1; tried < 10; seed++) {
      const plan = {
        seed,
        kind: 'register',
        operations: 200,
        clients: 5,
        lostShare: 0.02,
      } as const;
      const history = readsFuture(cleanHistory(plan), new Dice(seed));
      if (history === undefined) continue;
      tried++;
      const left = shrink(history, fails);
      expect(left.length, `seed ${seed}`).to.be.within(1, 6);
      expect(left.every((one) => history.includes(one))).to.equal(true);
    }
  });

  it('draws a stale read as the two writes and the read', () => {
    const history = [
      ...cleanHistory({ seed: 3, kind: 'register', operations: 60, clients: 3, lostShare: 0 }),
      operation([1e8, 2e8], { op: 'write', value: 'old' }),
      operation([3e8, 4e8], { op: 'write', value: 'new' }),
      operation([5e8, 6e8], { op: 'read', output: 'old' }),
    ];
    const { valid, details } = checkLinearizability(history, register);
    expect(valid).to.equal(false);
    expect(details).to.deep.equal([
      'key k: not linearizable',
      'these alone cannot be explained:',
      '  client 1 write "old": ok  |--|  from 100.0 ms',
      '  client 1 write "new": ok        |--|  from 300.0 ms',
      '  client 1 read: "old"                  |--|  from 500.0 ms',
    ]);
  });
});
