/** Clocks of shards that are hours apart, which log time never makes up for (rule D21). */
import { expect } from 'chai';
import { OutcomeCode, type ErrorDetail, type PutRequest } from '../../proto/messages.js';
import { slotCount, slotOf } from '../../src/router/slot.js';
import { bytes, errorOf, until, withNodes, type FakeCluster } from './fake-cluster.js';
import { refusal, text, type FakeNode } from './fake-node.js';

const half = slotCount / 2;
const hourMs = 3_600_000;
const limit = 60_000;

/** As a real shard does: by its own log time. */
function judge(node: FakeNode, { session }: PutRequest): ErrorDetail | undefined {
  const size = (session?.notAfterMs ?? 0) - node.logTimeMs();
  if (size > limit) return refusal('KV_INVALID', { limit, size });
  return size < 0 ? refusal('KV_SESSION_EXPIRED', { outcome: OutcomeCode.UNKNOWN }) : undefined;
}

/** A shard on each node; `refused`: keys of writes that were, in order. */
function makeShards({ nodes }: FakeCluster): string[] {
  const refused: string[] = [];
  const infos = nodes.map(({ endpoint }, n) => ({
    ...{ nodeId: n + 1, peerAddress: '', clientAddress: endpoint, labels: [] },
    ...{ weight: 100, state: 'up', stateSinceMs: 0 },
  }));
  const shards = infos.map(({ nodeId }) => ({
    ...{ shardId: nodeId, replicas: [nodeId], nodes: [nodeId], replication: 1 },
  }));
  const slots = shards.map(({ shardId }) => ({
    ...{ first: (shardId - 1) * half, last: shardId * half - 1, shardId, epoch: 1 },
  }));
  for (const node of nodes) {
    Object.assign(node, { version: 1, nodes: infos, shards, slots });
    const verdict = (put: PutRequest): ErrorDetail | undefined => {
      const error = judge(node, put);
      if (error !== undefined) refused.push(text(put.key));
      return error;
    };
    node.onUnary = ({ method, request }) =>
      method === 'Put' ? verdict(request as PutRequest) : undefined;
    node.onBatch = (call) => {
      const { operations = [] } = call.request;
      call.reply(
        operations.map((operation) => {
          const error = operation.put ? verdict(operation.put) : undefined;
          return error === undefined ? node.store.run(operation) : { error };
        }),
      );
    };
  }
  return refused;
}

/** Keys of one shard, by what they are called. */
const keysOf = (shard: number, count: number): string[] => {
  const keys: string[] = [];
  for (let n = 0; keys.length < count; n++)
    if (Math.floor(slotOf(bytes(`k${n}`)) / half) === shard - 1) keys.push(`k${n}`);
  return keys;
};

describe('shards whose log times are far apart', () => {
  for (const batching of [true, false])
    it(`D21: both take writes, in ${batching ? 'batches' : 'single calls'}; each is told once`, () =>
      withNodes({ nodes: 2, batching }, async (cluster) => {
        const { client, nodes, store } = cluster;
        const [fast, slow] = nodes;
        const [[a = '', b = ''], [c = '', d = '', e = '']] = [keysOf(1, 2), keysOf(2, 3)];
        const refused = makeShards(cluster);
        const put = (key: string): Promise<unknown> =>
          client.put({ key: bytes(key), value: bytes('v') });
        if (fast === undefined || slow === undefined) throw new RangeError('two nodes');
        let aheadMs = 2 * hourMs;
        fast.logTimeMs = () => Date.now() + aheadMs;
        // What is asked of a node comes to the shard that is there, once the client has the map.
        const asked = (node: FakeNode): number => node.batches.length + node.unary.length;
        await client.get({ key: bytes(a) });
        const before = asked(slow);
        while (asked(slow) < before + 4) await client.get({ key: bytes(c) });
        await until('a watch', () => nodes.some(({ watchers }) => watchers.size > 0));

        for (const key of [a, c, b, d]) await put(key);
        expect(store.applied).to.deep.equal([a, c, b, d].map((key) => `put ${key}`));
        expect(refused).to.deep.equal([c]);

        // Now the slow one is the fast one: it cannot tell whether the write had been applied before.
        aheadMs = 0;
        slow.logTimeMs = () => Date.now() + 3 * hourMs;
        expect((await errorOf(put(e))).code).to.equal('KV_SESSION_EXPIRED');
        await client.get({ key: bytes(e) });
        await put(e);
        await put(a);
        expect(store.applied.slice(4)).to.deep.equal([`put ${e}`, `put ${a}`]);
        expect(refused).to.deep.equal([c, e, a]);
      }));
});
