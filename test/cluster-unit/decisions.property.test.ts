import { expect } from 'chai';
import fc from 'fast-check';
import {
  DecisionWorld,
  delayMax,
  nodeCount,
  replaceAfterMs,
  tickMs,
  type WorldEvent,
} from './decision-world.js';

const ticksMax = 80;
/** Enough for five shards to be moved twice, one after another. */
const ticksToSettle = 200;

/** Node 1 has the metadata group, so it is never to go. */
const node = fc.integer({ min: 1, max: nodeCount });
const other = fc.integer({ min: 2, max: nodeCount });
const tick = fc.integer({ min: 0, max: ticksMax - 1 });
const at = (tickNumber: number, event: WorldEvent): Happening => ({ tick: tickNumber, event });

interface Happening {
  readonly tick: number;
  readonly event: WorldEvent;
}

/** For some ticks a node is away, or asked to be emptied, and then not any more. */
const outage = fc
  .tuple(tick, node, fc.integer({ min: 1, max: 40 }))
  .map(([from, id, ticks]): readonly Happening[] => [
    at(from, { kind: 'stop', node: id }),
    at(from + ticks, { kind: 'start', node: id }),
  ]);
const drain = fc
  .tuple(tick, other, fc.integer({ min: 1, max: 40 }))
  .map(([from, id, ticks]): readonly Happening[] => [
    at(from, { kind: 'drain', node: id }),
    at(from + ticks, { kind: 'undrain', node: id }),
  ]);
const turn: fc.Arbitrary<readonly Happening[]> = fc
  .tuple(
    tick,
    fc.oneof(
      fc.constant({ kind: 'newLeader' } as const),
      fc.record({
        kind: fc.constant('repairsMax' as const),
        value: fc.integer({ min: 0, max: 4 }),
      }),
      fc.record({
        kind: fc.constant('delay' as const),
        ticks: fc.integer({ min: 0, max: delayMax }),
      }),
    ),
  )
  .map(([when, event]) => [at(when, event)]);

const happenings = fc
  .array(
    fc.oneof(
      { weight: 5, arbitrary: outage },
      { weight: 2, arbitrary: drain },
      { weight: 2, arbitrary: turn },
    ),
    { minLength: 2, maxLength: 14 },
  )
  .map((each) => each.flat());

/** Gone for ever: one that is missed, or given up by force, or drained; or nobody. */
const loss = fc.record({
  kind: fc.constantFrom('stop' as const, 'remove' as const, 'drain' as const, undefined),
  node: other,
  tick,
});

type Loss = typeof loss extends fc.Arbitrary<infer T> ? T : never;

function play(world: DecisionWorld, all: readonly Happening[], lost: Loss): void {
  for (let now = 0; now < ticksMax; now++) {
    for (const { tick: due, event } of all) if (due === now) world.happen(event);
    if (lost.tick === now && lost.kind === 'remove') world.happen({ ...lost, kind: lost.kind });
    world.tick();
  }
  // From here on nothing happens but what the cluster does itself.
  world.happen({ kind: 'repairsMax', value: 2 });
  for (let id = 1; id <= nodeCount; id++) {
    world.happen({ kind: 'start', node: id });
    world.happen({ kind: 'undrain', node: id });
  }
  if (lost.kind === 'stop' || lost.kind === 'drain') world.happen({ ...lost, kind: lost.kind });
  for (let now = 0; now < ticksToSettle; now++) world.tick();
}

