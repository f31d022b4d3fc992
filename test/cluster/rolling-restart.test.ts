import { expect } from 'chai';
import { bytes, text, withCluster } from './fixture.js';

describe('a rolling restart', function () {
  this.timeout(120_000);

  it('of all nodes under load fails no request, and counts every increment once', () =>
    withCluster({ nodes: 3, shards: 6 }, async ({ cluster, client }) => {
      const counters = Array.from({ length: 6 }, (_, i) => `counter-${i}`);
      const done = new Map<string, number>();
      const failures: string[] = [];
      let stopped = false;
      const work = counters.map(async (key) => {
        while (!stopped) {
          try {
            await client.increment({ key: bytes(key), delta: 1 });
            done.set(key, (done.get(key) ?? 0) + 1);
            const { kv } = await client.get({ key: bytes(key) });
            if (Number(text(kv?.value)) !== done.get(key)) failures.push(`stale: ${key}`);
          } catch (error) {
            failures.push(String(error));
          }
        }
      });
      for (const { node } of cluster.nodes) {
        const before = done.get('counter-0') ?? 0;
        await cluster.terminate(node);
        cluster.startNode(node);
        await cluster.waitUntilReady(30_000);
        await cluster.waitFor('the load goes on', 30_000, () =>
          Promise.resolve((done.get('counter-0') ?? 0) > before + 20),
        );
      }
      stopped = true;
      await Promise.all(work);
      expect(failures).to.deep.equal([]);
      for (const key of counters) {
        const { kv } = await client.get({ key: bytes(key) });
        expect(Number(text(kv?.value)), key).to.equal(done.get(key));
      }
    }));
});
