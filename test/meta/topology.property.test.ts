import { expect } from 'chai';
import fc from 'fast-check';
import { applyCommand } from '../../src/meta/apply-command.js';
import { decodeMetaCommand, encodeMetaCommand, type MetaCommand } from '../../src/meta/commands.js';
import { slotOf } from '../../src/router/slot.js';
import { changedPieces, joinPieces } from '../../src/meta/topology-pieces.js';
import { noCluster, type Topology } from '../../src/meta/topology.js';
import { after, firstNode, initOf, joinOf } from './clusters.js';
import { deeplyFrozen, TopologyCheck } from './topology-check.js';

/** Few of each, so that commands meet one another. */
const number = fc.integer({ min: 1, max: 7 });
const shard = fc.integer({ min: 1, max: 4 });
const nowMs = fc.integer({ min: 0, max: 10_000 });
const host = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const labels: fc.Arbitrary<Record<string, string>> = fc.oneof(
  fc.constant({}),
  host.map((name) => ({ host: name })),
);
const weight = fc.oneof(fc.integer({ min: 1, max: 1000 }), fc.constantFrom(0, -1, 0.5, 1e9));
const of = <K extends MetaCommand['kind']>(kind: K): fc.Arbitrary<K> => fc.constant(kind);

const anything: fc.Arbitrary<MetaCommand> = fc.oneof(
  fc
    .tuple(number, labels, weight, fc.option(number, { freq: 5 }))
    .map(([id, labelled, heavy, address]) =>
      joinOf(id, {
        labels: labelled,
        weight: heavy,
        ...(address === null ? {} : { peerAddress: `node-${address}:7401` }),
      }),
    ),
  fc.record({
    kind: of('setNodeState'),
    node: number,
    state: fc.constantFrom('up', 'up', 'suspect', 'down'),
    nowMs,
  }),
  fc.record({ kind: of('setWeight'), node: number, weight }),
  fc.record({ kind: of('setLabels'), node: number, labels }),
  fc.record({ kind: of('drain'), node: number, nowMs }),
  fc.record({ kind: of('drain'), node: number, to: number, nowMs }),
  fc.record({ kind: of('undrain'), node: number, nowMs }),
  fc.record({ kind: of('setLeader'), shard, node: number }),
  fc.record({ kind: of('removeNode'), node: number, force: fc.boolean(), nowMs }),
  fc.record({ kind: of('addReplica'), shard, node: number }),
  fc.record({ kind: of('removeReplica'), shard, node: number }),
  fc.record({ kind: of('replaceReplica'), shard, from: number, to: number, nowMs }),
  fc.record({ kind: of('createShard'), replication: fc.integer({ min: 0, max: 8 }) }),
  fc.record({
    kind: of('setSetting'),
    name: fc.constantFrom('replaceAfterMs', 'suspectAfterMs', 'downAfterMs', 'repairsMax', 'x'),
    value: fc.integer({ min: -1, max: 20_000 }),
  }),
  fc.record({
    kind: of('endOperation'),
    id: fc.integer({ min: 1, max: 6 }),
    state: fc.constantFrom('running', 'done', 'failed', 'cancelled'),
    progress: fc.constantFrom('', '1 of 2', 'x'.repeat(2000)),
    nowMs,
  }),
  fc.record({ kind: of('setMetadata'), nodes: fc.array(number, { maxLength: 5 }) }),
  fc.constant(initOf([firstNode(1)])),
);

/** What needs another command before it, or hits by chance only, comes more often. */
const command: fc.Arbitrary<MetaCommand> = fc.oneof(
  { weight: 6, arbitrary: anything },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: of('replaceReplica'),
      shard,
      from: number,
      to: number,
      nowMs,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: of('endOperation'),
      id: fc.integer({ min: 1, max: 4 }),
      state: fc.constantFrom('done', 'failed', 'cancelled'),
      progress: fc.constant(''),
      nowMs,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: of('removeReplica'), shard, node: number }) },
  { weight: 2, arbitrary: fc.record({ kind: of('addReplica'), shard, node: number }) },
  { weight: 2, arbitrary: fc.record({ kind: of('setLeader'), shard, node: number }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: of('setNodeState'),
      node: number,
      state: fc.constant('up'),
      nowMs,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: of('drain'), node: fc.constantFrom(1, 2), nowMs }) },
  { weight: 2, arbitrary: fc.record({ kind: of('undrain'), node: fc.constantFrom(1, 2), nowMs }) },
  { weight: 1, arbitrary: number.map((id) => joinOf(id + 20)) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: of('setMetadata'), nodes: fc.shuffledSubarray([1, 2, 3, 4]) }),
  },
);

/** Slots of the first shards and at their borders, a few at a time. */
const slots = fc
  .uniqueArray(fc.constantFrom(0, 3, 4, 8, 5461, 8190, 8192, 16_380), {
    minLength: 1,
    maxLength: 3,
  })
  .chain((firsts) =>
    fc
      .integer({ min: 0, max: 3 })
      .map((more) => firsts.map((from) => ({ first: from, last: from + more }))),
  );
