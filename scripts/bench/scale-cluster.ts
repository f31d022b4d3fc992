/**
 * Costs by the unit, of real nodes on this machine: a group that is awake and has nothing to do, the
 * death of a node with many leaders, a replica that is built anew.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';
import { generateLoad } from './load.js';
import { cpuSeconds } from './process-figures.js';

export interface ScaleOptions {
  /** Shards, each with a replica on each of three nodes. */
  readonly groups: number;
  /** Of the measurement of groups that are awake. */
  readonly seconds: number;
  /** Of 1 KiB values, in the replica that is built anew. */
  readonly mib: number;
}

const settleMs = 5000;
const startMsMax = 180_000;
const buildMsMax = 300_000;
const MiB = 1024 * 1024;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function withNodes(
  options: { readonly nodes: number; readonly shards: number; readonly awake: boolean },
  run: (cluster: LocalCluster) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-scale-'));
  const { nodes, shards, awake } = options;
  const flags = { 'log-level': 'warn', ...(awake ? { 'quiet-after-ms': '0' } : {}) };
  const place = { directory, basePort: 0, startMsMax, replicas: 3 };
  const cluster = await LocalCluster.start({ nodes, shards, flags, ...place });
  try {
    await run(cluster);
  } finally {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Sent to other nodes by all nodes so far. */
async function sentOf(cluster: LocalCluster): Promise<{ bytes: number; frames: number }> {
  const sent = { bytes: 0, frames: 0 };
  for (const { httpAddress } of cluster.nodes) {
    const text = await (await fetch(`http://${httpAddress}/metrics`)).text();
    const figure = (name: string): number =>
      Number(new RegExp(`^quorate_${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
    sent.bytes += figure('peer_frame_size_bytes_sum');
    sent.frames += figure('peer_frame_size_bytes_count');
  }
  return sent;
}

const cpuOf = (cluster: LocalCluster): number =>
  cluster.nodes.reduce((sum, { node }) => sum + cpuSeconds(cluster.pid(node)), 0);

/** Heartbeats of groups that are kept awake; then the death of the node that leads a third of them. */
async function awakeGroups({ groups, seconds }: ScaleOptions): Promise<void> {
  await withNodes({ nodes: 3, shards: groups, awake: true }, async (cluster) => {
    await pause(settleMs);
    const [cpu, sent, started] = [cpuOf(cluster), await sentOf(cluster), performance.now()];
    await pause(seconds * 1000);
    const now = await sentOf(cluster);
    const took = (performance.now() - started) / 1000;
    const usedPercent = ((cpuOf(cluster) - cpu) / took / 3) * 100;
    const bytes = (now.bytes - sent.bytes) / took / 3;
    const frames = (now.frames - sent.frames) / took / 3;
    console.log(
      `${groups} groups awake on each of 3 nodes, nothing to do: ${usedPercent.toFixed(1)} % of a ` +
        `core a node, ${(bytes / 1024).toFixed(0)} KiB and ${frames.toFixed(0)} frames a second sent by a ` +
        `node; ${(bytes / groups).toFixed(0)} bytes a second for each group`,
    );
    const led = (await cluster.status(1))?.groups.filter(({ role }) => role === 'leader').length;
    const killed = performance.now();
    await cluster.kill(1);
    await cluster.waitUntilReady(startMsMax);
    const ms = performance.now() - killed;
    console.log(
      `a node that leads ${led ?? 0} groups is killed: all lead again after ${ms.toFixed(0)} ms`,
    );
  });
}

/** One replica goes to a fourth node. */
async function rebuilding({ mib }: ScaleOptions): Promise<void> {
  await withNodes({ nodes: 4, shards: 1, awake: false }, async (cluster) => {
    const client = new QuorateClient({ endpoints: cluster.endpoints });
    try {
      const leader = (await cluster.leader(1)) ?? 1;
      const keys = mib * 1024;
      const load = { connections: 4, streams: 8, batch: 128, keys, valueBytes: 1024 } as const;
      const endpoints = [cluster.node(leader).clientAddress];
      const spec = { ...load, operation: 'put', endpoints, seconds: 300 } as const;
      await generateLoad({ ...spec, operationsMax: keys });
      const { shards } = await client.topology();
      const nodes = shards[0]?.nodes ?? [];
      const from = nodes.find((node) => node !== leader) ?? 0;
      const to = cluster.nodes.find(({ node }) => !nodes.includes(node))?.node ?? 0;
      const started = performance.now();
      await client.changeCluster({ kind: 'replaceReplica', shard: 1, from, to, nowMs: Date.now() });
      await cluster.waitFor('the replica is built anew', buildMsMax, async () => {
        const { operations } = await client.topology();
        return operations.every(({ state }) => state === 'done');
      });
      const seconds = (performance.now() - started) / 1000;
      const bytes = keys * (1024 + 16);
      console.log(
        `a replica with ${mib} MiB of 1 KiB values is built anew on another node, and the old one let go: ` +
          `${seconds.toFixed(1)} s, ${(bytes / MiB / seconds).toFixed(1)} MiB/s`,
      );
    } finally {
      client.close();
    }
  });
}

/** Prints its lines itself. */
export async function measureScale(options: ScaleOptions): Promise<void> {
  await awakeGroups(options);
  await rebuilding(options);
}
