/** kill -9 of a leader, of any node, of most of them, of all. */
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

const kinds = ['leader', 'leader', 'leader', 'any', 'any', 'any', 'majority', 'all'] as const;

export const kill: Nemesis = {
  name: 'kill',
  holdMs: [0, 4000],
  gapMs: [4000, 12_000],
  probe: () => Promise.resolve(undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster } = field;
  const kind = random.pick(kinds);
  const leader = kind === 'leader' ? await someLeader(field, random) : undefined;
  const others = random.shuffled(field.nodes);
  const count = {
    leader: 1,
    any: 1,
    majority: Math.floor(others.length / 2) + 1,
    all: others.length,
  };
  const victims = take(field, leader === undefined ? others : [leader], count[kind]);
  if (victims.length === 0) return undefined;
  const ran = victims.filter((node) => cluster.isRunning(node));
  await Promise.all(victims.map((node) => cluster.kill(node)));
  return {
    what: `kill -9 (${kind})`,
    target: namesOf(victims),
    heal: () => {
      for (const node of victims) cluster.startNode(node);
      giveBack(field, victims);
      return Promise.resolve();
    },
    verifyEffect: () => Promise.resolve(ran.length > 0),
  };
}
