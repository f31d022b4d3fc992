/**
 * `quorate demo --reshard`: a cluster grows from three nodes to five and from four shards to eight while
 * clients read and write, and a leader is killed in the middle. No request fails, nothing is lost.
 */
import pc from 'picocolors';
import type { MigrationInfo } from '../../proto/messages.js';
import { KvError, type QuorateClient } from '../client/index.js';
import {
  bar,
  loadWithBar,
  readAndCompare,
  readRecords,
  restartAndCatchUp,
  sampleFile,
  step,
} from './demo-stage.js';
import type { LocalCluster } from './local-cluster.js';
import { formatCount, printTable, Unhealthy } from './output.js';
import { askAll, printStatus } from './status-command.js';

const newNodes = 2;
const newShards = 4;
const workers = 16;
/** Of the slots that are to move: then a leader is killed. */
const killAtShare = 0.3;
const pollMs = 100;
const endMsMax = 300_000;

export async function reshard(cluster: LocalCluster, client: QuorateClient): Promise<void> {
  const file = sampleFile();
  const records = readRecords(file);
  step(`loading ${records.size} records (Debian package descriptions)`);
  await loadWithBar(client, file, records.size);
  step(`${workers} clients begin to read and write, and go on all the time`);
  const load = new Load(client, [...records.keys()]);
  let killed: number;
  try {
    step(`adding ${newNodes} nodes and ${newShards} shards`);
    await grow(cluster, client);
    const ids = await startRebalance(client);
    killed = await watch(cluster, client, ids);
    await report(client, ids);
  } finally {
    await load.stop();
  }
  load.print();
  step(`starting node ${killed} again`);
  await restartAndCatchUp(cluster, killed, 1);
  step('reading everything, linearizably');
  await readAndCompare(client, records);
  await load.verify();
  console.log('');
  printStatus(await askAll(client, cluster.endpoints, 2000));
  console.log(
    `\n${pc.green('nothing lost, no request failed')}: ${records.size} records read back equal, ` +
      `${formatCount(load.increments)} increments counted exactly once`,
  );
}

/** Clients that read records and count in counters of their own. */
class Load {
  requests = 0;
  increments = 0;
  private readonly client: QuorateClient;
  private readonly keys: readonly string[];
  private readonly counts = new Map<string, number>();
  private readonly failures: string[] = [];
  private readonly work: Promise<void[]>;
  private readonly startedMs = performance.now();
  private slowestMs = 0;
  private stopped = false;

  constructor(client: QuorateClient, keys: readonly string[]) {
    this.client = client;
    this.keys = keys;
    this.work = Promise.all(Array.from({ length: workers }, (_, n) => this.run(n)));
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.work;
  }

  print(): void {
    const seconds = (performance.now() - this.startedMs) / 1000;
    console.log(
      `   meanwhile: ${formatCount(this.requests)} requests in ${seconds.toFixed(1)} s, ` +
        `${this.failures.length} failed, the slowest took ${Math.round(this.slowestMs)} ms`,
    );
    if (this.failures.length > 0)
      throw new Unhealthy(`${this.failures.length} requests failed, first: ${this.failures[0]}`);
  }

  /** Each counter holds what was acknowledged, no more and no less. */
  async verify(): Promise<void> {
    for (const [key, count] of this.counts) {
      const { kv } = await this.client.get({ key: Buffer.from(key) });
      const found = Buffer.from(kv?.value ?? '').toString();
      if (found !== String(count))
        throw new Unhealthy(
          `${key} is ${found || 'missing'}, ${count} increments were acknowledged`,
        );
    }
  }

  private async run(worker: number): Promise<void> {
    for (let n = 0; !this.stopped; n++) {
      const counter = `demo:counter:${worker}:${n % 8}`;
      const record = this.keys[(worker * 131 + n * 17) % this.keys.length] ?? '';
      await this.timed(async () => {
        await this.client.increment({ key: Buffer.from(counter), delta: 1 });
        this.increments++;
        this.counts.set(counter, (this.counts.get(counter) ?? 0) + 1);
      });
      await this.timed(async () => {
        const { kv } = await this.client.get({ key: Buffer.from(record) });
        if (!kv) this.failures.push(`${record} was not found`);
      });
    }
  }

