/**
 * What moving a quarter of the slots costs: throughput of clients before and meanwhile, how long slots
 * stand still, how fast data is copied when nothing else happens. Run as a program of its own:
 *
 *   node dist/scripts/bench/migrations.js --turns 3 --mib 64
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import type { MigrationInfo } from '../../proto/messages.js';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';
import { median } from './median.js';

export interface MigrationBenchOptions {
  readonly turns: number;
  /** Of 1 KiB values, for the speed of the copy; half of them move. */
  readonly mib: number;
}

const writers = 128;
const keys = 50_000;
const quarter = 4096;
const settleMs = 3000;
const baselineMs = 5000;
const endMsMax = 300_000;
const MiB = 1024 * 1024;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Closed loop: half puts, half linearizable gets, over keys of all slots. */
class Load {
  operations = 0;
  readonly failures: string[] = [];
  private readonly client: QuorateClient;
  private readonly work: Promise<void[]>;
  private stopped = false;

  constructor(client: QuorateClient) {
    this.client = client;
    this.work = Promise.all(Array.from({ length: writers }, (_, n) => this.run(n)));
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.work;
  }

  private async run(worker: number): Promise<void> {
    const value = Buffer.alloc(256, 'v');
    for (let n = worker; !this.stopped; n += writers) {
      const key = Buffer.from(`key-${(n * 7919) % keys}`);
      try {
        if (n % 2 === 0) await this.client.put({ key, value });
        else await this.client.get({ key });
      } catch (error) {
        this.failures.push(String(error));
      }
      this.operations++;
    }
  }
}

async function start(client: QuorateClient, source: number, target: number): Promise<number> {
  const moves = [{ source, target, slots: [{ first: 0, last: quarter - 1 }] }];
  const { issued } = await client.changeCluster({ kind: 'startMigrations', moves });
  return (JSON.parse(issued) as { migrations: number[] }).migrations[0] ?? 0;
}

interface Moved {
  readonly seconds: number;
  readonly bytes: number;
  readonly freezeMsMedian: number;
  readonly freezeMsP99: number;
  readonly freezeMsMax: number;
}

/** Until it is done. */
async function move(client: QuorateClient, source: number, target: number): Promise<Moved> {
  const started = performance.now();
  const id = await start(client, source, target);
  let freezes = { freezeMsMedian: Number.NaN, freezeMsP99: Number.NaN };
  for (;;) {
    const { migrations } = await client.topology();
    const found = migrations.find(({ migrationId }) => migrationId === id);
    if (found !== undefined && found.endedMs > 0) return { ...ended(found, started), ...freezes };
    if (performance.now() - started > endMsMax) throw new Error('the migration does not end');
    const { exports } = await client.shardFigures({ shardId: source });
    const live = exports.find(({ migrationId }) => migrationId === id);
    if (live !== undefined && live.freezes > 0)
      freezes = { freezeMsMedian: live.freezeMsMedian, freezeMsP99: live.freezeMsP99 };
    // As often as somebody who watches it; the load and the questions share one process.
    await pause(500);
  }
}

function ended(
  { state, reason, bytes, freezeMsMax }: MigrationInfo,
  startedMs: number,
): Pick<Moved, 'seconds' | 'bytes' | 'freezeMsMax'> {
  if (state !== 'done') throw new Error(`the migration ${state}: ${reason}`);
  return { seconds: (performance.now() - startedMs) / 1000, bytes, freezeMsMax };
}

async function underLoad(client: QuorateClient, turns: number): Promise<void> {
  const load = new Load(client);
  const rows: (Moved & { readonly before: number; readonly during: number })[] = [];
  try {
    for (let turn = 0; turn < turns; turn++) {
      await pause(settleMs);
      let from = load.operations;
      await pause(baselineMs);
      const before = ((load.operations - from) * 1000) / baselineMs;
      from = load.operations;
      // There and back again.
      const moved = turn % 2 === 0 ? await move(client, 1, 2) : await move(client, 2, 1);
      rows.push({ ...moved, before, during: (load.operations - from) / moved.seconds });
    }
  } finally {
    await load.stop();
  }
  const of = (read: (row: (typeof rows)[number]) => number): number => median(rows.map(read));
  console.log(
    `a quarter of the slots moves under load (SDK, ${writers} x 1, half puts, half gets), ` +
      `medians of ${turns}: ${of((row) => row.before).toFixed(0)} operations/s before, ` +
      `${of((row) => row.during).toFixed(0)} meanwhile ` +
      `(${of((row) => (100 * row.during) / row.before).toFixed(0)} %), ` +
      `${of((row) => row.seconds).toFixed(1)} s, ${load.failures.length} failed requests; ` +
      `freeze median ${of((row) => row.freezeMsMedian).toFixed(0)} ms, ` +
      `p99 ${of((row) => row.freezeMsP99).toFixed(0)} ms, ` +
      `longest ${Math.max(...rows.map((row) => row.freezeMsMax))} ms`,
  );
  if (load.failures.length > 0) throw new Error(`requests failed: ${load.failures[0]}`);
}

/** Half of what is written lies in the slots that move. */
async function copySpeed(client: QuorateClient, mib: number): Promise<void> {
  await client.changeCluster({
    kind: 'setSetting',
    name: 'migrationBytesPerSecond',
    value: 10_000_000_000,
  });
  const value = Buffer.alloc(1024, 'c');
  const started = performance.now();
  for (let n = 0; n < mib * 1024; n += 512)
    await Promise.all(
      Array.from({ length: 512 }, (_, k) =>
        client.put({ key: Buffer.from(`copy-${n + k}`), value }),
      ),
    );
  const written = (mib * 1000) / (performance.now() - started);
  const { shards, slots } = await client.topology();
  const source = slots.find(({ first }) => first === 0)?.shardId ?? 1;
  const target = shards.find(({ shardId }) => shardId !== source)?.shardId ?? 2;
  const { bytes, seconds } = await move(client, source, target);
  const copied = bytes / MiB / seconds;
  console.log(
    `copy without throttle or load: ${(bytes / MiB).toFixed(0)} MiB in ${seconds.toFixed(1)} s, ` +
      `${copied.toFixed(1)} MiB/s; the same values were written by 512 x 1 puts of the SDK at ` +
      `${written.toFixed(1)} MiB/s (${((100 * copied) / written).toFixed(0)} %)`,
  );
}

/** Prints its lines itself. */
export async function measureMigrations({ turns, mib }: MigrationBenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-migrations-'));
  const flags = { 'log-level': 'warn' };
  const cluster = await LocalCluster.start({ nodes: 3, shards: 2, directory, basePort: 0, flags });
  const client = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
  try {
    await underLoad(client, turns);
    await copySpeed(client, mib);
  } finally {
    client.close();
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

if (import.meta.filename === process.argv[1]) {
  const flags = new Command('migrations')
    .option('--turns <n>', 'migrations under load, there and back again', '3')
    .option('--mib <n>', 'written for the speed of the copy', '64')
    .parse()
    .opts<Record<string, string>>();
  await measureMigrations({ turns: Number(flags['turns']), mib: Number(flags['mib']) });
}
