import { expect } from 'chai';
import type { OperationMessage } from '../../proto/messages.js';
import { QuorateClient } from '../../src/client/index.js';
import { bytes, text, withCluster, type Fixture } from './fixture.js';
import { ended, expectNoOthers, migrate, prefixOf, Writing } from './migrating.js';

/** One after the other reads one of the keys, which nobody writes, until it is stopped. */
class Reading {
  reads = 0;
  slowestMs = 0;
  readonly wrong: string[] = [];
  private readonly client: QuorateClient;
  private readonly expected: readonly (readonly [string, string])[];
  private readonly running: Promise<void>;
  private stopped = false;

  constructor({ cluster }: Fixture, expected: ReadonlyMap<string, string>) {
    this.client = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 45_000 });
    this.expected = [...expected];
    this.running = this.read();
  }

  private async read(): Promise<void> {
    while (!this.stopped) {
      const [key, value] = this.expected[(this.reads * 7919) % this.expected.length] ?? ['', ''];
      const sinceMs = performance.now();
      try {
        const { kv } = await this.client.get({ key: bytes(key) });
        if (text(kv?.value) !== value) this.wrong.push(`${key} at read ${this.reads}`);
      } catch (error) {
        this.wrong.push(`${key}: ${String(error)}`);
      }
      this.slowestMs = Math.max(this.slowestMs, performance.now() - sinceMs);
      this.reads++;
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
    this.client.close();
  }
}

/** In transactions of at most 1000 records and 1 MiB. */
async function load(client: QuorateClient, all: ReadonlyMap<string, string>): Promise<void> {
  let puts: OperationMessage[] = [];
  let size = 0;
  const flush = async (): Promise<void> => {
    if (puts.length > 0) await client.txn({ then: puts });
    puts = [];
    size = 0;
  };
  for (const [key, value] of all) {
    if (puts.length >= 1000 || size + value.length > 1024 * 1024) await flush();
    puts.push({ put: { key: bytes(key), value: bytes(value) } });
    size += value.length;
  }
  await flush();
}

/** Every record is there, and no other one but what was written meanwhile. */
async function expectAll(
  client: QuorateClient,
  prefix: string,
  expected: ReadonlyMap<string, string>,
): Promise<void> {
  const wrong: string[] = [];
  let found = 0;
  for await (const { kvs = [] } of client.scan({ prefix: bytes(prefix) }))
    for (const { key, value } of kvs) {
      found++;
      if (text(value) !== expected.get(text(key) ?? '')) wrong.push(text(key) ?? '');
    }
  expect(wrong).to.deep.equal([]);
  expect(found).to.equal(expected.size);
}

/** The sizes that are promised take a minute and more: `FULL_SIZES=1`. */
const isFull = process.env['FULL_SIZES'] === '1';
const sizes = [
  { records: isFull ? 100 : 30, size: 1_000_000 },
  { records: isFull ? 200_000 : 20_000, size: 20 },
];

describe('one slot', function () {
  this.timeout(300_000);

  for (const { records, size } of sizes)
    it(`R70: of ${records} values of ${size} bytes is moved while it is read and written`, () =>
      withCluster({ shards: 2 }, async (fixture) => {
        const { client, cluster } = fixture;
        const prefix = prefixOf(100);
        const filled = new Map<string, string>();
        for (let n = 0; n < records; n++) filled.set(`${prefix}/${n}`, `${n} `.padEnd(size, 'v'));
        await load(client, filled);
        const writing = new Writing(fixture, { writers: 4, prefix: `${prefix}-` });
        const reading = new Reading(fixture, filled);
        try {
          const id = await migrate(client, { source: 1, target: 2, first: 100, last: 100 });
          expect(await ended(fixture, id)).to.include({ state: 'done', moved: 1, reason: '' });
          const before = writing.acknowledged;
          const atTarget = (): Promise<boolean> =>
            Promise.resolve(writing.acknowledged > before + 100);
          await cluster.waitFor('writes to the target', 60_000, atTarget);
        } finally {
          await writing.stop();
          await reading.stop();
        }
        expect(reading.wrong).to.deep.equal([]);
        expect(reading.reads, 'reads meanwhile').to.be.greaterThan(0);
        expect(writing.failures.map(String)).to.deep.equal([]);
        await expectAll(client, `${prefix}/`, filled);
        await expectAll(client, `${prefix}-`, writing.expected);
        await expectNoOthers(fixture, [...filled.keys(), ...writing.expected.keys()]);
      }));
});
