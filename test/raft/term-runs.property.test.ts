/** Term runs against a plain list of terms, one per index. */
import { expect } from 'chai';
import fc from 'fast-check';
import { RaftInvariantError } from '../../raft/index.js';
import { TermRuns } from '../../raft/term-runs.js';

type Step =
  | { readonly kind: 'append'; readonly rise: number }
  | { readonly kind: 'truncate'; readonly share: number }
  | { readonly kind: 'compact'; readonly share: number }
  | { readonly kind: 'reset'; readonly ahead: number; readonly rise: number };

const share = fc.double({ min: 0, max: 1, noNaN: true });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('append' as const), rise: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('truncate' as const), share }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('compact' as const), share }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('reset' as const),
      ahead: fc.nat(3),
      rise: fc.nat(2),
    }),
  },
);

describe('term runs', () => {
  it('tell the term of every index, like a list, through any appends, cuts and resets', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const runs = new TermRuns([{ from: 0, term: 0 }]);
        let base = 0;
        let list = [0];
        for (const taken of steps) {
          const last = base + list.length - 1;
          const lastTerm = list.at(-1) ?? 0;
          switch (taken.kind) {
            case 'append':
              runs.append(last + 1, lastTerm + taken.rise);
              list.push(lastTerm + taken.rise);
              break;
            case 'truncate': {
              const from = base + 1 + Math.floor(taken.share * (last - base));
              runs.truncate(from);
              list.length = Math.min(list.length, from - base);
              break;
            }
            case 'compact': {
              const to = base + Math.floor(taken.share * (last - base));
              runs.compact(to);
              list = list.slice(to - base);
              base = to;
              break;
            }
            case 'reset':
              base = last + taken.ahead;
              list = [lastTerm + taken.rise];
              runs.reset(base, lastTerm + taken.rise);
          }
          expect(list.map((_, at) => runs.at(base + at))).to.deep.equal(list);
          expect(runs.lastTerm).to.equal(list.at(-1));
          for (let at = 0; at < list.length; at++) {
            expect(runs.startOf(base + at)).to.equal(base + list.indexOf(list[at] ?? -1));
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('refuse a term that falls, and a log without a base', () => {
    expect(() => new TermRuns([])).to.throw(RaftInvariantError);
    expect(() => new TermRuns([{ from: 0, term: 3 }]).append(1, 2)).to.throw(RaftInvariantError);
  });
});
