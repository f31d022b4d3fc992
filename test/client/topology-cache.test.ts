import { expect } from 'chai';
import { QuorateClient } from '../../src/client/index.js';
import { Routes } from '../../src/client/routes.js';
import { KvError } from '../../src/errors.js';
import { slot, slotCount } from '../../src/router/slot.js';
import { FakeNode, FakeStore, refusal } from './fake-node.js';
import { bytes, until } from './fake-cluster.js';

/** Node n of the list has id n + 1; one shard on all of them, led by the first unless told. */
function describeCluster(
  nodes: readonly FakeNode[],
  version: number,
  removed: number[] = [],
): void {
  const infos = nodes.map(({ endpoint }, n) => ({
    nodeId: n + 1,
    peerAddress: '',
    clientAddress: endpoint,
    labels: [],
    weight: 100,
    state: removed.includes(n + 1) ? 'removed' : 'up',
    stateSinceMs: 0,
  }));
  const ids = infos.map(({ nodeId }) => nodeId).filter((id) => !removed.includes(id));
  const shards = [{ shardId: 1, replicas: ids, nodes: ids, replication: 3 }];
  const slots = [{ first: 0, last: slotCount - 1, shardId: 1, epoch: 1 }];
  for (const node of nodes) Object.assign(node, { version, nodes: infos, shards, slots });
}

/** The client is given the first node only. */
async function withSeed(
  count: number,
  run: (client: QuorateClient, nodes: FakeNode[], seed: FakeNode) => Promise<void>,
): Promise<void> {
  const store = new FakeStore();
  const nodes: FakeNode[] = [];
  for (let n = 0; n < count; n++) nodes.push(await new FakeNode(store).start());
  const [seed] = nodes;
  if (seed === undefined) throw new RangeError('at least one node');
  const client = new QuorateClient({ endpoints: [seed.endpoint], timeoutMs: 10_000 });
  try {
    await run(client, nodes, seed);
  } finally {
    client.close();
    for (const node of nodes) node.kill();
  }
}

const get = async (client: QuorateClient): Promise<void> => {
  await client.get({ key: bytes('a') });
};

/** Until requests come to this node. */
async function arriveAt(client: QuorateClient, node: FakeNode): Promise<void> {
  const before = node.batches.length;
  const deadline = Date.now() + 10_000;
  while (node.batches.length === before) {
    if (Date.now() > deadline) throw new Error(`waited 10 s for a request at ${node.endpoint}`);
    await get(client);
  }
}

const nodeAt = (nodes: readonly FakeNode[], n: number): FakeNode => {
  const node = nodes[n];
  if (node === undefined) throw new RangeError(`no node ${n}`);
  return node;
};

