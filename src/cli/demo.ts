/**
 * `quorate demo` (and `npm start`): a cluster on this machine does its main job in front of your
 * eyes. Real records in, all of them back, the leader killed, nothing lost.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pc from 'picocolors';
import type { TopologyReply } from '../../proto/messages.js';
import { QuorateClient } from '../client/index.js';
import { slotOf } from '../router/slot.js';
import {
  freeBase,
  loadWithBar,
  readAndCompare,
  readRecords,
  restartAndCatchUp,
  sampleFile,
  step,
} from './demo-stage.js';
import { LocalCluster } from './local-cluster.js';
import { askAll, printStatus } from './status-command.js';
import { reshard } from './reshard-demo.js';

const shards = 4;
const probeKey = Buffer.from('demo:probe');
const probeMs = 5;

export interface DemoOptions {
  /** Keep serving until Ctrl-C instead of ending. */
  readonly keep: boolean;
  readonly nodes: number;
  /** Show how slots move to new nodes and shards, instead of how a leader is lost. */
  readonly reshard: boolean;
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
    await (options.reshard ? reshard(cluster, client) : runSteps(cluster, client));
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
