import { expect } from 'chai';
import type { OperationMessage } from '../../proto/messages.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, withCluster } from './fixture.js';
import { ended, expectWhole, fill, migrate, migrationTo } from './migrating.js';

const MiB = 1024 * 1024;
const slot = slotOf(bytes('{l}'));
/** More than gRPC takes by itself. */
const flags = { 'value-bytes-max': String(6 * MiB), 'request-bytes-max': String(7 * MiB) };

describe('a change as large as a request may be, in a slot that is exported', function () {
  this.timeout(180_000);

  it('R70: goes to the target like any other: 10,000 records in one transaction, some of them with 1 MiB later, and one record of 6 MiB', () =>
    withCluster({ shards: 2, flags }, async (fixture) => {
      const { client } = fixture;
      const expected = new Map<string, string>();
      const put = (key: string, size: number): OperationMessage => {
        expected.set(key, key.padEnd(size, expected.has(key) ? 'y' : 'x'));
        return { put: { key: bytes(key), value: bytes(expected.get(key) ?? '') } };
      };
      const filled = await fill(client, { count: 500, size: 4000, prefix: '{l}filled' });
      await client.txn({ then: [put('{l}large', 6 * MiB)] });
      const slow = { source: 2, target: 1, first: slot, last: slot, bytesPerSecond: 65_536 };
      const id = await migrate(client, slow);
      await migrationTo(fixture, id, 'copies', async () => {
        const { exports } = await client.shardFigures({ shardId: 2 });
        return exports.some(({ bytesSent }) => bytesSent > 0);
      });
      const many = Array.from({ length: 10_000 }, (_, n) => put(`{l}${n}`, 695));
      await client.txn({ then: many });
      for (const n of [0, 5000, 9999]) await client.txn({ then: [put(`{l}${n}`, MiB)] });
      await client.txn({ then: [put('{l}large', 6 * MiB)] });
      await client.changeCluster({ kind: 'throttleMigration', id, bytesPerSecond: 1_000_000_000 });
      expect(await ended(fixture, id)).to.include({ state: 'done', moved: 1, reason: '' });
      await expectWhole(fixture, filled, expected);
    }));
});
