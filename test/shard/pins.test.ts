import { expect } from 'chai';
import fc from 'fast-check';
import type { PinRule } from '../../src/router/pins.js';
import { slotOf, type Slot } from '../../src/router/slot.js';
import { encodePinCommand } from '../../src/shard/command-codec.js';
import { carriedPart } from '../../src/shard/pin-records.js';
import type { PinStep } from '../../src/shard/pin-step.js';
import type { ReadLevel } from '../../src/shard/shard.js';
import { mergePosition, type SlotPosition } from '../../src/shard/slot-position.js';
import { encodeSlotState, SlotOwnership } from '../../src/shard/slot-state.js';
import { bytes, get, increment, put, session, text, transaction, write } from './command-texts.js';
import { HookedEngine } from './hooked-engine.js';
import { Replica } from './replica.js';
import { ServedShard } from './served-shard.js';

const logTimeMs = 1000;

function rule(slot: number, key: string, isPrefix = false): PinRule {
  return { slot: slot as Slot, key: bytes(key), isPrefix };
}

async function step(replica: Replica, ...steps: readonly PinStep[]): Promise<void> {
  for (const each of steps) await replica.apply([encodePinCommand(each, logTimeMs)]);
}

/** The next piece, as the leader would send it. */
async function nextCarry(replica: Replica, pin: PinRule, lengthMax = 100): Promise<PinStep> {
  const { machine, engine, prefix } = replica;
  const { ownership, migration, instance } = machine.slotState(pin.slot);
  const home = slotOf(pin.key);
  const isBack = ownership === SlotOwnership.draining;
  const slot = isBack ? pin.slot : home;
  const source = { engine, prefix, slot, instance: machine.slotState(slot).instance };
  const cursor = migration?.cursor ?? bytes('');
  const part = await carriedPart(source, pin, cursor, { bytesMax: 1 << 16, lengthMax });
  return { kind: 'carry', pin: pin.slot, home, isBack, instance, ...part };
}

async function carryAll(replica: Replica, pin: PinRule, lengthMax?: number): Promise<void> {
  while (replica.machine.slotState(pin.slot).migration?.copied === false)
    await step(replica, await nextCarry(replica, pin, lengthMax));
}

const begin = ({ slot, key, isPrefix }: PinRule): PinStep => ({
  kind: 'pin',
  pin: slot,
  id: slot,
  key,
  isPrefix,
});

async function pinKeys(replica: Replica, pin: PinRule, lengthMax?: number): Promise<void> {
  await step(replica, begin(pin));
  await carryAll(replica, pin, lengthMax);
  await step(replica, { kind: 'pinned', pin: pin.slot, id: pin.slot });
}

async function unpinKeys(replica: Replica, pin: PinRule, lengthMax?: number): Promise<void> {
  const home = slotOf(pin.key);
  await step(replica, { kind: 'unpin', pin: pin.slot, home });
  await carryAll(replica, pin, lengthMax);
  await step(replica, { kind: 'unpinned', pin: pin.slot, home });
}

const names = ['', 'a', 'aa', 'ab', 'b', 'ba', 'c', 'c\u0000', 'd'];
const keys = names.map((name) => `{s}${name}`);
const pinnable = [
  ['{s}a', true],
  ['{s}b', false],
  ['{s}c', true],
  ['{s}d', false],
  ['{s}', true],
] as const;

async function filled(engine = new HookedEngine()): Promise<ServedShard> {
  const served = new ServedShard(Replica.fresh(engine));
  served.group.lead();
  await served.written(...[...keys, 'elsewhere'].map((key) => write(put(key, key))));
  return served;
}

