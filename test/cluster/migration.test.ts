import { expect } from 'chai';
import type { QuorateClient } from '../../src/client/index.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, text, withCluster, type Fixture } from './fixture.js';

interface Migration {
  readonly id: number;
  readonly state: string;
  readonly reason: string;
  readonly moved: number;
  readonly keys: number;
  readonly freezeMsMax: number;
}

interface Document {
  readonly migrations: readonly Migration[];
  readonly slots: readonly { first: number; last: number; shard: number; epoch: number }[];
}

async function documentOf(client: QuorateClient): Promise<Document> {
  return JSON.parse((await client.topology()).document) as Document;
}

async function migrate(
  client: QuorateClient,
  move: { source: number; target: number; first: number; last: number },
): Promise<number> {
  const { source, target, first, last } = move;
  const moves = [{ source, target, slots: [{ first, last }] }];
  const { issued } = await client.changeCluster({ kind: 'startMigrations', moves });
  const { migrations = [] } = JSON.parse(issued) as { migrations?: number[] };
  return migrations[0] ?? 0;
}

async function ended({ client, cluster }: Fixture, id: number): Promise<Migration> {
  let found: Migration | undefined;
  await cluster.waitFor(`the end of migration ${id}`, 90_000, async () => {
    const { migrations } = await documentOf(client);
    found = migrations.find((each) => each.id === id);
    return ['done', 'failed', 'cancelled'].includes(found?.state ?? '');
  });
  if (found === undefined) throw new Error(`no migration ${id}`);
  return found;
}

async function ownerOf(
  client: QuorateClient,
  slot: number,
): Promise<{ shard: number; epoch: number }> {
  const { slots } = await documentOf(client);
  const range = slots.find(({ first, last }) => slot >= first && slot <= last);
  return { shard: range?.shard ?? 0, epoch: range?.epoch ?? 0 };
}

const keys = Array.from({ length: 500 }, (_, n) => `key-${n}`);

describe('slots that migrate in a running cluster', function () {
  this.timeout(180_000);

  it('belong to the target afterwards, with everything in them, and nothing is left behind', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client } = fixture;
      for (const key of keys) await client.put({ key: bytes(key), value: bytes(`v ${key}`) });
      const id = await migrate(client, { source: 1, target: 2, first: 0, last: 4095 });
      expect(await ended(fixture, id)).to.include({ state: 'done', moved: 4096, reason: '' });
      expect(await ownerOf(client, 0)).to.deep.equal({ shard: 2, epoch: 2 });
      expect(await ownerOf(client, 4096)).to.deep.equal({ shard: 1, epoch: 1 });
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
