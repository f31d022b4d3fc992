/** What both demonstrations show: records that go in, and all of them back. */
import { createReadStream, readFileSync, statSync } from 'node:fs';
import cliProgress from 'cli-progress';
import pc from 'picocolors';
import type { QuorateClient } from '../client/index.js';
import { findUp } from './find-up.js';
import { load, parseLine } from './load-dump.js';
import { isPortFree, type LocalCluster } from './local-cluster.js';
import { Unhealthy } from './output.js';

const defaultBasePort = 7400;

export function step(text: string): void {
  console.log(`${pc.cyan('==')} ${text}`);
}

export function sampleFile(): string {
  return findUp('test/data/packages-1000.jsonl');
}

export function readRecords(file: string): Map<string, Uint8Array> {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  const items = lines.map((line, at) => parseLine(line, at + 1));
  return new Map(items.map(({ key, value }) => [Buffer.from(key).toString('utf8'), value]));
}

export function bar(total: number, what: string): cliProgress.SingleBar {
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

export async function loadWithBar(
  client: QuorateClient,
  file: string,
  total: number,
): Promise<void> {
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

export async function readAndCompare(
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

export async function restartAndCatchUp(
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

export async function freeBase(nodes: number): Promise<number> {
  for (let base = defaultBasePort; base < defaultBasePort + 1000; base += 100) {
    const ports = Array.from({ length: nodes }, (_, n) =>
      [0, 1, 2].map((at) => base + n * 10 + at),
    ).flat();
    const free = await Promise.all(ports.map(isPortFree));
    if (free.every((yes) => yes)) return base;
  }
  return 0;
}
