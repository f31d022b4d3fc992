import { expect } from 'chai';
import { groupId, nodeId, replicaId } from '../../raft/index.js';
import { ClusterView, RemoteReplicas } from '../../src/cluster/cluster-view.js';
import { noCluster, type ShardRecord, type Topology } from '../../src/meta/topology.js';
import { anySlot, slot, slotOf } from '../../src/router/slot.js';

function shard(id: number, nodes: readonly number[]): ShardRecord {
  const replicas = nodes.map((node) => ({ replica: replicaId(node * 10), node: nodeId(node) }));
  return { id: groupId(id), replicas, replication: 3, founders: replicas, birthSlots: [] };
}

const half = (version: number, low: number, high: number): Topology => ({
  ...noCluster,
  version,
  shards: [shard(1, [1, 2, 3]), shard(2, [2, 3, 4])],
  slots: [
    { first: 0, last: 8191, shard: low, epoch: 1 },
    { first: 8192, last: 16_383, shard: high, epoch: 1 },
  ],
});

describe("a node's view of the cluster", () => {
  it('knows no shard before there is a cluster', () => {
    expect(new ClusterView().shardOf(slot(5))).to.equal(undefined);
  });

  it('takes newer topologies and ignores older ones', () => {
    const view = new ClusterView();
    view.update(half(3, 1, 2));
    expect(view.shardOf(slot(0))?.id).to.equal(1);
    view.update(half(2, 2, 1));
    expect(view.shardOf(slot(0))?.id).to.equal(1);
    view.update(half(4, 2, 1));
    expect(view.shardOf(slot(0))?.id).to.equal(2);
    expect(view.version).to.equal(4);
  });

  it('D31: knows the pins of the map, and owners of pins that no map has named yet, until one has had them', () => {
    const view = new ClusterView();
    const key = Buffer.from('a');
    const pin = {
      slot: anySlot(16_384),
      key: key.toString('base64'),
      isPrefix: false,
      state: 'pinned',
      shard: 1,
      epoch: 2,
      target: 1,
      migration: 1,
      sinceMs: 0,
    } as const;
    view.update(half(3, 1, 2));
    expect(view.slotOf(key)).to.equal(slotOf(key));
    expect(view.ownerOf(pin.slot)).to.equal(undefined);
    view.learnOwner(pin.slot, { shard: 1, epoch: 1 });
    expect(view.shardOf(pin.slot)?.id).to.equal(1);
    expect(view.shardOf(slotOf(key))?.id, 'of its hash slot nothing was said').to.equal(2);
    const next = { ...noCluster.next, pin: 16_385 };
    view.update({ ...half(4, 1, 2), pins: [pin], next });
    expect([view.slotOf(key), view.slotAt(slotOf(key), key)]).to.deep.equal([16_384, 16_384]);
    view.learnOwner(pin.slot, { shard: 2, epoch: 3 });
    expect(view.shardOf(pin.slot)?.id).to.equal(2);
    view.update({ ...half(5, 1, 2), next });
    expect(view.slotOf(key)).to.equal(slotOf(key));
    expect(view.ownerOf(pin.slot), 'it is gone').to.equal(undefined);
  });

  it('D31: keeps the owner with the highest epoch of a slot, over any version of the map', () => {
    const view = new ClusterView();
    view.update(half(3, 1, 2));
    view.learnOwner(slot(5), { shard: 2, epoch: 3 });
    view.learnOwner(slot(6), { shard: 2, epoch: 1 });
    expect([view.shardOf(slot(5))?.id, view.shardOf(slot(6))?.id]).to.deep.equal([2, 1]);
    view.update(half(4, 1, 2));
    view.learnOwner(slot(5), { shard: 1, epoch: 2 });
    expect(view.ownerOf(slot(5))).to.include({ shard: 2, epoch: 3 });
    const caughtUp = half(5, 1, 2);
    view.update({ ...caughtUp, slots: caughtUp.slots.map((each) => ({ ...each, epoch: 4 })) });
    expect(view.ownerOf(slot(5))).to.include({ shard: 1, epoch: 4 });
  });

  it('D31: keeps what was said before there was a map, if the slot has moved since its birth', () => {
    const view = new ClusterView();
    view.learnOwner(slot(5), { shard: 2, epoch: 3 });
    view.learnOwner(slot(6), { shard: 2, epoch: 1 });
    expect(view.shardOf(slot(5))).to.equal(undefined);
    view.update(half(3, 1, 2));
    expect([view.shardOf(slot(5))?.id, view.shardOf(slot(6))?.id]).to.deep.equal([2, 1]);
  });

  it('asks of a shard elsewhere the leader it heard of, and last whom it could not reach', () => {
    const remote = new RemoteReplicas(shard(1, [1, 2, 3]));
    expect(remote.bestNode).to.equal(1);
    remote.avoid(1);
    expect(remote.bestNode).to.equal(2);
    remote.learn(3);
    expect(remote.bestNode).to.equal(3);
    remote.learn(9);
    expect(remote.bestNode, 'a stranger').to.equal(3);
    remote.avoid(3);
    expect(remote.bestNode).to.equal(2);
  });

  it('keeps what it learnt of the nodes that stay when replicas change', () => {
    const remote = new RemoteReplicas(shard(1, [1, 2, 3]));
    remote.learn(2);
    remote.follow(shard(1, [5, 3, 2]));
    expect(remote.bestNode).to.equal(2);
    remote.follow(shard(1, [5]));
    expect(remote.bestNode).to.equal(5);
  });
});
