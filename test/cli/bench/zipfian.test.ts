import { expect } from 'chai';
import fc from 'fast-check';
import {
  scramble,
  ScrambledZipfian,
  theta,
  zeta,
  Zipfian,
} from '../../../src/cli/bench/zipfian.js';

/** Numbers that fill the interval evenly: what is drawn then has no noise of chance. */
function evenly(count: number): () => number {
  let n = 0;
  return () => ((n++ % count) + 0.5) / count;
}

function countsOf(draw: () => number, draws: number): Map<number, number> {
  const counts = new Map<number, number>();
  for (let n = 0; n < draws; n++) {
    const item = draw();
    counts.set(item, (counts.get(item) ?? 0) + 1);
  }
  return counts;
}

describe('the zipfian generator of quorate bench', () => {
  it('sums the series as adding up does, and as YCSB has it for its ten billion items', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20_000 }), (items) => {
        let sum = 0;
        for (let k = 1; k <= items; k++) sum += k ** -theta;
        expect(zeta(items)).to.be.closeTo(sum, 1e-9);
      }),
      { numRuns: 50 },
    );
    // ScrambledZipfianGenerator.ZETAN.
    expect(zeta(1e10)).to.be.closeTo(26.46902820178302, 1e-6);
  });

  it('draws the first two ranks as often as the law says, and any first part of them nearly', () => {
    const draws = 50_000;
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 1_000_000 }), (items) => {
        const ranks = new Zipfian(items, evenly(draws));
        const counts = countsOf(() => ranks.next(), draws);
        expect((counts.get(0) ?? 0) / draws).to.be.closeTo(1 / zeta(items), 2 / draws);
        expect((counts.get(1) ?? 0) / draws).to.be.closeTo(2 ** -theta / zeta(items), 2 / draws);
        // Gray's formula takes a continuous law for what comes after these two.
        for (const first of [3, 10, 100, 10_000].filter((each) => each < items)) {
          let drawn = 0;
          for (const [rank, count] of counts) if (rank < first) drawn += count;
          expect(drawn / draws, `below ${first}`).to.be.closeTo(zeta(first) / zeta(items), 0.03);
        }
        for (const rank of counts.keys()) expect(rank).to.be.within(0, items - 1);
      }),
      { numRuns: 8 },
    );
  });

  it('draws nothing but the items there are, however few, at both ends of chance', () => {
    const chance = fc.oneof(
      fc.constantFrom(0, 1 - 2 ** -53),
      fc.double({ min: 0, max: 1 - 2 ** -53, noNaN: true }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1000 }), fc.array(chance), (items, chances) => {
        const plain = new Zipfian(items, () => chances[0] ?? 0);
        const scrambled = new ScrambledZipfian(items, () => chances[0] ?? 0);
        for (; chances.length > 0; chances.shift())
          for (const item of [plain.next(), scrambled.next()]) {
            expect(item).to.be.within(0, items - 1);
            expect(Number.isInteger(item)).to.equal(true);
          }
      }),
    );
  });

  it('resized it draws as one made with that number of items', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100_000 }),
        fc.integer({ min: 1, max: 100_000 }),
        (before, after) => {
          const resized = new Zipfian(before, evenly(1000));
          resized.resize(after);
          const made = new Zipfian(after, evenly(1000));
          for (let n = 0; n < 1000; n++) expect(resized.next()).to.equal(made.next());
        },
      ),
    );
  });

  it('scrambles with FNV-1a: the values that its authors publish', () => {
    // Of eight zero bytes: 0xa8c7f832281a39c5, less than nothing as a signed number.
    const zeros = 2n ** 64n - 0xa8c7f832281a39c5n;
    for (const records of [1, 1000, 999_983])
      expect(scramble(0, records)).to.equal(Number(zeros % BigInt(records)));
  });

  it('scatters the frequent ones: all records get a share, and the hottest is not the first', () => {
    const [records, draws] = [1000, 200_000];
    const scrambled = new ScrambledZipfian(records, evenly(draws));
    const counts = countsOf(() => scrambled.next(), draws);
    const hottest = [...counts].sort(([, a], [, b]) => b - a)[0] ?? [0, 0];
    expect(hottest[0]).to.equal(scramble(0, records));
    expect(hottest[1] / draws).to.be.within(1 / zeta(1e10), 1 / zeta(1e10) + 5 / records);
    expect(counts.size).to.equal(records);
  });
});
