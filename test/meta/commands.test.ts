import { expect } from 'chai';
import { decodeMetaCommand, encodeMetaCommand, type MetaCommand } from '../../src/meta/commands.js';
import {
  noCluster,
  nodeOf,
  shardRecordOf,
  slotMapOf,
  type Topology,
} from '../../src/meta/topology.js';
import {
  after,
  apply,
  clusterOf,
  directoryOf,
  firstNode,
  initOf,
  joinOf,
  reasonOf,
} from './clusters.js';

function issuedBy(topology: Topology, command: MetaCommand): unknown {
  const { result } = apply(topology, command);
  return result.kind === 'done' ? { changed: result.changed, ...result.issued } : result.reason;
}

function replicasOf(topology: Topology, shard: number): readonly string[] {
  const { replicas = [] } = shardRecordOf(topology, shard) ?? {};
  return replicas.map(({ replica, node }) => `${replica} on ${node}`);
}

describe('nodes of the cluster', () => {
  it('D40: a join that is repeated makes no second node', () => {
    const cluster = clusterOf(3);
    expect(issuedBy(cluster, joinOf(8))).to.deep.equal({ changed: true, node: 4 });
    const joined = after(cluster, joinOf(8));
    expect(issuedBy(joined, joinOf(8))).to.deep.equal({ changed: false, node: 4 });
    const labelled = joinOf(8, { labels: { zone: 'a' }, weight: 7 });
    expect(issuedBy(joined, labelled)).to.deep.equal({ changed: false, node: 4 });
    expect(issuedBy(joined, joinOf(9))).to.deep.equal({ changed: true, node: 5 });
  });

  it('D40: a node that moved to another address is the same node', () => {
    const moved = after(clusterOf(3), joinOf(2, { peerAddress: 'elsewhere:1' }));
    expect(nodeOf(moved, 2)).to.deep.include({
      peerAddress: 'elsewhere:1',
      directoryId: directoryOf(2),
    });
    expect(moved.nodes).to.have.length(3);
  });

  it('D40: a first node that has not said its directory says it once', () => {
    const nodes = [firstNode(1, { directoryId: '' }), firstNode(2, { directoryId: '' })];
    const cluster = after(noCluster, initOf(nodes));
    const known = after(cluster, joinOf(2));
    expect(nodeOf(known, 2)?.directoryId).to.equal(directoryOf(2));
    expect(issuedBy(known, joinOf(2))).to.deep.equal({ changed: false, node: 2 });
    const wiped = joinOf(2, { directoryId: directoryOf(77) });
    expect(issuedBy(known, wiped)).to.equal('addressTaken');
  });

  it('never uses the id of a removed node again', () => {
    const removed = after(clusterOf(3), joinOf(4), {
      kind: 'removeNode',
      node: 4,
      force: false,
      nowMs: 9,
    });
    expect(nodeOf(removed, 4)).to.deep.include({ state: 'removed', stateSinceMs: 9 });
    const again = joinOf(5, { peerAddress: 'node-4:7401', clientAddress: 'node-4:7400' });
    expect(issuedBy(removed, again)).to.deep.equal({ changed: true, node: 5 });
    expect(
      issuedBy(removed, { kind: 'removeNode', node: 4, force: true, nowMs: 10 }),
    ).to.deep.equal({ changed: false });
  });

  it('writes down since when a node is down, and does not count anew for a repetition', () => {
    const down = after(clusterOf(3), { kind: 'setNodeState', node: 2, state: 'down', nowMs: 50 });
    expect(nodeOf(down, 2)).to.deep.include({ state: 'down', stateSinceMs: 50 });
    const { topology } = apply(down, { kind: 'setNodeState', node: 2, state: 'down', nowMs: 60 });
    expect(topology).to.equal(down);
  });

  it('a drain is one operation, however often it is asked for, and ends with the undrain', () => {
    const draining = after(clusterOf(3), { kind: 'drain', node: 2, nowMs: 5 });
    expect(nodeOf(draining, 2)?.state).to.equal('draining');
    expect(issuedBy(draining, { kind: 'drain', node: 2, nowMs: 6 })).to.deep.equal({
      changed: false,
      operation: 1,
    });
    const back = after(draining, { kind: 'undrain', node: 2, nowMs: 7 });
    expect(nodeOf(back, 2)).to.deep.include({ state: 'up', stateSinceMs: 7 });
    expect(back.operations[0]).to.deep.include({ kind: 'drainNode', state: 'cancelled' });
    expect(apply(back, { kind: 'undrain', node: 2, nowMs: 8 }).topology).to.equal(back);
  });

  it('a drain to a node names it, and is not made a drain to another one', () => {
    const cluster = after(clusterOf(3), joinOf(4), joinOf(5));
    const draining = after(cluster, { kind: 'drain', node: 2, to: 4, nowMs: 5 });
    expect(draining.operations[0]).to.deep.include({
      kind: 'drainNode',
      what: 'node 2: replicas move to node 4',
      node: 2,
      to: 4,
    });
    for (const again of [{ to: 4 }, {}])
      expect(issuedBy(draining, { kind: 'drain', node: 2, nowMs: 6, ...again })).to.deep.equal({
        changed: false,
        operation: 1,
      });
    const { result } = apply(draining, { kind: 'drain', node: 2, to: 5, nowMs: 6 });
    expect(reasonOf(result)).to.equal('operationRunning');
  });

  it('a leader is set by the order of replicas, and by nothing else', () => {
    const cluster = clusterOf(3, { shards: 1 });
    const nodesOf = (topology: Topology): readonly number[] =>
      topology.shards[0]?.replicas.map(({ node }) => node) ?? [];
    const [first = 0, second = 0, third = 0] = nodesOf(cluster);
    const set = after(cluster, { kind: 'setLeader', shard: 1, node: third });
    expect(nodesOf(set)).to.deep.equal([third, first, second]);
    expect(set.shards[0]?.founders).to.deep.equal(cluster.shards[0]?.founders);
    expect(apply(set, { kind: 'setLeader', shard: 1, node: third }).topology).to.equal(set);
  });

  it('a drain that is cancelled brings the node back, one that is done keeps it empty', () => {
    const draining = after(clusterOf(3), { kind: 'drain', node: 2, nowMs: 5 });
    const ended = (state: 'done' | 'cancelled'): string | undefined =>
      nodeOf(after(draining, { kind: 'endOperation', id: 1, state, progress: '', nowMs: 6 }), 2)
        ?.state;
    expect(ended('cancelled')).to.equal('up');
    expect(ended('done')).to.equal('draining');
  });

  it('by force gives up the replicas of a node, and says which in the operation', () => {
    const removed = after(clusterOf(4, { shards: 2 }), {
      kind: 'removeNode',
      node: 1,
      force: true,
      nowMs: 9,
    });
    for (const { replicas, replication } of removed.shards) {
      expect(replicas.some(({ node }) => node === 1)).to.equal(false);
      expect(replication).to.equal(3);
    }
    expect(removed.metadata.map(({ node }) => node)).to.deep.equal([2, 3]);
    expect(removed.operations.at(-1)).to.deep.include({ kind: 'removeNode', state: 'done' });
    expect(removed.operations.at(-1)?.progress).to.contain('metadata, shard 1');
  });

  it('by force ends replacements: what came from the node stays, what went to it goes back', () => {
    const cluster = after(clusterOf(3, { shards: 2 }), joinOf(4), joinOf(5), {
      kind: 'replaceReplica',
      shard: 1,
      from: 1,
      to: 4,
      nowMs: 1,
    });
    const before = replicasOf(clusterOf(3, { shards: 2 }), 1);
    const force = (node: number): Topology =>
      after(cluster, { kind: 'removeNode', node, force: true, nowMs: 2 });
    expect(force(1).operations[0]?.state).to.equal('done');
    expect(replicasOf(force(1), 1)).to.deep.equal(replicasOf(cluster, 1));
    expect(force(4).operations[0]?.state).to.equal('failed');
    expect(replicasOf(force(4), 1)).to.deep.equal(before);
  });

  it('takes label names that every object has for plain names, or refuses them', () => {
    const cluster = clusterOf(1);
    const labels = { constructor: 'x', hasownproperty: 'y' };
    const named = after(cluster, { kind: 'setLabels', node: 1, labels });
    expect(nodeOf(named, 1)?.labels).to.deep.equal(labels);
    const wicked: Record<string, string> = JSON.parse('{"__proto__":"x"}');
    const command = encodeMetaCommand({
      kind: 'setLabels',
      node: 1,
      labels: wicked,
    });
    const { topology } = apply(named, decodeMetaCommand(command).command);
    expect(Object.getPrototypeOf(nodeOf(topology, 1)?.labels)).to.equal(Object.prototype);
  });

  it('nodes without a host label are hosts of their own, whatever the labels of others say', () => {
    const nodes = [firstNode(1), firstNode(2, { labels: { host: '1' } })];
    expect(after(noCluster, initOf(nodes)).shards[0]?.replicas).to.have.length(2);
  });
});

