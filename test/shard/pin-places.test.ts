import { expect } from 'chai';
import type { PinRule } from '../../src/router/pins.js';
import { anySlot, slotOf, type Slot } from '../../src/router/slot.js';
import type { SlotPosition } from '../../src/shard/slot-position.js';
import { SlotOwnership, type SlotMigration, type SlotState } from '../../src/shard/slot-state.js';
import { bytes, put, session, text, transaction, write } from './command-texts.js';
import { HookedEngine } from './hooked-engine.js';
import { pinAt, unpinAt } from './pinning.js';
import { Replica } from './replica.js';
import { ServedShard } from './served-shard.js';

const home = slotOf(bytes('{t}'));
const key = '{t}m';
const other = '{t}z';
const pin: PinRule = { slot: anySlot(16_384), key: bytes(key), isPrefix: false };
const laterPin: PinRule = { ...pin, slot: anySlot(16_385) };

const single = write(put(key, 'v'));
const across = write(transaction([], [put(key, 'v'), put(other, 'v')]));

const towards = (peer: number): SlotMigration => ({
  id: 50,
  peer,
  from: 0,
  logTimeMs: 0,
  copied: true,
  through: 0,
  buried: false,
  cursor: bytes(''),
});

/** States as migrations would have left them. */
async function set(replica: Replica, slot: Slot, changes: Partial<SlotState>): Promise<void> {
  await replica.setSlotState(slot, { ...replica.machine.slotState(slot), ...changes });
}

/** The key was pinned here, the pin has gone to shard 2, and the hash slot has left too. */
async function withDeadPin(): Promise<Replica> {
  const replica = Replica.fresh();
  await pinAt(replica, pin, 7);
  const { ownership } = replica.machine.slotState(pin.slot);
  expect(ownership, 'the pin is served').to.equal(SlotOwnership.owned);
  await set(replica, pin.slot, {
    ownership: SlotOwnership.absent,
    migration: towards(2),
    epoch: 2,
  });
  await set(replica, home, { ownership: SlotOwnership.absent, migration: towards(3), pins: [] });
  return replica;
}

describe('which slot a key belongs to', () => {
  for (const [name, ownership] of [
    ['about to come back', SlotOwnership.ready],
    ['about to leave again', SlotOwnership.frozen],
  ] as const) {
    it(`R71: a pin that was here once does not count while its hash slot is ${name}: all of its keys wait`, async () => {
      const replica = await withDeadPin();
      await set(replica, home, { ownership, migration: towards(3), epoch: 3 });
      expect(await replica.one(single)).to.deep.equal({ kind: 'refused', refusal: 'moving' });
      expect(await replica.one(across)).to.deep.equal({ kind: 'refused', refusal: 'moving' });
    });
  }

  it('D31: where neither is, a key is sent after the pin, and a transaction to the hash slot, which decides', async () => {
    const replica = await withDeadPin();
    const wrongShard = { kind: 'refused', refusal: 'wrongShard' };
    expect(await replica.one(single)).to.deep.equal({ ...wrongShard, pin: pin.slot });
    expect(await replica.one(across)).to.deep.equal(wrongShard);
  });

  it('a transaction over keys inside and outside of a pin is refused for good where the hash slot is', async () => {
    const replica = Replica.fresh();
    await pinAt(replica, pin, 7);
    const refusal = { kind: 'refused', refusal: 'tooManySlots', pin: pin.slot };
    expect(await replica.one(across)).to.deep.equal(refusal);
    await set(replica, pin.slot, { ownership: SlotOwnership.absent, migration: towards(2) });
    expect(await replica.one(across)).to.deep.equal(refusal);
    await set(replica, home, { ownership: SlotOwnership.frozen, migration: towards(2) });
    expect(await replica.one(across)).to.deep.equal({ kind: 'refused', refusal: 'moving' });
  });

  it('a pin that is served here comes before an earlier one of the same key that is only leaving', async () => {
    const replica = Replica.fresh();
    await pinAt(replica, pin, 7);
    await unpinAt(replica, pin);
    await pinAt(replica, laterPin, 8);
    const left = { ownership: SlotOwnership.handedOver, migration: towards(2) };
    await set(replica, pin.slot, left);
    await set(replica, home, { ownership: SlotOwnership.absent, migration: towards(2), pins: [] });
    expect(await replica.one(single)).to.include({ kind: 'put', applied: true });
  });
});

