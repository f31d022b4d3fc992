/**
 * One simulated run from one seed: clients, migrations and pins at the same time, said by many who have
 * seen this or that, in any order, twice or never; then everything is brought to its end.
 */
import { slotOf, type Slot } from '../../src/router/slot.js';
import type { PinRule } from '../../src/router/pins.js';
import { keysOfWrite } from '../../src/shard/apply-run.js';
import type { Write } from '../../src/shard/command.js';
import { firstDue } from '../../src/shard/expiry-index.js';
import { bareTerms, sourceSteps } from '../../src/shard/migration-step.js';
import type { PinStep } from '../../src/shard/pin-step.js';
import { isServing, SlotOwnership } from '../../src/shard/slot-state.js';
import { SimRandom } from '../sim/random.js';
import { bytes, increment, put, remove, session, text, transaction } from './command-texts.js';
import {
  Driver,
  nextPart,
  nextStep,
  positionOf,
  termsOf,
  type Ends,
  type Plan,
  type StepKind,
} from './migration-drivers.js';
import { carryOf } from './pinning.js';
import { keys, pinnable, PinWorld, tags, type Sent } from './pin-world.js';
import type { Replica } from './replica.js';
import type { SimulatedShard } from './simulated-shard.js';

interface Message {
  readonly to: SimulatedShard;
  readonly sent: Sent;
  readonly from: PinClient | undefined;
}

const slotOfText = (key: string): Slot => slotOf(bytes(key));

const pooledMax = 40;
const plansMax = 16;
const pinsMax = 8;

/** One write at a time, sent again until its answer comes. */
class PinClient {
  pending: Write | undefined;
  /** The last ones: the network may bring any of them again. */
  private recent: Write[] = [];
  private readonly number: number;
  private readonly random: SimRandom;
  private sequence = 0;

  constructor(number: number, random: SimRandom) {
    this.number = number;
    this.random = random;
  }

  next(nowMs: number): Write {
    if (this.recent.length > 0 && this.random.chance(0.4)) return pick(this.random, this.recent);
    this.pending ??= this.newWrite(nowMs);
    return this.pending;
  }

  private newWrite(nowMs: number): Write {
    const { random } = this;
    const key = random.pick(keys) ?? '';
    const ttlMs = random.chance(0.25) ? random.integer(1, 250) : 0;
    const number = String(random.integer(0, 99));
    const beside = random.pick(
      keys.filter((each) => each !== key && slotOfText(each) === slotOfText(key)),
    );
    const both = transaction([], [put(key, number), put(beside ?? '', number)]);
    const operation = random.weighted<Write['operation']>([
      [put(key, number, { ttlMs }), 3],
      [remove(key), 2],
      [increment(key, random.integer(1, 5), ttlMs), 4],
      [both, 2],
    ]);
    if (random.chance(0.2)) return { operation, session: undefined };
    const sequence = ++this.sequence;
    const more = { firstUnacknowledged: Math.max(0, sequence - 6), notAfterMs: nowMs + 5000 };
    const write = { operation, session: session(this.number, sequence, more) };
    this.recent = [...this.recent, write].slice(-6);
    return write;
  }
}

export class PinRun {
  private readonly random: SimRandom;
  private readonly world: PinWorld;
  private readonly drivers: readonly Driver[];
  private readonly clients: readonly PinClient[];
  private readonly plans: Plan[] = [];
  private readonly instances = new Map<Slot, number>();
  private pool: Message[] = [];
  private nextId = 1;

  constructor(seed: number, note: (what: string) => void) {
    this.random = new SimRandom(seed);
    this.world = new PinWorld(this.random.split(), note);
    this.drivers = [1, 2, 3].map(() => new Driver(this.world));
    this.clients = [1, 2, 3].map((number) => new PinClient(number, this.random.split()));
  }

  /** Throws with the seed's schedule when something does not hold. */
  async run(length: number): Promise<void> {
    try {
      await this.world.found();
      for (let n = 0; n < length; n++) await this.tick();
      this.pool = [];
      await this.finish();
      await this.world.expectHealed();
    } catch (error) {
      const schedule = this.world.trace.slice(-60).join('\n');
      const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
      throw new Error(`${message}\n\nThe schedule up to there:\n${schedule}`, { cause: error });
    }
  }

