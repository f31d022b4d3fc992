import { expect } from 'chai';
import fc from 'fast-check';
import {
  freshGeneration,
  planRecovery,
  randomBound,
  type PlanOptions,
  type RecoveryPlan,
  type ReplicaListing,
} from '../../src/group/recovery-plan.js';

/** Replica n on node n of a group of the given voters. */
function listing(n: number, changes: Partial<ReplicaListing> = {}): ReplicaListing {
  return {
    group: 1,
    replica: n,
    node: n,
    generation: 0,
    term: 5,
    lastIndex: 10,
    lastTerm: 5,
    commitIndex: 10,
    appliedIndex: 10,
    majorities: [[1, 2, 3, 4, 5]],
    members: [1, 2, 3, 4, 5].map((id) => ({ replica: id, node: id })),
    usable: true,
    reason: '',
    ...changes,
  };
}

function planned(
  listings: readonly ReplicaListing[],
  options: Partial<PlanOptions> = {},
): RecoveryPlan {
  return planRecovery(listings, { force: false, giveUpUnusable: false, generation: 7, ...options });
}

describe('D07: the plan of a recovery', () => {
  it('chooses the newest log: the last term first, then the last index', () => {
    const longer = listing(1, { lastTerm: 4, lastIndex: 99 });
    const { recoveries } = planned([longer, listing(2)]);
    expect(recoveries).to.deep.equal([
      { group: 1, replica: 2, node: 2, generation: 7, lastIndex: 10, lastTerm: 5, lost: [3, 4, 5] },
    ]);
  });

  it('leaves a group alone that has a majority among the listings, unless it is overruled', () => {
    const three = [listing(1), listing(2), listing(3)];
    const nothing = { recoveries: [], alive: [1], hopeless: [], passedOver: [] };
    expect(planned(three)).to.deep.equal(nothing);
    expect(planned(three, { force: true }).recoveries).to.have.length(1);
  });

  it('asks for a majority of both sides of a joint configuration', () => {
    const joint = {
      majorities: [
        [1, 2, 3],
        [3, 4, 5],
      ],
    };
    const { recoveries } = planned([listing(1, joint), listing(2, joint)]);
    expect(recoveries).to.have.length(1);
  });

  it('hears nobody of a generation that is over, and never goes back to it', () => {
    const old = [listing(1, { lastIndex: 99 }), listing(2), listing(3)];
    const newer = listing(4, { generation: 9, majorities: [[4, 6]] });
    const { recoveries } = planned([...old, newer]);
    expect(recoveries.map(({ replica, generation }) => [replica, generation])).to.deep.equal([
      [4, 10],
    ]);
  });

  it('begins with no replica whose state is damaged, and says when there is no other', () => {
    const damaged = { usable: false, reason: 'half a snapshot' };
    const same = listing(1, damaged);
    expect(planned([same, listing(2)]).recoveries[0]?.replica).to.equal(2);
    expect(planned([same]).hopeless).to.deep.equal([1]);
  });

  it('passes over a newer log that is not usable when it is told to, and never in silence', () => {
    const newer = listing(1, { usable: false, reason: 'half a snapshot', lastIndex: 99 });
    const asked = planned([newer, listing(2)]);
    expect(asked).to.deep.include({ recoveries: [], hopeless: [], passedOver: [newer] });
    const told = planned([newer, listing(2)], { giveUpUnusable: true });
    expect(told.recoveries[0]?.replica).to.equal(2);
    expect(told.passedOver).to.deep.equal([newer]);
  });

  it('gives a generation that no other plan has: the later one the higher, also after years', () => {
    const wall = fc.integer({ min: 1_700_000_000, max: 8_000_000_000 }).map((s) => s * 1000);
    const random = fc.integer({ min: 0, max: randomBound - 1 });
    const plan = fc.record({ wall, random });
    fc.assert(
      fc.property(plan, plan, (one, other) => {
        const [a, b] = [one, other].map(({ wall: ms, random: r }) => freshGeneration(ms, r));
        if (a === undefined || b === undefined) throw new Error('two plans');
        expect(Number.isSafeInteger(a)).to.equal(true);
        expect(a === b).to.equal(one.wall === other.wall && one.random === other.random);
        if (one.wall < other.wall) expect(a).to.be.lessThan(b);
      }),
    );
  });
});