const migration = fc.integer({ min: 1, max: 8 });

/** A tag whose keys have this slot. */
function tagIn(slot: number): string {
  for (let n = 0; ; n++) if (slotOf(Buffer.from(`{${n}}`)) === slot) return `{${n}}`;
}
const pinnable = [4, 8192].map(tagIn).flatMap((tag) =>
  [
    [`${tag}a`, false],
    [`${tag}ab`, false],
    [`${tag}a`, true],
    [tag, true],
    ['untagged', true],
  ].map(([key, isPrefix]) => ({
    key: Buffer.from(String(key)).toString('base64'),
    isPrefix: isPrefix === true,
  })),
);
const pinSlot = fc.integer({ min: 16_384, max: 16_390 });

const pinning: fc.Arbitrary<MetaCommand> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom(...pinnable), shard, nowMs).map(([named, target, now]) => ({
      kind: 'pinKeys' as const,
      ...named,
      shard: target,
      nowMs: now,
    })),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.constantFrom(...pinnable), nowMs)
      .map(([named, now]) => ({ kind: 'unpinKeys' as const, ...named, nowMs: now })),
  },
  { weight: 6, arbitrary: fc.record({ kind: of('pinFilled'), slot: pinSlot, nowMs }) },
  { weight: 3, arbitrary: fc.record({ kind: of('pinGone'), slot: pinSlot }) },
  {
    weight: 3,
    arbitrary: fc.tuple(pinSlot, shard, shard, nowMs).map(([slot, source, target, now]) => ({
      kind: 'startMigrations' as const,
      moves: [{ slots: [{ first: slot, last: slot }], source, target }],
      nowMs: now,
    })),
  },
  {
    weight: 6,
    arbitrary: fc.tuple(migration, pinSlot, nowMs).map(([id, slot, now]) => ({
      kind: 'moveSlots' as const,
      id,
      slots: [{ first: slot, last: slot }],
      keys: 1,
      bytes: 1,
      freezeMs: 1,
      nowMs: now,
    })),
  },
);

const migrating: fc.Arbitrary<MetaCommand> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: of('startMigrations'),
      moves: fc.array(fc.record({ slots, source: shard, target: shard }), {
        minLength: 1,
        maxLength: 2,
      }),
      nowMs,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: of('setMigration'),
      id: migration,
      action: fc.constantFrom('pause', 'resume', 'cancel'),
      reason: fc.constantFrom('', 'because'),
      nowMs,
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: of('moveSlots'),
      id: migration,
      slots,
      keys: fc.nat(9),
      bytes: fc.nat(999),
      freezeMs: fc.nat(50),
      nowMs,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: of('throttleMigration'),
      id: migration,
      bytesPerSecond: fc.constantFrom(0, 5000, -1, 1e12),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: of('failMigration'), id: migration, reason: fc.constant('why') }),
  },
  { weight: 4, arbitrary: fc.record({ kind: of('endMigration'), id: migration, nowMs }) },
  { weight: 2, arbitrary: fc.record({ kind: of('createShard'), replication: fc.constant(1) }) },
  { weight: 2, arbitrary: fc.record({ kind: of('removeShard'), shard }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: of('mergeShard'),
      shard,
      into: fc.array(shard, { maxLength: 2 }),
      nowMs,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: of('splitShard'),
      shard,
      into: fc.integer({ min: 1, max: 3 }),
      nowMs,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: of('setSetting'),
      name: fc.constant('migrationsMax'),
      value: fc.integer({ min: -1, max: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: of('endOperation'),
      id: fc.integer({ min: 1, max: 3 }),
      state: fc.constantFrom('done', 'failed', 'cancelled'),
      progress: fc.constant(''),
      nowMs,
    }),
  },
);

const first = fc
  .tuple(
    fc.array(labels, { minLength: 4, maxLength: 6 }),
    fc.integer({ min: 1, max: 4 }),
    fc.integer({ min: 1, max: 3 }),
  )
  .map(([all, shards, replication]) => {
    const nodes = all.map((each, at) => firstNode(at + 1, at < 3 ? {} : { labels: each }));
    return initOf(nodes, { shards, replication });
  });

/** One history with every check after every command; what happened is counted. */
function play(commands: readonly MetaCommand[], happened?: Map<string, number>): Topology {
  const check = new TopologyCheck();
  const pieces = new Map<string, string>();
  let topology = noCluster;
  for (const each of commands) {
    const before = deeplyFrozen(topology);
    const { topology: next, result } = applyCommand(
      before,
      decodeMetaCommand(encodeMetaCommand(each)),
    );
    const changed = result.kind === 'done' && result.changed;
    const what = changed ? each.kind : result.kind === 'refused' ? result.reason : 'unchanged';
    happened?.set(what, (happened.get(what) ?? 0) + 1);
    expect(result.version).to.equal(before.version + (changed ? 1 : 0));
    expect(next.version).to.equal(result.version);
    if (changed) expect({ ...next, version: before.version }).to.not.deep.equal(before);
    else expect(next).to.equal(before);
    for (const [name, text] of changedPieces(before, next)) {
      if (text === undefined) pieces.delete(name);
      else pieces.set(name, text);
    }
    check.check(next);
    topology = next;
  }
  expect(joinPieces([...pieces].toSorted(([a], [b]) => (a < b ? -1 : 1)))).to.deep.equal(topology);
  return topology;
}

