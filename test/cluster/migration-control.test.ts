import { expect } from 'chai';
import { KvError } from '../../src/client/index.js';
import { withCluster } from './fixture.js';
import {
  ended,
  expectWhole,
  fill,
  migrate,
  migrationOf,
  migrationTo,
  ownerOf,
  Writing,
} from './migrating.js';

const slow = 65_536;
const [first, last] = [0, 8191];

describe('a migration that operators step in on', function () {
  this.timeout(180_000);

  it('pauses, goes on, takes another rate, and when it is cancelled each slot is whole at one end', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client } = fixture;
      const filled = await fill(client, { count: 600, size: 500 });
      const writing = new Writing(fixture);
      try {
        const id = await migrate(client, {
          source: 1,
          target: 2,
          first,
          last,
          bytesPerSecond: slow,
        });
        const set = (action: 'pause' | 'resume' | 'cancel'): Promise<unknown> =>
          client.changeCluster({ kind: 'setMigration', id, action, reason: 'a test' });
        const throttle = (bytesPerSecond: number): Promise<unknown> =>
          client.changeCluster({ kind: 'throttleMigration', id, bytesPerSecond });
        await migrationTo(fixture, id, 'has begun', ({ moved }) => moved > 0);
        await set('pause');
        const paused = await migrationTo(
          fixture,
          id,
          'is paused',
          ({ state }) => state === 'paused',
        );
        const before = writing.acknowledged;
        await migrationTo(fixture, id, 'is written to', () => writing.acknowledged > before + 300);
        // What was frozen then is handed over still.
        expect((await migrationOf(client, id)).moved).to.be.at.most(paused.moved + 256);
        await throttle(1024);
        await set('resume');
        await migrationTo(fixture, id, 'runs', ({ state }) => state === 'running');
        await throttle(150_000);
        const some = paused.moved + 1000;
        await migrationTo(fixture, id, 'has moved some more', ({ moved }) => moved > some);
        await throttle(1024);
        await set('cancel');
        const end = await ended(fixture, id);
        expect(end).to.include({ state: 'cancelled', reason: 'a test' });
        expect(end.moved).to.be.within(some, last);
        expect(await ownerOf(client, first)).to.equal(2);
        expect(await ownerOf(client, last)).to.equal(1);
        // Said again, it is so already.
        await set('cancel');
        const { slots } = await client.topology();
        const rest = slots.find(({ shardId }) => shardId === 1) ?? { first, last };
        const again = await migrate(client, {
          source: 1,
          target: 2,
          first: rest.first,
          last: rest.last,
          bytesPerSecond: 100_000_000,
        });
        expect(await ended(fixture, again)).to.include({ state: 'done' });
        expect(await ownerOf(client, last)).to.equal(2);
        const refused = await client
          .changeCluster({ kind: 'setMigration', id: again, action: 'cancel', reason: '' })
          .catch((error: unknown) => error);
        expect(refused).to.be.instanceOf(KvError);
        expect(String(refused)).to.match(/migration \d+ is done: all its slots belong to shard 2/);
      } finally {
        await writing.stop();
      }
      expect(writing.failures.map(String)).to.deep.equal([]);
      await expectWhole(fixture, filled, writing.expected);
    }));
});
