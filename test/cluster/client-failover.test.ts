import { expect } from 'chai';
import { KvError, QuorateClient, ReadLevel } from '../../src/client/index.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, shard, text, withCluster } from './fixture.js';

/** Counts what was acknowledged and what is unknown of one kind of work. */
class Tally {
  acknowledged = 0;
  unknown = 0;

  async count(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
      this.acknowledged += 1;
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      if (error.outcome === 'unknown') this.unknown += 1;
    }
  }

  check(found: number, what: string): void {
    expect(found, what).to.be.within(this.acknowledged, this.acknowledged + this.unknown);
    // Each kept its session over the retries, and its record answered in time.
    expect(this.unknown, `${what} with an unknown outcome`).to.equal(0);
  }
}

/** In the order of a scan. */
const inOrder = (keys: Iterable<string>): string[] =>
  [...keys].sort((a, b) => slotOf(bytes(a)) - slotOf(bytes(b)) || (a < b ? -1 : 1));

async function scanned(client: QuorateClient, prefix: string, level?: number): Promise<string[]> {
  const keys: string[] = [];
  const request = {
    prefix: bytes(prefix),
    pageBytes: 4096,
    ...(level === undefined ? {} : { level }),
  };
  for await (const { kvs = [] } of client.scan(request))
    keys.push(...kvs.map(({ key }) => text(key) ?? ''));
  return keys;
}

describe('a client whose nodes are killed', function () {
  this.timeout(120_000);

  it('R50: loses and doubles nothing of single calls, batches and transactions, and scans all there is', () =>
    withCluster({ shards: 3 }, async ({ cluster, client }) => {
      const single = new QuorateClient({
        endpoints: cluster.endpoints,
        batching: false,
        timeoutMs: 20_000,
      });
      const fixed = Array.from({ length: 300 }, (_, n) => `fixed-${n}`);
      await client.batch(fixed.map((key) => ({ put: { key: bytes(key), value: bytes(key) } })));
      const tallies = { single: new Tally(), batched: new Tally(), txn: new Tally() };
      const puts = new Set<string>();
      let scans = 0;
      let n = 0;
      let stopped = false;
      const repeat = async (work: () => Promise<void>): Promise<void> => {
        while (!stopped) await work();
      };
      const increment = (each: QuorateClient, key: string) => () =>
        each.increment({ key: bytes(key), delta: 1 });
      const both = ['{pair}a', '{pair}b'].map((key) => ({
        increment: { key: bytes(key), delta: 1 },
      }));
      const work = [
        ...Array.from({ length: 4 }, () =>
          repeat(() => tallies.single.count(increment(single, 'single'))),
        ),
        ...Array.from({ length: 8 }, () =>
          repeat(() => tallies.batched.count(increment(client, 'batched'))),
        ),
        repeat(() => tallies.txn.count(() => client.txn({ then: both }))),
        repeat(() => tallies.txn.count(() => single.txn({ then: both }))),
        repeat(async () => {
          const key = `put-${n++}`;
          await client.put({ key: bytes(key), value: bytes(key) });
          puts.add(key);
        }),
        repeat(async () => {
          expect(await scanned(client, 'fixed-')).to.deep.equal(inOrder(fixed));
          scans += 1;
        }),
      ];
      const all = Promise.all(work);
      const { single: ones, batched, txn } = tallies;
      const figures = (): number[] => [
        scans * 20,
        puts.size,
        ...[ones, batched, txn].map(({ acknowledged }) => acknowledged),
      ];
      /** Work of each kind goes on; a failure of it is told at once. */
      const goOn = async (): Promise<void> => {
        const before = figures();
        const hasGoneOn = (): boolean =>
          figures().every((each, at) => each >= (before[at] ?? 0) + 20);
        await Promise.race([
          all,
          cluster.waitFor('work of each kind', 30_000, () => Promise.resolve(hasGoneOn())),
        ]);
      };
      await goOn();
      const leader = (await cluster.leader(shard)) ?? 1;
      await cluster.kill(leader);
      await goOn();
      cluster.startNode(leader);
      await cluster.waitUntilReady(30_000);
      await goOn();
      stopped = true;
      await all;
      const valueOf = async (key: string): Promise<number> =>
        Number(text((await client.get({ key: bytes(key) })).kv?.value));
      tallies.single.check(await valueOf('single'), 'increments one by one');
      tallies.batched.check(await valueOf('batched'), 'increments in batches');
      tallies.txn.check(await valueOf('{pair}a'), 'transactions');
      expect(await valueOf('{pair}b')).to.equal(await valueOf('{pair}a'));
      const found = new Set(await scanned(client, 'put-'));
      expect(
        [...puts].filter((key) => !found.has(key)),
        'acknowledged puts',
      ).to.deep.equal([]);
      single.close();
    }));

  it('R50: goes on with a scan when the leader is killed between its pages: all keys, each once, in order', () =>
    withCluster({ shards: 4 }, async ({ cluster, client }) => {
      const keys = Array.from({ length: 2000 }, (_, n) => `key-${n}`);
      await client.batch(keys.map((key) => ({ put: { key: bytes(key), value: bytes(key) } })));
      let started = 0;
      let kill: Promise<void> | undefined;
      /** Both scans are in the middle. */
      const killOnce = (): Promise<void> | undefined => {
        if (started === 2)
          kill ??= cluster.leader(shard).then((leader) => cluster.kill(leader ?? 1));
        return kill;
      };
      const scan = async (level: number): Promise<string[]> => {
        const found: string[] = [];
        for await (const { kvs = [] } of client.scan({ pageBytes: 2048, level })) {
          const before = found.length;
          found.push(...kvs.map(({ key }) => text(key) ?? ''));
          if (before < 600 && found.length >= 600) started += 1;
          if (found.length >= 600) await killOnce();
        }
        return found;
      };
      const levels = [ReadLevel.LINEARIZABLE, ReadLevel.AT_LEAST];
      for (const found of await Promise.all(levels.map(scan)))
        expect(found).to.deep.equal(inOrder(keys));
      expect(kill).to.not.equal(undefined);
    }));

  it('D21: writes on although a follower’s clock is an hour fast', () =>
    withCluster({}, async ({ cluster, client }) => {
      const key = bytes('k');
      await client.put({ key, value: bytes('before') });
      const leader = await cluster.leader(shard);
      const fast = cluster.nodes.find(({ node }) => node !== leader)?.node ?? 1;
      await cluster.kill(fast);
      const { NODE_OPTIONS: before } = process.env;
      const hourMs = 3_600_000;
      const script = `const now=Date.now.bind(Date);Date.now=()=>now()+${hourMs}`;
      process.env['NODE_OPTIONS'] = `--import=data:text/javascript,${encodeURIComponent(script)}`;
      cluster.startNode(fast);
      if (before === undefined) delete process.env['NODE_OPTIONS'];
      else process.env['NODE_OPTIONS'] = before;
      await cluster.waitUntilReady(30_000);
      for (const batching of [true, false]) {
        const seeded = new QuorateClient({
          endpoints: [cluster.node(fast).clientAddress],
          batching,
          timeoutMs: 20_000,
        });
        for (const level of [ReadLevel.STALE, ReadLevel.AT_LEAST, ReadLevel.LINEARIZABLE])
          for (let n = 0; n < 6; n++)
            expect((await seeded.get({ key, level })).found).to.equal(true);
        await seeded.put({ key, value: bytes('after') });
        expect(
          (await seeded.txn({ then: [{ put: { key, value: bytes('x') } }] })).succeeded,
        ).to.equal(true);
        seeded.close();
      }
    }));
});
