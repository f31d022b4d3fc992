import { expect } from 'chai';
import fc from 'fast-check';
import { groupId } from '../../raft/index.js';
import { slotCount } from '../../src/router/slot.js';
import { countSlots } from '../../src/router/slot-spans.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import { planRebalance, problemOfRebalance } from '../../src/meta/rebalance.js';
import type { SlotRange } from '../../src/meta/slot-map.js';
import type { ShardRecord, Topology } from '../../src/meta/topology.js';
import { after, clusterOf } from './clusters.js';

const nowMs = 1;

function slotsOf({ slots }: Topology, shard: number): number {
  return countSlots(slots.filter((range) => range.shard === shard));
}

function started(topology: Topology, moves: ReturnType<typeof planRebalance>['moves']): Topology {
  return after(topology, { kind: 'startMigrations', moves, nowMs });
}

/** With all slots of all migrations handed over, whichever may run first. */
function finished(topology: Topology): Topology {
  const running = topology.migrations.find(({ state }) => state === 'running');
  if (running === undefined) return topology;
  const { id, slots } = running;
  const counts = { keys: 0, bytes: 0, freezeMs: 0 };
  return finished(after(topology, { kind: 'moveSlots', id, slots, ...counts, nowMs }));
}

/** Slots given to shards 1 to `count` at random, in ranges. */
const scattered = (count: number): fc.Arbitrary<Topology> => {
  const base = clusterOf(3, { shards: count });
  return fc
    .tuple(
      fc.uniqueArray(fc.integer({ min: 1, max: slotCount - 1 }), { maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: count }), { minLength: 61, maxLength: 61 }),
    )
    .map(([cuts, owners]) => {
      const firsts = [0, ...cuts.toSorted((a, b) => a - b)];
      const slots = firsts.map((first, at): SlotRange => ({
        first,
        last: (firsts[at + 1] ?? slotCount) - 1,
        shard: owners[at] ?? 1,
        epoch: 1 + at,
      }));
      return { ...base, slots };
    });
};

const settingMax: MetaCommand = { kind: 'setSetting', name: 'migrationsMax', value: 64 };

