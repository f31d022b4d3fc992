import { expect } from 'chai';
import { slot as slotNumber, slotOf, type Slot } from '../../src/router/slot.js';
import { encodeTime, encodeWrites } from '../../src/shard/command-codec.js';
import { decodeCursor, encodeCursor } from '../../src/shard/scan-cursor.js';
import type { ReadLevel } from '../../src/shard/shard.js';
import type { SlotPosition } from '../../src/shard/slot-position.js';
import { SlotOwnership, type SlotState } from '../../src/shard/slot-state.js';
import { bytes, ifAbsent, put, remove, session, write } from './command-texts.js';
import { HookedEngine } from './hooked-engine.js';
import { entryOf, Replica } from './replica.js';
import { ServedShard } from './served-shard.js';

const slotOfK = slotOf(bytes('k'));

const position = (fields: Partial<SlotPosition>): SlotPosition => ({
  slot: slotOfK,
  epoch: 1,
  revision: 0,
  logTimeMs: 0,
  ...fields,
});

function atLeast(...positions: readonly SlotPosition[]): ReadLevel {
  return {
    kind: 'atLeast',
    positions: new Map<Slot, SlotPosition>(positions.map((each) => [each.slot, each])),
    maxStalenessMs: Number.MAX_SAFE_INTEGER,
  };
}

/** Caught up, with revision 2 of the slot of k, and nobody to ask. */
async function alone(): Promise<ServedShard> {
  const served = new ServedShard(Replica.fresh(new HookedEngine()));
  served.group.lead();
  await served.written(write(put('k', '1')));
  await served.written(write(put('k', '2')));
  served.group.caughtUpAtMs = served.clock.monotonicMs();
  served.group.readsAtOnce = false;
  return served;
}

function changeSlot(served: ServedShard, change: Partial<SlotState>): void {
  const { machine } = served.replica;
  const before = machine.slotState.bind(machine);
  machine.slotState = (slot) => (slot === slotOfK ? { ...before(slot), ...change } : before(slot));
}