describe('a scan over pinned keys', () => {
  it('gives each key once and in the order of its hash slot, though keys are pinned and unpinned between its pages', () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(1, 2, 3),
        fc.constantFrom('', '{s}', '{s}a', '{s}c'),
        fc.array(fc.nat(pinnable.length - 1), { maxLength: 12 }),
        fc.nat(9),
        async (lengthMax, prefix, changes, chance) => {
          // Over all slots it takes ten times as long.
          const slot = chance === 0 ? undefined : slotOf(bytes('{s}'));
          const served = await filled();
          const found: string[] = [];
          const pins: PinRule[] = [];
          let [cursor, next]: [Uint8Array | undefined, number] = [undefined, 16_384];
          for (let done = false; !done;) {
            const page = await served.page({ slot, prefix: bytes(prefix), lengthMax, cursor });
            found.push(...page.kvs.map(({ key }) => text(key)));
            ({ done, cursor } = page);
            const change = changes.pop();
            if (change === undefined) continue;
            // All or nothing: pins do not overlap.
            const [key, isPrefix] = pinnable[change] ?? pinnable[0];
            for (const pin of pins.splice(0)) await unpinKeys(served.replica, pin);
            const pin = rule(next++, key, isPrefix);
            await pinKeys(served.replica, pin, 2);
            pins.push(pin);
          }
          const wanted = [...keys, ...(slot === undefined ? ['elsewhere'] : [])]
            .filter((key) => key.startsWith(prefix))
            .sort(
              (a, b) => slotOf(bytes(a)) - slotOf(bytes(b)) || Buffer.compare(bytes(a), bytes(b)),
            );
          expect(found).to.deep.equal(wanted);
        },
      ),
      { numRuns: 30 },
    ));

  it('D23: is refused a page whose keys were pinned, or came back, while it was read', async () => {
    const engine = new HookedEngine();
    const served = await filled(engine);
    const pin = rule(16_384, '{s}b');
    const slot = slotOf(pin.key);
    engine.onPage = () => pinKeys(served.replica, pin);
    const pinned = served.scan({ slot });
    await served.until('an answer', () => pinned.answers.length > 0);
    expect(pinned.error).to.include({ code: 'KV_MOVING', outcome: 'notApplied' });
    engine.onPage = () => unpinKeys(served.replica, pin);
    const unpinned = served.scan({ slot });
    await served.until('an answer', () => unpinned.answers.length > 0);
    expect(unpinned.error).to.include({ code: 'KV_MOVING' });
    engine.onPage = async () => {
      const later = rule(16_385, '{s}b');
      await pinKeys(served.replica, later);
      await unpinKeys(served.replica, later);
    };
    const both = served.scan({ slot });
    await served.until('an answer', () => both.answers.length > 0);
    expect(both.error).to.include({ code: 'KV_MOVING' });
    expect((await served.page({ slot })).kvs).to.have.length(keys.length);
  });
});

describe('reads and writes of pinned keys', () => {
  it('D23: a read is not answered from where its key was when it began', async () => {
    const engine = new HookedEngine();
    const served = await filled(engine);
    engine.onGet = async () => {
      const pin = rule(16_384, '{s}b');
      await pinKeys(served.replica, pin);
      await unpinKeys(served.replica, pin);
    };
    const call = served.read(['{s}b']);
    await served.settle();
    expect(call.error).to.include({ code: 'KV_MOVING', outcome: 'notApplied' });
    expect(await served.values(['{s}b'])).to.deep.equal(['{s}b']);
  });

  it('wait while keys are between, and nothing else of the hash slot does', async () => {
    const served = await filled();
    const pin = rule(16_384, '{s}a', true);
    const at = { refusal: 'moving', pin: 16_384 };
    await step(served.replica, begin(pin));
    for (const isBack of [false, true]) {
      if (isBack) {
        await carryAll(served.replica, pin);
        await step(served.replica, { kind: 'pinned', pin: pin.slot, id: pin.slot });
        await step(served.replica, { kind: 'unpin', pin: pin.slot, home: slotOf(pin.key) });
      }
      const { results } = await served.written(write(put('{s}ab', '1')), write(put('{s}b', '2')));
      expect(results[0]).to.include({ kind: 'refused', ...at });
      expect(results[1]).to.include({ applied: true });
      const call = served.read(['{s}a']);
      await served.settle();
      expect(call.error).to.include({ code: 'KV_MOVING' });
    }
  });

  it('a transaction is one of a pin as a whole, or is refused with the pin that it reaches over', async () => {
    const served = await filled();
    await pinKeys(served.replica, rule(16_384, '{s}a', true));
    const mixed = write(transaction([], [put('{s}a', '1'), get('{s}b')]));
    const whole = write(transaction([], [put('{s}a', '2'), get('{s}ab')]));
    const beside = write(transaction([], [put('{s}b', '3'), get('{s}c')]));
    const { results } = await served.written(mixed, whole, beside);
    expect(results[0]).to.include({ kind: 'refused', refusal: 'tooManySlots', pin: 16_384 });
    expect(results[1]).to.include({ kind: 'transaction', succeeded: true });
    expect(results[2]).to.include({ kind: 'transaction', succeeded: true });
    expect(await served.values(['{s}a', '{s}b'])).to.deep.equal(['2', '3']);
  });

  it('R76: a write that is sent again behind a pin, and behind an unpin, is answered and not applied', async () => {
    const { replica } = await filled();
    const pin = rule(16_384, '{s}n');
    const more = { firstUnacknowledged: 0, notAfterMs: replica.machine.logTimeMs + 50_000 };
    const first = write(increment('{s}n', 1), session(1, 1, more));
    const second = write(increment('{s}n', 1), session(1, 2, more));
    const beside = write(increment('{s}m', 1), session(1, 3, more));
    const one = await replica.one(first);
    expect(one).to.include({ value: 1 });
    await pinKeys(replica, pin, 1);
    expect(await replica.one(first)).to.deep.equal(one);
    const two = await replica.one(second);
    expect(two).to.include({ value: 2 });
    const three = await replica.one(beside);
    await unpinKeys(replica, pin, 1);
    for (const [again, answer] of [
      [first, one],
      [second, two],
      [beside, three],
    ] as const)
      expect(await replica.one(again)).to.deep.equal(answer);
    const { revision } = (await replica.get('{s}n')) ?? { revision: 0 };
    const later = await replica.one(write(increment('{s}n', 1)));
    expect(later).to.include({ value: 3 });
    expect(later.kind === 'increment' ? later.revision : 0).to.be.above(revision);
  });

  it('D20: revisions of a key only rise, into a pin and back, whichever of the two was written more', async () => {
    const { replica } = await filled();
    const pin = rule(16_384, '{s}b');
    let last = 0;
    const written = async (key: string): Promise<void> => {
      const result = await replica.one(write(put(key, 'v')));
      const revision = result.kind === 'put' ? result.revision : 0;
      if (key === '{s}b') expect(revision).to.be.above(last);
      if (key === '{s}b') last = revision;
    };
    for (let n = 0; n < 3; n++) await written('{s}b');
    await pinKeys(replica, pin);
    for (let n = 0; n < 9; n++) await written('{s}b');
    await unpinKeys(replica, pin);
    expect((await replica.get('{s}b'))?.revision, 'as it was written').to.equal(last);
    await written('{s}b');
    const again = { ...pin, slot: 16_390 as Slot };
    await pinKeys(replica, again);
    for (let n = 0; n < 20; n++) await written('{s}c');
    await written('{s}b');
    await unpinKeys(replica, again);
    await written('{s}b');
  });

  it('D24: a session that has seen a pin is not answered by a replica that has not heard of it', async () => {
    const served = await filled();
    const { replica } = served;
    const lagging = new ServedShard(await replica.copyTo(new HookedEngine(), 2));
    lagging.group.caughtUpAtMs = lagging.clock.monotonicMs();
    lagging.group.readsAtOnce = false;
    await pinKeys(replica, rule(16_384, '{s}b'));
    const written = await served.written(write(put('{s}b', 'new')));
    const positions = new Map<Slot, SlotPosition>();
    for (const each of written.positionsOf(bytes('{s}b'))) mergePosition(positions, each);
    expect([...positions.keys()]).to.deep.equal([16_384, slotOf(bytes('{s}b'))]);
    const maxStalenessMs = Number.MAX_SAFE_INTEGER;
    const level: ReadLevel = { kind: 'atLeast', positions, maxStalenessMs };
    const call = lagging.read(['{s}b'], level);
    await lagging.settle();
    expect(call.answers, 'it would still show the old value').to.have.length(0);
  });
});