describe('the session of a transaction whose keys were pinned', () => {
  it('R76: a repetition of what was applied before is answered, a new one is refused', async () => {
    const replica = Replica.fresh();
    const { operation } = across;
    const first = await replica.one(write(operation, session(1, 1)));
    expect(first).to.include({ kind: 'transaction', succeeded: true });
    await pinAt(replica, pin, 7);
    expect(await replica.one(write(operation, session(1, 1)))).to.deep.equal(first);
    const { change } = replica.machine.slotState(home);
    const refusal = { kind: 'refused', refusal: 'tooManySlots', pin: pin.slot };
    expect(await replica.one(write(operation, session(1, 2)))).to.deep.equal(refusal);
    expect(await replica.one(across), 'without a session').to.deep.equal(refusal);
    expect(replica.machine.slotState(home).change, 'nothing was written').to.equal(change);
  });

  it('D21: whether one was applied whose record may be gone nobody can tell: not that it was not', async () => {
    const replica = Replica.fresh();
    const { operation } = across;
    await pinAt(replica, pin, 7);
    const late = write(operation, session(1, 1, { notAfterMs: 500 }));
    expect(await replica.one(late)).to.deep.equal({ kind: 'refused', refusal: 'sessionExpired' });
  });
});

describe('reads of a pin at least as far as a session token', () => {
  /** A follower with the pin and without its hash slot, which nobody tells anything. */
  async function cutOff(): Promise<{ readonly served: ServedShard; readonly born: SlotPosition }> {
    const served = new ServedShard(Replica.fresh(new HookedEngine()));
    const { replica } = served;
    await replica.one(single);
    await pinAt(replica, pin, 7);
    const [own] = replica.machine.slotState(pin.slot).pins;
    if (own === undefined) throw new Error('a pin knows itself');
    await set(replica, home, { ownership: SlotOwnership.absent, migration: towards(2), pins: [] });
    served.group.caughtUpAtMs = served.clock.monotonicMs();
    served.group.readsAtOnce = false;
    const born = { slot: home, epoch: own.epoch, revision: own.change, logTimeMs: 0 };
    return { served, born };
  }

  const isAnswered = async (
    served: ServedShard,
    ...positions: readonly SlotPosition[]
  ): Promise<boolean> => {
    const known = new Map(positions.map((each) => [each.slot, each]));
    const level = { kind: 'atLeast', positions: known, maxStalenessMs: 10_000 } as const;
    const call = served.read([key], level);
    await served.settle();
    if (call.answers.length > 0) return true;
    served.group.releaseReads();
    await served.settle();
    expect(call.result.values, 'it is there, as the leader says').to.have.length(1);
    return false;
  };

  it('D24: are answered at once for a session that has seen the hash slot before the pin, or the pin', async () => {
    const { served, born } = await cutOff();
    expect(await isAnswered(served)).to.equal(true);
    expect(await isAnswered(served, born)).to.equal(true);
    expect(await isAnswered(served, { ...born, revision: born.revision - 1 })).to.equal(true);
  });

  it('D24: ask the leader for one that has seen the hash slot since: the key may have gone back', async () => {
    const { served, born } = await cutOff();
    const later = { ...born, revision: born.revision + 1 };
    expect(await isAnswered(served, later)).to.equal(false);
    expect(await isAnswered(served, { ...born, epoch: born.epoch + 1 })).to.equal(false);
  });
});

describe('a scan over the keys of a pin and of its hash slot', () => {
  it('shows a transaction to keys on both sides of the pin whole or not in each page', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    for (const name of ['{t}a', key, other]) await served.written(write(put(name, 'old')));
    await pinAt(served.replica, pin, 7);
    engine.onPage = async () => {
      await served.replica.write([write(transaction([], [put('{t}a', 'new'), put(other, 'new')]))]);
    };
    const seen: string[][] = [];
    let page = await served.page({ slot: home });
    for (;;) {
      seen.push(page.kvs.map((kv) => `${text(kv.key)} ${text(kv.value)}`));
      if (page.done) break;
      page = await served.page({ slot: home, cursor: page.cursor });
    }
    expect(seen).to.deep.equal([['{t}a old'], ['{t}m old'], ['{t}z new']]);
  });
});
