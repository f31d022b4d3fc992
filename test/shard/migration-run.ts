/** One simulated run from one seed: trouble first, then every migration is brought to its end. */
import type { Slot } from '../../src/router/slot.js';
import { slotOfWrite } from '../../src/shard/apply-run.js';
import { firstDue } from '../../src/shard/expiry-index.js';
import { bareTerms, sourceSteps } from '../../src/shard/migration-step.js';
import { isServing } from '../../src/shard/slot-state.js';
import { SimRandom } from '../sim/random.js';
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
import { MigrationWorld, type Sent } from './migration-world.js';
import { Client, slots } from './random-writes.js';
import type { SimulatedShard } from './simulated-shard.js';

interface Message {
  readonly to: SimulatedShard;
  readonly sent: Sent;
  readonly from: Client | undefined;
}

const pooledMax = 40;
const plansMax = 12;

export class MigrationRun {
  private readonly random: SimRandom;
  private readonly world: MigrationWorld;
  private readonly drivers: readonly Driver[];
  private readonly clients: readonly Client[];
  private readonly plans: Plan[] = [];
  private pool: Message[] = [];

  constructor(seed: number, note: (what: string) => void) {
    this.random = new SimRandom(seed);
    this.world = new MigrationWorld(this.random.split(), note);
    this.world.lied = this.random.chance(0.33);
    this.drivers = [1, 2, 3].map(() => new Driver(this.world));
    this.clients = [1, 2, 3].map((number) => new Client(number, this.random.split()));
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
      const schedule = this.world.trace.slice(-80).join('\n');
      const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
      throw new Error(`${message}\n\nThe schedule up to there:\n${schedule}`, { cause: error });
    }
  }

  private async tick(): Promise<void> {
    const { random } = this;
    this.world.nowMs += random.chance(0.05) ? random.integer(50, 400) : random.integer(0, 8);
    const kind = random.weighted([
      ['client', 8],
      ['driver', 18],
      ['deliver', 24],
      ['read', 3],
      ['expire', 2],
      ['disturb', 4],
      ['plan', 3],
    ] as const);
    if (kind === 'client') this.write();
    else if (kind === 'driver') await this.drive();
    else if (kind === 'deliver') await this.deliver();
    else if (kind === 'read') await this.world.read(this.anyShard(), this.anySlot());
    else if (kind === 'expire') await this.expire();
    else if (kind === 'disturb') await this.anyShard().disturb();
    else this.plan();
  }

  private anyShard(): SimulatedShard {
    return random(this.random, this.world.shards);
  }

  /** One of them more often than the others, so that it gets around. */
  private anySlot(): Slot {
    return random(this.random, this.random.chance(0.4) ? slots.slice(0, 1) : slots);
  }

  // ---- what is on its way

  private send(message: Message): void {
    this.pool.push(message);
    // Something is lost where too much waits.
    if (this.pool.length > pooledMax) this.pool.splice(this.random.integer(0, pooledMax), 1);
  }

  /** The newest or any other; perhaps once more later, perhaps never. */
  private async deliver(): Promise<void> {
    const { length } = this.pool;
    const at = this.random.chance(0.65) ? length - 1 : this.random.integer(0, length - 1);
    const message = this.pool[at];
    if (message === undefined) return;
    if (!this.random.chance(0.1)) this.pool.splice(at, 1);
    if (this.random.chance(0.05)) return;
    const { to, sent, from } = message;
    const { results } = await this.world.arrive(to, sent);
    if (from === undefined || sent.kind !== 'writes') return;
    for (const [n, write] of sent.writes.entries()) {
      const result = results[n];
      const routed =
        result?.kind !== 'refused' ||
        (result.refusal !== 'wrongShard' && result.refusal !== 'moving');
      from.answered(write, routed);
    }
  }

  private write(): void {
    const from = random(this.random, this.clients);
    const write = from.next(this.world.nowMs);
    const slot = slotOfWrite(write);
    const owner = this.world.shards.find(
      (shard) => slot !== undefined && isServing(shard.state(slot)),
    );
    const to = owner === undefined || this.random.chance(0.25) ? this.anyShard() : owner;
    this.send({ to, sent: { kind: 'writes', writes: [write] }, from });
  }

  /** What is due, as some replica knows it: perhaps not any more, or not at all here. */
  private async expire(): Promise<void> {
    const to = this.anyShard();
    await to.sweep();
    const { engine, prefix, machine } = to.anyReplica();
    const slot = this.anySlot();
    const { instance } = machine.slotState(slot);
    const due = await firstDue(engine, prefix, { slot, instance }, 10);
    if (due.length > 0) this.send({ to, sent: { kind: 'expire', due }, from: undefined });
  }

  // ---- migrations

  private plan(): void {
    if (this.plans.length >= plansMax) return;
    const slot = this.anySlot();
    // Now and then a second one begins while the first is under way: only one of them can have the slot.
    if (this.isUnderWay(slot) && !this.random.chance(0.1)) return;
    const source = this.world.shards.find((shard) => isServing(shard.state(slot)));
    if (source === undefined) return;
    const others = this.world.shards.filter((shard) => shard !== source);
    const target = random(this.random, others);
    const together = slots.filter(
      (each) => each === slot || (isServing(source.state(each)) && this.random.chance(0.5)),
    );
    const id = this.plans.length + 1;
    this.plans.push({ id, source: source.id, target: target.id, slots: together });
    this.world.say(`plan ${id}: ${source.id} -> ${target.id}, slots ${together.join()}`);
  }

  private isUnderWay(slot: Slot): boolean {
    const last = this.plans.findLast((plan) => plan.slots.includes(slot));
    return last !== undefined && nextStep(last, this.ends(last, slot)) !== undefined;
  }

  private async drive(): Promise<void> {
    // Mostly the latest ones: those before are stragglers.
    const plan = this.random.chance(0.6) ? this.plans.at(-1) : this.random.pick(this.plans);
    if (plan === undefined) return;
    const step = await random(this.random, this.drivers).say(plan);
    if (step === undefined) return;
    const to = this.world.shard(sourceSteps.has(step.kind) ? plan.source : plan.target);
    this.send({ to, sent: { kind: 'step', step }, from: undefined });
  }

  // ---- the end: one driver that knows everything, and goes on until nothing is left to be done

  private async finish(): Promise<void> {
    const open = this.plans.flatMap((plan) => plan.slots.map((slot) => ({ plan, slot })));
    // Some are to succeed, as far as they still can.
    const forward = new Set(this.plans.filter(() => this.random.chance(0.6)));
    for (let round = 0; ; round++) {
      let said = 0;
      for (const { plan, slot } of open) {
        const kind = nextStep(plan, this.ends(plan, slot));
        if (kind === undefined) continue;
        said++;
        const isDecided = kind === 'collect' || kind === 'activate' || kind === 'endImport';
        const goesOn = isDecided || (forward.has(plan) && kind !== 'exportBegin' && round < 100);
        await this.sayAtEnd(plan, slot, goesOn ? kind : 'endExport');
      }
      if (said === 0) return;
      if (round > 120) throw new Error('the migrations do not end');
    }
  }

  private ends({ source, target }: Plan, slot: Slot): Ends {
    return {
      source: this.world.shard(source).state(slot),
      target: this.world.shard(target).state(slot),
    };
  }

  private async sayAtEnd(plan: Plan, slot: Slot, kind: StepKind): Promise<void> {
    const { id, source, target } = plan;
    const ends = this.ends(plan, slot);
    const isSource = sourceSteps.has(kind);
    const [to, peer] = isSource ? [source, target] : [target, source];
    const say = (sent: Sent): Promise<unknown> => this.world.arrive(this.world.shard(to), sent);
    if (kind === 'chunk') {
      const { first } = this.world.shard(source);
      const part = await nextPart(first, plan, slot, positionOf(plan, ends.target), {
        bytesMax: 500,
        lengthMax: 100,
      });
      const parts = part === undefined ? [] : [part];
      await say({ kind: 'step', step: { kind, id, peer, parts } });
    } else {
      const terms = kind === 'endExport' ? bareTerms([slot]) : [termsOf(kind, slot, ends)];
      await say({ kind: 'step', step: { kind, id, peer, slots: terms } });
    }
  }
}

function random<T>(source: SimRandom, items: readonly T[]): T {
  const item = source.pick(items);
  if (item === undefined) throw new RangeError('nothing to choose from');
  return item;
}
