/**
 * Files of one stopped node are damaged: a byte is flipped, a tail cut off. The node must refuse to start,
 * or stop when it meets the damage, or repair itself from the others; never answer wrong. Nothing else is
 * broken meanwhile: a tail that is cut off looks like one that a power cut tore, so what this node had
 * promised must be on the others.
 */
import {
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { attempt, giveBack, take, type Fault, type Field, type Nemesis } from './nemesis.js';
import type { Random } from '../random.js';
import { sleep, within } from '../shell.js';

const kinds = ['log flip', 'log tail', 'state flip', 'state flip', 'state tail'] as const;
type Kind = (typeof kinds)[number];
/** Until others lead what the node led, so that it is asked for no vote that it has forgotten. */
const settleMs = 3000;
const startMsMax = 20_000;

export const damage: Nemesis = {
  name: 'damage',
  holdMs: [500, 2000],
  gapMs: [6000, 12_000],
  isAlone: true,
  probe: () => Promise.resolve(undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster } = field;
  if (!(await within(20_000, () => cluster.isWhole(), 250))) return undefined;
  const kind = random.pick(kinds);
  const [node] = take(field, random.shuffled(field.nodes), 1);
  if (node === undefined) return undefined;
  await cluster.kill(node);
  await sleep(settleMs);
  const kept = join(field.folder, `undamaged-${node}`);
  cpSync(cluster.directoryOf(node), kept, { recursive: true });
  const file = damageFile(cluster.directoryOf(node), kind, random);
  cluster.expectEnd(node, true);
  cluster.startNode(node);
  const served = await within(startMsMax, async () => {
    return !cluster.isRunning(node) || (await cluster.status(node)) !== undefined;
  });
  if (served && cluster.isRunning(node)) await readEverything(field, node);
  return {
    what: `${kind} in ${file ?? 'no file'}`,
    target: `node ${node}, which ${cluster.isRunning(node) ? 'goes on' : 'has stopped'}`,
    heal: async () => {
      await bringBack(field, { node, kind, kept });
      cluster.expectEnd(node, false);
      giveBack(field, [node]);
    },
    verifyEffect: () => Promise.resolve(file !== undefined),
  };
}

/**
 * A node that stopped gets its files back as they were, and must come level with the others. So does one
 * that goes on with a damaged state: what it never reads (dead records, say) a compaction reads, minutes later.
 */
async function bringBack(
  field: Field,
  { node, kind, kept }: { readonly node: number; readonly kind: Kind; readonly kept: string },
): Promise<void> {
  const { cluster, violations } = field;
  if (cluster.isRunning(node) && kind.startsWith('state')) await cluster.kill(node);
  if (!cluster.isRunning(node)) {
    // What it has logged since must stay; the state is built up again from the log.
    const part = kind.startsWith('log') ? 'raft-log' : 'state';
    const place = join(cluster.directoryOf(node), part);
    rmSync(place, { recursive: true, force: true });
    cpSync(join(kept, part), place, { recursive: true });
    cluster.startNode(node);
  }
  rmSync(kept, { recursive: true, force: true });
  const wanted = await commits(field);
  const isLevel = await within(60_000, () => hasApplied(field, node, wanted), 250);
  if (!isLevel) violations.push(`node ${node} does not come level with the others after ${kind}`);
}

/** By group: what its leader has committed. */
async function commits({ cluster }: Field): Promise<ReadonlyMap<number, number>> {
  const groups = (await cluster.statuses()).flatMap((reply) => reply.groups);
  const leading = groups.filter(({ role }) => role === 'leader');
  return new Map(leading.map(({ groupId, commitIndex }) => [groupId, commitIndex]));
}

async function hasApplied(
  { cluster }: Field,
  node: number,
  wanted: ReadonlyMap<number, number>,
): Promise<boolean> {
  const own = (await cluster.status(node))?.groups ?? [];
  return (
    own.length > 0 &&
    own.every(({ groupId, appliedIndex }) => appliedIndex >= (wanted.get(groupId) ?? Infinity))
  );
}

/** Hashes of all its replicas: nothing of its state stays unread. */
async function readEverything({ cluster }: Field, node: number): Promise<void> {
  const { client } = cluster.network.addressesOf(node);
  for (const { groupId } of (await cluster.status(node))?.groups ?? [])
    await attempt(() => cluster.admin.replicaHash(client, { groupId }, { timeoutMs: 10_000 }));
}

/** What was damaged; undefined: there was nothing to damage. */
function damageFile(directory: string, kind: Kind, random: Random): string | undefined {
  const folder = kind.startsWith('log') ? 'raft-log' : 'state';
  const wanted = kind.startsWith('log') ? /./ : /\.(sst|log)$|^MANIFEST/;
  const files = readdirSync(join(directory, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => wanted.test(name.split('/').at(-1) ?? ''))
    .map((name) => ({ name: join(folder, name), path: join(directory, folder, name) }))
    .filter(({ path }) => statSync(path).isFile() && statSync(path).size > 0);
  if (files.length === 0) return undefined;
  const { name, path } = random.pick(files);
  const content = readFileSync(path);
  // Space that was reserved and never written says nothing.
  const end = content.findLastIndex((byte) => byte !== 0) + 1;
  if (end === 0) return undefined;
  if (kind.endsWith('tail')) {
    truncateSync(path, Math.max(0, end - random.integer(1, Math.min(end, 4096))));
    return name;
  }
  const at = random.integer(0, end - 1);
  content[at] = (content[at] ?? 0) ^ (1 << random.integer(0, 7));
  writeFileSync(path, content);
  return `${name} at ${at}`;
}
