/**
 * Which slots have to move so that every shard has its share: a pure function of a topology. As few slots
 * as that takes, in as few ranges as can be, and none of those that are on their way already.
 */
import { slotCount } from '../router/slot.js';
import { countSlots, joinSpans, partsOf, takeSlots, type SlotSpan } from '../router/slot-spans.js';
import type { Move } from './migration-commands.js';
import { openMigrations } from './migrations.js';
import { homeOf, isBetween } from './pins.js';
import { nodeOf, type ShardRecord, type Topology } from './topology.js';

export const weightMax = 1_000_000;

export interface RebalanceOptions {
  /** By shard, 0 to `weightMax`; 0: it is to have no slots. Absent: the mean weight of its nodes. */
  readonly weights?: ReadonlyMap<number, number>;
  /** Nothing moves while every shard is this near to its share, in percent of it, or within one slot. */
  readonly thresholdPercent?: number;
}

export interface ShardShare {
  readonly shard: number;
  readonly weight: number;
  /** With the migrations that are open at their ends. */
  readonly slots: number;
  /** What it is to have; shares of equal weights differ by one at most. */
  readonly share: number;
}

export interface RebalancePlan {
  readonly moves: readonly Move[];
  readonly shares: readonly ShardShare[];
}

interface Load {
  readonly shard: number;
  readonly weight: number;
  slots: number;
  /** The slots that may be moved, the longest range first. */
  movable: readonly SlotSpan[];
}

/** What is wrong with the options; undefined: nothing. */
export function problemOfRebalance(
  topology: Topology,
  { weights = new Map<number, number>(), thresholdPercent = 0 }: RebalanceOptions,
): string | undefined {
  if (!(thresholdPercent >= 0 && thresholdPercent <= 100))
    return `threshold must be 0 to 100 percent, got ${thresholdPercent}`;
  for (const [shard, weight] of weights) {
    if (!topology.shards.some(({ id }) => id === shard))
      return `there is no shard ${shard} to weigh: list the shards to find its id`;
    if (!(weight >= 0 && weight <= weightMax))
      return `weight of shard ${shard} must be 0 to ${weightMax}, got ${weight}`;
  }
  const total = topology.shards.reduce((sum, each) => sum + weightOf(topology, each, weights), 0);
  return total > 0 ? undefined : 'all weights are 0: some shard must have the slots';
}

/** `problemOfRebalance` has found nothing. */
export function planRebalance(topology: Topology, options: RebalanceOptions = {}): RebalancePlan {
  const { weights = new Map<number, number>(), thresholdPercent = 2 } = options;
  const loads = loadsOf(topology, weights);
  const total = loads.reduce((sum, { weight }) => sum + weight, 0);
  const quotaOf = ({ weight }: Load): number => (slotCount * weight) / total;
  const shares = sharesOf(loads, quotaOf);
  const isBalanced = loads.every((load) => {
    const off = Math.abs(load.slots - quotaOf(load));
    return off < 1 || off <= (quotaOf(load) * thresholdPercent) / 100;
  });
  return {
    moves: isBalanced ? [] : movesTo(loads, shares),
    shares: loads.map((load) => ({
      shard: load.shard,
      weight: load.weight,
      slots: load.slots,
      share: isBalanced ? load.slots : (shares.get(load) ?? 0),
    })),
  };
}

/** One that is being merged into others is to have nothing. */
function weightOf(
  topology: Topology,
  { id, replicas }: ShardRecord,
  weights: ReadonlyMap<number, number>,
): number {
  const isLeaving = topology.operations.some(
    ({ kind, state, shard }) => kind === 'mergeShard' && state === 'running' && shard === id,
  );
  if (isLeaving) return 0;
  const given = weights.get(id);
  if (given !== undefined) return given;
  const total = replicas.reduce((sum, { node }) => sum + (nodeOf(topology, node)?.weight ?? 0), 0);
  return replicas.length === 0 ? 0 : total / replicas.length;
}