describe('reads of a shard at least as far as a session token', () => {
  const cases: readonly (readonly [string, Partial<SlotPosition>, Partial<SlotState>, boolean])[] =
    [
      ['epoch and revision equal', { epoch: 3, revision: 2 }, { epoch: 3 }, true],
      ['a higher epoch and revision here', { epoch: 2, revision: 1 }, { epoch: 3 }, true],
      ['a lower epoch here', { epoch: 4, revision: 1 }, { epoch: 3 }, false],
      ['a lower revision here', { epoch: 3, revision: 3 }, { epoch: 3 }, false],
      ['a higher epoch and a lower revision', { epoch: 3, revision: 3 }, { epoch: 4 }, false],
      ['a lower epoch and a higher revision', { epoch: 4, revision: 1 }, { epoch: 3 }, false],
      ['log time that has not come', { logTimeMs: Number.MAX_SAFE_INTEGER }, {}, false],
    ];
  for (const [name, wanted, state, answers] of cases) {
    it(`D24: ${answers ? 'answer at once' : 'catch up first'}: ${name}`, async () => {
      const served = await alone();
      changeSlot(served, state);
      const call = served.read(['k'], atLeast(position(wanted)));
      const page = served.scan({ slot: slotOfK, level: atLeast(position(wanted)) });
      await served.settle();
      const answered = answers ? 1 : 0;
      expect([call.answers.length, page.answers.length]).to.deep.equal([answered, answered]);
      expect(served.group.reads.length).to.equal(answers ? 0 : 2);
    });
  }

  it('D24: a slot that the token does not name may have any state', async () => {
    const served = await alone();
    expect(await served.values(['k'], atLeast())).to.deep.equal(['2']);
    const other = position({ slot: slotOf(bytes('other')), revision: 9 });
    expect(served.read(['k'], atLeast(other)).answers, 'named, if not read').to.have.length(0);
  });

  it('D24: answer when the replica has caught up with the token', async () => {
    const served = await alone();
    const call = served.read(['k'], atLeast(position({ revision: 3 })));
    await served.written(write(put('k', '3')));
    expect(call.answers, 'not before the group has confirmed it').to.have.length(0);
    served.group.releaseReads();
    await served.settle();
    expect(call.result.values[0]?.revision).to.equal(3);
  });

  it('D24: a token that nobody has reached is refused, not waited for', async () => {
    const served = await alone();
    const call = served.read(['k'], atLeast(position({ revision: 3 })));
    const page = served.scan({ slot: slotOfK, level: atLeast(position({ epoch: 2 })) });
    await served.settle();
    served.group.releaseReads();
    await served.settle();
    for (const { error } of [call, page]) {
      expect(error).to.include({ code: 'KV_TOKEN_MISMATCH', outcome: 'notApplied' });
      expect(error.message).to.include('begin with a new token');
    }
  });

  it('D24, D23: a slot that is owned elsewhere is a matter of routing, whatever its position', async () => {
    const served = await alone();
    changeSlot(served, { ownership: SlotOwnership.handedOver });
    const call = served.read(['k'], atLeast(position({ epoch: 2, revision: 9 })));
    await served.settle();
    expect(call.error.code).to.equal('KV_WRONG_SHARD');
  });

  it('D24, D23: a page ends before a slot that came meanwhile and lags behind the token', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    await served.written(write(put('k', '1')));
    served.group.caughtUpAtMs = served.clock.monotonicMs();
    const { machine } = served.replica;
    const stateOf = machine.slotState.bind(machine);
    let owned = false;
    machine.slotState = (slot) =>
      slot !== slotOfK || owned
        ? stateOf(slot)
        : { ...stateOf(slot), ownership: SlotOwnership.importing };
    engine.onPage = () => {
      owned = true;
      return Promise.resolve();
    };
    const before = slotNumber(slotOfK - 1);
    const page = await served.page({
      level: atLeast(position({ revision: 2 })),
      cursor: encodeCursor({ slot: before, from: bytes('') }),
    });
    expect(page).to.deep.include({ kvs: [], done: false });
    expect(decodeCursor(page.cursor).slot).to.equal(slotOfK);
  });

  it('D15: never look at a replica that has not caught up since it was started or restored', async () => {
    const served = await alone();
    served.group.caughtUpAtMs = Number.NEGATIVE_INFINITY;
    const call = served.read(['k'], atLeast(position({ revision: 1 })));
    await served.settle();
    expect(call.answers).to.have.length(0);
    served.group.releaseReads('restoring');
    expect(call.error.code).to.equal('KV_UNAVAILABLE');
  });

  it('are as young as max_staleness_ms asks, if it does', async () => {
    const served = await alone();
    await served.pass(100);
    const bounded = (maxStalenessMs: number): ReadLevel => ({
      kind: 'atLeast',
      positions: new Map(),
      maxStalenessMs,
    });
    expect(await served.values(['k'], bounded(100))).to.deep.equal(['2']);
    const call = served.read(['k'], bounded(99));
    await served.settle();
    expect(call.answers).to.have.length(0);
  });
});