/** Histories that found something. */
const examples: [Happening[], Loss][] = [
  // The replica of the metadata group that was on its way to a node was lost with a voter, while the one
  // that it was to take over from was back, and voted.
  [
    [
      { tick: 0, event: { kind: 'stop', node: 3 } },
      { tick: 8, event: { kind: 'start', node: 3 } },
      { tick: 10, event: { kind: 'stop', node: 1 } },
      { tick: 18, event: { kind: 'start', node: 1 } },
      { tick: 0, event: { kind: 'stop', node: 2 } },
      { tick: 18, event: { kind: 'start', node: 2 } },
      { tick: 10, event: { kind: 'stop', node: 4 } },
      { tick: 18, event: { kind: 'start', node: 4 } },
      { tick: 0, event: { kind: 'repairsMax', value: 1 } },
      { tick: 0, event: { kind: 'newLeader' } },
    ],
    { kind: 'stop', node: 2, tick: 0 },
  ],
  // A shard that was counted as a repair before it was begun left room for another one.
  [
    [
      { tick: 0, event: { kind: 'stop', node: 1 } },
      { tick: 1, event: { kind: 'start', node: 1 } },
      { tick: 4, event: { kind: 'drain', node: 7 } },
      { tick: 5, event: { kind: 'undrain', node: 7 } },
    ],
    { kind: 'remove', node: 3, tick: 0 },
  ],
  // Shards that could not be built on the node that was lost held back their own replacement.
  [
    [
      { tick: 0, event: { kind: 'delay', ticks: 1 } },
      { tick: 70, event: { kind: 'drain', node: 2 } },
      { tick: 75, event: { kind: 'undrain', node: 2 } },
    ],
    { kind: 'stop', node: 2, tick: 0 },
  ],
  // A node went away for good before its replica of the metadata group voted.
  [
    [
      { tick: 64, event: { kind: 'stop', node: 8 } },
      { tick: 78, event: { kind: 'start', node: 8 } },
      { tick: 62, event: { kind: 'drain', node: 4 } },
      { tick: 63, event: { kind: 'undrain', node: 4 } },
      { tick: 48, event: { kind: 'stop', node: 3 } },
      { tick: 63, event: { kind: 'start', node: 3 } },
      { tick: 0, event: { kind: 'drain', node: 2 } },
      { tick: 1, event: { kind: 'undrain', node: 2 } },
      { tick: 0, event: { kind: 'stop', node: 1 } },
      { tick: 1, event: { kind: 'start', node: 1 } },
    ],
    { kind: 'stop', node: 8, tick: 0 },
  ],
];

describe('what the metadata leader decides, over time', function () {
  this.timeout(120_000);

  it('D06: keeps replicas apart and shards able to decide, and ends with all of them whole', () => {
    const happened = new Map<string, number>();
    const played = fc.property(happenings, loss, (all, lost) => {
      const world = new DecisionWorld(happened);
      play(world, all, lost);
      world.expectWhole();
    });
    fc.assert(played, { numRuns: 40, examples });
    // How often something happens must not hang on luck.
    happened.clear();
    fc.assert(played, { numRuns: 40, seed: 1 });
    // A history in which something never happens proves nothing of it.
    for (const what of [
      'setNodeState',
      'replaceReplica',
      'addReplica',
      'running',
      'done',
      'failed',
      'cancelled',
      'removeNode',
      'drain',
      'undrain',
      'setMetadata',
    ])
      expect(happened.get(what) ?? 0, `${what} happened`).to.be.greaterThan(0);
  });

  it('D06: does nothing about nodes that are away for less than replaceAfterMs', () => {
    const short = fc
      .tuple(fc.nat(), node, fc.integer({ min: 1, max: replaceAfterMs / tickMs - 1 }))
      .map(([from, id, ticks]) => ({ from: from % ticksMax, id, ticks }));
    fc.assert(
      fc.property(fc.array(short, { minLength: 1, maxLength: 10 }), (outages) => {
        const happened = new Map<string, number>();
        const world = new DecisionWorld(happened);
        // It has grown to its size before anybody is away.
        for (let now = 0; now < 40; now++) world.tick();
        happened.clear();
        for (let now = 0; now < 2 * ticksMax; now++) {
          // Each outage has its own node and time; where two touch, the node starts in between.
          for (const { from, id, ticks } of outages) {
            if (now === from + ticks) world.happen({ kind: 'start', node: id });
            const isAway = outages.some(
              (each) => each.id === id && each.from < now && now <= each.from + each.ticks,
            );
            if (now === from && !isAway) world.happen({ kind: 'stop', node: id });
          }
          world.tick();
        }
        expect([...happened.keys()].filter((what) => what !== 'setNodeState')).to.deep.equal([]);
        world.expectWhole();
      }),
      { numRuns: 30 },
    );
  });
});
