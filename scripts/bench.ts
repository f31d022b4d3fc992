/**
 * `npm run bench`: the figures of docs/benchmarks.md. Three nodes and the load generator share this
 * machine; fsync is on. Each case is a process of its own, taken `--turns` times; medians are shown.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { promisify } from 'node:util';
import { Command, Option } from 'commander';
import { LocalCluster } from '../src/cli/local-cluster.js';
import { printTable } from '../src/cli/output.js';
import { QuorateClient } from '../src/client/index.js';
import { projectRoot } from './project-root.js';
import { measureDurability } from './bench/durability.js';
import { measureIdleGroups } from './bench/idle-groups.js';
import { generateLoad } from './bench/load.js';
import { median } from './bench/median.js';
import { measureMigrations } from './bench/migrations.js';
import { raceEtcd } from './bench/race.js';
import { raceDoors } from './bench/race-doors.js';
import { raceRedis } from './bench/race-redis.js';
import { measureReadLevels } from './bench/read-levels.js';
import { measureScale } from './bench/scale-cluster.js';
import { measureTopologies } from './bench/scale-topology.js';
import { measureShardCounts } from './bench/shard-counts.js';
import { cpuSeconds, rssMiB } from './bench/process-figures.js';
import { warmUpSeconds } from './bench/warm-up.js';
import type { LoadResult, LoadSpec } from './bench/load-generator.js';

const run = promisify(execFile);
const shard = 1;
/** Of the measurement of idle groups: a percent of a core is a third of a second. */
const idleSeconds = 30;
const awakeSeconds = 10;
/** Of the replica that is built anew. */
const rebuiltMib = 128;
/** Written for the speed at which a migration copies. */
const migratedMib = 64;

interface Options {
  readonly seconds: number;
  readonly turns: number;
  readonly keys: number;
  readonly kills: number;
  readonly groups: number;
  readonly only: string | undefined;
  readonly scale: number;
}

/** What has a cluster of its own, or needs none; `--only` takes these names too. */
const parts: Readonly<Record<string, (options: Options) => Promise<void>>> = {
  durability: measureDurability,
  levels: measureReadLevels,
  migrations: ({ turns }) => measureMigrations({ turns, mib: migratedMib }),
  shards: measureShardCounts,
  scale: async ({ groups }) => {
    measureTopologies();
    await measureScale({ groups, seconds: awakeSeconds, mib: rebuiltMib });
  },
  idle: ({ groups }) => measureIdleGroups({ groups, seconds: idleSeconds }),
  simulator,
};

interface Case {
  readonly name: string;
  readonly spec: Omit<LoadSpec, 'endpoints' | 'seconds' | 'operationsMax'>;
}

const keys = 100_000;
const base = { keys, valueBytes: 256, batch: 1 } as const;
const cases: readonly Case[] = [
  { name: 'put 1 x 1', spec: { ...base, operation: 'put', connections: 1, streams: 1 } },
  { name: 'put 64 x 1', spec: { ...base, operation: 'put', connections: 64, streams: 1 } },
  { name: 'put 64 x 16', spec: { ...base, operation: 'put', connections: 64, streams: 16 } },
  {
    name: 'Pipeline put, 128 a batch',
    spec: { ...base, operation: 'put', connections: 4, streams: 8, batch: 128 },
  },
  { name: 'get 1 x 1', spec: { ...base, operation: 'get', connections: 1, streams: 1 } },
  { name: 'get 64 x 1', spec: { ...base, operation: 'get', connections: 64, streams: 1 } },
  { name: 'get 64 x 16', spec: { ...base, operation: 'get', connections: 64, streams: 16 } },
  {
    name: 'Pipeline get, 128 a batch',
    spec: { ...base, operation: 'get', connections: 4, streams: 8, batch: 128 },
  },
];

interface Turn extends LoadResult {
  readonly cpuUsPerOperation: number;
}

/** CPU seconds of all nodes so far. */
function cpuSecondsOf(cluster: LocalCluster): number {
  return cluster.nodes.reduce((sum, { node }) => sum + cpuSeconds(cluster.pid(node)), 0);
}