describe('steps of a pin', () => {
  it('D30: count in the state they belong to, and nowhere else', async () => {
    const { replica } = await filled();
    const pin = rule(16_384, '{s}', true);
    const home = slotOf(pin.key);
    const id = pin.slot;
    const late: PinStep[] = [
      begin(pin),
      { kind: 'pinned', pin: id, id },
      { kind: 'unpin', pin: id, home },
      { kind: 'unpinned', pin: id, home },
    ];
    const unchangedBy = async (...steps: readonly PinStep[]): Promise<void> => {
      const before = replica.machine.slotState(id);
      const hash = replica.machine.slotState(home);
      await step(replica, ...steps);
      expect(replica.machine.slotState(id)).to.deep.equal(before);
      expect(replica.machine.slotState(home)).to.deep.equal(hash);
    };
    await unchangedBy(...late.slice(1));
    await step(replica, begin(pin));
    const first = await nextCarry(replica, pin, 2);
    await unchangedBy(...late);
    await step(replica, first);
    await unchangedBy(first, ...late);
    await carryAll(replica, pin);
    await step(replica, { kind: 'pinned', pin: id, id });
    await unchangedBy(first, begin(pin), ...late.slice(1, 2), ...late.slice(3));
    await step(replica, { kind: 'unpin', pin: id, home });
    // A piece of the way there is none of the way back.
    await unchangedBy(first, ...late);
    await carryAll(replica, pin);
    await step(replica, { kind: 'unpinned', pin: id, home });
    await unchangedBy(first, ...late);
    // A later pin may overlap no more than an earlier one.
    await pinKeys(replica, rule(16_390, '{s}a', true));
    await unchangedBy(begin(rule(16_391, '{s}ab')), begin(rule(16_385, '{s}x')));
  });

  it('D16: a slot without pins is written as programs know it that know none', async () => {
    const { replica } = await filled();
    const slot = slotOf(bytes('{s}'));
    expect(encodeSlotState(replica.machine.slotState(slot))[0]).to.equal(3);
    await pinKeys(replica, rule(16_384, '{s}b'));
    expect(encodeSlotState(replica.machine.slotState(slot))[0]).to.equal(4);
  });
});
