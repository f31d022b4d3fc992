/** SIGSTOP for 50 ms to 5 s: a process that stands still, as in a long collection of garbage. */
import { readFileSync } from 'node:fs';
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
import { within } from '../shell.js';

export const pause: Nemesis = {
  name: 'pause',
  holdMs: [50, 5000],
  gapMs: [2000, 6000],
  probe: () => Promise.resolve(undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster } = field;
  const leader = random.chance(0.6) ? await someLeader(field, random) : undefined;
  const count = random.chance(0.2) ? 2 : 1;
  const wanted = leader === undefined ? random.shuffled(field.nodes) : [leader];
  const victims = take(
    field,
    wanted.filter((node) => cluster.isRunning(node)),
    count,
  );
  if (victims.length === 0) return undefined;
  for (const node of victims) cluster.signal(node, 'SIGSTOP');
  const stopped = await within(
    1000,
    () => victims.every((node) => isStopped(cluster.pidOf(node))),
    5,
  );
  return {
    what: 'pause (SIGSTOP)',
    target: namesOf(victims),
    heal: () => {
      for (const node of victims) cluster.signal(node, 'SIGCONT');
      giveBack(field, victims);
      return Promise.resolve();
    },
    verifyEffect: () => Promise.resolve(stopped),
  };
}

/** As the kernel says; a system without /proc is taken at its word. */
function isStopped(pid: number | undefined): boolean {
  try {
    return / T /.test(readFileSync(`/proc/${pid ?? 0}/stat`, 'utf8').replace(/\(.*\)/, ''));
  } catch {
    return process.platform !== 'linux';
  }
}
