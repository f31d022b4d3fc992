/**
 * A node stays away until the logs of its groups begin behind what it has: it is brought up to date with
 * snapshots when it comes back.
 */
import { randomBytes } from 'node:crypto';
import {
  attempt,
  giveBack,
  namesOf,
  take,
  type Fault,
  type Field,
  type Nemesis,
} from './nemesis.js';
import type { Random } from '../random.js';
import { within } from '../shell.js';

/** Over the 1 MiB that groups keep in their logs for the slow, for several shards. */
const ballastCount = 160;
const ballastBytes = 64 * 1024;
const atOnce = 8;

export const snapshot: Nemesis = {
  name: 'snapshot',
  holdMs: [0, 1000],
  gapMs: [6000, 15_000],
  probe: () => Promise.resolve(undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster } = field;
  const [node] = take(field, random.shuffled(field.nodes), 1);
  if (node === undefined) return undefined;
  const last = new Map((await cluster.status(node))?.groups.map((g) => [g.groupId, g.lastIndex]));
  await cluster.kill(node);
  await writeBallast(field);
  let behind: number[] = [];
  return {
    what: 'away until logs are compacted',
    target: namesOf([node]),
    heal: async () => {
      behind = await groupsBehind(field, last);
      cluster.startNode(node);
      const isThere = async (): Promise<boolean> => {
        const groups = (await cluster.status(node))?.groups ?? [];
        return behind.every((id) =>
          groups.some(
            ({ groupId, lastIndex }) => groupId === id && lastIndex > (last.get(id) ?? 0),
          ),
        );
      };
      await within(15_000, isThere, 250);
      giveBack(field, [node]);
    },
    verifyEffect: () => Promise.resolve(behind.length > 0),
  };
}

/** Groups whose log, at their leader, begins behind what the node had last. */
async function groupsBehind(field: Field, last: ReadonlyMap<number, number>): Promise<number[]> {
  const statuses = await field.cluster.statuses();
  const leading = statuses.flatMap(({ groups }) => groups.filter(({ role }) => role === 'leader'));
  return leading
    .filter(({ groupId, firstIndex }) => firstIndex > (last.get(groupId) ?? Infinity) + 1)
    .map(({ groupId }) => groupId);
}

async function writeBallast({ cluster }: Field): Promise<void> {
  const value = randomBytes(ballastBytes);
  let next = 0;
  const write = async (): Promise<void> => {
    for (let n = next++; n < ballastCount; n = next++) {
      const key = Buffer.from(`ballast-${n % 40}`);
      await attempt(() => cluster.admin.put({ key, value }, { timeoutMs: 2000 }));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, write));
}