function loadsOf(topology: Topology, weights: ReadonlyMap<number, number>): readonly Load[] {
  const loads = topology.shards.map((shard): Load => ({
    shard: shard.id,
    weight: weightOf(topology, shard, weights),
    slots: 0,
    movable: [],
  }));
  const byShard = new Map(loads.map((load) => [load.shard, load]));
  for (const { shard, first, last } of topology.slots) {
    const load = byShard.get(shard);
    if (load !== undefined) load.slots += last - first + 1;
  }
  const open = openMigrations(topology);
  for (const { source, target, slots, state } of open) {
    // What is left of one that is being dropped stays where it is.
    if (state === 'cancelling' || state === 'failing') continue;
    const left = countSlots(partsOf(topology.slots, slots).filter(({ shard }) => shard === source));
    const [from, to] = [byShard.get(source), byShard.get(target)];
    if (from !== undefined) from.slots -= left;
    if (to !== undefined) to.slots += left;
  }
  const ranges = new Map<number, SlotSpan[]>();
  // Nor those whose keys are on their way to a pin or back. Pins themselves stay where they were put.
  const homes = topology.pins.filter(isBetween).map(homeOf);
  const busy = [
    ...open.flatMap(({ slots }) => slots),
    ...homes.map((slot) => ({ first: slot, last: slot })),
  ];
  for (const part of partsOf(topology.slots, allBut(busy))) {
    const known = ranges.get(part.shard);
    if (known === undefined) ranges.set(part.shard, [part]);
    else known.push(part);
  }
  for (const load of loads)
    load.movable = joinSpans(ranges.get(load.shard) ?? []).toSorted(
      (a, b) => b.last - b.first - (a.last - a.first) || a.first - b.first,
    );
  return loads;
}

function allBut(spans: readonly SlotSpan[]): readonly SlotSpan[] {
  const rest: SlotSpan[] = [];
  let next = 0;
  for (const { first, last } of joinSpans(spans)) {
    if (first > next) rest.push({ first: next, last: first - 1 });
    next = last + 1;
  }
  return next < slotCount ? [...rest, { first: next, last: slotCount - 1 }] : rest;
}

/**
 * Whole slots. Of what rounding leaves, one each goes first to shards that would otherwise have to give it
 * away: so nothing moves that need not, and a plan made again after it is empty.
 */
function sharesOf(
  loads: readonly Load[],
  quotaOf: (load: Load) => number,
): ReadonlyMap<Load, number> {
  const floors = loads.map((load) => {
    const quota = quotaOf(load);
    const floor = Math.floor(quota + 1e-9);
    return { load, floor, part: Math.max(0, quota - floor) };
  });
  const left = slotCount - floors.reduce((sum, { floor }) => sum + floor, 0);
  const sorted = floors
    .filter(({ part }) => part > 1e-9)
    .toSorted(
      (a, b) =>
        Number(b.load.slots > b.floor) - Number(a.load.slots > a.floor) ||
        b.part - a.part ||
        a.load.shard - b.load.shard,
    );
  const rounded = new Set(sorted.slice(0, left));
  return new Map(floors.map((each) => [each.load, each.floor + (rounded.has(each) ? 1 : 0)]));
}

/** Who has most to give gives first, to whom most is due: one pair after another, each at most once. */
function movesTo(loads: readonly Load[], shares: ReadonlyMap<Load, number>): readonly Move[] {
  const surplus = (load: Load): number => load.slots - (shares.get(load) ?? 0);
  const bySize = (a: Load, b: Load): number =>
    Math.abs(surplus(b)) - Math.abs(surplus(a)) || a.shard - b.shard;
  const takers = loads
    .filter((load) => surplus(load) < 0)
    .toSorted(bySize)
    .map((load) => ({ shard: load.shard, due: -surplus(load) }));
  const moves: Move[] = [];
  let at = 0;
  for (const giver of loads.filter((load) => surplus(load) > 0).toSorted(bySize)) {
    let spans = giver.movable;
    let over = Math.min(surplus(giver), countSlots(spans));
    while (over > 0) {
      const taker = takers[at];
      if (taker === undefined) return moves;
      const { taken, left } = takeSlots(spans, Math.min(over, taker.due));
      const count = countSlots(taken);
      moves.push({ slots: joinSpans(taken), source: giver.shard, target: taker.shard });
      spans = left;
      over -= count;
      taker.due -= count;
      if (taker.due === 0) at++;
    }
  }
  return moves;
}
