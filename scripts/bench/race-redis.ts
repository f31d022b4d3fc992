/**
 * `npm run bench -- --vs redis`: for orientation. redis-server has one node and no replicas, and another
 * protocol, so another program makes its load: what can be compared is the CPU an operation costs.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { printTable } from '../../src/cli/output.js';
import { generateLoad } from './load.js';
import { requirePrograms } from './packages.js';
import { cpuSeconds } from './process-figures.js';
import type { RaceOptions } from './race.js';
import { startQuorate } from './raced-quorate.js';
import { RacedRedis, type RedisFigures } from './raced-redis.js';

const valueBytes = 256;
const keys = 100_000;
const calls = 300_000;
const seconds = 8;

/** Connections and what is in flight on each; of this project batches of as many on 4 streams each. */
const cases = [
  { name: 'set / put, one at a time', command: 'set', connections: 50, depth: 1 },
  { name: 'set / put, 16 in flight', command: 'set', connections: 50, depth: 16 },
  { name: 'get, one at a time', command: 'get', connections: 50, depth: 1 },
  { name: 'get, 16 in flight', command: 'get', connections: 50, depth: 16 },
] as const;
type RedisCase = (typeof cases)[number];

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

async function theirTurn(one: RedisCase, scale: number, directory: string): Promise<RedisFigures> {
  const redis = await RacedRedis.start(directory);
  try {
    const load = { ...one, valueBytes, calls: Math.round(calls * scale) };
    await redis.drive({ ...load, command: 'set', depth: 16 });
    return await redis.drive(load);
  } finally {
    await redis.stop();
  }
}

async function ourTurn(one: RedisCase, scale: number, directory: string): Promise<RedisFigures> {
  const store = await startQuorate(directory);
  const endpoints = store.addresses.slice(0, 1);
  const spec = { endpoints, keys, valueBytes, connections: one.connections, streams: 1 };
  try {
    const fill = { ...spec, connections: 4, streams: 8, batch: 128, seconds: 60 };
    await generateLoad({ ...fill, operation: 'put', operationsMax: keys });
    const cpu = (): number => store.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    const before = cpu();
    const result = await generateLoad({
      ...{ ...spec, operation: one.command === 'set' ? 'put' : 'get', batch: one.depth },
      ...{ seconds: seconds * Math.max(0.2, scale), operationsMax: 0 },
    });
    return {
      perSecond: result.operations / result.seconds,
      p50Ms: result.p50Us / 1000,
      p99Ms: result.p99Us / 1000,
      cpuUs: ((cpu() - before) * 1e6) / result.operations,
    };
  } finally {
    await store.stop();
  }
}

export async function raceRedis({ turns, scale, only }: RaceOptions): Promise<void> {
  requirePrograms({
    'redis-server': 'redis-server',
    'redis-benchmark': 'redis-tools',
    'redis-cli': 'redis-tools',
  });
  const rows: string[][] = [];
  for (const one of cases.filter(({ name }) => only === undefined || name.includes(only))) {
    const [theirs, ours]: [RedisFigures[], RedisFigures[]] = [[], []];
    for (let turn = 0; turn < turns; turn++) {
      const directory = mkdtempSync(join(tmpdir(), 'quorate-race-'));
      try {
        theirs.push(await theirTurn(one, scale, directory));
        ours.push(await ourTurn(one, scale, directory));
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    }
    const pair = (read: (figures: RedisFigures) => number, digits: number): string =>
      [theirs, ours].map((all) => median(all.map(read)).toFixed(digits)).join(', ');
    rows.push([
      one.name,
      pair((each) => each.perSecond, 0),
      pair((each) => each.p50Ms, 2),
      pair((each) => each.p99Ms, 2),
      pair((each) => each.cpuUs, 1),
    ]);
    process.stderr.write(`${rows.at(-1)?.slice(0, 2).join(' | ')}\n`);
  }
  console.log('each cell: redis (1 node), Quorate (3 nodes, every write on two disks)\n');
  printTable(['case', '/s', 'p50 ms', 'p99 ms', 'CPU us/op'], rows);
}