describe('the topology that a client keeps', () => {
  it('is asked for at the first use, once, and let go with the client', () =>
    withSeed(1, async (client, _nodes, seed) => {
      expect(seed.watches).to.have.length(0);
      await get(client);
      await until('a watch', () => seed.watchers.size === 1);
      for (let n = 0; n < 20; n++) await get(client);
      expect(seed.watches).to.have.length(1);
      client.close();
      await until('its end', () => seed.watchers.size === 0);
    }));

  it('names leaders: requests go straight to them, and follow a change that is told', () =>
    withSeed(3, async (client, nodes, seed) => {
      describeCluster(nodes, 3);
      const leader = (nodeId: number, term: number): object => ({
        leaders: [{ shardId: 1, nodeId, term }],
      });
      seed.onWatch = (watcher) => {
        seed.tell(watcher, leader(3, 5));
      };
      await arriveAt(client, nodeAt(nodes, 2));
      seed.tell(undefined, leader(2, 4));
      seed.tell(undefined, leader(2, 6));
      await arriveAt(client, nodeAt(nodes, 1));
      const headers = nodeAt(nodes, 1).batches.map(({ header }) => header?.mapVersion);
      expect(headers).to.include(3);
    }));

  it('names nodes: when the endpoints that were given are gone, the others go on', () =>
    withSeed(3, async (client, nodes, seed) => {
      describeCluster(nodes, 3);
      await get(client);
      await until('the watch', () => seed.watchers.size === 1);
      seed.kill();
      await arriveAt(client, nodeAt(nodes, 1));
      await until('a watch elsewhere', () => nodes.slice(1).some((node) => node.watchers.size > 0));
    }));

  it('leaves a node that was removed from the cluster, also while that still answers', () =>
    withSeed(2, async (client, nodes, seed) => {
      describeCluster(nodes, 3);
      await get(client);
      await until('the watch', () => seed.watchers.size === 1);
      describeCluster(nodes, 4, [1]);
      seed.tell();
      await arriveAt(client, nodeAt(nodes, 1));
      const before = seed.batches.length;
      for (let n = 0; n < 20; n++) await get(client);
      expect(seed.batches).to.have.length(before);
    }));

  it('is looked for elsewhere when a connected node falls silent', () =>
    withSeed(2, async (client, nodes, seed) => {
      describeCluster(nodes, 3);
      seed.onWatch = (watcher) => {
        seed.tell(watcher, { heartbeatMs: 20 });
      };
      await get(client);
      await until('another node', () => nodeAt(nodes, 1).watches.length > 0);
      expect(nodeAt(nodes, 1).watches[0]?.fromVersion).to.equal(3);
    }));

  it('is fetched from whoever answers with a newer version, if the watch does not bring it', () =>
    withSeed(2, async (client, nodes, seed) => {
      const other = nodeAt(nodes, 1);
      describeCluster(nodes, 3);
      seed.onWatch = (watcher) => {
        seed.tell(watcher, { leaders: [{ shardId: 1, nodeId: 2, term: 1 }] });
      };
      await arriveAt(client, other);
      describeCluster([other], 4);
      await get(client);
      await until('the watch has moved', () => other.watchers.size === 1);
      expect(seed.watchers.size).to.equal(0);
    }));

  it('names replicas to ask while no leader is known: one that is cut off from the others is not asked for ever', () =>
    withSeed(3, async (client, nodes, seed) => {
      describeCluster(nodes, 3);
      await get(client);
      await until('the watch', () => seed.watchers.size === 1);
      seed.onBatch = ({ request, reply }) => {
        reply((request.operations ?? []).map(() => ({ error: refusal('KV_UNAVAILABLE') })));
      };
      await client.put({ key: bytes('a'), value: bytes('1') });
      const before = seed.batches.length;
      for (let n = 0; n < 5; n++) await client.put({ key: bytes('a'), value: bytes('2') });
      expect(seed.batches).to.have.length(before);
      expect(nodeAt(nodes, 1).batches).to.have.length(6);
    }));

  it('a version from the future that nobody has does no harm, and is asked for seldom', () =>
    withSeed(1, async (client, nodes, seed) => {
      describeCluster(nodes, 3);
      await get(client);
      await until('the watch', () => seed.watchers.size === 1);
      seed.version = 2 ** 60;
      seed.onWatch = () => undefined;
      await get(client);
      await until('the question', () => seed.watches.length === 2);
      for (let n = 0; n < 50; n++) await get(client);
      // Once a second at first, then ever more seldom.
      expect(seed.watches).to.have.length.below(5);
      expect(seed.batches.at(-1)?.header?.mapVersion).to.equal(3);
    }));
});

describe('D31: hints about the owner of a slot', () => {
  const range = { first: 0, last: slotCount - 1, shardId: 1 };
  const rest = {
    nodes: [],
    shards: [],
    metadataNodes: [],
    operations: [],
    settings: [],
    migrations: [],
    pins: [],
  };
  const topology = (version: number, epoch: number): Parameters<Routes['useTopology']>[0] => ({
    clusterId: 'c',
    document: '',
    version,
    slots: [{ ...range, epoch }],
    ...rest,
  });
  const wrong = (shardId: number, slotEpoch: number, leaderAddress: string): KvError =>
    new KvError('refused', {
      code: 'KV_WRONG_SHARD',
      outcome: 'notApplied',
      shardId,
      slotEpoch,
      leaderAddress,
    });

  it('hold by the higher epoch, over any version of the map', () => {
    const routes = new Routes(['a:1']);
    routes.useTopology(topology(5, 2));
    routes.onFailure(slot(7), 'a:1', wrong(2, 3, 'b:1'));
    expect([routes.shardOf(slot(7)), routes.shardOf(slot(8))]).to.deep.equal([2, 1]);
    expect(routes.endpointOf(slot(7))).to.equal('b:1');
    routes.useTopology(topology(9, 2));
    expect(routes.shardOf(slot(7)), 'a newer map that is behind').to.equal(2);
    routes.onFailure(slot(7), 'a:1', wrong(4, 2, 'c:1'));
    expect(routes.shardOf(slot(7)), 'an older hint').to.equal(2);
    expect(routes.endpointOf(slot(7))).to.equal('b:1');
    routes.useTopology(topology(10, 4));
    expect(routes.shardOf(slot(7)), 'the map has caught up').to.equal(1);
  });

  it('R72: are followed by a request until it is answered, under one request id', () =>
    withSeed(2, async (client, nodes, seed) => {
      const other = nodeAt(nodes, 1);
      describeCluster(nodes, 3);
      seed.onBatch = ({ request, reply }) => {
        const hint = { shardId: 2, slotEpoch: 2, leaderAddress: other.endpoint };
        const error = refusal('KV_WRONG_SHARD', hint);
        reply(
          (request.operations ?? []).map(({ get: read }) =>
            read ? { get: { found: false } } : { error },
          ),
        );
      };
      expect((await client.increment({ key: bytes('n'), delta: 1 })).value).to.equal(1);
      expect(other.batches.flatMap(({ operations = [] }) => operations)).to.have.length(1);
    }));
});
