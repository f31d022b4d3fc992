import { expect } from 'chai';
import { groupId } from '../../raft/index.js';
import { propose, readIndex, withCluster, type Cluster } from './cluster.js';

const quiet = { raft: { quietTicks: 20 } };

async function fallQuiet(cluster: Cluster): Promise<void> {
  await cluster.until('every replica of every group is quiet', () =>
    cluster.nodes.every(
      (node) =>
        node.running === undefined ||
        cluster.groupIds().every((group) => node.group(group).status().quiet),
    ),
  );
}

describe('D05: a quiet group', () => {
  it('sends nothing and writes nothing, also with 64 of them, and elects nobody', () =>
    withCluster({ ...quiet, groups: 64 }, async (cluster) => {
      await cluster.until('all have leaders', () =>
        cluster
          .groupIds()
          .every((group) => cluster.nodes.some((node) => node.group(group).isLeader)),
      );
      await fallQuiet(cluster);
      const terms = cluster.groupIds().map((group) => cluster.node(1).group(group).term);
      const { frames } = cluster.network;
      await cluster.tick(200);
      expect(cluster.network.frames).to.equal(frames);
      const later = cluster.groupIds().map((group) => cluster.node(1).group(group).term);
      expect(later).to.deep.equal(terms);
    }));

  it('costs its node nothing: no timer runs, until something comes', () =>
    withCluster({ ...quiet, groups: 8 }, async (cluster) => {
      await cluster.until('all have leaders', () =>
        cluster
          .groupIds()
          .every((group) => cluster.nodes.some((node) => node.group(group).isLeader)),
      );
      expect(cluster.clock.timersSet).to.be.at.least(cluster.nodes.length);
      await fallQuiet(cluster);
      await cluster.tick(2);
      expect(cluster.clock.timersSet).to.equal(0);
      await cluster.write('x', groupId(5));
      expect(cluster.clock.timersSet).to.equal(cluster.nodes.length);
      await fallQuiet(cluster);
      await cluster.tick(2);
      expect(cluster.clock.timersSet).to.equal(0);
    }));

  it('answers a write and a read as if nothing had been', () =>
    withCluster(quiet, async (cluster) => {
      await cluster.write('one');
      await fallQuiet(cluster);
      const leader = await cluster.leader();
      expect((await cluster.outcome(propose(leader, 'two'))).kind).to.equal('applied');
      await fallQuiet(cluster);
      const [follower] = cluster.followers(leader);
      if (follower === undefined) throw new Error('no follower');
      expect((await cluster.outcome(readIndex(follower))).kind).to.equal('ready');
      expect(await follower.ledger().texts()).to.deep.equal(['one', 'two']);
    }));

  it('wakes when a node with a member of it is lost, and has a new leader', () =>
    withCluster({ ...quiet, groups: 8 }, async (cluster) => {
      for (const group of cluster.groupIds()) await cluster.write(`to ${group}`, group);
      await fallQuiet(cluster);
      const lost = await cluster.leader(groupId(3));
      lost.kill();
      for (const group of cluster.groupIds()) await cluster.write(`again to ${group}`, group);
      await lost.start();
      for (const group of cluster.groupIds()) await cluster.converge(group);
      await fallQuiet(cluster);
      for (const group of cluster.groupIds()) {
        const texts = await lost.ledger(group).texts();
        expect(texts).to.deep.equal([`to ${group}`, `again to ${group}`]);
      }
    }));

  it('does not fall quiet while a member is away', () =>
    withCluster(quiet, async (cluster) => {
      await cluster.write('x');
      const [away] = cluster.followers(await cluster.leader());
      away?.kill();
      await cluster.tick(200);
      const leader = await cluster.leader();
      expect(leader.group().status().quiet).to.equal(false);
    }));

  it('keeps its leader when a member that was cut off comes back', () =>
    withCluster(quiet, async (cluster) => {
      await cluster.write('x');
      await fallQuiet(cluster);
      const leader = await cluster.leader();
      const [away] = cluster.followers(leader);
      if (away === undefined) throw new Error('no follower');
      const { term } = leader.group();
      cluster.network.setNode(away.id, false);
      await cluster.tick(100);
      cluster.network.setNode(away.id, true);
      await fallQuiet(cluster);
      expect(leader.group().isLeader).to.equal(true);
      expect(leader.group().term).to.equal(term);
    }));
});