/** What happened in the histories of one seed: how often something does must not hang on luck. */
function playMany(histories: fc.Arbitrary<MetaCommand[]>): Map<string, number> {
  const happened = new Map<string, number>();
  const played = fc.property(first, histories, (init, commands) => {
    play([init, ...commands], happened);
  });
  fc.assert(played, { numRuns: 50 });
  happened.clear();
  fc.assert(played, { numRuns: 100, seed: 1 });
  return happened;
}

describe('any sequence of metadata commands', () => {
  it('D01: keeps slots owned once, replicas apart, ids and versions for ever, and restarts equal', () => {
    const happened = playMany(fc.array(command, { minLength: 20, maxLength: 60 }));
    // A history in which something never happens proves nothing of it.
    for (const kind of [
      'init',
      'addNode',
      'setNodeState',
      'setWeight',
      'setLabels',
      'drain',
      'undrain',
      'removeNode',
      'addReplica',
      'removeReplica',
      'replaceReplica',
      'setLeader',
      'createShard',
      'setSetting',
      'endOperation',
      'setMetadata',
      'initTwice',
      'badWeight',
      'sharedHost',
      'nodeRemoved',
      'nodeNotUp',
      'replicasLeft',
      'operationRunning',
      'operationEnded',
    ])
      expect(happened.get(kind) ?? 0, `${kind} happened`).to.be.greaterThan(0);
  });

  it('D30: keeps each slot with one shard, in one migration, at epochs and ids that never fall', () => {
    const happened = playMany(fc.array(migrating, { minLength: 30, maxLength: 80 }));
    for (const kind of [
      'startMigrations',
      'setMigration',
      'throttleMigration',
      'moveSlots',
      'failMigration',
      'endMigration',
      'removeShard',
      'mergeShard',
      'splitShard',
      'badSlots',
      'badMove',
      'badThrottle',
      'badSplit',
      'notOwner',
      'slotMigrating',
      'unknownMigration',
      'migrationEnded',
      'migrationNotBegun',
      'shardInUse',
    ])
      expect(happened.get(kind) ?? 0, `${kind} happened`).to.be.greaterThan(0);
  });

  it('D25: keeps pins apart, each with one shard, at ids that are never used again', () => {
    const some = fc.oneof({ weight: 5, arbitrary: pinning }, { weight: 2, arbitrary: migrating });
    const happened = playMany(fc.array(some, { minLength: 30, maxLength: 80 }));
    for (const kind of [
      'pinKeys',
      'unpinKeys',
      'pinFilled',
      'pinGone',
      'moveSlots',
      'badPin',
      'pinExists',
      'unknownPin',
      'slotMigrating',
    ])
      expect(happened.get(kind) ?? 0, `${kind} happened`).to.be.greaterThan(0);
  });

  it('R41: equal commands make equal topologies, down to the order of fields', () => {
    fc.assert(
      fc.property(
        first,
        fc.array(fc.oneof(command, migrating, pinning), { maxLength: 40 }),
        (init, commands) => {
          const [one, two] = [play([init, ...commands]), play([init, ...commands])];
          expect(JSON.stringify(one)).to.equal(JSON.stringify(two));
        },
      ),
      { numRuns: 40 },
    );
  });

  it('reads any slot map back from its pieces', () => {
    const base = after(noCluster, initOf([firstNode(1)], { shards: 3 }));
    const borders = fc.uniqueArray(fc.integer({ min: 1, max: 16_383 }), { maxLength: 300 });
    fc.assert(
      fc.property(borders, fc.array(fc.nat(2), { minLength: 301, maxLength: 301 }), (cuts, by) => {
        const firsts = [0, ...cuts.toSorted((a, b) => a - b)];
        const slots = firsts.map((from, at) => ({
          first: from,
          last: (firsts[at + 1] ?? 16_384) - 1,
          shard: 1 + (by[at] ?? 0),
          // Neighbours differ: often in the shard as well, always in this.
          epoch: 1 + (at % 5),
        }));
        const topology = { ...base, slots };
        const pieces = [...changedPieces(noCluster, topology)].map(
          ([name, text]): [string, string] => [name, text ?? ''],
        );
        expect(joinPieces(pieces.toSorted(([a], [b]) => (a < b ? -1 : 1)))).to.deep.equal(topology);
      }),
      { numRuns: 60 },
    );
  });
});
