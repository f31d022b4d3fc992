import { expect } from 'chai';
import { slotOf } from '../../src/router/slot.js';
import { bytes, withCluster } from './fixture.js';
import { ended, expectWhole, fill, migrate, migrationTo } from './migrating.js';

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