  private async tick(): Promise<void> {
    const { random } = this;
    this.world.nowMs += random.chance(0.05) ? random.integer(50, 400) : random.integer(0, 8);
    const kind = random.weighted([
      ['client', 9],
      ['driver', 12],
      ['pinner', 22],
      ['deliver', 30],
      ['expire', 2],
      ['disturb', 4],
      ['plan', 2],
      ['pin', 3],
    ] as const);
    if (kind === 'client') this.write();
    else if (kind === 'driver') await this.drive();
    else if (kind === 'pinner') await this.drivePin();
    else if (kind === 'deliver') await this.deliver();
    else if (kind === 'expire') await this.expire();
    else if (kind === 'disturb') await this.anyShard().disturb();
    else if (kind === 'plan') this.plan();
    else this.pin();
  }

  private anyShard(): SimulatedShard {
    return pick(this.random, this.world.shards);
  }

  private send(message: Message): void {
    this.pool.push(message);
    if (this.pool.length > pooledMax) this.pool.splice(this.random.integer(0, pooledMax), 1);
  }

  /** The newest or any other; perhaps once more later, perhaps never. */
  private async deliver(): Promise<void> {
    const { length } = this.pool;
    const at = this.random.chance(0.65) ? length - 1 : this.random.integer(0, length - 1);
    const message = this.pool[at];
    if (message === undefined) return;
    if (!this.random.chance(0.12)) this.pool.splice(at, 1);
    if (this.random.chance(0.05)) return;
    const { to, sent, from } = message;
    const { results } = await this.world.arrive(to, sent);
    if (from === undefined || sent.kind !== 'writes') return;
    for (const [n, write] of sent.writes.entries()) {
      const result = results[n];
      const isRouted =
        result?.kind !== 'refused' || !['wrongShard', 'moving'].includes(result.refusal);
      if (write === from.pending && isRouted && !this.random.chance(0.3)) from.pending = undefined;
    }
  }

  private write(): void {
    const from = pick(this.random, this.clients);
    const write = from.next(this.world.nowMs);
    const [key = bytes('')] = keysOfWrite(write.operation);
    const owner = this.world.serverOf(text(key));
    const to = owner === undefined || this.random.chance(0.2) ? this.anyShard() : owner;
    this.send({ to, sent: { kind: 'writes', writes: [write] }, from });
  }

  private async expire(): Promise<void> {
    const to = this.anyShard();
    await to.sweep();
    const { engine, prefix, machine } = to.anyReplica();
    const slot = pick(this.random, this.world.slots);
    const { instance } = machine.slotState(slot);
    const due = await firstDue(engine, prefix, { slot, instance }, 10);
    if (due.length > 0) this.send({ to, sent: { kind: 'expire', due }, from: undefined });
  }

  // ---- pins: whoever says what

  private pin(): void {
    const { pins } = this.world;
    if (pins.length >= pinsMax) return;
    const [name, isPrefix] = pick(this.random, pinnable);
    const key = bytes(pick(this.random, tags) + name);
    const slot = (16_384 + pins.length) as Slot;
    pins.push({ slot, key, isPrefix });
    this.instances.set(slot, this.nextId++);
    this.world.say(`pin ${slot}: ${isPrefix ? 'prefix' : 'key'} ${key}`);
  }

  private async drivePin(): Promise<void> {
    const pin = this.random.pick(this.world.pins.slice(this.random.chance(0.6) ? -2 : 0));
    if (pin === undefined) return;
    // Mostly where the hash slot is; now and then by an old map.
    const home = slotOf(pin.key);
    const owner = this.world.shards.find((shard) => isServing(shard.state(home)));
    const to = owner === undefined || this.random.chance(0.1) ? this.anyShard() : owner;
    const replica = this.random.chance(0.7) ? to.first : to.anyReplica();
    const step = await this.pinStep(pin, replica, this.random.chance(0.12));
    if (step !== undefined) this.send({ to, sent: { kind: 'pin', step }, from: undefined });
  }

  private async pinStep(
    pin: PinRule,
    replica: Replica,
    isRash: boolean,
  ): Promise<PinStep | undefined> {
    const { slot } = pin;
    const home = slotOf(pin.key);
    const id = this.instances.get(slot) ?? 0;
    const state = replica.machine.slotState(slot);
    const begin: PinStep = { kind: 'pin', pin: slot, id, key: pin.key, isPrefix: pin.isPrefix };
    const end = [
      { kind: 'pinned', pin: slot, id },
      { kind: 'unpin', pin: slot, home },
      { kind: 'unpinned', pin: slot, home },
    ] as const;
    if (isRash) return pick(this.random, [begin, ...end]);
    const isBack = state.ownership === SlotOwnership.draining;
    if (isBack || state.ownership === SlotOwnership.filling) {
      if (state.migration?.copied === true) return isBack ? end[2] : end[0];
      return carryOf(pin, replica, state, this.random.integer(1, 4));
    }
    // It stays for a while: it is to be written, and to migrate.
    const isOwned = state.ownership === SlotOwnership.owned;
    if (isOwned && this.random.chance(0.7)) return undefined;
    return isOwned ? end[1] : begin;
  }