describe('slot map of a topology', () => {
  it('is the version and ranges that routers take, once there is a cluster', () => {
    expect(slotMapOf(noCluster)).to.equal(undefined);
    const { slots } = clusterOf(3, { shards: 2 });
    expect(slotMapOf(clusterOf(3, { shards: 2 }))).to.deep.equal({ version: 1, ranges: slots });
  });
});

describe('shards and their replicas', () => {
  const cluster = after(clusterOf(3, { shards: 2 }), joinOf(4), joinOf(5));

  it('D01: a replica removed and added again on a node has another id', () => {
    const removed = after(cluster, { kind: 'removeReplica', shard: 1, node: 1 });
    const again = after(removed, { kind: 'addReplica', shard: 1, node: 1 });
    const idsOf = (topology: Topology): readonly number[] =>
      shardRecordOf(topology, 1)?.replicas.map(({ replica }) => replica) ?? [];
    const [added] = idsOf(again).filter((id) => !idsOf(removed).includes(id));
    expect(added).to.equal(cluster.next.replica);
    expect(shardRecordOf(again, 1)?.founders).to.deep.equal(shardRecordOf(cluster, 1)?.founders);
  });

  it('wants as many replicas as an operator leaves or adds, so that repair does not undo it', () => {
    const more = after(cluster, { kind: 'addReplica', shard: 1, node: 4 });
    expect(shardRecordOf(more, 1)?.replication).to.equal(4);
    const less = after(
      more,
      { kind: 'removeReplica', shard: 1, node: 4 },
      { kind: 'removeReplica', shard: 1, node: 2 },
    );
    expect(shardRecordOf(less, 1)?.replication).to.equal(2);
    expect(issuedBy(more, { kind: 'addReplica', shard: 1, node: 4 })).to.deep.equal({
      changed: false,
      replica: cluster.next.replica,
    });
  });

  it('a replica of a node that is down may go, when what is left can decide', () => {
    const down = after(cluster, { kind: 'setNodeState', node: 1, state: 'down', nowMs: 1 });
    const left = after(down, { kind: 'removeReplica', shard: 1, node: 1 });
    expect(shardRecordOf(left, 1)?.replicas).to.have.length(2);
  });

  const replace: MetaCommand = { kind: 'replaceReplica', shard: 1, from: 1, to: 4, nowMs: 1 };
  const at = shardRecordOf(cluster, 1)?.replicas.findIndex(({ node }) => node === 1) ?? -1;

  it('D01: a replacement issues a new replica in the place of the old one and opens an operation', () => {
    const replacing = after(cluster, replace);
    const id = cluster.next.replica;
    expect(replicasOf(replacing, 1)[at]).to.equal(`${id} on 4`);
    expect(replacing.operations).to.have.length(1);
    expect(replacing.operations[0]).to.deep.include({ id: 1, state: 'running', node: 1 });
    expect(replacing.operations[0]?.what).to.contain(`-> replica ${id} on node 4`);
    expect(issuedBy(replacing, replace)).to.deep.equal({
      changed: false,
      replica: id,
      operation: 1,
    });
  });

  it('D06: a replacement that is given up leaves the shard as it was, and its id is spent', () => {
    for (const state of ['cancelled', 'failed'] as const) {
      const back = after(cluster, replace, {
        kind: 'endOperation',
        id: 1,
        state,
        progress: 'node 1 is back',
        nowMs: 2,
      });
      expect(back.shards).to.deep.equal(cluster.shards);
      expect(back.next.replica).to.equal(cluster.next.replica + 1);
      expect(back.operations[0]).to.deep.include({ state, progress: 'node 1 is back' });
    }
  });

  it('a replacement that is done stays, and the next one may begin', () => {
    const done = after(
      cluster,
      replace,
      { kind: 'endOperation', id: 1, state: 'running', progress: '10 %', nowMs: 2 },
      { kind: 'endOperation', id: 1, state: 'done', progress: '', nowMs: 2 },
      { ...replace, from: 2, to: 5 },
    );
    const nodes = shardRecordOf(done, 1)?.replicas.map(({ node }) => node);
    expect(nodes).to.have.members([3, 4, 5]);
  });

  it('keeps running operations and the last hundred that ended', () => {
    const begun = after(cluster, replace);
    const many = Array.from({ length: 150 }, (): MetaCommand[] => [
      { kind: 'drain', node: 5, nowMs: 1 },
      { kind: 'undrain', node: 5, nowMs: 1 },
    ]);
    const { operations, next } = after(begun, ...many.flat());
    expect(operations.map(({ id }) => id)).to.deep.equal([
      1,
      ...Array.from({ length: 100 }, (_, n) => n + 52),
    ]);
    expect(next.operation).to.equal(152);
  });

  it('D40: the metadata group keeps the ids of replicas that stay and issues new ones', () => {
    const moved = after(cluster, { kind: 'setMetadata', nodes: [5, 2, 1, 4] });
    const id = cluster.next.replica;
    expect(moved.metadata).to.deep.equal([
      { replica: 1, node: 1 },
      { replica: 2, node: 2 },
      { replica: id, node: 5 },
      { replica: id + 1, node: 4 },
    ]);
    expect(apply(moved, { kind: 'setMetadata', nodes: [1, 2, 4, 5] }).topology).to.equal(moved);
  });
});
