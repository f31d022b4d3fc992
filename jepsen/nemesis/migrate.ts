/** Slots of keys in use go to another shard; some of these migrations are cancelled or paused on the way. */
import { slotOf, type MigrationInfo, type TopologyReply } from '../../src/client/index.js';
import { attempt, type Fault, type Field, type Nemesis } from './nemesis.js';
import type { Random } from '../random.js';
import { within } from '../shell.js';

const timeoutMs = 5000;
const kinds = ['whole', 'whole', 'cancelled', 'paused'] as const;
/** Slots beside the key's that go with it. */
const neighboursMax = 30;

export const migrate: Nemesis = {
  name: 'migrate',
  holdMs: [200, 5000],
  gapMs: [500, 4000],
  probe: () => Promise.resolve(undefined),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { admin } = field.cluster;
  const topology = await attempt(() => admin.topology({ timeoutMs }));
  const move = topology && moveOf(topology, field.keys(), random);
  if (move === undefined) return undefined;
  const kind = random.pick(kinds);
  const reply = await attempt(() =>
    admin.changeCluster({ kind: 'startMigrations', moves: [move] }, { timeoutMs }),
  );
  const [id] = reply === undefined ? [] : issuedBy(reply.issued);
  const act = (action: string): Promise<unknown> =>
    admin.changeCluster({ kind: 'setMigration', id, action, reason: 'jepsen' }, { timeoutMs });
  if (kind === 'paused' && id !== undefined) await attempt(() => act('pause'));
  const now = async (): Promise<MigrationInfo | undefined> =>
    (await attempt(() => admin.topology({ timeoutMs })))?.migrations.find(
      ({ migrationId }) => migrationId === id,
    );
  let last: MigrationInfo | undefined;
  return {
    what: `migration (${kind})`,
    target: `shard ${move.source} to ${move.target}, ${slotsIn(move)} slots`,
    heal: async () => {
      if (id === undefined) return;
      // Both are refused when it has ended meanwhile. One that stays paused goes on when all is healed.
      if (kind === 'cancelled') await attempt(() => act('cancel'));
      if (kind === 'paused') await attempt(() => act('resume'));
      await within(15_000, async () => {
        last = (await now()) ?? last;
        return last !== undefined && last.endedMs > 0;
      });
    },
    verifyEffect: () => Promise.resolve(last !== undefined && (last.hasRun || last.moved > 0)),
  };
}

interface Move {
  readonly source: number;
  readonly target: number;
  readonly slots: readonly { readonly first: number; readonly last: number }[];
}

/** The slots of some keys of one shard, and a few beside them. */
function moveOf(
  { slots, shards }: TopologyReply,
  keys: readonly string[],
  random: Random,
): Move | undefined {
  const slot = slotOf(Buffer.from(random.pick(keys)));
  const range = slots.find(({ first, last }) => slot >= first && slot <= last);
  const source = range?.shardId;
  const targets = shards.map(({ shardId }) => shardId).filter((shard) => shard !== source);
  if (range === undefined || source === undefined || targets.length === 0) return undefined;
  const first = Math.max(range.first, slot - random.integer(0, neighboursMax));
  const last = Math.min(range.last, slot + random.integer(0, neighboursMax));
  return { source, target: random.pick(targets), slots: [{ first, last }] };
}

function slotsIn({ slots }: Move): number {
  return slots.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}

function issuedBy(issued: string): readonly number[] {
  const { migrations = [] } = JSON.parse(issued) as { migrations?: number[] };
  return migrations;
}
