import type { MetaCommand } from '../../src/meta/commands.js';
import { after, clusterOf } from './clusters.js';
import { refuses } from './refusal-rows.js';

describe('refusals about migrations', () => {
  const span = (from: number, to = from): { first: number; last: number } => ({
    first: from,
    last: to,
  });
  type Moves = Extract<MetaCommand, { kind: 'startMigrations' }>['moves'];
  const start = (...moves: Moves): MetaCommand => ({ kind: 'startMigrations', moves, nowMs: 1 });
  const set = (id: number, action: 'pause' | 'resume' | 'cancel'): MetaCommand => ({
    kind: 'setMigration',
    id,
    action,
    reason: '',
    nowMs: 2,
  });
  const moveSlots = (id: number, first: number): MetaCommand => ({
    kind: 'moveSlots',
    id,
    slots: [span(first)],
    keys: 0,
    bytes: 0,
    freezeMs: 0,
    nowMs: 3,
  });
  // 1 runs, 2 is done, 3 is cancelled, 4 waits, 5 is on its way out, 6 goes to shard 3, which is merged.
  const topology = after(
    clusterOf(3),
    { kind: 'setSetting', name: 'migrationsMax', value: 64 },
    start(
      { slots: [span(0)], source: 1, target: 2 },
      { slots: [span(5000)], source: 2, target: 1 },
    ),
    moveSlots(2, 5000),
    { kind: 'setSetting', name: 'migrationsMax', value: 0 },
    start({ slots: [span(1)], source: 1, target: 2 }),
    set(3, 'cancel'),
    start({ slots: [span(2)], source: 1, target: 2 }),
    { kind: 'setSetting', name: 'migrationsMax', value: 64 },
    start({ slots: [span(6000)], source: 2, target: 1 }),
    set(5, 'cancel'),
    { kind: 'mergeShard', shard: 3, into: [4], nowMs: 4 },
  );
  refuses(topology, [
    ['no moves', start(), 'badMove', 'no moves'],
    ['no slots', start({ slots: [], source: 1, target: 2 }), 'badSlots', 'no slots are named'],
    [
      'slot 16384',
      start({ slots: [span(16_000, 16_384)], source: 4, target: 2 }),
      'badSlots',
      'there is no pin 16384: slots are 0 to 16383',
    ],
    ['slot -1', start({ slots: [span(-1, 4)], source: 1, target: 2 }), 'badSlots', 'got -1'],
    ['half a slot', start({ slots: [span(1.5, 4)], source: 1, target: 2 }), 'badSlots', 'got 1.5'],
    [
      'a range backwards',
      start({ slots: [span(9, 4)], source: 1, target: 2 }),
      'badSlots',
      'slots 9-4: a range begins with the smaller slot',
    ],
    [
      'overlapping ranges',
      start({ slots: [span(20, 30), span(10, 20)], source: 1, target: 2 }),
      'badSlots',
      'slot 20 is named twice',
    ],
    [
      'overlapping moves',
      start(
        { slots: [span(20, 30)], source: 1, target: 2 },
        { slots: [span(30)], source: 1, target: 4 },
      ),
      'slotMigrating',
      'slot 30 is in migration 7 already',
    ],
    [
      'slots of another shard',
      start({ slots: [span(4000, 4100)], source: 1, target: 2 }),
      'notOwner',
      'slot 4096 belongs to shard 2, not to shard 1',
    ],
    [
      'a shard as its own target',
      start({ slots: [span(10)], source: 1, target: 1 }),
      'badMove',
      'from shard 1 to itself',
    ],
    [
      'a source that is not there',
      start({ slots: [span(10)], source: 9, target: 1 }),
      'unknownShard',
      'no shard 9',
    ],
    [
      'a target that is not there',
      start({ slots: [span(10)], source: 1, target: 9 }),
      'unknownShard',
      'no shard 9',
    ],
    [
      'slots that are on their way',
      start({ slots: [span(0)], source: 1, target: 4 }),
      'slotMigrating',
      'slot 0 is in migration 1 already, from shard 1 to shard 2: wait until it ends, or cancel it',
    ],
    [
      'a target that is to be removed',
      start({ slots: [span(10)], source: 1, target: 3 }),
      'operationRunning',
      'shard 3 is to be removed (operation 1)',
    ],
    [
      'more than a thousand open migrations',
      start(
        ...Array.from({ length: 1000 }, (_, at) => ({
          slots: [span(100 + at)],
          source: 1,
          target: 2,
        })),
      ),
      'tooManyMigrations',
      '1000 at most',
    ],
    ['to pause nothing', set(77, 'pause'), 'unknownMigration', 'no migration 77'],
    [
      'to pause what is done',
      set(2, 'pause'),
      'migrationEnded',
      'migration 2 is done: all its slots belong to shard 1; start one in the other direction',
    ],
    ['to cancel what is done', set(2, 'cancel'), 'migrationEnded', 'in the other direction'],
    ['to resume what was cancelled', set(3, 'resume'), 'migrationEnded', 'start a new one'],
    ['to pause what is being cancelled', set(5, 'pause'), 'migrationEnded', 'is cancelling'],
    [
      'a negative throttle',
      { kind: 'throttleMigration', id: 1, bytesPerSecond: -1 },
      'badThrottle',
      'got -1: to stop it, pause it',
    ],
    [
      'a throttle of a few bytes',
      { kind: 'throttleMigration', id: 1, bytesPerSecond: 10 },
      'badThrottle',
      'from 1024',
    ],
    [
      'a throttle of half a byte',
      { kind: 'throttleMigration', id: 1, bytesPerSecond: 2048.5 },
      'badThrottle',
      'integer',
    ],
    [
      'a throttle of what has ended',
      { kind: 'throttleMigration', id: 2, bytesPerSecond: 0 },
      'migrationEnded',
      'done',
    ],
    ['slots of no migration', moveSlots(77, 0), 'unknownMigration', '77'],
    ['slots of another migration', moveSlots(1, 1), 'badSlots', 'migration 1: 0'],
    ['slots of what never began', moveSlots(3, 1), 'migrationNotBegun', 'nothing can have moved'],
    [
      'the failure of what never began',
      { kind: 'failMigration', id: 4, reason: '' },
      'migrationNotBegun',
      'cancel it instead',
    ],
    ['an end of nothing', { kind: 'endMigration', id: 77, nowMs: 1 }, 'unknownMigration', '77'],
  ]);

  const spare = after(topology, { kind: 'createShard', replication: 1 });
  const single = after(spare, start({ slots: [span(4096)], source: 2, target: 5 }), {
    kind: 'setSetting',
    name: 'migrationsMax',
    value: 0,
  });
  const merge = (shard: number, ...into: readonly number[]): MetaCommand => ({
    kind: 'mergeShard',
    shard,
    into,
    nowMs: 5,
  });
  const split = (shard: number, into: number): MetaCommand => ({
    kind: 'splitShard',
    shard,
    into,
    nowMs: 5,
  });
  refuses(single, [
    ['to remove no shard', { kind: 'removeShard', shard: 9 }, 'unknownShard', 'no shard 9'],
    [
      'to remove a shard with slots',
      { kind: 'removeShard', shard: 4 },
      'shardInUse',
      'shard 4 has 4096 slots: merge it into other shards',
    ],
    [
      'to remove a shard that gets slots',
      { kind: 'removeShard', shard: 5 },
      'shardInUse',
      'shard 5 is part of migration 7',
    ],
    ['a merge into nothing', merge(4), 'badMove', 'into one or more'],
    ['a merge into itself', merge(4, 1, 4), 'badMove', 'into itself'],
    ['a merge into one shard twice', merge(4, 1, 1), 'badMove', 'different shards'],
    ['a merge into no shard', merge(4, 9), 'unknownShard', 'no shard 9'],
    ['a second merge', merge(3, 1), 'operationRunning', 'being merged already (operation 1)'],
    ['a merge of what gets slots', merge(5, 1), 'shardInUse', 'migration 7 brings slots'],
    ['a merge of slots on their way', merge(2, 1), 'shardInUse', 'brings slots to shard 2'],
    ['a merge into one that is merged', merge(4, 3), 'shardInUse', 'brings slots to shard 4'],
    ['a split into one', split(1, 1), 'badSplit', '2 to 64 shards, got 1'],
    ['a split into 65', split(1, 65), 'badSplit', 'got 65'],
    ['a split into two and a half', split(1, 2.5), 'badSplit', 'got 2.5'],
    ['a split of nothing', split(5, 2), 'badSplit', 'has 0 slots and cannot be split into 2'],
    ['a split of what is merged', split(3, 2), 'operationRunning', 'being merged already'],
    ['a split of slots on their way', split(1, 4097), 'badSplit', 'got 4097'],
    [
      'a split with more replicas than hosts',
      { kind: 'splitShard', shard: 4, into: 2, replication: 4, nowMs: 5 },
      'notEnoughHosts',
      '4 replicas',
    ],
    [
      'a setting of migrations out of bounds',
      { kind: 'setSetting', name: 'freezeMsMax', value: 50 },
      'badSetting',
      'from 100 to 60000, got 50',
    ],
  ]);
});
