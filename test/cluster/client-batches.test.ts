import { expect } from 'chai';
import { KvError, QuorateClient } from '../../src/client/index.js';
import { bytes, leaderOf, shard, text, withCluster } from './fixture.js';

describe('the batches of a client over real nodes', function () {
  this.timeout(120_000);

  it('10,000 puts begun in one turn are all there, through any node', () =>
    withCluster({ shards: 4 }, async ({ client, cluster }) => {
      const keys = Array.from({ length: 10_000 }, (_, n) => `key-${n}`);
      await Promise.all(keys.map((key) => client.put({ key: bytes(key), value: bytes(key) })));
      for (const endpoint of cluster.endpoints) {
        const one = new QuorateClient({ endpoints: [endpoint], timeoutMs: 20_000 });
        const replies = await Promise.all(keys.map((key) => one.get({ key: bytes(key) })));
        expect(replies.map(({ kv }) => text(kv?.value))).to.deep.equal(keys);
        one.close();
      }
    }));

  it('R50: leaders killed under batches of increments: every one is counted once, or said to be unknown', () =>
    withCluster({ shards: 3 }, async ({ client, cluster }) => {
      const counters = ['hot', 'hot', 'hot', ...Array.from({ length: 20 }, (_, n) => `n-${n}`)];
      const counts = new Map<string, { acknowledged: number; unknown: number }>();
      let stopped = false;
      let total = 0;
      const work = Array.from({ length: 600 }, async (_, n) => {
        const key = counters[n % counters.length] ?? '';
        const count = counts.get(key) ?? { acknowledged: 0, unknown: 0 };
        counts.set(key, count);
        while (!stopped) {
          try {
            await client.increment({ key: bytes(key), delta: 1 });
            count.acknowledged += 1;
            total += 1;
          } catch (error) {
            if (!(error instanceof KvError)) throw error;
            if (error.outcome === 'unknown') count.unknown += 1;
          }
        }
      });
      for (let round = 0; round < 2; round++) {
        for (const when of ['before', 'after']) {
          const from = total;
          await cluster.waitFor(`progress ${when} the kill`, 30_000, () =>
            Promise.resolve(total > from + 3000),
          );
          if (when === 'after') continue;
          const leader = (await cluster.leader(shard)) ?? (await leaderOf(cluster));
          await cluster.kill(leader);
          cluster.startNode(leader);
        }
        await cluster.waitUntilReady(30_000);
      }
      stopped = true;
      await Promise.all(work);
      let unknown = 0;
      for (const [key, count] of counts) {
        const { kv } = await client.get({ key: bytes(key) });
        const most = count.acknowledged + count.unknown;
        expect(Number(text(kv?.value)), key).to.be.within(count.acknowledged, most);
        unknown += count.unknown;
      }
      // Each kept its session over the retries, and its record answered in time.
      expect(unknown).to.equal(0);
    }));
});