  // ---- migrations, of hash slots and pins

  private plan(): void {
    if (this.plans.length >= plansMax) return;
    const slot = pick(this.random, this.world.slots);
    const last = this.plans.findLast((plan) => plan.slots.includes(slot));
    const isOpen = last !== undefined && nextStep(last, this.ends(last, slot)) !== undefined;
    if (isOpen && !this.random.chance(0.1)) return;
    const source = this.world.shards.find((shard) => isServing(shard.state(slot)));
    if (source === undefined) return;
    // A pin goes home more often than elsewhere: only there it can be unpinned.
    const pin = this.world.pins.find((each) => each.slot === slot);
    const home = this.world.shards.find(
      (shard) => pin !== undefined && shard !== source && isServing(shard.state(slotOf(pin.key))),
    );
    const others = this.world.shards.filter((shard) => shard !== source);
    const target = home !== undefined && this.random.chance(0.7) ? home : pick(this.random, others);
    const id = this.nextId++;
    this.plans.push({ id, source: source.id, target: target.id, slots: [slot] });
    this.world.say(`plan ${id}: ${source.id} -> ${target.id}, slot ${slot}`);
  }

  private async drive(): Promise<void> {
    const plan = this.random.chance(0.6) ? this.plans.at(-1) : this.random.pick(this.plans);
    if (plan === undefined) return;
    const step = await pick(this.random, this.drivers).say(plan);
    if (step === undefined) return;
    const to = this.world.shard(sourceSteps.has(step.kind) ? plan.source : plan.target);
    this.send({ to, sent: { kind: 'step', step }, from: undefined });
  }

  private ends({ source, target }: Plan, slot: Slot): Ends {
    return {
      source: this.world.shard(source).state(slot),
      target: this.world.shard(target).state(slot),
    };
  }

  // ---- the end: what is between is brought to its end

  private async finish(): Promise<void> {
    for (let round = 0; ; round++) {
      let said = 0;
      for (const pin of this.world.pins) said += await this.finishPin(pin);
      for (const plan of this.plans)
        for (const slot of plan.slots) said += await this.finishPlan(plan, slot, round);
      if (said === 0) return;
      if (round > 150) throw new Error('it does not end');
    }
  }

  private async finishPin(pin: PinRule): Promise<number> {
    for (const shard of this.world.shards) {
      const { ownership } = shard.state(pin.slot);
      if (ownership !== SlotOwnership.filling && ownership !== SlotOwnership.draining) continue;
      const step = await this.pinStep(pin, shard.first, false);
      if (step === undefined) throw new Error('a pin between, and nothing to be done');
      await this.world.arrive(shard, { kind: 'pin', step });
      return 1;
    }
    return 0;
  }

  private async finishPlan(plan: Plan, slot: Slot, round: number): Promise<number> {
    const ends = this.ends(plan, slot);
    const next = nextStep(plan, ends);
    if (next === undefined) return 0;
    const isDecided = next === 'collect' || next === 'activate' || next === 'endImport';
    const kind = isDecided || (next !== 'exportBegin' && round < 100) ? next : 'endExport';
    await this.sayAtEnd(plan, slot, kind, ends);
    return 1;
  }

  private async sayAtEnd(plan: Plan, slot: Slot, kind: StepKind, ends: Ends): Promise<void> {
    const { id, source, target } = plan;
    const [to, peer] = sourceSteps.has(kind) ? [source, target] : [target, source];
    const shard = this.world.shard(to);
    if (kind === 'chunk') {
      const room = { bytesMax: 500, lengthMax: 100 };
      const from = this.world.shard(source).first;
      const part = await nextPart(from, plan, slot, positionOf(plan, ends.target), room);
      const parts = part === undefined ? [] : [part];
      await this.world.arrive(shard, { kind: 'step', step: { kind, id, peer, parts } });
    } else {
      const terms = kind === 'endExport' ? bareTerms([slot]) : [termsOf(kind, slot, ends)];
      await this.world.arrive(shard, { kind: 'step', step: { kind, id, peer, slots: terms } });
    }
  }
}

function pick<T>(random: SimRandom, items: readonly T[]): T {
  const item = random.pick(items);
  if (item === undefined) throw new RangeError('nothing to choose from');
  return item;
}
