/** Migrations of a test's cluster, what is written meanwhile, and what must hold afterwards. */
import { expect } from 'chai';
import type { MigrationInfo } from '../../proto/messages.js';
import { QuorateClient } from '../../src/client/index.js';
import { slotCount, slotOf } from '../../src/router/slot.js';
import { bytes, text, type Fixture } from './fixture.js';
import { QuorateCommand } from './quorate-command.js';

export interface Move {
  readonly source: number;
  readonly target: number;
  readonly first: number;
  readonly last: number;
  /** As fast as the setting allows if absent. */
  readonly bytesPerSecond?: number;
}

/** The id of the migration. */
export async function migrate(client: QuorateClient, move: Move): Promise<number> {
  const { source, target, first, last, bytesPerSecond } = move;
  // Set before it begins: a small one would be over before it could be throttled.
  if (bytesPerSecond !== undefined) {
    const value = bytesPerSecond;
    await client.changeCluster({ kind: 'setSetting', name: 'migrationBytesPerSecond', value });
  }
  const moves = [{ source, target, slots: [{ first, last }] }];
  const { issued } = await client.changeCluster({ kind: 'startMigrations', moves });
  const { migrations = [] } = JSON.parse(issued) as { migrations?: number[] };
  return migrations[0] ?? 0;
}

export async function migrationOf(client: QuorateClient, id: number): Promise<MigrationInfo> {
  // All nodes may be starting.
  const { migrations } = await client.topology({ timeoutMs: 45_000 });
  const found = migrations.find(({ migrationId }) => migrationId === id);
  if (found === undefined) throw new Error(`no migration ${id}`);
  return found;
}

/** Waits until the migration is as wanted, and does something meanwhile; rejects when it has ended otherwise. */
export async function migrationTo(
  { client, cluster }: Pick<Fixture, 'client' | 'cluster'>,
  id: number,
  what: string,
  isWanted: (migration: MigrationInfo) => boolean | Promise<boolean>,
  meanwhile: () => Promise<unknown> = () => Promise.resolve(),
): Promise<MigrationInfo> {
  let found: MigrationInfo | undefined;
  await cluster.waitFor(`migration ${id} ${what}`, 90_000, async () => {
    await meanwhile();
    found = await migrationOf(client, id);
    if (await isWanted(found)) return true;
    if (found.endedMs > 0) throw new Error(`not ${what}: ${JSON.stringify(found)}`);
    return false;
  });
  if (found === undefined) throw new Error(`no migration ${id}`);
  return found;
}

export function ended(
  fixture: Pick<Fixture, 'client' | 'cluster'>,
  id: number,
): Promise<MigrationInfo> {
  return migrationTo(fixture, id, 'ended', ({ endedMs }) => endedMs > 0);
}

/** Counters that go up and keys that are added, until it is stopped; what was acknowledged is known. */
export class Writing {
  /** What must be there, by key. */
  readonly expected = new Map<string, string>();
  readonly failures: unknown[] = [];
  acknowledged = 0;
  private readonly client: QuorateClient;
  private readonly running: Promise<unknown>;
  private stopped = false;

  constructor({ cluster }: Fixture, { writers = 8, pauseMs = 5, keysMax = 100, prefix = '' } = {}) {
    this.client = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 45_000 });
    this.running = Promise.all(
      Array.from({ length: writers }, (_, n) => this.write(`${prefix}${n}`, { pauseMs, keysMax })),
    );
  }

  private async write(
    writer: string,
    { pauseMs, keysMax }: { readonly pauseMs: number; readonly keysMax: number },
  ): Promise<void> {
    for (let n = 0; !this.stopped; n++) {
      try {
        const counter = `${writer}-counter-${n % 8}`;
        await this.client.increment({ key: bytes(counter), delta: 1 });
        this.expected.set(counter, String(Number(this.expected.get(counter) ?? '0') + 1));
        const added = `${writer}-added-${n % keysMax}`;
        await this.client.put({ key: bytes(added), value: bytes(String(n)) });
        this.expected.set(added, String(n));
        this.acknowledged += 2;
      } catch (error) {
        this.failures.push(error);
      }
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
    this.client.close();
  }
}

/** Values of some bytes; returns what must be there. */
export async function fill(
  client: QuorateClient,
  { count, size, prefix = 'filled' }: { count: number; size: number; prefix?: string },
): Promise<ReadonlyMap<string, string>> {
  const expected = new Map<string, string>();
  for (let n = 0; n < count; n++) expected.set(`${prefix}-${n}`, `${n} `.padEnd(size, 'v'));
  await inPieces([...expected], async ([key, value]) => {
    await client.put({ key: bytes(key), value: bytes(value) });
  });
  return expected;
}

/** A key prefix whose tag lies in that slot. */
export function prefixOf(slot: number): string {
  for (let n = 0; ; n++) if (slotOf(bytes(`{${n}}`)) === slot) return `{${n}}`;
}

/** The shard that has a slot as the map says. */
export async function ownerOf(client: QuorateClient, slot: number): Promise<number> {
  const { slots } = await client.topology();
  return slots.find(({ first, last }) => slot >= first && slot <= last)?.shardId ?? 0;
}

/**
 * Everything is there, and once: each key has its value, each slot one owner, the replicas are equal, and
 * no shard has a key but those of its slots.
 */
export async function expectWhole(
  fixture: Fixture,
  ...everything: readonly ReadonlyMap<string, string>[]
): Promise<void> {
  const { client, cluster } = fixture;
  await cluster.waitUntilReady(30_000);
  const expected = everything.flatMap((each) => [...each]);
  await inPieces(expected, async ([key, value]) => {
    const { kv } = await client.get({ key: bytes(key) });
    expect(text(kv?.value), `${key} in slot ${slotOf(bytes(key))}`).to.equal(value);
  });
  await expectNoOthers(
    fixture,
    expected.map(([key]) => key),
  );
}

/** Each slot has one owner, the replicas are equal, and no shard has a key but these in its slots. */
export async function expectNoOthers(
  { client, cluster }: Fixture,
  keys: readonly string[],
): Promise<void> {
  const { slots } = await client.topology();
  const owners = Array.from({ length: slotCount }, () => 0);
  for (const { first, last, shardId } of slots) owners.fill(shardId, first, last + 1);
  const wanted = new Map<number, number>();
  for (const key of keys) {
    const owner = owners[slotOf(bytes(key))] ?? 0;
    wanted.set(owner, (wanted.get(owner) ?? 0) + 1);
  }
  const check = (await new QuorateCommand(cluster.endpoints).json('cluster check')) as Check;
  expect(check.problems).to.deep.equal([]);
  for (const { id, replicas } of check.groups.filter((group) => group.id > 0)) {
    const found = replicas.map(({ keys }) => keys);
    expect(new Set(found), `keys of shard ${id}`).to.deep.equal(new Set([wanted.get(id) ?? 0]));
  }
}

interface Check {
  readonly problems: readonly string[];
  readonly groups: readonly { id: number; replicas: readonly { keys: number }[] }[];
}

const atOnceMax = 64;

async function inPieces<T>(all: readonly T[], work: (each: T) => Promise<void>): Promise<void> {
  for (let at = 0; at < all.length; at += atOnceMax)
    await Promise.all(all.slice(at, at + atOnceMax).map(work));
}
