/** Leadership goes to another replica, because an operator says so. */
import { attempt, type Fault, type Field, type Nemesis } from './nemesis.js';
import type { Random } from '../random.js';

export const transfer: Nemesis = {
  name: 'transfer',
  holdMs: [0, 500],
  gapMs: [1000, 5000],
  probe: () => Promise.resolve(undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster } = field;
  const leaders = await cluster.leaders();
  if (leaders.size === 0) return undefined;
  const group = random.pick([...leaders.keys()]);
  const before = leaders.get(group);
  const moved = await attempt(() =>
    cluster.admin.transferLeader({ groupId: group }, { timeoutMs: 5000 }),
  );
  return {
    what: 'transfer of leadership',
    target: group === 0 ? 'metadata' : `shard ${group}`,
    heal: () => Promise.resolve(),
    verifyEffect: () => Promise.resolve(moved !== undefined && moved.leaderNode !== before),
  };
}
