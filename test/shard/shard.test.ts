import { expect } from 'chai';
import type { ErrorCode, Outcome } from '../../src/errors.js';
import type { ProposeOutcome, ReadOutcome } from '../../src/group/group.js';
import { slotOf } from '../../src/router/slot.js';
import { decodeCommand, encodeTime } from '../../src/shard/command-codec.js';
import type { CommandResult } from '../../src/shard/command.js';
import type { ReadLevel } from '../../src/shard/shard.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { bytes, increment, put, remove, session, write } from './command-texts.js';
import { HookedEngine } from './hooked-engine.js';
import { plain } from './model.js';
import { Replica } from './replica.js';
import { ServedShard } from './served-shard.js';

type Lost = Exclude<ProposeOutcome<CommandResult>, { kind: 'applied' }>;

const lease: ReadLevel = { kind: 'lease' };
const stale = (maxStalenessMs: number): ReadLevel => ({ kind: 'stale', maxStalenessMs });

function hooked(): { served: ServedShard; engine: HookedEngine } {
  const engine = new HookedEngine();
  const served = new ServedShard(Replica.fresh(engine));
  served.group.lead();
  return { served, engine };
}

/** From now on the slot of the key is in another state, without an entry of the log. */
function changeSlot(
  served: ServedShard,
  key: string,
  change: { readonly ownership?: SlotOwnership; readonly epoch?: number },
): void {
  const { machine } = served.replica;
  const before = machine.slotState.bind(machine);
  machine.slotState = (slot) =>
    slot === slotOf(bytes(key)) ? { ...before(slot), ...change } : before(slot);
}

