/**
 * What groups cost that nobody asks anything for: time to serve after `cluster init`, CPU time and
 * memory of each of three nodes once all groups are quiet. Run as a program of its own:
 *
 *   node dist/scripts/bench/idle-groups.js --groups 1000 --seconds 30
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { cpuSeconds, rssMiB } from './process-figures.js';

export interface IdleOptions {
  readonly groups: number;
  readonly seconds: number;
  /** More arguments for the nodes' node, e.g. --cpu-prof. */
  readonly execArguments?: readonly string[];
}

/** From the last group's last entry until it is quiet, with some to spare, ms. */
const settleMs = 12_000;
const startMsMax = 180_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const cpuOf = (cluster: LocalCluster): readonly number[] =>
  cluster.nodes.map(({ node }) => cpuSeconds(cluster.pid(node)));

/** Prints its lines itself. */
export async function measureIdleGroups({
  groups,
  seconds,
  execArguments,
}: IdleOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-idle-'));
  const started = performance.now();
  const cluster = await LocalCluster.start({
    nodes: 3,
    shards: groups,
    directory,
    basePort: 0,
    startMsMax,
    flags: { 'log-level': 'warn' },
    ...(execArguments === undefined ? {} : { execArguments }),
  });
  try {
    const startMs = performance.now() - started;
    const born = cpuOf(cluster);
    console.log(
      `${groups} groups on 3 nodes: start until all serve ${(startMs / 1000).toFixed(1)} s, ` +
        `CPU ${born.map((used) => used.toFixed(1)).join(' + ')} s`,
    );
    await pause(settleMs);
    const before = cpuOf(cluster);
    await pause(seconds * 1000);
    const shares = cpuOf(cluster).map((used, n) => ((used - (before[n] ?? 0)) / seconds) * 100);
    const memory = cluster.nodes.map(({ node }) => rssMiB(cluster.pid(node)).toFixed(0));
    console.log(
      `${groups} idle groups on each of 3 nodes, ${seconds} s: ` +
        `${shares.map((share) => share.toFixed(2)).join(' + ')} % of a core, ${memory.join(' + ')} MiB`,
    );
  } finally {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

if (import.meta.filename === process.argv[1]) {
  const flags = new Command('idle-groups')
    .option('--groups <n>', 'shards, each with a replica on each of three nodes', '1000')
    .option('--seconds <n>', 'of the measurement', '30')
    .option('--profile <directory>', 'write CPU profiles of the nodes there')
    .parse()
    .opts<Record<string, string>>();
  await measureIdleGroups({
    groups: Number(flags['groups']),
    seconds: Number(flags['seconds']),
    ...(flags['profile'] === undefined
      ? {}
      : { execArguments: ['--cpu-prof', `--cpu-prof-dir=${flags['profile']}`] }),
  });
}
