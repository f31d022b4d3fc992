import { expect } from 'chai';
import type { CommandOf, MetaCommand } from '../../src/meta/commands.js';
import { slotsLeft } from '../../src/meta/migrations.js';
import type { MigrationRecord, MigrationState, Topology } from '../../src/meta/topology.js';
import { after, apply, clusterOf, reasonOf } from './clusters.js';

/** Shards 1 to 4 with 4096 slots each. */
const cluster = clusterOf(5);
const nowMs = 5_000;

function start(
  moves: CommandOf<'startMigrations'>['moves'] = [
    { slots: [{ first: 0, last: 99 }], source: 1, target: 2 },
  ],
): MetaCommand {
  return { kind: 'startMigrations', moves, nowMs };
}

function moved(first: number, last: number, id = 1): CommandOf<'moveSlots'> {
  const slots = [{ first, last }];
  return { kind: 'moveSlots', id, slots, keys: 10, bytes: 100, freezeMs: 7, nowMs: 6_000 };
}

function set(action: CommandOf<'setMigration'>['action'], id = 1): MetaCommand {
  return { kind: 'setMigration', id, action, reason: `${action} it`, nowMs: 7_000 };
}

const limit = (value: number): MetaCommand => ({
  kind: 'setSetting',
  name: 'migrationsMax',
  value,
});
const fail: MetaCommand = { kind: 'failMigration', id: 1, reason: 'no room' };
const end: MetaCommand = { kind: 'endMigration', id: 1, nowMs: 8_000 };

function migrationOf(topology: Topology, id = 1): MigrationRecord {
  const found = topology.migrations.find((each) => each.id === id);
  if (found === undefined) throw new Error(`there is no migration ${id}`);
  return found;
}

function statesOf({ migrations }: Topology): readonly MigrationState[] {
  return migrations.map(({ state }) => state);
}

function ownerOf({ slots }: Topology, slot: number): { shard: number; epoch: number } {
  const found = slots.find(({ first, last }) => first <= slot && slot <= last);
  if (found === undefined) throw new Error(`slot ${slot} has no owner`);
  return { shard: found.shard, epoch: found.epoch };
}

