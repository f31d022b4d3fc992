import { expect } from 'chai';
import { groupId } from '../../raft/index.js';
import { withCluster } from './cluster.js';

const group = groupId(1);

describe('D07: a node where a replica of a recovered group was', () => {
  it('tells an old majority that its generation is over, also without a replica of its own', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('old');
      const leader = await cluster.leader();
      const [gone, other] = cluster.followers(leader);
      if (gone?.running === undefined || other === undefined) throw new Error('two followers');
      const { host } = gone.running;
      await cluster.outcome(host.removeGroup(group));
      await cluster.tick(100);
      // Nothing is said of generations to a group that nobody has recovered.
      expect(leader.group().status().outdatedBy + other.group().status().outdatedBy).to.equal(0);
      await cluster.leader();

      host.generationOf = (id) => (id === group ? 7 : 0);
      await cluster.until('both have heard', () =>
        [leader, other].every((node) => node.group().status().outdatedBy === 7),
      );
      expect([leader, other].map((node) => node.group().isLeader)).to.deep.equal([false, false]);
      await cluster.tick(100);
      expect([leader, other].map((node) => node.group().isLeader)).to.deep.equal([false, false]);
    }));
});
