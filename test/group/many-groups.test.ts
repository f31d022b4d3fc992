import { expect } from 'chai';
import { groupId, nodeId, replicaId, type GroupId, type Message } from '../../raft/index.js';
import { propose, quickRaft, withCluster, type Cluster } from './cluster.js';

const groups = 64;

async function allLed(cluster: Cluster): Promise<void> {
  await cluster.until('every group has a leader', () =>
    cluster.groupIds().every((group) => cluster.nodes.some((node) => node.group(group).isLeader)),
  );
}

/** Writes once in each group, all in the same turn. */
async function writeEverywhere(cluster: Cluster, text: string): Promise<void> {
  const outcomes = cluster.groupIds().map((group) => {
    const leader = cluster.nodes.find((node) => node.group(group).isLeader);
    if (leader === undefined) throw new Error(`group ${group} has no leader`);
    return propose(leader, `${text}/${group}`, group);
  });
  for (const outcome of outcomes) {
    expect((await cluster.outcome(outcome)).kind).to.equal('applied');
  }
}

const syncs = (cluster: Cluster): number =>
  cluster.nodes.reduce((sum, node) => sum + (node.running?.log.statistics().syncs ?? 0), 0);

describe('64 groups on three nodes', () => {
  it('share syncs and frames: a write to each costs a few, not 64', () =>
    withCluster({ groups }, async (cluster) => {
      await allLed(cluster);
      await cluster.tick(20);
      const before = { syncs: syncs(cluster), frames: cluster.network.frames };
      await writeEverywhere(cluster, 'one');
      const spent = {
        syncs: syncs(cluster) - before.syncs,
        frames: cluster.network.frames - before.frames,
      };
      // 64 writes on 3 nodes: alone they would cost 192 syncs and 256 frames.
      expect(spent.syncs).to.be.below(20);
      expect(spent.frames).to.be.below(40);
    }));

  it('stay apart: each group has its own commands only', () =>
    withCluster({ groups }, async (cluster) => {
      await allLed(cluster);
      for (const text of ['a', 'b', 'c']) await writeEverywhere(cluster, text);
      await cluster.tick(10);
      for (const node of cluster.nodes) {
        for (const group of cluster.groupIds()) {
          const expected = ['a', 'b', 'c'].map((text) => `${text}/${group}`);
          expect(await node.ledger(group).texts()).to.deep.equal(expected);
        }
      }
    }));

  it('come back from a power cut of all nodes with everything acknowledged', () =>
    withCluster({ groups }, async (cluster) => {
      await allLed(cluster);
      await writeEverywhere(cluster, 'kept');
      for (const node of cluster.nodes) node.cutPower(cluster.random);
      for (const node of cluster.nodes) await node.start();
      await allLed(cluster);
      await writeEverywhere(cluster, 'new');
      await cluster.tick(10);
      for (const group of cluster.groupIds()) {
        const texts = await cluster.node(2).ledger(group).texts();
        expect(texts).to.deep.equal([`kept/${group}`, `new/${group}`]);
      }
    }));

  it('a group with a full queue refuses, and the others go on', () =>
    withCluster({ groups: 4, limits: { proposalsMax: 2 } }, async (cluster) => {
      await allLed(cluster);
      const busy = groupId(2);
      const leader = await cluster.leader(busy);
      const outcomes = [1, 2, 3].map((i) => propose(leader, `x${i}`, busy));
      await writeEverywhere(cluster, 'other').catch(() => undefined);
      const kinds = [];
      for (const outcome of outcomes) kinds.push((await cluster.outcome(outcome)).kind);
      expect(kinds).to.deep.equal(['applied', 'applied', 'notApplied']);
      const elsewhere = await cluster.leader(groupId(3));
      const outcome = await cluster.outcome(propose(elsewhere, 'y', groupId(3)));
      expect(outcome.kind).to.equal('applied');
    }));
});

describe('the birth of many groups', () => {
  const allLedBy = (cluster: Cluster, id: number): boolean =>
    cluster.groupIds().every((group) => cluster.node(id).group(group).isLeader);

  it('needs no election timeout: the first member of each campaigns at once, and leads term 1', () =>
    withCluster({ groups }, async (cluster) => {
      await cluster.tick(quickRaft.heartbeatTicks + 1);
      expect(allLedBy(cluster, 1)).to.equal(true);
      for (const group of cluster.groupIds()) expect(cluster.node(1).group(group).term).to.equal(1);
    }));

  it('comes to the same when the others are born a little later', () =>
    withCluster({ groups: 8 }, async (cluster) => {
      cluster.network.setNode(nodeId(1), false);
      await cluster.tick(quickRaft.heartbeatTicks + 1);
      cluster.network.setNode(nodeId(1), true);
      await cluster.until('node 1 leads all groups', () => allLedBy(cluster, 1));
      for (const group of cluster.groupIds()) expect(cluster.node(1).group(group).term).to.equal(1);
    }));
});