async function turn(cluster: LocalCluster, spec: LoadSpec): Promise<Turn> {
  const before = cpuSecondsOf(cluster);
  const result = await generateLoad(spec);
  const cpu = cpuSecondsOf(cluster) - before;
  return { ...result, cpuUsPerOperation: (cpu * 1e6) / Math.max(1, result.operations) };
}

async function loadCases(cluster: LocalCluster, options: Options): Promise<void> {
  const chosen = cases.filter(
    ({ name }) => options.only === undefined || name.includes(options.only),
  );
  const rows: string[][] = [];
  for (const { name, spec } of chosen) {
    const turns: Turn[] = [];
    // The leader's own address: forwarding is a case of its own.
    const endpoints = [cluster.node((await cluster.leader(shard)) ?? 1).clientAddress];
    const load = { ...spec, endpoints, operationsMax: 0 };
    await generateLoad({ ...load, seconds: warmUpSeconds });
    await loopDelay(cluster);
    for (let n = 0; n < options.turns; n++)
      turns.push(await turn(cluster, { ...load, seconds: options.seconds }));
    const of = (read: (turn: Turn) => number): number => median(turns.map(read));
    rows.push([
      name,
      Math.round(of((t) => t.operations / t.seconds)).toLocaleString('en'),
      (of((t) => t.p50Us) / 1000).toFixed(2),
      (of((t) => t.p99Us) / 1000).toFixed(2),
      of((t) => t.cpuUsPerOperation).toFixed(0),
      (await loopDelay(cluster)).toFixed(0),
    ]);
    process.stderr.write(`${name}: ${rows.at(-1)?.[1]} /s\n`);
  }
  printTable(
    ['case', 'operations/s', 'p50 ms', 'p99 ms', 'CPU us/op (3 nodes)', 'loop late p99.9 ms'],
    rows,
  );
}

/**
 * Milliseconds that the event loop of a node was late, p99.9 since it was last asked, of the node where it
 * was the longest.
 */
async function loopDelay(cluster: LocalCluster): Promise<number> {
  const delays = await Promise.all(
    cluster.nodes.map(async ({ httpAddress }) => {
      const text = await (await fetch(`http://${httpAddress}/metrics`)).text();
      const name = /^quorate_event_loop_delay_seconds\{quantile="0.999"\} (\S+)/m;
      return Number(name.exec(text)?.[1]) * 1000;
    }),
  );
  return Math.max(...delays);
}

