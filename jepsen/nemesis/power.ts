/** The power goes: of one node, of most, of all of them at once. What was not synced is gone. */
import {
  giveBack,
  namesOf,
  someLeader,
  take,
  type Fault,
  type Field,
  type Nemesis,
} from './nemesis.js';
import type { Random } from '../random.js';

const kinds = ['leader', 'any', 'majority', 'all'] as const;

export const power: Nemesis = {
  name: 'power',
  holdMs: [0, 3000],
  gapMs: [4000, 12_000],
  probe: ({ volumes }) => Promise.resolve(typeof volumes === 'string' ? volumes : undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster, volumes } = field;
  if (typeof volumes === 'string') return undefined;
  const kind = random.pick(kinds);
  const leader = kind === 'leader' ? await someLeader(field, random) : undefined;
  const others = random.shuffled(field.nodes);
  const most = Math.floor(others.length / 2) + 1;
  const count = { leader: 1, any: 1, majority: most, all: others.length }[kind];
  const victims = take(field, leader === undefined ? others : [leader], count);
  if (victims.length === 0) return undefined;
  // All of them stand still first: no node may go on while its disk, or another's, is gone already.
  for (const node of victims) cluster.signal(node, 'SIGSTOP');
  for (const node of victims) await volumes.cut(node);
  await Promise.all(victims.map((node) => cluster.kill(node)));
  let lost = 0;
  return {
    what: `power cut (${kind})`,
    target: namesOf(victims),
    heal: async () => {
      for (const node of victims) {
        if (await volumes.restore(node)) lost++;
        cluster.startNode(node);
      }
      giveBack(field, victims);
    },
    verifyEffect: () => Promise.resolve(lost === victims.length),
  };
}