  private async timed(request: () => Promise<void>): Promise<void> {
    const startedMs = performance.now();
    try {
      await request();
    } catch (error) {
      this.failures.push(String(error));
    }
    this.requests++;
    this.slowestMs = Math.max(this.slowestMs, performance.now() - startedMs);
  }
}

async function grow(cluster: LocalCluster, client: QuorateClient): Promise<void> {
  for (let n = 0; n < newNodes; n++) {
    const { node } = await cluster.addNode();
    await cluster.waitFor(`node ${node} in the cluster`, 60_000, async () => {
      const { nodes } = await client.topology();
      const joined = nodes.some(({ nodeId, state }) => nodeId === node && state === 'up');
      return joined && (await cluster.status(node)) !== undefined;
    });
    console.log(`   node ${node} has joined`);
  }
  for (let n = 0; n < newShards; n++) {
    const { issued } = await client.changeCluster({ kind: 'createShard', replication: 3 });
    const { shard = 0 } = JSON.parse(issued) as { shard?: number };
    await cluster.waitFor(
      `a leader of shard ${shard}`,
      60_000,
      async () => (await cluster.leader(shard)) !== undefined,
    );
    console.log(`   shard ${shard} has a leader, and no slots yet`);
  }
}

/** Prints the plan, and begins to carry it out. */
async function startRebalance(client: QuorateClient): Promise<readonly number[]> {
  const { moves, version } = await client.planRebalance({ weights: [], thresholdPercent: 2 });
  step('rebalancing: each shard is to have an eighth of the slots');
  printTable(
    ['from shard', 'to shard', 'slots'],
    moves.map(({ source, target, slots }) => [
      String(source),
      String(target),
      formatCount(slots.reduce((sum, { first, last }) => sum + last - first + 1, 0)),
    ]),
  );
  const command = {
    kind: 'startMigrations',
    moves: moves.map(({ source, target, slots }) => ({
      source,
      target,
      slots: slots.map(({ first, last }) => ({ first, last })),
    })),
  };
  const { issued } = await client.changeCluster(command, { ifVersion: version });
  return (JSON.parse(issued) as { migrations?: number[] }).migrations ?? [];
}

/** Shows how far it is, and kills a leader on the way. Returns the node that was killed. */
async function watch(
  cluster: LocalCluster,
  client: QuorateClient,
  ids: readonly number[],
): Promise<number> {
  const total = (await migrations(client, ids)).reduce((sum, { slotCount }) => sum + slotCount, 0);
  const shown = bar(total, 'slots moved');
  const endMs = performance.now() + endMsMax;
  let killed = 0;
  for (;;) {
    const now = await migrations(client, ids);
    const moved = now.reduce((sum, each) => sum + each.moved, 0);
    shown.update(moved);
    const open = now.filter(({ state }) => !isEnded(state));
    const [first] = open;
    if (first === undefined) break;
    if (performance.now() > endMs) throw new Unhealthy('the rebalance does not come to its end');
    if (killed === 0 && moved >= total * killAtShare) {
      killed = (await cluster.leader(first.source)) ?? 0;
      if (killed > 0) await cluster.kill(killed);
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
  shown.stop();
  console.log(
    `   ${formatCount(total)} slots moved; node ${killed}, a leader, was killed with SIGKILL on the way`,
  );
  return killed;
}

async function report(client: QuorateClient, ids: readonly number[]): Promise<void> {
  const all = await migrations(client, ids);
  const bad = all.find(({ state }) => state !== 'done');
  if (bad !== undefined)
    throw new Unhealthy(`migration ${bad.migrationId} is ${bad.state}: ${bad.reason}`);
  printTable(
    ['migration', 'from', 'to', 'slots', 'keys', 'longest freeze'],
    all.map(({ migrationId, source, target, moved, keys, freezeMsMax }) => [
      String(migrationId),
      `shard ${source}`,
      `shard ${target}`,
      formatCount(moved),
      formatCount(keys),
      `${freezeMsMax} ms`,
    ]),
  );
}

async function migrations(
  client: QuorateClient,
  ids: readonly number[],
): Promise<readonly MigrationInfo[]> {
  for (;;) {
    try {
      const { migrations: all } = await client.topology();
      return all.filter(({ migrationId }) => ids.includes(migrationId));
    } catch (error) {
      // The node that was asked is the one that was killed.
      if (!(error instanceof KvError)) throw error;
    }
  }
}

function isEnded(state: string): boolean {
  return state === 'done' || state === 'failed' || state === 'cancelled';
}