describe('writes of a shard', () => {
  it('are answered with what apply said, in one command with one log time', async () => {
    const served = ServedShard.leading();
    const call = served.write(write(put('a', '1')), write(increment('a', 4)));
    expect(call.answers, 'not before it is applied').to.have.length(0);
    await served.settle();
    expect(plain(call.result.results)).to.deep.equal([
      { kind: 'put', applied: true, revision: 1, previous: undefined },
      { kind: 'increment', value: 5, revision: 2 },
    ]);
    expect(served.group.proposed).to.have.length(1);
    expect(call.result.logTimeMs).to.equal(served.clock.wallMs());
  });

  const outcomes: readonly (readonly [Lost, ErrorCode, Outcome])[] = [
    [{ kind: 'unknown', reason: 'steppedDown' }, 'KV_UNKNOWN_OUTCOME', 'unknown'],
    [{ kind: 'unknown', reason: 'snapshotInstalled' }, 'KV_UNKNOWN_OUTCOME', 'unknown'],
    [{ kind: 'unknown', reason: 'closed' }, 'KV_UNKNOWN_OUTCOME', 'unknown'],
    [{ kind: 'notApplied', reason: 'overwritten' }, 'KV_UNAVAILABLE', 'notApplied'],
    [{ kind: 'notApplied', reason: 'notLeader' }, 'KV_UNAVAILABLE', 'notApplied'],
    [{ kind: 'notApplied', reason: 'transferring' }, 'KV_UNAVAILABLE', 'notApplied'],
    [{ kind: 'notApplied', reason: 'closed' }, 'KV_UNAVAILABLE', 'notApplied'],
    [{ kind: 'notApplied', reason: 'overloaded' }, 'KV_OVERLOADED', 'notApplied'],
    [{ kind: 'notApplied', reason: 'tooLarge' }, 'KV_TOO_LARGE', 'notApplied'],
  ];
  for (const [lost, code, outcome] of outcomes) {
    it(`D04: a proposal that ends as ${lost.kind}, ${lost.reason}, is told as ${code}, ${outcome}`, () => {
      const served = ServedShard.leading();
      served.group.atOnce = false;
      const calls = ['k', 'l'].map((key) => served.write(write(put(key, 'v'))));
      served.group.endTurn();
      served.group.stepDown(lost);
      for (const call of calls) {
        expect(call.error).to.include({ code, outcome });
        expect(call.mayHaveApplied).to.equal(outcome === 'unknown');
      }
    });
  }

  it('D04, R52: from the proposal on a deadline has an unknown outcome, before it has none', () => {
    const served = ServedShard.leading();
    served.group.atOnce = false;
    const waiting = served.write(write(put('k', 'v')));
    expect(waiting.mayHaveApplied).to.equal(true);
    expect(waiting.answers).to.have.length(0);
    const farAhead = session(1, 1, { notAfterMs: served.clock.wallMs() + 100_000 });
    const refused = served.write(write(put('k', 'v'), farAhead));
    expect(refused.error.code).to.equal('KV_INVALID');
    expect(refused.mayHaveApplied).to.equal(false);
  });

  it('D04: a write on a replica that does not lead reaches no log', async () => {
    const served = new ServedShard();
    const call = served.write(write(put('k', 'v')));
    await served.settle();
    expect(call.error).to.include({ code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
    expect(call.mayHaveApplied).to.equal(false);
    expect(served.group.proposed).to.have.length(0);
  });

  it('R51: each caller gets the answer to its own write, in whatever order they come', async () => {
    const served = ServedShard.leading();
    served.group.atOnce = false;
    const calls = [1, 10].map((delta) => {
      const call = served.write(write(increment('k', delta)));
      served.group.endTurn();
      served.clock.jump(10);
      return call;
    });
    expect(served.group.proposed).to.have.length(2);
    await served.group.applyWaiting('backwards');
    const values = calls.map(({ result }) => plain(result.results[0]));
    expect(values).to.deep.equal([
      { kind: 'increment', value: 1, revision: 1 },
      { kind: 'increment', value: 11, revision: 2 },
    ]);
  });

  it('R51: while a command is on its way writes are gathered for the next, for ten milliseconds', async () => {
    const served = ServedShard.leading();
    served.group.atOnce = false;
    const calls = [1, 10, 100, 1000, 10_000].map((delta) => {
      const call = served.write(write(increment('k', delta)));
      served.group.endTurn();
      return call;
    });
    expect(served.group.proposed).to.have.length(1);
    served.clock.jump(9);
    expect(served.group.proposed).to.have.length(1);
    served.clock.jump(1);
    expect(served.group.proposed).to.have.length(2);
    const late = served.write(write(increment('k', 100_000)));
    await served.group.applyWaiting();
    served.group.endTurn();
    expect(served.group.proposed).to.have.length(3);
    await served.group.applyWaiting();
    for (const [n, value] of [1, 11, 111, 1111, 11_111].entries())
      expect(plain(calls[n]?.result.results[0])).to.include({ value });
    expect(plain(late.result.results[0])).to.include({ value: 111_111 });
  });

  it('D04, R51: writes that are gathered when leadership is lost are surely not applied', async () => {
    const served = ServedShard.leading();
    served.group.atOnce = false;
    const calls = ['a', 'b', 'c'].map((key) => {
      const call = served.write(write(put(key, 'v')));
      served.group.endTurn();
      return call;
    });
    served.group.stepDown({ kind: 'unknown', reason: 'steppedDown' });
    await served.settle();
    expect(calls.map(({ error }) => error.outcome)).to.deep.equal([
      'unknown',
      'notApplied',
      'notApplied',
    ]);
    expect(calls[2]?.mayHaveApplied).to.equal(false);
    expect(served.group.proposed).to.have.length(1);
  });

  it('R51: writes of one turn are one command, and each caller gets the results of its own', async () => {
    const served = ServedShard.leading();
    const calls = [
      served.write(write(put('a', '1')), write(increment('b', 2))),
      served.write(write(put('a', '2', { condition: { kind: 'absent' } }))),
      served.write(write(increment('b', 40)), write(remove('a'))),
    ];
    await served.settle();
    expect(served.group.proposed).to.have.length(1);
    expect(calls.map(({ result }) => result.results.map(({ kind }) => kind))).to.deep.equal([
      ['put', 'increment'],
      ['put'],
      ['increment', 'delete'],
    ]);
    expect(plain(calls[1]?.result.results[0])).to.include({ applied: false, revision: 1 });
    expect(plain(calls[2]?.result.results[0])).to.include({ value: 42 });
  });

  it('that cannot be encoded fail alone: in the log they would stop every replica', async () => {
    const served = ServedShard.leading();
    const good = served.write(write(put('a', '1')));
    const broken = session(1, 1, { clientId: bytes('short') });
    expect(() => served.write(write(put('b', '2')), write(put('c', '3'), broken))).to.throw();
    const after = served.write(write(increment('d', 1)));
    await served.settle();
    expect(good.result.results).to.have.length(1);
    expect(plain(after.result.results[0])).to.include({ value: 1 });
    expect(await served.replica.get('b')).to.equal(undefined);
  });

  it('of a large list go alone, so that its refusal is nobody else’s', () => {
    const served = ServedShard.leading();
    served.group.atOnce = false;
    served.write(write(put('a', 'small')));
    served.write(...Array.from({ length: 3000 }, (_, n) => write(put(`b${n}`, 'v'))));
    expect(served.group.proposed.map(({ byteLength }) => byteLength < 100)).to.deep.equal([
      true,
      false,
    ]);
  });

  it('writes that are large do not wait for the end of the turn, nor for one another', async () => {
    const served = ServedShard.leading();
    served.group.atOnce = false;
    const large = 'v'.repeat(40_000);
    for (const key of ['a', 'b', 'c', 'd', 'e']) served.write(write(put(key, large)));
    expect(served.group.proposed).to.have.length(2);
    await served.group.applyWaiting();
    served.group.endTurn();
    expect(served.group.proposed).to.have.length(3);
  });

  it('R12: applying proposes nothing: a write is one entry, with everything it does', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 60_000 }), session(1, 1, { notAfterMs: 0 })));
    await served.pass(1000);
    expect(served.group.proposed).to.have.length(1);
  });

  it('R12: a follower that applies the same entries has the same bytes', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 50 }), session(1, 1, { notAfterMs: 0 })));
    await served.pass(100);
    await served.written(write(increment('l', 3)));
    const follower = Replica.fresh();
    for (const command of served.group.proposed) await follower.apply([command]);
    expect(await follower.hash()).to.deep.equal(await served.replica.hash());
    expect(served.group.proposed.length, 'a write, an expiry, a write').to.equal(3);
  });

  it('D21: fills in the latest moment for a session that brings none, and refuses one further ahead', async () => {
    const served = ServedShard.leading();
    const nowMs = served.clock.wallMs();
    await served.written(write(put('k', 'v'), session(1, 1, { notAfterMs: 0 })));
    const [command] = served.group.proposed.map(decodeCommand);
    if (command?.kind !== 'writes') throw new Error('no writes');
    expect(command.writes[0]?.session?.notAfterMs).to.equal(nowMs + 60_000);
    await served.written(write(put('k', 'v'), session(1, 2, { notAfterMs: nowMs + 70_000 })));
    const call = served.write(write(put('k', 'v'), session(1, 3, { notAfterMs: nowMs + 70_001 })));
    expect(call.error).to.include({ code: 'KV_INVALID', outcome: 'notApplied' });
    expect(call.error.fields).to.include({ limit: 60_000, size: 70_001 });
  });

  it('D22: a leader that has no time yet stamps nothing: its log time could be years old', async () => {
    const served = new ServedShard();
    await served.replica.apply([encodeTime(5)]);
    served.group.elect();
    const early = served.write(
      write(put('k', 'v', { ttlMs: 1000 }), session(1, 1, { notAfterMs: served.clock.wallMs() })),
    );
    expect(early.error).to.include({ code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
    expect(served.group.proposed).to.have.length(0);
    served.group.noticed();
    await served.written(write(put('k', 'v', { ttlMs: 1000 })));
    expect(await served.replica.get('k')).to.include({ expiresAtMs: served.clock.wallMs() + 1000 });
  });

  it('D22: log time goes on with the new leader where the old one was ahead', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', '1')));
    const before = served.replica.machine.logTimeMs;
    served.group.stepDown({ kind: 'unknown', reason: 'steppedDown' });
    served.group.lead(before - 3_600_000);
    const { logTimeMs } = await served.written(write(put('k', '2')));
    expect(logTimeMs).to.equal(before);
    await served.pass(250);
    expect((await served.written(write(put('k', '3')))).logTimeMs).to.equal(before + 250);
  });
});