describe('a migration in the topology', () => {
  const running = after(cluster, start());

  it('begins at once when it may, with its ranges joined', () => {
    const slots = [5, 3, 4, 9].map((slot) => ({ first: slot, last: slot }));
    const { topology, result } = apply(cluster, start([{ slots, source: 1, target: 2 }]));
    expect(result).to.have.deep.property('issued', { migrations: [1] });
    expect(migrationOf(topology)).to.deep.include({
      slots: [
        { first: 3, last: 5 },
        { first: 9, last: 9 },
      ],
      state: 'running',
      hasRun: true,
      sinceMs: nowMs,
      endedMs: 0,
    });
  });

  it('is all or nothing: one bad move, and none is begun', () => {
    const good = { slots: [{ first: 0, last: 9 }], source: 1, target: 2 };
    const { topology, result } = apply(cluster, start([good, { ...good, target: 3 }]));
    expect(reasonOf(result)).to.equal('slotMigrating');
    expect(topology).to.equal(cluster);
  });

  it('D31: gives slots to the target one by one, each with the next epoch, and then is done', () => {
    const half = after(running, moved(0, 49));
    expect(ownerOf(half, 49)).to.deep.equal({ shard: 2, epoch: 2 });
    expect(ownerOf(half, 50)).to.deep.equal({ shard: 1, epoch: 1 });
    expect(migrationOf(half)).to.deep.include({ state: 'running', moved: 50, keys: 10 });
    expect(slotsLeft(half, migrationOf(half))).to.equal(50);
    const whole = after(half, moved(50, 99));
    expect(migrationOf(whole)).to.deep.include({
      state: 'done',
      moved: 100,
      keys: 20,
      bytes: 200,
      freezeMsMax: 7,
      endedMs: 6_000,
    });
    expect(whole.slots.slice(0, 2)).to.deep.equal([
      { first: 0, last: 99, shard: 2, epoch: 2 },
      { first: 100, last: 4095, shard: 1, epoch: 1 },
    ]);
  });

  it('D30: a report that comes twice moves nothing and counts nothing twice', () => {
    const half = after(running, moved(0, 49));
    expect(apply(half, moved(0, 49)).topology).to.equal(half);
    const more = after(half, moved(40, 59));
    expect(migrationOf(more)).to.deep.include({ moved: 60, keys: 10, bytes: 100 });
    expect(ownerOf(more, 45)).to.deep.equal({ shard: 2, epoch: 2 });
    const back = after(
      after(running, moved(0, 99)),
      start([{ slots: [{ first: 0, last: 99 }], source: 2, target: 1 }]),
      moved(0, 99, 2),
    );
    const { topology, result } = apply(back, moved(0, 99));
    expect(reasonOf(result)).to.equal('migrationEnded');
    expect(topology).to.equal(back);
    expect(ownerOf(back, 0)).to.deep.equal({ shard: 1, epoch: 3 });
  });

  it('keeps what has moved when it is cancelled, and ends when its source says so', () => {
    const cancelling = after(running, moved(0, 9), set('cancel'));
    expect(migrationOf(cancelling)).to.deep.include({ state: 'cancelling', reason: 'cancel it' });
    const ended = after(cancelling, moved(10, 19), end);
    expect(migrationOf(ended)).to.deep.include({ state: 'cancelled', moved: 20, endedMs: 8_000 });
    expect([ownerOf(ended, 19).shard, ownerOf(ended, 20).shard]).to.deep.equal([2, 1]);
    expect(reasonOf(apply(ended, moved(20, 29)).result)).to.equal('migrationEnded');
    expect(apply(ended, moved(10, 19)).topology).to.equal(ended);
    expect(migrationOf(after(cancelling, moved(10, 99))).state).to.equal('done');
  });

  it('fails when its source says so, with the reason', () => {
    const failing = after(running, fail);
    expect(migrationOf(failing)).to.deep.include({ state: 'failing', reason: 'no room' });
    expect(migrationOf(after(failing, end))).to.deep.include({ state: 'failed', endedMs: 8_000 });
  });

  it('is paused and resumed, and a command that comes twice changes nothing', () => {
    const paused = after(running, set('pause'));
    expect(migrationOf(paused)).to.deep.include({ state: 'paused', hasRun: true });
    const resumed = after(paused, set('resume'));
    expect(migrationOf(resumed)).to.deep.include({ state: 'running', reason: '' });
    const cancelling = after(running, set('cancel'));
    for (const [topology, command] of [
      [paused, set('pause')],
      [resumed, set('resume')],
      [cancelling, set('cancel')],
      [after(cancelling, end), set('cancel')],
      [cancelling, fail],
      [running, end],
      [after(cancelling, end), end],
    ] as const)
      expect(apply(topology, command).topology, command.kind).to.equal(topology);
  });

  it('that never ran has nothing to drop: cancelled, it has ended', () => {
    const queued = after(cluster, limit(0), start());
    expect(statesOf(queued)).to.deep.equal(['queued']);
    const paused = after(queued, set('pause'));
    expect(migrationOf(paused)).to.deep.include({ state: 'paused', hasRun: false });
    expect(migrationOf(after(paused, set('resume'))).state).to.equal('queued');
    for (const topology of [queued, paused])
      expect(migrationOf(after(topology, set('cancel')))).to.deep.include({
        state: 'cancelled',
        endedMs: 7_000,
      });
  });

  it('that ran and queues again has: its source must drop what it has begun', () => {
    const queued = after(running, set('pause'), limit(0), set('resume'));
    expect(migrationOf(queued)).to.deep.include({ state: 'queued', hasRun: true });
    expect(migrationOf(after(queued, set('cancel'))).state).to.equal('cancelling');
  });

  it('is kept, with those that ended last, when a hundred have ended', () => {
    let topology = after(cluster, start(), limit(0));
    for (let round = 0; round < 120; round++) {
      const slots = [{ first: 5000, last: 5000 }];
      const id = topology.next.migration;
      topology = after(topology, start([{ slots, source: 2, target: 3 }]), set('cancel', id));
    }
    expect(topology.migrations.map(({ id }) => id)).to.deep.equal([
      1,
      ...Array.from({ length: 100 }, (_, at) => at + 22),
    ]);
  });

  it('D07: stays open when a shard of it is recovered by force', () => {
    const half = after(running, moved(0, 49));
    const [survivor] = half.shards[0]?.replicas ?? [];
    if (survivor === undefined) throw new Error('shard 1 has no replica');
    const members = [survivor];
    const now = after(half, { kind: 'recoverGroup', group: 1, generation: 1, members });
    expect(now.migrations).to.equal(half.migrations);
    expect(ownerOf(now, 0)).to.deep.equal({ shard: 2, epoch: 2 });
  });
});