describe('positions of a shard, for session tokens', () => {
  it('D24: of a write: the slot as it left it, also when it changed nothing', async () => {
    const served = ServedShard.leading();
    const first = await served.written(write(put('k', '1')), write(put('{k}2', '2')));
    expect(first.positionsOf(bytes('k'))[0]).to.include({ slot: slotOfK, epoch: 1, revision: 2 });
    const nothing = await served.written(write(put('k', '3', { condition: ifAbsent })));
    expect(nothing.positionsOf(bytes('k'))[0]).to.include({ revision: 2 });
    const gone = await served.written(write(remove('{k}nothing')));
    expect(gone.positionsOf(bytes('k'))[0]).to.include({ revision: 2 });
  });

  it('D24: of a write that is answered from its session record: not below the write itself', async () => {
    const served = ServedShard.leading();
    const once = session(1, 1, { notAfterMs: 0 });
    await served.written(write(put('k', '1'), once));
    const again = await served.written(write(put('k', '1'), once));
    expect(again.positionsOf(bytes('k'))[0]?.revision).to.be.at.least(1);
  });

  it('D24: of a read, one for each key, and of a page for each slot that was written', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', '1')), write(put('k', '2')), write(put('a', '3')));
    const call = served.read(['k', 'never', 'a']);
    await served.settle();
    const revisions = [0, 1, 2].flatMap(call.result.positionsAt).map(({ revision }) => revision);
    expect(revisions).to.deep.equal([2, 0, 1]);
    expect(() => call.result.positionsAt(3)).to.throw(RangeError, '3 keys');
    const page = await served.page({ slot: slotOfK });
    expect(page.positions).to.deep.equal([position({ revision: 2 })]);
    expect((await served.page({ slot: slotOf(bytes('never')) })).positions).to.deep.equal([]);
  });

  for (const kind of ['stale', 'atLeast'] as const) {
    it(`share one look into the engine with others of their turn: ${kind}`, async () => {
      const engine = new HookedEngine();
      const served = new ServedShard(Replica.fresh(engine));
      served.group.lead();
      await served.written(write(put('k', '1')));
      served.group.caughtUpAtMs = served.clock.monotonicMs();
      const before = engine.gets;
      const level: ReadLevel = kind === 'stale' ? { kind, maxStalenessMs: 5000 } : atLeast();
      const calls = ['k', 'a', 'k'].map((key) => served.read([key], level));
      await served.settle();
      expect(calls.map(({ result }) => result.values[0]?.revision)).to.deep.equal([
        1,
        undefined,
        1,
      ]);
      expect(engine.gets - before).to.equal(1);
    });
  }

  it('D24: not from a slot that came here behind the token after they were asked for', async () => {
    const served = await alone();
    const { machine } = served.replica;
    const slotState = machine.slotState.bind(machine);
    changeSlot(served, { ownership: SlotOwnership.importing, epoch: 2 });
    const call = served.read(['k'], atLeast(position({ epoch: 3, revision: 5 })));
    // In the same turn of the event loop it is activated, and what was written since is not here yet.
    machine.slotState = slotState;
    changeSlot(served, { epoch: 3 });
    await served.settle();
    expect(call.answers, 'catches up first').to.deep.equal([]);
  });

  it('D24: not below what the engine shows already, before readers have heard of it', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', '1')));
    const { machine, engine, index } = served.replica;
    const batch = engine.batch();
    await machine.apply([entryOf(encodeWrites([write(put('k', '2'))], 1000), index + 1)], batch);
    await engine.write(batch, { sync: false });
    const call = served.read(['k']);
    const page = served.scan({ slot: slotOfK });
    await served.settle();
    expect(call.result.values[0]?.revision, 'seen').to.equal(2);
    expect(call.result.positionsAt(0)[0]?.revision).to.equal(2);
    expect(page.result.positions[0]?.revision).to.equal(2);
    machine.written();
  });

  it('D24: a key that was seen as expired does not come back where log time is behind', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 100 })));
    const expiresAtMs = served.replica.machine.logTimeMs + 100;
    const lagging = new ServedShard(await served.replica.copyTo(new HookedEngine(), 2));
    lagging.group.caughtUpAtMs = lagging.clock.monotonicMs();
    lagging.group.readsAtOnce = false;
    served.group.stepDown({ kind: 'unknown', reason: 'steppedDown' });
    await served.replica.apply([encodeTime(expiresAtMs)]);
    const call = served.read(['k']);
    const page = served.scan({ slot: slotOfK });
    await served.settle();
    expect(call.result.values).to.deep.equal([undefined]);
    const [seen = position({})] = call.result.positionsAt(0);
    expect(seen).to.deep.equal(position({ revision: 1, logTimeMs: expiresAtMs }));
    expect(page.result.positions).to.deep.equal([seen]);
    const later = lagging.read(['k'], atLeast(seen));
    await lagging.settle();
    expect(later.answers, 'it would still show the key').to.have.length(0);
    await lagging.replica.apply([encodeTime(expiresAtMs)]);
    lagging.group.releaseReads();
    await lagging.settle();
    expect(later.result.values).to.deep.equal([undefined]);
  });
});
