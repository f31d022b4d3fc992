import { expect } from 'chai';
import { slotOf } from '../../src/router/slot.js';
import { bytes, text, withCluster } from './fixture.js';
import { ended, migrate } from './migrating.js';

const keys = Array.from({ length: 500 }, (_, n) => `key-${n}`);

describe('slots that migrate in a running cluster', function () {
  this.timeout(180_000);

  it('belong to the target afterwards, with everything in them, and nothing is left behind', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client } = fixture;
      for (const key of keys) await client.put({ key: bytes(key), value: bytes(`v ${key}`) });
      const id = await migrate(client, { source: 1, target: 2, first: 0, last: 4095 });
      expect(await ended(fixture, id)).to.include({ state: 'done', moved: 4096, reason: '' });
      const { slots } = await client.topology();
      expect(slots.map(({ first, shardId, epoch }) => ({ first, shardId, epoch }))).to.deep.equal([
        { first: 0, shardId: 2, epoch: 2 },
        { first: 4096, shardId: 1, epoch: 1 },
        { first: 8192, shardId: 2, epoch: 1 },
      ]);
      for (const key of keys) {
        const { kv } = await client.get({ key: bytes(key) });
        expect(text(kv?.value), `${key} in slot ${slotOf(bytes(key))}`).to.equal(`v ${key}`);
      }
    }));

  it('are written all the while: no request fails, nothing acknowledged is lost or counted twice', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client } = fixture;
      const counters = Array.from({ length: 40 }, (_, n) => `counter-${n}`);
      const acknowledged = new Map<string, number>();
      const failures: unknown[] = [];
      let stopped = false;
      const work = counters.map(async (key) => {
        while (!stopped) {
          try {
            await client.increment({ key: bytes(key), delta: 1 });
            acknowledged.set(key, (acknowledged.get(key) ?? 0) + 1);
            await client.get({ key: bytes(key) });
          } catch (error) {
            failures.push(error);
          }
        }
      });
      try {
        const id = await migrate(client, { source: 1, target: 2, first: 0, last: 8191 });
        expect(await ended(fixture, id)).to.include({ state: 'done', moved: 8192 });
        const back = await migrate(client, { source: 2, target: 1, first: 4096, last: 12_287 });
        expect(await ended(fixture, back)).to.include({ state: 'done', moved: 8192 });
      } finally {
        stopped = true;
        await Promise.all(work);
      }
      expect(failures.map(String)).to.deep.equal([]);
      for (const key of counters) {
        const { kv } = await client.get({ key: bytes(key) });
        expect(text(kv?.value), key).to.equal(String(acknowledged.get(key)));
      }
    }));
});