describe('the door of a node', () => {
  it('D01: no message creates a replica, and one for another replica of the group is dropped', () =>
    withCluster({ groups: 1 }, async (cluster) => {
      await cluster.write('x');
      const leader = await cluster.leader();
      const [follower] = cluster.followers(leader);
      if (follower?.running === undefined) throw new Error('no follower');
      const { transport } = follower.running;
      const send = (group: GroupId, to: number): void => {
        const message: Message = {
          type: 'append',
          from: replicaId(leader.id),
          to: replicaId(to),
          term: 1e6,
          prevIndex: 0,
          prevTerm: 0,
          commit: 0,
          entries: [],
        };
        leader.running?.transport.send(follower.id, { group, generation: 0, message });
      };
      const received = transport.statistics()['messagesIn'] ?? 0;
      send(groupId(7), follower.id);
      send(groupId(1), 44);
      await cluster.tick(2);
      expect(transport.statistics()['messagesIn']).to.be.at.least(received + 2);
      expect(follower.running.host.allGroups().map(({ id }) => id)).to.deep.equal([groupId(1)]);
      expect(follower.running.host.statistics()).to.include({ unknownGroup: 1, otherReplica: 1 });
      expect(follower.group().term).to.be.below(1e6);
    }));

  it('D01: a replica id that was removed is not created again', () =>
    withCluster({}, async (cluster) => {
      const { running } = cluster.node(1);
      if (running === undefined) throw new Error('node 1 is down');
      await running.log.removeGroup(groupId(1));
      const members = [{ id: replicaId(1), node: nodeId(1) }];
      const membership = { incoming: [replicaId(1)], outgoing: [], learners: [], learnersNext: [] };
      const error = await running.log
        .createGroup({
          group: groupId(1),
          replica: replicaId(1),
          membership: { ...membership, autoLeave: false, members },
        })
        .then(
          () => undefined,
          (reason: unknown) => reason,
        );
      expect(String(error)).to.match(/removed/);
    }));
});

describe('membership of a running group', () => {
  it('D06, R23: two changes based on the same membership: one is done, the other refused', () =>
    withCluster({ nodes: 3 }, async (cluster) => {
      await cluster.write('x');
      const leader = await cluster.leader();
      const [a, b] = cluster.followers(leader);
      if (a === undefined || b === undefined) throw new Error('no followers');
      const change = (remove: number): Promise<string> =>
        new Promise((resolve) => {
          const { index } = leader.group().status().membership;
          leader
            .group()
            .changeMembership(
              { basedOn: index, addVoters: [], addLearners: [], remove: [replicaId(remove)] },
              (outcome) => {
                resolve(outcome.kind === 'notApplied' ? outcome.reason : outcome.kind);
              },
            );
        });
      const first = change(a.id);
      const second = change(b.id);
      expect([await cluster.outcome(first), await cluster.outcome(second)]).to.deep.equal([
        'applied',
        'membershipPending',
      ]);
      await cluster.write('y');
      const { membership } = leader.group().status().membership;
      expect([...membership.incoming].sort()).to.deep.equal(
        [leader.group().replica, b.group().replica].sort(),
      );
    }));

  it('R22: a removed node that was cut off does not disturb those that stay', () =>
    withCluster({ nodes: 4 }, async (cluster) => {
      await cluster.write('x');
      const leader = await cluster.leader();
      const [removed] = cluster.followers(leader);
      if (removed === undefined) throw new Error('no follower');
      cluster.network.setNode(removed.id, false);
      const { index } = leader.group().status().membership;
      const outcome = new Promise<string>((resolve) => {
        leader.group().changeMembership(
          {
            basedOn: index,
            addVoters: [],
            addLearners: [],
            remove: [removed.group().replica],
          },
          ({ kind }) => {
            resolve(kind);
          },
        );
      });
      expect(await cluster.outcome(outcome)).to.equal('applied');
      const { term } = leader.group();
      cluster.network.setNode(removed.id, true);
      await cluster.tick(200);
      expect(leader.group().isLeader).to.equal(true);
      expect(leader.group().term).to.equal(term);
    }));
});

describe('a stalled event loop', () => {
  it("does not depose a leader whose write is under way: the time was not the disk's", () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      const leader = await cluster.leader();
      const { term } = leader.group();
      const outcome = propose(leader, 'x');
      cluster.clock.stall(5000);
      expect((await cluster.outcome(outcome)).kind).to.equal('applied');
      expect(leader.group().term).to.equal(term);
    }));
});
