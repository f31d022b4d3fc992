import { expect } from 'chai';
import fc from 'fast-check';
import { rangeOf, wholeMap, type SlotMap, type SlotRange } from '../../src/meta/slot-map.js';
import { Router } from '../../src/router/router.js';
import { slot, slotCount } from '../../src/router/slot.js';

/** A map from the slots at which a new range begins. */
function mapOf(cuts: readonly number[], version = 1): SlotMap {
  const firsts = [0, ...new Set(cuts)].sort((a, b) => a - b);
  const ranges = firsts.map((first, n): SlotRange => ({
    first,
    last: (firsts[n + 1] ?? slotCount) - 1,
    shard: n + 1,
    epoch: n + 10,
  }));
  return { version, ranges };
}

describe('slot map', () => {
  it('gives everything to one shard at first, at epoch 1', () => {
    const map = wholeMap(3);
    for (const each of [0, 1, 8191, 16383])
      expect(rangeOf(map, slot(each))).to.deep.equal({ first: 0, last: 16383, shard: 3, epoch: 1 });
  });

  it('finds the one range that holds a slot, in any map', () => {
    const cuts = fc.array(fc.integer({ min: 1, max: slotCount - 1 }), { maxLength: 40 });
    fc.assert(
      fc.property(cuts, fc.nat(slotCount - 1), (each, wanted) => {
        const map = mapOf(each);
        const slow = map.ranges.filter(({ first, last }) => first <= wanted && wanted <= last);
        expect(slow).to.have.length(1);
        expect(rangeOf(map, slot(wanted))).to.equal(slow[0]);
        for (const range of map.ranges) {
          expect(rangeOf(map, slot(range.first))).to.equal(range);
          expect(rangeOf(map, slot(range.last))).to.equal(range);
        }
      }),
    );
  });

  it('says which slot a damaged map does not cover, instead of guessing', () => {
    const gap: SlotMap = {
      version: 4,
      ranges: [
        { first: 0, last: 99, shard: 1, epoch: 1 },
        { first: 200, last: 16000, shard: 2, epoch: 1 },
      ],
    };
    expect(rangeOf(gap, slot(99)).shard).to.equal(1);
    for (const missing of [100, 199, 16001])
      expect(() => rangeOf(gap, slot(missing))).to.throw(
        RangeError,
        `slot map 4 does not cover slot ${missing}`,
      );
    expect(() => rangeOf({ version: 1, ranges: [] }, slot(0))).to.throw(RangeError);
  });
});

describe('router', () => {
  it('sends a slot to the shard that the map names', () => {
    const router = new Router(mapOf([8192]));
    expect([0, 8191, 8192, 16383].map((each) => router.shardOf(slot(each)))).to.deep.equal([
      1, 1, 2, 2,
    ]);
  });

  it('takes a newer map, and never goes back to an older one or another of the same version', () => {
    const router = new Router(wholeMap(1));
    router.update(mapOf([100], 3));
    expect(router.version).to.equal(3);
    expect(router.shardOf(slot(100))).to.equal(2);
    router.update(wholeMap(9));
    router.update(mapOf([50], 3));
    expect(router.version).to.equal(3);
    expect(router.shardOf(slot(50))).to.equal(1);
    expect(router.shardOf(slot(100))).to.equal(2);
  });
});
