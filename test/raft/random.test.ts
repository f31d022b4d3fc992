/** The only chance in the core: repeatable, within its bounds, and spread over them. */
import { expect } from 'chai';
import fc from 'fast-check';
import { Random } from '../../raft/random.js';

const seeds = fc.nat(0xffff_ffff);

function drawn(seed: number, bound: number, count: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.below(bound));
}

describe('seeded random numbers', () => {
  it('are whole and lie below their bound', () => {
    fc.assert(
      fc.property(seeds, fc.integer({ min: 1, max: 1000 }), (seed, bound) => {
        for (const value of drawn(seed, bound, 20)) {
          expect(Number.isInteger(value) && value >= 0 && value < bound).to.equal(true);
        }
      }),
    );
  });

  it('are the same for the same seed, and others for another', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        expect(drawn(seed, 1000, 20)).to.deep.equal(drawn(seed, 1000, 20));
        expect(drawn(seed, 1000, 20)).to.not.deep.equal(drawn(seed + 1, 1000, 20));
      }),
    );
  });

  it('give members with neighbouring seeds different election timeouts', () => {
    const first = Array.from({ length: 1000 }, (_, seed) => new Random(seed).below(10));
    for (let value = 0; value < 10; value++) {
      const share = first.filter((one) => one === value).length / first.length;
      expect(share, `share of ${value}`).to.be.within(0.06, 0.14);
    }
  });
});
