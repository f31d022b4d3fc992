import { expect } from 'chai';
import type { TopologyReply } from '../../proto/messages.js';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';
import { bytes, withCluster } from './fixture.js';
import { QuorateCommand } from './quorate-command.js';

/** Nothing begins to run: what is asked for waits in the queue, so that its state is definite. */
const queued = ['cluster settings migrationsMax 0', 0, /^ok, map version \d+\n$/] as const;

/** Any node is asked, and some hear of a change later than others. */
async function told(
  cluster: LocalCluster,
  holds: (topology: TopologyReply) => boolean,
): Promise<void> {
  for (const endpoint of cluster.endpoints) {
    const client = new QuorateClient({ endpoints: [endpoint] });
    try {
      await cluster.waitFor(`${endpoint} has heard of it`, 20_000, async () =>
        holds(await client.topology()),
      );
    } finally {
      client.close();
    }
  }
}

describe('the commands about migrations', function () {
  this.timeout(120_000);

  it('queue slots for another shard, show them, pause, resume, throttle and cancel them', () =>
    withCluster({ nodes: 3, shards: 3 }, async ({ cluster }) => {
      const quorate = new QuorateCommand(cluster.endpoints);
      await quorate.expect(...queued);
      await quorate.expect(
        'migration start --slots 5400-5499,0-9 --to 3',
        0,
        /^ok, map version \d+, migrations 1, 2\n$/,
      );
      await told(cluster, ({ migrations }) => migrations.length === 2);
      await Promise.all([
        quorate.expect(
          'migration list',
          0,
          /1 +queued +1 +3 +0-9, 5400-5460 +0 of 71 \(0 %\)[^]*2 +queued +2 +3 +5461-5499 +0 of 39/,
        ),
        quorate.expect(
          'migration show 2',
          0,
          /slots +5461-5499, from shard 2 to shard 3\nmoved +0 of 39[^]*32.0 MiB per second, by the/,
        ),
      ]);
      await quorate.expect('migration throttle 2 10MiB', 0, /^ok/);
      await quorate.expect('migration pause 2 --reason lunch', 0, /^ok/);
      await quorate.expect('migration pause 2', 0, /^nothing to change/);
      await quorate.expect('migration cancel 1 --reason mistake', 0, /^ok/);
      await quorate.expect('migration cancel 1', 0, /^nothing to change/);
      await quorate.expect(
        'migration pause 1',
        1,
        /has been cancelled \(mistake\): start a new one/,
      );
      await told(cluster, ({ migrations }) => {
        return migrations.map(({ state }) => state).join(' ') === 'cancelled paused';
      });
      await quorate.expect(
        'migration watch 1',
        3,
        /migration 1 cancelled: mistake \(0 of 71 slots/,
      );
      expect({ list: await quorate.json('migration list') }).to.nested.include({
        'list[0].state': 'cancelled',
        'list[0].slots[0].first': 0,
        'list[1].state': 'paused',
        'list[1].reason': 'lunch',
        'list[1].bytesPerSecond': 10_485_760,
      });
      await quorate.expect('migration resume 2', 0, /^ok/);
      await quorate.expect('migration start --slots 5461 --to 3', 1, /slot 5461 is in migration 2/);
    }));

  it('plan a rebalance and change nothing, then queue it; split, merge and remove shards', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const quorate = new QuorateCommand(cluster.endpoints);
      await quorate.expect(...queued);
      await quorate.expect('cluster rebalance --dry-run', 0, /^nothing to move: every shard has/);
      await quorate.expect('shard create --replicas 1', 0, /^ok, .*shard 3\n$/);
      await told(cluster, ({ shards }) => shards.length === 3);
      const before = await client.topology();
      await quorate.expect(
        'cluster rebalance --dry-run --weights 1=100,2=100,3=50',
        0,
        /3 +50 +0 +3,27\d +\+3,27\d[^]*shard 1 +shard 3 +1,6\d\d[^]*3,27\d slots to move, in 2 migrations/,
      );
      expect((await client.topology()).version).to.equal(before.version);
      const plan = await quorate.json('cluster rebalance --dry-run --weights 2=0');
      expect(plan).to.have.nested.include({ 'shares[1].share': 0, leftOff: 0 });
      await quorate.expect(
        'cluster rebalance',
        0,
        /5,461 slots to move[^]*ok, .*migrations 1, 2\n$/,
      );
      await quorate.expect(
        'shard remove 3',
        1,
        /shard 3 is part of migration 1: wait until it ends/,
      );
      await quorate.expect('shard merge 3 --into 1', 1, /migration 1 brings slots to shard 3/);
      await quorate.expect('migration cancel 1', 0, /^ok/);
      await quorate.expect('migration cancel 2', 0, /^ok/);
      await quorate.expect('shard split 1', 0, /^ok, .*operation 1, migrations 3\n$/);
      await quorate.expect(
        'shard remove 2',
        1,
        /shard 2 has 8192 slots: merge it into other shards/,
      );
      await quorate.expect('migration cancel 3', 0, /^ok/);
      await cluster.waitFor('the split has failed', 20_000, async () => {
        const { operations } = await client.topology();
        return operations.some(({ operationId, state }) => operationId === 1 && state === 'failed');
      });
    }));

  it('D01: move slots with their keys, merge a shard away, and nothing is left of it', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const quorate = new QuorateCommand(cluster.endpoints);
      const keys = Array.from({ length: 200 }, (_, at) => bytes(`key-${at}`));
      await Promise.all(keys.map((key) => client.put({ key, value: key })));
      await quorate.expect('shard create --replicas 3', 0, /^ok, .*shard 3\n$/);
      await told(cluster, ({ shards }) => shards.length === 3);
      const { out } = await quorate.expect(
        'migration start --slots 0-499,9000-9499 --to 3 --wait',
        0,
        /1,000 of 1,000 \(100 %\) slots moved, \d+ keys, .*, 2 done\n$/,
      );
      expect(out).to.match(/^ok, map version \d+, migrations 1, 2\n/);
      await quorate.expect('migration show 1', 0, /moved +500 of 500 [^]*ended/);
      expect(await quorate.json('migration show 1')).to.nested.include({
        'migration.moved': 500,
        'migration.bytesPerSecond': 0,
        live: null,
      });
      await quorate.expect('shard merge 3 --into 2 --wait', 0, /^done: .*shard 3 is removed\n$/m);
      await told(cluster, ({ shards }) => shards.map(({ shardId }) => shardId).join() === '1,2');
      for (const key of keys) expect((await client.get({ key })).kv?.value).to.deep.equal(key);
      await cluster.waitFor('no node has a replica of shard 3', 20_000, async () => {
        const all = await Promise.all([1, 2, 3].map((node) => cluster.status(node)));
        return all.every((status) => status?.groups.every(({ groupId }) => groupId !== 3) === true);
      });
      await quorate.expect('cluster check', 0, /ok: 2 shards, 6 replicas, 200 keys/);
    }));

  it('refuse with the thing, the limit and the remedy, and change nothing', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const quorate = new QuorateCommand(cluster.endpoints);
      const before = await client.topology();
      const rows: readonly (readonly [line: string, code: number, shown: RegExp])[] = [
        [
          'migration start --slots 0-16384 --to 2',
          2,
          /--slots: keys are hashed to slots 0 to 16383; .* quorate slot map/,
        ],
        ['migration start --slots 1-5,3 --to 2', 2, /--slots: slot 3 is named twice/],
        ['migration start --slots abc --to 2', 2, /'abc' is no slot and no range: write 0-99,200/],
        ['migration start --slots 0-9 --to 7', 1, /no shard 7 in cluster 'local': it has 2/],
        ['migration start --slots 0-9 --to 1', 0, /nothing to move: shard 1 has all 10 slots/],
        ['migration start --slots 0-9 --to 1 --from 2', 1, /slot 0 belongs to shard 1, not to/],
        ['migration show 9', 1, /no migration 9: it never was, or ended long ago/],
        ['migration throttle 9 0', 2, /to stop the migration, quorate migration pause/],
        ['migration throttle 9 fast', 2, /bytesPerSecond must be bytes, e.g. .* got 'fast'/],
        ['migration list', 0, /^no migrations\n$/],
        ['migration watch', 0, /^no migration is open\n$/],
        ['cluster rebalance --weights 1=0,2=0', 1, /all weights are 0/],
        ['cluster rebalance --weights 1', 2, /'1' is not shard=weight/],
      ];
      const waiting = [...rows];
      const work = async (): Promise<void> => {
        for (let row = waiting.shift(); row !== undefined; row = waiting.shift())
          await quorate.expect(...row);
      };
      await Promise.all([work(), work(), work()]);
      expect(await client.topology()).to.deep.equal(before);
    }));
});
