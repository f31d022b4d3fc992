import { expect } from 'chai';
import type { OperationMessage } from '../../proto/messages.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, withCluster } from './fixture.js';
import { ended, expectWhole, fill, migrate, ownerOf, Writing } from './migrating.js';

/** A key prefix whose tag lies in that slot. */
function prefixOf(slot: number): string {
  for (let n = 0; ; n++) if (slotOf(bytes(`{${n}}`)) === slot) return `{${n}}`;
}

describe('slots of every size', function () {
  this.timeout(180_000);

  it('migrate: the first and the last, empty ones, 30 MB in large values, 20,000 keys, and those that are written all the time', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client } = fixture;
      const to = async (target: number, slot: number): Promise<void> => {
        const source = target === 1 ? 2 : 1;
        const id = await migrate(client, { source, target, first: slot, last: slot });
        expect(await ended(fixture, id)).to.include({ state: 'done', moved: 1, reason: '' });
        expect(await ownerOf(client, slot)).to.equal(target);
      };
      const large = await fill(client, { count: 30, size: 1_000_000, prefix: prefixOf(100) });
      const many = new Map<string, string>();
      for (let n = 0; n < 20_000; n++) many.set(`${prefixOf(200)}-${n}`, `v${n}`);
      const puts = [...many].map(([key, value]): OperationMessage => ({
        put: { key: bytes(key), value: bytes(value) },
      }));
      for (let at = 0; at < puts.length; at += 1000)
        await client.txn({ then: puts.slice(at, at + 1000) });
      const ends = new Map(
        [0, 16_383].map((slot) => [`${prefixOf(slot)}-end`, `in slot ${slot}`] as const),
      );
      for (const [key, value] of ends) await client.put({ key: bytes(key), value: bytes(value) });
      await to(2, 0);
      await to(1, 16_383);
      await to(2, 7);
      await to(1, 7);
      await to(2, 100);
      await to(2, 200);

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
      await expectWhole(fixture, large, many, ends, writing.expected);
    }));
});
