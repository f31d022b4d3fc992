/** Shards whose slots go elsewhere as a whole or in part: merged into others, split, removed. */
import type { GroupId } from '../../raft/index.js';
import type { CommandOf, Refusal } from './commands.js';
import { slotsOfShard } from './slot-map.js';
import { changed, isRefusal, presentShard, refused, unchanged, type Effect } from './effect.js';
import { startMigrations, type Move } from './migration-commands.js';
import { openMigrations } from './migrations.js';
import { rangesWithPins } from './pins.js';
import { endReplacementOf, openOperation, runningReshape } from './operations.js';
import { createShard } from './shard-commands.js';
import { countSlots, equalShares } from '../router/slot-spans.js';
import type { OperationRecord, Topology } from './topology.js';

const splitMax = 64;
const removedKept = 1000;

/** Its replicas remove themselves when they hear of it. */
export function applyRemoveShard(
  topology: Topology,
  { shard: id }: CommandOf<'removeShard'>,
): Effect {
  if (topology.removedShards.some((each) => each === id)) return unchanged();
  const shard = presentShard(topology, id);
  if (isRefusal(shard)) return shard;
  const slots = countSlots(slotsOfShard(rangesWithPins(topology), id));
  const inUse = (what: string): Refusal => refused('shardInUse', `shard ${id} ${what}`);
  if (slots > 0)
    return inUse(`has ${slots} slots: merge it into other shards, which moves them and removes it`);
  const open = openMigrations(topology).find(
    ({ source, target }) => source === id || target === id,
  );
  if (open !== undefined)
    return inUse(`is part of migration ${open.id}: wait until it ends, or cancel it`);
  const ended = endReplacementOf(topology, shard.id, {
    state: 'cancelled',
    progress: `shard ${id} was removed`,
  });
  return changed({
    ...ended,
    shards: topology.shards.filter((each) => each.id !== id),
    removedShards: [...topology.removedShards, shard.id].slice(-removedKept),
  });
}

export function applyMergeShard(topology: Topology, command: CommandOf<'mergeShard'>): Effect {
  const { into, nowMs } = command;
  const shard = presentShard(topology, command.shard);
  if (isRefusal(shard)) return shard;
  const { id } = shard;
  if (into.length === 0 || new Set(into).size < into.length)
    return refused('badMove', `shard ${id} must be merged into one or more different shards`);
  for (const target of into) {
    const record = presentShard(topology, target);
    if (isRefusal(record)) return record;
    if (target === id) return refused('badMove', `shard ${id} cannot be merged into itself`);
  }
  const problem = underWay(topology, id) ?? inbound(topology, id);
  if (problem !== undefined) return problem;
  const slots = slotsOfShard(rangesWithPins(topology), id);
  // The ends of the list go without where there are fewer slots than shards.
  const moves = equalShares(slots, into.length).map((share, at): Move => ({
    slots: share,
    source: id,
    target: into[at] ?? id,
  }));
  return reshaped(
    topology,
    moves.filter((move) => move.slots.length > 0),
    {
      kind: 'mergeShard',
      shard: id,
      nowMs,
      what: `shard ${id}: its ${countSlots(slots)} slots go to ${namesOf(into)}, then it is removed`,
    },
  );
}

export function applySplitShard(topology: Topology, command: CommandOf<'splitShard'>): Effect {
  const { into, nowMs } = command;
  const shard = presentShard(topology, command.shard);
  if (isRefusal(shard)) return shard;
  const { id } = shard;
  if (!Number.isInteger(into) || into < 2 || into > splitMax)
    return refused('badSplit', `a shard is split into 2 to ${splitMax} shards, got ${into}`);
  const slots = slotsOfShard(topology.slots, id);
  if (countSlots(slots) < into)
    return refused(
      'badSplit',
      `shard ${id} has ${countSlots(slots)} slots and cannot be split into ${into} shards: each ` +
        'needs one slot at least',
    );
  const problem = underWay(topology, id);
  if (problem !== undefined) return problem;
  const moves: Move[] = [];
  let next = topology;
  for (const share of equalShares(slots, into).slice(1)) {
    const created = createShard(next, command.replication ?? shard.replication);
    if (isRefusal(created)) return created;
    next = created.topology;
    moves.push({ slots: share, source: id, target: created.id });
  }
  const targets = moves.map(({ target }) => target);
  return reshaped(next, moves, {
    kind: 'splitShard',
    shard: id,
    nowMs,
    what: `shard ${id}: ${into - 1} of ${into} equal shares of its slots go to new ${namesOf(targets)}`,
  });
}

interface Reshape {
  readonly kind: Extract<OperationRecord['kind'], 'mergeShard' | 'splitShard'>;
  readonly shard: GroupId;
  readonly what: string;
  readonly nowMs: number;
}

function reshaped(topology: Topology, moves: readonly Move[], reshape: Reshape): Effect {
  const { nowMs, ...fields } = reshape;
  const started = startMigrations(topology, moves, nowMs);
  if (isRefusal(started)) return started;
  const { ids: migrations } = started;
  const { topology: opened, id } = openOperation(
    started.topology,
    { ...fields, migrations },
    nowMs,
  );
  return changed(opened, { operation: id, migrations });
}

function underWay(topology: Topology, id: GroupId): Refusal | undefined {
  const running = runningReshape(topology, id);
  if (running === undefined) return undefined;
  return refused(
    'operationRunning',
    `shard ${id} is being ${running.kind === 'mergeShard' ? 'merged' : 'split'} already ` +
      `(operation ${running.id}): wait until that ends, or cancel its migrations`,
  );
}

/** Slots that are on their way to it would be left behind. */
function inbound(topology: Topology, id: GroupId): Refusal | undefined {
  const open = openMigrations(topology).find(({ target }) => target === id);
  if (open === undefined) return undefined;
  return refused(
    'shardInUse',
    `migration ${open.id} brings slots to shard ${id}: wait until it ends, or cancel it`,
  );
}

function namesOf(shards: readonly number[]): string {
  const shown = shards.length > 8 ? [...shards.slice(0, 8), `${shards.length - 8} more`] : shards;
  return `${shards.length === 1 ? 'shard' : 'shards'} ${shown.join(', ')}`;
}