describe('the queue of migrations', () => {
  const move = (source: number, target: number, first: number): MetaCommand =>
    start([{ slots: [{ first, last: first }], source, target }]);

  it('lets so many run as migrationsMax says, in the order of their ids', () => {
    const four = after(
      cluster,
      limit(2),
      move(1, 2, 0),
      move(2, 3, 5000),
      move(3, 4, 9000),
      move(4, 1, 16_000),
    );
    expect(statesOf(four)).to.deep.equal(['running', 'running', 'queued', 'queued']);
    expect(statesOf(after(four, moved(0, 0)))).to.deep.equal([
      'done',
      'running',
      'running',
      'queued',
    ]);
    expect(statesOf(after(four, set('pause', 2)))).to.deep.equal([
      'running',
      'paused',
      'running',
      'queued',
    ]);
    // What is being dropped still costs.
    expect(statesOf(after(four, set('cancel', 2)))[2]).to.equal('queued');
    expect(statesOf(after(four, limit(4)))).to.deep.equal(Array(4).fill('running'));
    expect(statesOf(after(four, limit(0)))).to.deep.equal(statesOf(four));
  });

  it('lets one run of each source, and two to each target', () => {
    const topology = after(
      cluster,
      limit(64),
      move(1, 4, 0),
      move(1, 2, 1),
      move(2, 4, 5000),
      move(3, 4, 9000),
    );
    expect(statesOf(topology)).to.deep.equal(['running', 'queued', 'running', 'queued']);
    expect(statesOf(after(topology, moved(0, 0)))).to.deep.equal([
      'done',
      'running',
      'running',
      'running',
    ]);
  });
});

describe('shards that are merged, split and removed', () => {
  it('merge: all slots go to the others in equal, contiguous shares', () => {
    const merging = after(cluster, { kind: 'mergeShard', shard: 2, into: [4, 1], nowMs });
    expect(merging.migrations.map(({ target, slots }) => ({ target, slots }))).to.deep.equal([
      { target: 4, slots: [{ first: 4096, last: 6143 }] },
      { target: 1, slots: [{ first: 6144, last: 8191 }] },
    ]);
    expect(merging.operations).to.have.length(1);
    expect(merging.operations[0]).to.deep.include({
      kind: 'mergeShard',
      shard: 2,
      migrations: [1, 2],
      state: 'running',
    });
  });

  it('split: new shards get equal shares, the first stays where it is', () => {
    const splitting = after(cluster, { kind: 'splitShard', shard: 1, into: 3, nowMs });
    expect(splitting.shards.map(({ id }) => id)).to.deep.equal([1, 2, 3, 4, 5, 6]);
    expect(splitting.shards[5]?.replicas).to.have.length(3);
    expect(splitting.migrations.map(({ target, slots }) => ({ target, slots }))).to.deep.equal([
      { target: 5, slots: [{ first: 1365, last: 2729 }] },
      { target: 6, slots: [{ first: 2730, last: 4095 }] },
    ]);
    const few = after(cluster, { kind: 'splitShard', shard: 1, into: 2, replication: 1, nowMs });
    expect(few.shards[4]?.replicas).to.have.length(1);
  });

  it('cancels the migrations of a merge that is cancelled', () => {
    const merging = after(cluster, { kind: 'mergeShard', shard: 2, into: [4, 1], nowMs });
    const cancelled = after(merging, {
      kind: 'endOperation',
      id: 1,
      state: 'cancelled',
      progress: 'no',
      nowMs,
    });
    expect(statesOf(cancelled)).to.deep.equal(['cancelling', 'cancelled']);
  });

  it('D01: a shard without slots goes, its id stays taken, and what was replaced of it is over', () => {
    const created = after(cluster, { kind: 'createShard', replication: 3 });
    const [first] = created.shards[4]?.replicas ?? [];
    const free = created.nodes.find(
      ({ id }) => created.shards[4]?.replicas.every(({ node }) => node !== id) === true,
    );
    const removed = after(
      created,
      {
        kind: 'replaceReplica',
        shard: 5,
        from: first?.node ?? 0,
        to: free?.id ?? 0,
        nowMs,
      },
      { kind: 'removeShard', shard: 5 },
    );
    expect(removed.shards).to.deep.equal(cluster.shards);
    expect(removed.removedShards).to.deep.equal([5]);
    expect(removed.next.shard).to.equal(6);
    expect(removed.operations[0]?.state).to.equal('cancelled');
    expect(apply(removed, { kind: 'removeShard', shard: 5 }).topology).to.equal(removed);
  });
});
