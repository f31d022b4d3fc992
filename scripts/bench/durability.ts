/**
 * The price of durability: the same puts with the log in memory, not synced, synced for each operation,
 * and as the product does it. The server has no such switch; bench-disk.ts puts another disk under it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { printTable } from '../../src/cli/output.js';
import { measureRaftLog } from '../../storage/raft-log/measure.js';
import { generateLoad } from './load.js';
import { median } from './median.js';

export interface DurabilityOptions {
  readonly seconds: number;
  readonly turns: number;
}

const kinds = [
  { name: 'memory only: log and state', disk: 'memory', flags: { engine: 'memory' } },
  { name: 'log without fsync', disk: 'no-sync', flags: {} },
  { name: 'fsync for each operation', disk: 'sync-each', flags: {} },
  { name: 'group commit: the product', disk: undefined, flags: {} },
] as const;
type Kind = (typeof kinds)[number];

const loads = [
  { name: '1 x 1', connections: 1, streams: 1 },
  { name: '64 x 1', connections: 64, streams: 1 },
  { name: '64 x 16', connections: 64, streams: 16 },
] as const;

interface Figure {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const spec = { operation: 'put', batch: 1, keys: 100_000, valueBytes: 256 } as const;

async function turn({ disk, flags }: Kind, seconds: number): Promise<readonly Figure[]> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-durability-'));
  const program = join(import.meta.dirname, `bench-disk${extname(import.meta.filename)}`);
  const cluster = await LocalCluster.start({
    nodes: 3,
    directory,
    basePort: 0,
    flags: { 'log-level': 'warn', ...flags },
    execArguments: [...process.execArgv, '--import', pathToFileURL(program).href],
    environment: { BENCH_DISK: disk },
  });
  try {
    const figures: Figure[] = [];
    for (const { connections, streams } of loads) {
      const leader = (await cluster.leader(1)) ?? 1;
      const endpoints = [cluster.node(leader).clientAddress];
      const load = { ...spec, endpoints, connections, streams, seconds, operationsMax: 0 };
      const { operations, seconds: took, p50Us, p99Us } = await generateLoad(load);
      const perSecond = operations / took;
      figures.push({ perSecond, p50Ms: p50Us / 1000, p99Ms: p99Us / 1000 });
    }
    return figures;
  } finally {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The log alone, without nodes: one write with one sync for so many entries. */
async function printLogAlone(): Promise<void> {
  const rows: string[][] = [];
  for (const entriesPerSync of [1, 16, 128, 1024]) {
    const parent = mkdtempSync(join(tmpdir(), 'quorate-log-'));
    try {
      const options = { directory: join(parent, 'log'), entriesPerSync, entryBytes: 256 };
      const turns = entriesPerSync === 1 ? 4096 : 1024;
      const measured = await measureRaftLog({ ...options, groups: 1, turns });
      rows.push([
        String(entriesPerSync),
        measured.entriesPerSecond.toLocaleString('en'),
        measured.p50Ms.toFixed(2),
        measured.p99Ms.toFixed(2),
      ]);
    } finally {
      rmSync(parent, { recursive: true, force: true });
    }
  }
  printTable(['Raft log alone: entries of 256 B a sync', 'entries/s', 'p50 ms', 'p99 ms'], rows);
}

/** Prints its tables itself. */
export async function measureDurability({ seconds, turns }: DurabilityOptions): Promise<void> {
  const taken = kinds.map((): (readonly Figure[])[] => []);
  for (let n = 0; n < turns; n++)
    for (const [at, kind] of kinds.entries()) taken[at]?.push(await turn(kind, seconds));
  const rows = kinds.map(({ name }, at) => [
    name,
    ...loads.flatMap((_, load) => {
      const of = (read: (figure: Figure) => number): number =>
        median(
          (taken[at] ?? []).flatMap((figures) => (figures[load] ? [read(figures[load])] : [])),
        );
      const latencies = `${of((f) => f.p50Ms).toFixed(2)}, ${of((f) => f.p99Ms).toFixed(1)}`;
      return [Math.round(of((f) => f.perSecond)).toLocaleString('en'), latencies];
    }),
  ]);
  printTable(
    ['puts of 256 B', ...loads.flatMap(({ name }) => [`${name} /s`, 'p50, p99 ms'])],
    rows,
  );
  await printLogAlone();
}
