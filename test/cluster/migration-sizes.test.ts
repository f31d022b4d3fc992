import { expect } from 'chai';
import { bytes, withCluster } from './fixture.js';
import { ended, expectWhole, migrate, ownerOf, prefixOf, Writing } from './migrating.js';

describe('slots of every kind', function () {
  this.timeout(180_000);

  it('migrate: the first and the last, empty ones, and those that are written all the time', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client } = fixture;
      const to = async (target: number, slot: number): Promise<void> => {
        const source = target === 1 ? 2 : 1;
        const id = await migrate(client, { source, target, first: slot, last: slot });
        expect(await ended(fixture, id)).to.include({ state: 'done', moved: 1, reason: '' });
        expect(await ownerOf(client, slot)).to.equal(target);
      };
      const ends = new Map(
        [0, 16_383].map((slot) => [`${prefixOf(slot)}-end`, `in slot ${slot}`] as const),
      );
      for (const [key, value] of ends) await client.put({ key: bytes(key), value: bytes(value) });
      await to(2, 0);
      await to(1, 16_383);
      await to(2, 7);
      await to(1, 7);

      const hot = prefixOf(300);
      const writing = new Writing(fixture, { writers: 12, pauseMs: 0, prefix: hot });
      try {
        const id = await migrate(client, { source: 1, target: 2, first: 250, last: 350 });
        expect(await ended(fixture, id)).to.include({ state: 'done', moved: 101 });
        const back = await migrate(client, { source: 2, target: 1, first: 300, last: 300 });
        expect(await ended(fixture, back)).to.include({ state: 'done', moved: 1 });
      } finally {
        await writing.stop();
      }
      expect(writing.failures.map(String)).to.deep.equal([]);
      await expectWhole(fixture, ends, writing.expected);
    }));
});
