import { expect } from 'chai';
import { planRecovery, type ReplicaListing } from '../../src/group/recovery-plan.js';

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

describe('D07: the plan of a recovery', () => {
  it('chooses the newest log: the last term first, then the last index', () => {
    const longer = listing(1, { lastTerm: 4, lastIndex: 99 });
    const { recoveries } = planRecovery([longer, listing(2)], false);
    expect(recoveries).to.deep.equal([
      { group: 1, replica: 2, node: 2, generation: 1, lastIndex: 10, lastTerm: 5, lost: [3, 4, 5] },
    ]);
  });

  it('leaves a group alone that has a majority among the listings, unless it is overruled', () => {
    const three = [listing(1), listing(2), listing(3)];
    expect(planRecovery(three, false)).to.deep.equal({ recoveries: [], alive: [1], hopeless: [] });
    expect(planRecovery(three, true).recoveries).to.have.length(1);
  });

  it('asks for a majority of both sides of a joint configuration', () => {
    const joint = {
      majorities: [
        [1, 2, 3],
        [3, 4, 5],
      ],
    };
    const { recoveries } = planRecovery([listing(1, joint), listing(2, joint)], false);
    expect(recoveries).to.have.length(1);
  });

  it('hears nobody of a generation that is over, and never goes back to it', () => {
    const old = [listing(1, { lastIndex: 99 }), listing(2), listing(3)];
    const newer = listing(4, { generation: 2, majorities: [[4, 6]] });
    const { recoveries } = planRecovery([...old, newer], false);
    expect(recoveries.map(({ replica, generation }) => [replica, generation])).to.deep.equal([
      [4, 3],
    ]);
  });

  it('begins with no replica whose state is damaged, and says when there is no other', () => {
    const damaged = { usable: false, reason: 'half a snapshot' };
    const best = listing(1, { ...damaged, lastIndex: 99 });
    expect(planRecovery([best, listing(2)], false).recoveries[0]?.replica).to.equal(2);
    expect(planRecovery([best], false)).to.deep.equal({ recoveries: [], alive: [], hopeless: [1] });
  });
});