describe('the plan of a rebalance', () => {
  it('brings every shard to its share by weight within one slot, with no slot moved in vain', () => {
    const weights = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 6, maxLength: 6 });
    fc.assert(
      fc.property(scattered(6), weights, (topology, given) => {
        fc.pre(given.some((weight) => weight > 0));
        const byShard = new Map(given.map((weight, at) => [at + 1, weight]));
        const options = { weights: byShard, thresholdPercent: 0 };
        const { moves, shares } = planRebalance(topology, options);
        const total = given.reduce((sum, weight) => sum + weight, 0);
        for (const { weight, share } of shares)
          expect(Math.abs(share - (slotCount * weight) / total)).to.be.below(1);
        expect(shares.reduce((sum, { share }) => sum + share, 0)).to.equal(slotCount);
        const surplus = shares.reduce(
          (sum, { slots, share }) => sum + Math.max(0, slots - share),
          0,
        );
        expect(moves.reduce((sum, { slots }) => sum + countSlots(slots), 0)).to.equal(surplus);
        const pairs = moves.map(({ source, target }) => `${source}>${target}`);
        expect(new Set(pairs).size, 'each pair once').to.equal(moves.length);
        if (moves.length === 0) return;
        const begun = started(topology, moves);
        expect(planRebalance(begun, options).moves, 'while they run').to.deep.equal([]);
        const end = finished(after(begun, settingMax));
        for (const { shard, share } of shares) expect(slotsOf(end, shard)).to.equal(share);
        expect(planRebalance(end, options).moves, 'afterwards').to.deep.equal([]);
      }),
      { numRuns: 150 },
    );
  });

  it('rounds shares up where that spares a move', () => {
    const base = clusterOf(3, { shards: 3 });
    // 5461 1/3 each: one of the shards may have one more, and it is one that would have to give it away.
    const slots: readonly SlotRange[] = [
      { first: 0, last: 4999, shard: 1, epoch: 1 },
      { first: 5000, last: 10_921, shard: 2, epoch: 1 },
      { first: 10_922, last: 16_383, shard: 3, epoch: 1 },
    ];
    const { moves } = planRebalance({ ...base, slots }, { thresholdPercent: 0 });
    expect(moves.reduce((sum, move) => sum + countSlots(move.slots), 0)).to.equal(461);
  });

  it('leaves shards alone that are within the threshold of their share', () => {
    const base = clusterOf(3, { shards: 2 });
    const cut = (at: number): Topology => ({
      ...base,
      slots: [
        { first: 0, last: at - 1, shard: 1, epoch: 1 },
        { first: at, last: slotCount - 1, shard: 2, epoch: 1 },
      ],
    });
    expect(planRebalance(cut(8192 + 163)).moves).to.deep.equal([]);
    expect(planRebalance(cut(8192 + 164)).moves).to.have.length(1);
    expect(planRebalance(cut(8193), { thresholdPercent: 0 }).moves).to.have.length(1);
  });

  it('gives a new shard its share, in one range from each of the others', () => {
    const topology = after(clusterOf(3, { shards: 3 }), { kind: 'createShard', replication: 3 });
    const { moves, shares } = planRebalance(topology);
    expect(moves.map(({ source, target, slots }) => [source, target, slots.length])).to.deep.equal([
      [3, 4, 1],
      [1, 4, 1],
      [2, 4, 1],
    ]);
    expect(shares.map(({ share }) => share)).to.deep.equal([4096, 4096, 4096, 4096]);
  });

  it('weighs a shard by its nodes where nothing else is said', () => {
    const topology = after(clusterOf(2, { shards: 2, replication: 1 }), {
      kind: 'setWeight',
      node: 1,
      weight: 300,
    });
    const onFirst = topology.shards.find(({ replicas }) => replicas[0]?.node === 1);
    const { shares } = planRebalance(topology);
    expect(shares.map((each) => [each.shard, each.share])).to.deep.include([
      onFirst?.id,
      (slotCount * 3) / 4,
    ]);
  });

  it('drains a shard of weight 0, and gives nothing to one that is being merged away', () => {
    const { moves } = planRebalance(clusterOf(3), { weights: new Map([[2, 0]]) });
    expect(moves.every(({ source }) => source === 2)).to.equal(true);
    expect(moves.reduce((sum, { slots }) => sum + countSlots(slots), 0)).to.equal(4096);
    const merging = after(clusterOf(3), { kind: 'mergeShard', shard: 2, into: [1], nowMs });
    const plan = planRebalance(merging);
    expect(plan.moves.map(({ source }) => source)).to.deep.equal([1, 1]);
    expect(plan.moves.some(({ target }) => target === 2)).to.equal(false);
  });

  it('moves no slot that is on its way, and counts it where it goes', () => {
    const topology = after(clusterOf(3, { shards: 2 }), {
      kind: 'startMigrations',
      moves: [{ slots: [{ first: 0, last: 8191 }], source: 1, target: 2 }],
      nowMs,
    });
    expect(planRebalance(topology).moves).to.deep.equal([
      { slots: [{ first: 8192, last: 16_383 }], source: 2, target: 1 },
    ]);
    const cancelling = after(topology, {
      kind: 'setMigration',
      id: 1,
      action: 'cancel',
      reason: '',
      nowMs,
    });
    expect(planRebalance(cancelling).moves).to.deep.equal([]);
  });

  it('takes 16384 shards with one slot each', () => {
    const base = clusterOf(1, { shards: 1, replication: 1 });
    const [first] = base.shards;
    if (first === undefined) throw new Error('no shard');
    const shards = Array.from({ length: slotCount }, (_, at): ShardRecord => ({
      ...first,
      id: groupId(at + 1),
    }));
    const { moves } = planRebalance({ ...base, shards });
    expect(moves).to.have.length(slotCount - 1);
    expect(new Set(moves.map(({ target }) => target)).size).to.equal(slotCount - 1);
  });

  it('refuses options that make no sense', () => {
    const cluster = clusterOf(3, { shards: 2 });
    const said = (weights: readonly (readonly [number, number])[], thresholdPercent = 2): unknown =>
      problemOfRebalance(cluster, { weights: new Map(weights), thresholdPercent });
    expect(said([[3, 5]])).to.match(/no shard 3/);
    expect(said([[1, -1]])).to.match(/weight of shard 1 must be 0 to 1000000, got -1/);
    expect(said([[1, Number.NaN]])).to.match(/got NaN/);
    expect(
      said([
        [1, 0],
        [2, 0],
      ]),
    ).to.match(/all weights are 0/);
    expect(said([], 101)).to.match(/0 to 100 percent, got 101/);
    expect(said([[1, 0]])).to.equal(undefined);
  });
});
