import { expect } from 'chai';
import { checkBank } from '../../jepsen/checkers/bank.js';
import { checkCounter } from '../../jepsen/checkers/counter.js';
import { checkAppend, checkSet } from '../../jepsen/checkers/elements.js';
import type { Operation, Verdict } from '../../jepsen/history.js';
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
  type Spoiler,
} from './histories.js';

const plan = { operations: 400, clients: 10, lostShare: 0.05 } as const;

const checkers: readonly {
  readonly kind: 'list' | 'set' | 'counter';
  readonly check: (operations: readonly Operation[]) => Verdict;
}[] = [
  { kind: 'list', check: checkAppend },
  { kind: 'set', check: checkSet },
  { kind: 'counter', check: checkCounter },
];

const spoilers: readonly {
  readonly what: string;
  readonly kinds: readonly ('list' | 'set')[];
  readonly spoil: Spoiler;
}[] = [
  { what: 'a lost element', kinds: ['list', 'set'], spoil: losesElement },
  { what: 'a doubled element', kinds: ['list', 'set'], spoil: doublesElement },
  { what: 'an element of nobody', kinds: ['list', 'set'], spoil: inventsElement },
  { what: 'a stale read', kinds: ['list', 'set'], spoil: readsStale },
  { what: 'a read of the future', kinds: ['list', 'set'], spoil: readsFuture },
  { what: 'a read of what failed', kinds: ['list', 'set'], spoil: readsDirty },
  { what: 'a reordered read', kinds: ['list'], spoil: reordersRead },
];

function at(ns: number, what: Partial<Operation> & Pick<Operation, 'op'>): Operation {
  return { client: 1, key: 'k', callNs: ns, returnNs: ns + 5, status: 'ok', ...what };
}

for (const { kind, check } of checkers) {
  describe(`the checker of a ${kind}`, () => {
    it('finds nothing in 30 clean histories with unknown outcomes', () => {
      for (let seed = 1; seed <= 30; seed++) {
        const { valid, details } = check(cleanHistory({ seed, kind, ...plan }));
        expect(valid, `seed ${seed}: ${details.join('\n')}`).to.equal(true);
      }
    });

    for (const { what, kinds, spoil } of spoilers) {
      if (kind === 'counter' || !kinds.includes(kind)) continue;
      it(`sees ${what} in each of 30 histories`, () => {
        let tried = 0;
        for (let seed = 1; tried < 30; seed++) {
          const history = spoil(cleanHistory({ seed, kind, ...plan }), new Dice(seed));
          if (history === undefined) continue;
          tried++;
          const { valid, details } = check(history);
          expect(valid, `seed ${seed}`).to.equal(false);
          expect(details).to.have.length.within(1, 12);
        }
      });
    }
  });
}

describe('the checker of a list', () => {
  it('sees that an append that ended first stands last', () => {
    const history = [
      at(0, { op: 'append', value: 'a' }),
      at(10, { op: 'append', value: 'b' }),
      at(20, { op: 'read', output: ['b', 'a'] }),
    ];
    expect(checkAppend(history).details.join()).to.match(/behind "b", which was begun later/);
  });

  it('sees that an element of unknown outcome goes away again', () => {
    const history = [
      at(0, { op: 'append', value: 'a', status: 'info' }),
      at(10, { op: 'read', output: ['a'] }),
      at(20, { op: 'read', output: [] }),
    ];
    expect(checkAppend(history).details.join()).to.match(/"a" is missing/);
  });
});

describe('the checker of a counter', () => {
  const adds = [
    at(0, { op: 'add', value: 5 }),
    at(10, { op: 'add', value: 3, status: 'info' }),
    at(20, { op: 'add', value: 7, status: 'fail' }),
  ];
  for (const { output, valid } of [
    { output: 5, valid: true },
    { output: 8, valid: true },
    { output: 4, valid: false },
    { output: 9, valid: false },
    { output: null, valid: false },
  ]) {
    it(`holds ${output} for ${valid ? 'possible' : 'impossible'} at the end of 5, perhaps 3, and a failed 7`, () => {
      expect(checkCounter([...adds, at(30, { op: 'read', output })]).valid).to.equal(valid);
    });
  }

  it('sees that an addition was carried out twice', () => {
    const history = [
      at(0, { op: 'add', value: 1, output: 1 }),
      at(10, { op: 'add', value: 1, output: 3 }),
    ];
    expect(checkCounter(history).details.join()).to.match(/3 is not within 2\.\.2/);
  });
});

describe('the checker of a bank', () => {
  const bank = { total: 30, accounts: 3 };
  const look = (output: unknown): Verdict => checkBank([at(0, { op: 'scan', output })], bank);

  it('accepts any distribution of the same sum, as pairs and by name', () => {
    expect(look({ a: 10, b: 0, c: 20 }).valid).to.equal(true);
    expect(
      look([
        ['a', 30],
        ['b', 0],
        ['c', 0],
      ]).valid,
    ).to.equal(true);
  });

  for (const { what, output, found } of [
    { what: 'a torn transfer', output: { a: 5, b: 10, c: 10 }, found: /sum is 25 instead of 30/ },
    { what: 'money from nowhere', output: { a: 10, b: 10, c: 15 }, found: /sum is 35/ },
    { what: 'an account that is gone', output: { a: 10, b: 20 }, found: /2 accounts instead of 3/ },
    { what: 'a debt', output: { a: 40, b: -20, c: 10 }, found: /account b is below zero/ },
  ]) {
    it(`sees ${what}`, () => {
      const { valid, details } = look(output);
      expect(valid).to.equal(false);
      expect(details.join()).to.match(found);
    });
  }

  it('does not look at what failed or was not answered', () => {
    const lost = at(0, { op: 'scan', status: 'info' });
    expect(checkBank([lost, at(1, { op: 'transfer', status: 'fail' })], bank).valid).to.equal(true);
  });
});