describe('reads of a shard', () => {
  it('wait for the read index, then answer with values in the order of the keys', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('a', '1')), write(put('b', '2')));
    served.group.readsAtOnce = false;
    const call = served.read(['b', 'missing', 'a']);
    await served.settle();
    expect(call.answers).to.have.length(0);
    await served.written(write(put('a', '3')));
    served.group.releaseReads();
    await served.settle();
    expect(plain(call.result.values)).to.deep.equal([
      { key: 'b', value: '2', revision: 1, expiresAtMs: 0 },
      undefined,
      { key: 'a', value: '3', revision: 2, expiresAtMs: 0 },
    ]);
    expect(call.result.logTimeMs).to.equal(served.clock.wallMs());
  });

  it('of one turn share one look at the engine', async () => {
    const { served, engine } = hooked();
    await served.written(write(put('a', '1')), write(put('b', '2')));
    const before = engine.gets;
    const calls = [served.read(['a']), served.read(['b', 'a']), served.read([])];
    await served.settle();
    expect(engine.gets - before).to.equal(1);
    expect(calls.map(({ result }) => result.values.length)).to.deep.equal([1, 2, 0]);
  });

  const reasons: readonly (readonly [
    Extract<ReadOutcome, { kind: 'notReady' }>['reason'],
    ErrorCode,
  ])[] = [
    ['notLeader', 'KV_UNAVAILABLE'],
    ['noQuorum', 'KV_UNAVAILABLE'],
    ['closed', 'KV_UNAVAILABLE'],
    ['restoring', 'KV_UNAVAILABLE'],
    ['overloaded', 'KV_OVERLOADED'],
  ];
  for (const [reason, code] of reasons) {
    it(`are refused with ${code} when the group says ${reason}`, async () => {
      const served = ServedShard.leading();
      served.group.readsAtOnce = false;
      const calls = [served.read(['k']), served.read(['k'], lease), served.scan()];
      served.group.releaseReads(reason);
      await served.settle();
      for (const { error } of calls) expect(error).to.include({ code, outcome: 'notApplied' });
    });
  }

  it('ask for a lease only at the level that trusts clocks', async () => {
    const served = ServedShard.leading();
    await served.values(['k']);
    await served.values(['k'], lease);
    await served.page({ level: lease, slot: slotOf(bytes('k')) });
    expect(served.group.reads.map((each) => each.lease)).to.deep.equal([false, true, true]);
  });

  it('R30: are not answered when the lease ran out while the engine was read', async () => {
    const { served, engine } = hooked();
    await served.written(write(put('k', 'v')));
    const expireLease = (): Promise<void> => {
      served.group.leaseValid = false;
      return Promise.resolve();
    };
    engine.onGet = expireLease;
    const call = served.read(['k'], lease);
    await served.settle();
    expect(call.error).to.include({ code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
    served.group.leaseValid = true;
    engine.onPage = expireLease;
    const page = served.scan({ level: lease, slot: slotOf(bytes('k')) });
    await served.settle();
    expect(page.error.code).to.equal('KV_UNAVAILABLE');
  });

  it('at the stale level ask nobody while the replica is fresh enough, and refresh it when it is not', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', '1')));
    served.group.caughtUpAtMs = served.clock.monotonicMs();
    await served.pass(100);
    expect(await served.values(['k'], stale(100))).to.deep.equal(['1']);
    expect(served.group.reads).to.have.length(0);
    expect(await served.values(['k'], stale(99))).to.deep.equal(['1']);
    expect(served.group.reads).to.deep.equal([{ lease: false }]);
    expect(await served.values(['k'], stale(0)), 'fresh again').to.deep.equal(['1']);
    expect(served.group.reads).to.have.length(1);
  });

  it('at the stale level are refused when nobody can be asked and the bound has passed', async () => {
    const served = ServedShard.leading();
    served.group.caughtUpAtMs = served.clock.monotonicMs();
    await served.pass(50);
    served.group.readsAtOnce = false;
    const call = served.read(['k'], stale(49));
    await served.settle();
    served.group.releaseReads('noQuorum');
    await served.settle();
    expect(call.error.code).to.equal('KV_UNAVAILABLE');
  });

  it('at the stale level never look at a replica that has not caught up since it was restored', async () => {
    const served = new ServedShard();
    served.group.readsAtOnce = false;
    const call = served.read(['k'], stale(Number.MAX_SAFE_INTEGER));
    const page = served.scan({ level: stale(Number.MAX_SAFE_INTEGER) });
    await served.settle();
    expect(served.group.reads).to.have.length(2);
    served.group.releaseReads('restoring');
    await served.settle();
    expect([call.error.code, page.error.code]).to.deep.equal(['KV_UNAVAILABLE', 'KV_UNAVAILABLE']);
  });

  for (const level of [{ kind: 'linearizable' } as const, lease, stale(1000)]) {
    it(`D15: at the ${level.kind} level are refused when a snapshot replaced the state meanwhile`, async () => {
      const { served, engine } = hooked();
      await served.written(write(put('k', 'v')));
      served.group.caughtUpAtMs = served.clock.monotonicMs();
      engine.onGet = () => served.replica.machine.load();
      const call = served.read(['k'], level);
      await served.settle();
      expect(call.error).to.include({ code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
      engine.onGet = undefined;
      engine.onPage = () => {
        // Not even loaded yet: the snapshot is coming in.
        served.group.caughtUpAtMs = Number.NEGATIVE_INFINITY;
        return Promise.resolve();
      };
      const page = served.scan({ level, slot: slotOf(bytes('k')) });
      await served.settle();
      expect(page.error.code).to.equal('KV_UNAVAILABLE');
    });

    it(`D23: at the ${level.kind} level check ownership and epoch again after the read`, async () => {
      for (const change of [{ ownership: SlotOwnership.frozen }, { epoch: 2 }]) {
        const { served, engine } = hooked();
        await served.written(write(put('k', 'v')), write(put('other', 'w')));
        served.group.caughtUpAtMs = served.clock.monotonicMs();
        engine.onGet = () => {
          changeSlot(served, 'k', change);
          return Promise.resolve();
        };
        const calls = [served.read(['other', 'k'], level), served.read(['other'], level)];
        await served.settle();
        const code = change.epoch === undefined ? 'KV_MOVING' : 'KV_WRONG_SHARD';
        const { refused, values } = calls[0]?.result ?? {};
        expect([...(refused?.keys() ?? [])], 'the other key is answered').to.deep.equal([1]);
        expect(refused?.get(1)).to.include({ code, outcome: 'notApplied' });
        expect(values?.[0]).to.not.equal(undefined);
        expect(calls[1]?.result.values[0], 'a slot that stayed').to.not.equal(undefined);
      }
    });
  }

  it('D23: are refused when the slot is not owned in the first place', async () => {
    const served = ServedShard.leading();
    changeSlot(served, 'k', { ownership: SlotOwnership.handedOver });
    const call = served.read(['k']);
    await served.settle();
    expect(call.error.code).to.equal('KV_WRONG_SHARD');
  });

  it('D22: hide a key from the applied log time of its expiry on, whatever any clock says', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 100 })));
    const firstMs = served.replica.machine.logTimeMs;
    served.group.stepDown({ kind: 'unknown', reason: 'steppedDown' });
    served.clock.wallOffsetMs += 86_400_000;
    await served.pass(5000);
    expect(await served.values(['k'])).to.deep.equal(['v']);
    await served.replica.apply([encodeTime(firstMs + 99)]);
    expect(await served.values(['k'])).to.deep.equal(['v']);
    await served.replica.apply([encodeTime(firstMs + 100)]);
    expect(await served.values(['k'])).to.deep.equal([undefined]);
    expect(served.replica.machine.keys, 'stored until it is removed').to.equal(1);
  });

  it('stop the node when the engine fails, instead of answering', async () => {
    const { served, engine } = hooked();
    engine.onGet = () => Promise.reject(new Error('checksum'));
    const call = served.read(['k']);
    let failure: unknown;
    await served.settle().catch((error: unknown) => (failure = error));
    expect(failure).to.be.instanceOf(Error).with.property('message', 'checksum');
    expect(call.answers).to.have.length(0);
  });

  it('D21: tell the time of the leader, and none on a follower, whatever its clock says', async () => {
    const served = new ServedShard();
    const hourMs = 3_600_000;
    await served.replica.apply([encodeTime(served.clock.wallMs() + hourMs)]);
    expect(served.shard.nowMs).to.equal(0);
    const followed = served.read(['k'], { kind: 'stale', maxStalenessMs: 5000 });
    await served.settle();
    expect(followed.result.logTimeMs).to.equal(0);
    expect((await served.page()).logTimeMs).to.equal(0);
    served.group.lead();
    await served.pass(70);
    expect(served.shard.nowMs).to.equal(served.clock.wallMs() + hourMs);
  });
});
