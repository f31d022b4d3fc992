import { expect } from 'chai';
import { QuorateClient } from '../../src/client/index.js';
import { bytes, text, withCluster } from './fixture.js';

describe('a client that was told of a single node', function () {
  this.timeout(120_000);

  it('goes on when that one is removed and its shards are elsewhere; who joined hears of it', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const seeded = new QuorateClient({
        endpoints: [cluster.node(3).clientAddress],
        timeoutMs: 20_000,
      });
      try {
        for (let n = 0; n < 50; n++)
          await seeded.put({ key: bytes(`k${n}`), value: bytes(`${n}`) });
        const added = await cluster.addNode();
        await cluster.waitFor('node 4 is in', 30_000, async () => {
          const reply = await cluster.status(4);
          return reply?.peers.every(({ connected }) => connected) === true;
        });
        await client.changeCluster({ kind: 'drain', node: 3 });
        await cluster.waitFor('node 3 has nothing left', 60_000, async () => {
          const { shards, metadataNodes } = await client.topology();
          const voters = await cluster.status(3);
          const left = (voters?.groups ?? []).length;
          return left === 0 && ![...metadataNodes, ...shards.flatMap((s) => s.nodes)].includes(3);
        });
        await client.changeCluster({ kind: 'removeNode', node: 3, force: false });
        await cluster.kill(3);
        for (let n = 0; n < 50; n++) {
          expect(text((await seeded.get({ key: bytes(`k${n}`) })).kv?.value)).to.equal(`${n}`);
        }
        const joined = new QuorateClient({ endpoints: [added.clientAddress] });
        await cluster
          .waitFor('node 4 knows of the removal', 30_000, async () => {
            const { nodes } = await joined.topology();
            return nodes.find(({ nodeId }) => nodeId === 3)?.state === 'removed';
          })
          .finally(() => {
            joined.close();
          });
      } finally {
        seeded.close();
      }
    }));
});