/** Milliseconds without a successful write around a kill -9 of the leader. */
async function writeGap(cluster: LocalCluster): Promise<number> {
  const client = new QuorateClient({ endpoints: cluster.endpoints });
  const leader = (await cluster.leader(shard)) ?? 1;
  let last = performance.now();
  let gap = 0;
  let killed: Promise<void> | undefined;
  for (let n = 0; n < 2000; n++) {
    await client.put({ key: Buffer.from('gap'), value: Buffer.from(String(n)) });
    const now = performance.now();
    gap = Math.max(gap, now - last);
    last = now;
    if (n === 20) killed = cluster.kill(leader);
    if (killed !== undefined && gap > 100 && n > 60) break;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await killed;
  client.close();
  cluster.startNode(leader);
  await cluster.waitUntilReady(30_000);
  return gap;
}

async function failover(cluster: LocalCluster, options: Options): Promise<void> {
  const gaps: number[] = [];
  for (let n = 0; n < options.kills; n++) gaps.push(await writeGap(cluster));
  gaps.sort((a, b) => a - b);
  const at = (share: number): string =>
    (gaps[Math.min(gaps.length - 1, Math.floor(share * gaps.length))] ?? 0).toFixed(0);
  console.log(
    `write gap after kill -9 of the leader, ${gaps.length} kills: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`,
  );
}

async function restart(cluster: LocalCluster, options: Options): Promise<void> {
  const leader = (await cluster.leader(shard)) ?? 1;
  const spec = {
    ...base,
    operation: 'put',
    connections: 4,
    streams: 8,
    batch: 128,
    keys: options.keys,
  } as const;
  await generateLoad({
    ...spec,
    endpoints: [cluster.node(leader).clientAddress],
    seconds: 300,
    operationsMax: options.keys,
  });
  const node = cluster.nodes.find((each) => each.node !== leader)?.node ?? 1;
  const rss = cluster.nodes.map((each) => rssMiB(cluster.pid(each.node)));
  console.log(
    `memory with ${options.keys} keys of 256 B: ${rss.map((mib) => mib.toFixed(0)).join(' + ')} MiB`,
  );
  await cluster.kill(node);
  const started = performance.now();
  cluster.startNode(node);
  await cluster.waitFor('restarted node serves', 120_000, async () => {
    const mine = (await cluster.status(node))?.groups.find((group) => group.groupId === shard);
    return mine !== undefined && mine.leaderNode !== 0 && mine.appliedIndex >= mine.commitIndex;
  });
  console.log(
    `restart after kill -9 with ${options.keys} keys until it serves: ${((performance.now() - started) / 1000).toFixed(2)} s`,
  );
}

async function simulator(): Promise<void> {
  const program = join(import.meta.dirname, `sim${extname(import.meta.filename)}`);
  const { stdout } = await run(
    process.execPath,
    [...process.execArgv, program, '--seeds', '500', '--seed-from', '1'],
    { maxBuffer: 1 << 26 },
  );
  const rate = /seconds, ([\d,.]+) a minute/.exec(stdout)?.[1];
  console.log(
    `core simulator: ${rate ?? 'no figure'} seeds of 20 virtual seconds per minute on one core`,
  );
}

async function main(): Promise<void> {
  const flags = new Command('bench')
    .option('--seconds <n>', 'of each turn', '5')
    .option('--turns <n>', 'of each case', '3')
    .option('--keys <n>', 'for memory and restart', '1000000')
    .option('--kills <n>', 'of the leader', '20')
    .option('--groups <n>', 'idle ones, on each of three nodes', '1000')
    .option(
      '--only <text>',
      `only the load cases whose name has this, or one of ${Object.keys(parts).join(', ')}`,
    )
    .addOption(
      new Option('--vs <store>', 'race another store, or the two HTTP/2 doors').choices([
        'etcd',
        'redis',
        'lean',
      ]),
    )
    .option('--scale <share>', 'of the calls of a race', '1')
    .parse()
    .opts<Record<string, string>>();
  const options: Options = {
    seconds: Number(flags['seconds']),
    turns: Number(flags['turns']),
    keys: Number(flags['keys']),
    kills: Number(flags['kills']),
    groups: Number(flags['groups']),
    only: flags['only'],
    scale: Number(flags['scale']),
  };
  const { stdout: commit } = await run('git', ['rev-parse', '--short', 'HEAD'], {
    cwd: projectRoot,
  });
  console.log(
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} x ${cpus()[0]?.model ?? ''}, Node ${process.version}, commit ${commit.trim()}`,
  );
  console.log(`npm run bench -- ${process.argv.slice(2).join(' ')}\n`);
  if (flags['vs'] === 'etcd') return raceEtcd(options);
  if (flags['vs'] === 'redis') return raceRedis(options);
  if (flags['vs'] === 'lean') return raceDoors(options);
  const only = options.only === undefined ? undefined : parts[options.only];
  if (only !== undefined) return only(options);
  await measureLoads(options);
  if (options.only !== undefined) return;
  for (const part of Object.values(parts)) await part(options);
}

/** Memory, the load cases, and what is measured on the cluster that they leave. */
async function measureLoads(options: Options): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-bench-'));
  const cluster = await LocalCluster.start({
    nodes: 3,
    directory,
    basePort: 0,
    flags: { 'log-level': 'warn' },
  });
  try {
    console.log(
      `memory idle: ${cluster.nodes.map(({ node }) => rssMiB(cluster.pid(node)).toFixed(0)).join(' + ')} MiB`,
    );
    await loadCases(cluster, options);
    if (options.only !== undefined) return;
    await failover(cluster, options);
    await restart(cluster, options);
  } finally {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

await main();
