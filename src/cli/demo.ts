/**
 * `quorate demo` (and `npm start`): a cluster on this machine does its main job in front of your
 * eyes. Real records in, all of them back, the leader killed, nothing lost.
 */
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import cliProgress from 'cli-progress';
import pc from 'picocolors';
import type { TopologyReply } from '../../proto/messages.js';
import { QuorateClient } from '../client/index.js';
import { slotOf } from '../router/slot.js';
import { findUp } from './find-up.js';
import { load, parseLine } from './load-dump.js';
import { isPortFree, LocalCluster } from './local-cluster.js';
import { askAll, printStatus } from './status-command.js';
import { Unhealthy } from './output.js';

const shards = 4;
const probeKey = Buffer.from('demo:probe');
const defaultBasePort = 7400;
const probeMs = 5;

export interface DemoOptions {
  /** Keep serving until Ctrl-C instead of ending. */
  readonly keep: boolean;
  readonly nodes: number;
}

/** Throws Unhealthy when anything was lost. */
export async function runDemo(options: DemoOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-'));
  const basePort = await freeBase(options.nodes);
  const interrupted = once(process, 'SIGINT');
  step(`starting ${options.nodes} nodes with ${shards} shards, data in ${directory}`);
  const cluster = await LocalCluster.start({ nodes: options.nodes, shards, directory, basePort });
  const client = new QuorateClient({ endpoints: cluster.endpoints });
  try {
    await runSteps(cluster, client);
    if (options.keep) {
      printHints(cluster);
      await interrupted;
      console.log('\nstopping');
    }
  } finally {
    client.close();
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function runSteps(cluster: LocalCluster, client: QuorateClient): Promise<void> {
  const file = sampleFile();
  const records = readRecords(file);
  step(`loading ${records.size} records (Debian package descriptions)`);
  await loadWithBar(client, file, records.size);
  step('reading all of them back, linearizably');
  await readAndCompare(client, records);

  const shard = shardOf(await client.topology(), probeKey);
  const leader = (await cluster.leader(shard)) ?? 0;
  step(`killing the leader of shard ${shard} (node ${leader}) with SIGKILL`);
  const gapMs = await measureWriteGap(client, () => cluster.kill(leader));
  const next = await cluster.leader(shard);
  console.log(
    `   writes were interrupted for ${pc.bold(`${Math.round(gapMs)} ms`)}; node ${next} leads now`,
  );

  step('writing more while it is gone, then reading everything again');
  await client.put({ key: Buffer.from('demo:after-kill'), value: Buffer.from('still here') });
  records.set('demo:after-kill', Buffer.from('still here'));
  await readAndCompare(client, records);

  step(`starting node ${leader} again`);
  await restartAndCatchUp(cluster, leader, shard);
  await readAndCompare(client, records);
  console.log('');
  printStatus(await askAll(client, cluster.endpoints, 2000));
  console.log(
    `\n${pc.green('nothing lost')}: ${records.size} records written, ${records.size} read back equal`,
  );
}

function shardOf({ slots }: TopologyReply, key: Uint8Array): number {
  const slot = slotOf(key);
  return slots.find(({ first, last }) => first <= slot && slot <= last)?.shardId ?? 0;
}

function step(text: string): void {
  console.log(`${pc.cyan('==')} ${text}`);
}

function sampleFile(): string {
  return findUp('test/data/packages-1000.jsonl');
}

function readRecords(file: string): Map<string, Uint8Array> {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  const items = lines.map((line, at) => parseLine(line, at + 1));
  return new Map(items.map(({ key, value }) => [Buffer.from(key).toString('utf8'), value]));
}

function bar(total: number, what: string): cliProgress.SingleBar {
  const shown = new cliProgress.SingleBar(
    {
      format: `   {bar} {percentage}% {value}/{total} ${what}, {duration} s`,
      hideCursor: true,
      noTTYOutput: true,
      notTTYSchedule: 60_000,
      stream: process.stdout,
    },
    cliProgress.Presets.shades_classic,
  );
  shown.start(total, 0);
  return shown;
}

async function loadWithBar(client: QuorateClient, file: string, total: number): Promise<void> {
  const started = performance.now();
  const shown = bar(total, 'written');
  const { records } = await load(client, createReadStream(file), {
    onProgress: (progress) => {
      shown.update(progress.records);
    },
  });
  shown.stop();
  const seconds = (performance.now() - started) / 1000;
  console.log(`   ${records} records, ${statSync(file).size} bytes in ${seconds.toFixed(2)} s`);
}

async function readAndCompare(
  client: QuorateClient,
  records: ReadonlyMap<string, Uint8Array>,
): Promise<void> {
  const shown = bar(records.size, 'read');
  const missing: string[] = [];
  let pending: Promise<void>[] = [];
  for (const [key, value] of records) {
    pending.push(
      client.get({ key: Buffer.from(key, 'utf8') }).then((reply) => {
        if (!reply.kv || Buffer.compare(reply.kv.value, value) !== 0) missing.push(key);
        shown.increment();
      }),
    );
    if (pending.length >= 64) {
      await Promise.all(pending);
      pending = [];
    }
  }
  await Promise.all(pending);
  shown.stop();
  if (missing.length > 0)
    throw new Unhealthy(`${missing.length} records are lost or changed, first: ${missing[0]}`);
}

/** Writes one key after another around the kill; the longest wait between two successes is the gap. */
async function measureWriteGap(client: QuorateClient, kill: () => Promise<void>): Promise<number> {
  let last = performance.now();
  let gap = 0;
  let killed: Promise<void> | undefined;
  const end = performance.now() + 10_000;
  for (let n = 0; performance.now() < end; n++) {
    await client.put({ key: probeKey, value: Buffer.from(String(n)) });
    const now = performance.now();
    gap = Math.max(gap, now - last);
    last = now;
    if (n === 20) killed = kill();
    // The interruption has come and gone once a write has waited far longer than a healthy one.
    if (killed !== undefined && gap > 100 && n > 30) break;
    await new Promise((resolve) => setTimeout(resolve, probeMs));
  }
  await killed;
  return gap;
}

async function restartAndCatchUp(
  cluster: LocalCluster,
  node: number,
  shard: number,
): Promise<void> {
  const started = performance.now();
  cluster.startNode(node);
  await cluster.waitFor(`node ${node} caught up`, 30_000, async () => {
    const [own, leader] = await Promise.all([cluster.status(node), cluster.leader(shard)]);
    const mine = own?.groups.find((group) => group.groupId === shard);
    const led = leader === undefined ? undefined : await cluster.status(leader);
    const theirs = led?.groups.find((group) => group.groupId === shard);
    return mine !== undefined && theirs !== undefined && mine.appliedIndex >= theirs.commitIndex;
  });
  console.log(`   caught up after ${Math.round(performance.now() - started)} ms`);
}

async function freeBase(nodes: number): Promise<number> {
  for (let base = defaultBasePort; base < defaultBasePort + 1000; base += 100) {
    const ports = Array.from({ length: nodes }, (_, n) =>
      [0, 1, 2].map((at) => base + n * 10 + at),
    ).flat();
    const free = await Promise.all(ports.map(isPortFree));
    if (free.every((yes) => yes)) return base;
  }
  return 0;
}

function printHints(cluster: LocalCluster): void {
  const list = cluster.endpoints.join(',');
  const run = 'npx quorate';
  console.log(`\nclients: ${list}`);
  console.log(
    `metrics: ${cluster.nodes.map((node) => `http://${node.httpAddress}/metrics`).join(' ')}`,
  );
  console.log('\ntry, in another terminal:');
  for (const command of [
    'status',
    'kv get pkg:0ad',
    'kv put greeting hello --ttl 60000',
    'kv incr visits',
    'kv scan --prefix pkg:a --limit 5',
    'kv shell',
  ]) {
    console.log(`  ${pc.bold(`${run} ${command} -e ${list}`)}`);
  }
  console.log('\nserving until Ctrl-C');
}
