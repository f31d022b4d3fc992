import { expect } from 'chai';
import { KvError, QuorateClient } from '../../src/client/index.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, text, withCluster } from './fixture.js';

const keys = Array.from({ length: 200 }, (_, i) => `key-${i}`);

async function scanned(client: QuorateClient): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const page of client.scan({ prefix: bytes('key-') })) {
    for (const { key, value } of page.kvs ?? []) found.set(text(key) ?? '', text(value) ?? '');
  }
  return found;
}

describe('a cluster of several shards', function () {
  this.timeout(120_000);

  it('spreads shards over five nodes, three replicas each, none twice on a node', () =>
    withCluster({ nodes: 5, shards: 10 }, async ({ client, cluster }) => {
      const { shards, slots, version } = await client.topology();
      expect(version).to.be.greaterThan(0);
      expect(shards).to.have.length(10);
      const load = new Map<number, number>();
      for (const { nodes } of shards) {
        expect(new Set(nodes).size).to.equal(3);
        for (const node of nodes) load.set(node, (load.get(node) ?? 0) + 1);
      }
      expect([...load.values()]).to.deep.equal([6, 6, 6, 6, 6]);
      let next = 0;
      for (const { first, last } of slots) {
        expect(first).to.equal(next);
        next = last + 1;
      }
      expect(next).to.equal(16_384);
      await cluster.waitFor('each node leads two shards', 30_000, async () => {
        const replies = await Promise.all(cluster.nodes.map(({ node }) => cluster.status(node)));
        return replies.every((reply) => {
          const led = (reply?.groups ?? []).filter(
            ({ kind, role }) => kind === 'shard' && role === 'leader',
          );
          return led.length === 2;
        });
      });
    }));

  it('answers every request on every node, whoever has the shard: puts, gets, batches, scans', () =>
    withCluster({ nodes: 5, shards: 6 }, async ({ cluster }) => {
      for (const [n, key] of keys.entries()) {
        const one = new QuorateClient({ endpoints: [cluster.endpoints[n % 5] ?? ''] });
        await one.put({ key: bytes(key), value: bytes(`v${n}`) });
        one.close();
      }
      for (const endpoint of cluster.endpoints) {
        const one = new QuorateClient({ endpoints: [endpoint] });
        for (const [n, key] of keys.entries()) {
          const { kv } = await one.get({ key: bytes(key) });
          expect(text(kv?.value), `${key} at ${endpoint}`).to.equal(`v${n}`);
        }
        const results = await one.batch(keys.map((key) => ({ get: { key: bytes(key) } })));
        expect(results.map(({ get }) => text(get?.kv?.value))).to.deep.equal(
          keys.map((_, n) => `v${n}`),
        );
        const found = await scanned(one);
        expect(found.size, `scan at ${endpoint}`).to.equal(keys.length);
        for (const [n, key] of keys.entries()) expect(found.get(key)).to.equal(`v${n}`);
        one.close();
      }
    }));

  it('R50: loses no node’s acknowledged increments when nodes are killed one after the other', () =>
    withCluster({ nodes: 4, shards: 8 }, async ({ cluster, client }) => {
      const counters = Array.from({ length: 8 }, (_, i) => `counter-${i}`);
      const acknowledged = new Map<string, number>();
      let stopped = false;
      const work = counters.map(async (key) => {
        while (!stopped) {
          try {
            await client.increment({ key: bytes(key), delta: 1 });
            acknowledged.set(key, (acknowledged.get(key) ?? 0) + 1);
          } catch (error) {
            if (!(error instanceof KvError)) throw error;
          }
        }
      });
      /** Each counter has gone on by so many. */
      const goOn = async (by: number): Promise<void> => {
        const before = new Map(acknowledged);
        await cluster.waitFor('every counter goes on', 30_000, () =>
          Promise.resolve(
            counters.every((key) => (acknowledged.get(key) ?? 0) >= (before.get(key) ?? 0) + by),
          ),
        );
      };
      for (const node of [1, 3]) {
        await goOn(30);
        await cluster.kill(node);
        await goOn(30);
        cluster.startNode(node);
        await cluster.waitUntilReady(30_000);
      }
      stopped = true;
      await Promise.all(work);
      for (const key of counters) {
        const { kv } = await client.get({ key: bytes(key) });
        expect(Number(text(kv?.value)), key).to.equal(acknowledged.get(key));
      }
    }));

  it('shards with a majority elect and serve while the metadata group has none', () =>
    withCluster({ nodes: 5, shards: 10 }, async ({ cluster, client }) => {
      const { shards, slots } = await client.topology();
      const survivors = [4, 5];
      const alive = shards.filter(
        ({ nodes }) => nodes.filter((node) => survivors.includes(node)).length >= 2,
      );
      expect(alive.length).to.be.greaterThan(0);
      const shardOfKey = (key: string): number =>
        slots.find(({ last }) => slotOf(bytes(key)) <= last)?.shardId ?? 0;
      const served = keys.filter((key) => alive.some(({ shardId }) => shardId === shardOfKey(key)));
      expect(served.length).to.be.greaterThan(10);
      for (const key of served) await client.put({ key: bytes(key), value: bytes('before') });
      for (const node of [1, 2, 3]) await cluster.kill(node);
      const rest = new QuorateClient({
        endpoints: survivors.map((node) => cluster.node(node).clientAddress),
        timeoutMs: 20_000,
      });
      for (const key of served) {
        expect(text((await rest.get({ key: bytes(key) })).kv?.value)).to.equal('before');
        await rest.put({ key: bytes(key), value: bytes('after') });
      }
      const refused = await rest
        .changeCluster({ kind: 'setWeight', node: 4, weight: 50 }, { timeoutMs: 1000 })
        .catch((error: unknown) => error);
      expect(refused).to.be.instanceOf(KvError);
      rest.close();
    }));

  it('D40: is made once: the same again changes nothing, another one is refused', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ client }) => {
      const before = await client.topology();
      const again = await client.initCluster({ shards: 2, replicas: 3 });
      expect(again).to.deep.equal(before);
      const other = await client.initCluster({ shards: 5, replicas: 3 }).catch((e: unknown) => e);
      expect(other).to.be.instanceOf(KvError);
      expect(String(other)).to.match(/init|cluster/i);
      expect(await client.topology()).to.deep.equal(before);
    }));
});
