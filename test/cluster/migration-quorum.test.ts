import { expect } from 'chai';
import { slotOf } from '../../src/router/slot.js';
import { KvError } from '../../src/client/index.js';
import { bytes, text, withCluster } from './fixture.js';
import { ended, expectWhole, fill, migrate, migrationTo, Writing } from './migrating.js';

describe('a migration whose target loses its majority', function () {
  this.timeout(180_000);

  it('D32: fails by itself while the source serves, and leaves nothing at the target when that is back', () =>
    withCluster({ nodes: 5, shards: 2 }, async (fixture) => {
      const { client, cluster } = fixture;
      const set = (name: string, value: number): Promise<unknown> =>
        client.changeCluster({ kind: 'setSetting', name, value });
      await set('migrationGiveUpMs', 3000);
      await set('freezeMsMax', 1000);
      const { shards } = await client.topology();
      const [source, target] = shards.map(({ nodes }) => nodes);
      const killed = (target ?? []).filter((node) => source?.includes(node) !== true).slice(0, 2);
      expect(killed, 'the shards have two nodes of their own').to.have.length(2);
      const filled = await fill(client, { count: 400, size: 500 });
      const [first, last] = [0, 8191];
      const id = await migrate(client, {
        source: 1,
        target: 2,
        first,
        last,
        bytesPerSecond: 65_536,
      });
      await migrationTo(fixture, id, 'has begun', ({ moved }) => moved > 0);
      await Promise.all(killed.map((node) => cluster.kill(node)));
      // What the target had not taken over by then is served all the time.
      const served = [...filled.keys()].filter((key) => {
        const slot = slotOf(bytes(key));
        return slot > 7000 && slot <= last;
      });
      let slowest = 0;
      await migrationTo(
        fixture,
        id,
        'is failing',
        ({ state }) => state === 'failing',
        async () => {
          const sinceMs = performance.now();
          await Promise.all(
            served.map((key) =>
              client.put({ key: bytes(key), value: bytes(filled.get(key) ?? '') }),
            ),
          );
          slowest = Math.max(slowest, performance.now() - sinceMs);
        },
      );
      expect(slowest, 'ms for writes to the source').to.be.below(8000);
      for (const node of killed) cluster.startNode(node);
      const end = await ended(fixture, id);
      expect(end).to.include({ state: 'failed' });
      expect(end.reason).to.match(/^no progress for \d+ s: /);
      await expectWhole(fixture, filled);
      const again = await migrate(client, { source: 1, target: 2, first: 8000, last });
      expect(await ended(fixture, again)).to.include({ state: 'done', moved: 192 });
      await expectWhole(fixture, filled);
    }));
});

describe('a migration while the metadata group has no majority', function () {
  this.timeout(180_000);

  it('R79: all slots are served, also when the nodes of source and target are killed, and it ends when the majority is back', () =>
    withCluster({ nodes: 5, shards: 2, replicas: 1 }, async (fixture) => {
      const { client, cluster } = fixture;
      const { shards } = await client.topology();
      const withData = shards.flatMap(({ nodes }) => nodes);
      const others = cluster.nodes.map(({ node }) => node).filter((n) => !withData.includes(n));
      expect(others, 'nodes with a vote in the metadata group and nothing else').to.have.length(3);
      const filled = await fill(client, { count: 400, size: 500 });
      const writing = new Writing(fixture);
      const written = async (): Promise<void> => {
        const before = writing.acknowledged;
        await cluster.waitFor('writes', 60_000, () =>
          Promise.resolve(writing.acknowledged > before + 300),
        );
      };
      try {
        const move = { source: 1, target: 2, first: 0, last: 8191, bytesPerSecond: 65_536 };
        const id = await migrate(client, move);
        await migrationTo(fixture, id, 'has begun', ({ moved }) => moved > 0);
        await Promise.all(others.map((node) => cluster.kill(node)));
        await written();
        for (const node of withData) {
          await cluster.kill(node);
          cluster.startNode(node);
          await written();
        }
        await Promise.all(
          [...filled].map(async ([key, value]) => {
            const { kv } = await client.get({ key: bytes(key) });
            expect(text(kv?.value), key).to.equal(value);
          }),
        );
        const refused = await client
          .changeCluster({ kind: 'setWeight', node: 1, weight: 50 }, { timeoutMs: 1000 })
          .catch((error: unknown) => error);
        expect(refused, 'of the metadata group').to.be.instanceOf(KvError);
        for (const node of others) cluster.startNode(node);
        expect(await ended(fixture, id)).to.include({ state: 'done', moved: 8192, reason: '' });
      } finally {
        await writing.stop();
      }
      expect(writing.failures.map(String)).to.deep.equal([]);
      await expectWhole(fixture, filled, writing.expected);
    }));
});
