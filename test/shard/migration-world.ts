/**
 * Shards between which slots migrate, and a plain model of what each slot has to contain. Every command
 * that reaches a shard's log is judged here, and what must hold at every moment is looked at behind it.
 */
import { expect } from 'chai';
import type { Slot } from '../../src/router/slot.js';
import {
  encodeExpire,
  encodeFound,
  encodeMigrationStep,
  encodeWrites,
  type Due,
} from '../../src/shard/command-codec.js';
import type { CommandResult, Write } from '../../src/shard/command.js';
import type { MigrationStep } from '../../src/shard/migration-step.js';
import { slotOfWrite } from '../../src/shard/apply-run.js';
import { isMoving, isServing, SlotOwnership, type SlotState } from '../../src/shard/slot-state.js';
import type { SimRandom } from '../sim/random.js';
import { text } from './command-texts.js';
import { Model, plain } from './model.js';
import { keysOf, slots } from './random-writes.js';
import { SimulatedShard } from './simulated-shard.js';
import { contentOf, expectContent, expectCounted, expectExactIndex } from './slot-content.js';

/** A command on its way; its time is stamped when it arrives. */
export type Sent =
  | { readonly kind: 'writes'; readonly writes: readonly Write[] }
  | { readonly kind: 'expire'; readonly due: readonly Due[] }
  | { readonly kind: 'step'; readonly step: MigrationStep };

/** What one slot has been through. */
interface History {
  readonly model: Model;
  /** Which shard served the slot at an epoch. */
  readonly servedBy: Map<number, number>;
  epoch: number;
}

/** The one that decides about the slot, unless it has been handed over. */
const holds = ({ ownership }: SlotState): boolean =>
  ownership === SlotOwnership.owned ||
  ownership === SlotOwnership.exporting ||
  ownership === SlotOwnership.frozen;

const isGiven = ({ ownership }: SlotState): boolean => ownership === SlotOwnership.handedOver;

export class MigrationWorld {
  readonly shards: readonly SimulatedShard[];
  readonly random: SimRandom;
  readonly trace: string[] = [];
  /** A step has told a lie: then a copy may differ, and is not handed over. */
  lied = false;
  nowMs = 1000;
  private readonly history = new Map<Slot, History>();
  private readonly note: (what: string) => void;
  private readonly skewMs: readonly number[];
  /** How far a slot has come at a shard. */
  private readonly highest = new Map<
    string,
    { readonly epoch: number; readonly ended: number; readonly logTimeMs: number }
  >();

  constructor(random: SimRandom, note: (what: string) => void) {
    this.random = random;
    this.note = note;
    this.shards = [1, 2, 3].map((id) => new SimulatedShard(id, 2, random.split(), note));
    this.skewMs = this.shards.map(() => random.integer(0, 400));
    for (const slot of slots)
      this.history.set(slot, { model: new Model(), servedBy: new Map(), epoch: 0 });
  }

  /** The slots are spread over the shards. */
  async found(): Promise<void> {
    for (const [n, shard] of this.shards.entries()) {
      const own = slots.filter((_, at) => at % this.shards.length === n);
      const spans = own.map((slot) => ({ first: slot, last: slot }));
      await shard.append(encodeFound(spans, this.timeAt(shard)));
    }
  }

  shard(id: number): SimulatedShard {
    const shard = this.shards[id - 1];
    if (shard === undefined) throw new RangeError(`no shard ${id}`);
    return shard;
  }

  /** A leader's clock; the next one's may be behind. */
  private timeAt(shard: SimulatedShard): number {
    return this.nowMs + (this.skewMs[shard.id - 1] ?? 0) - this.random.integer(0, 20);
  }

  async arrive(shard: SimulatedShard, sent: Sent): Promise<CommandResult> {
    const logTimeMs = this.timeAt(shard);
    this.say(`${shard.id} <- ${describeSent(sent)}`);
    switch (sent.kind) {
      case 'writes':
        return this.judgeWrites(shard, sent.writes, encodeWrites(sent.writes, logTimeMs));
      case 'expire':
        return this.judgeExpiry(shard, sent.due, encodeExpire(sent.due, logTimeMs));
      case 'step':
        return this.judgeStep(shard, sent.step, encodeMigrationStep(sent.step, logTimeMs));
    }
  }

  say(line: string): void {
    this.trace.push(line);
  }

  // ---- commands

  private async judgeWrites(
    shard: SimulatedShard,
    writes: readonly Write[],
    command: Uint8Array,
  ): Promise<CommandResult> {
    const states = writes.map((write) => shard.state(slotOfWrite(write) ?? (0 as Slot)));
    const result = await shard.append(command);
    for (const [n, write] of writes.entries()) {
      const slot = slotOfWrite(write) ?? (0 as Slot);
      const state = states[n];
      if (state === undefined) continue;
      const found = plain(result.results[n]);
      if (!isServing(state)) {
        const refusal = isMoving(state) ? 'moving' : 'wrongShard';
        expect(found).to.deep.equal({ kind: 'refused', refusal });
        this.note(refusal);
        continue;
      }
      const { model } = this.of(slot);
      model.time(shard.first.machine.logTimeMs);
      const change = model.changes.get(slot);
      const wanted = model.write(write);
      const isOld = write.session !== undefined && model.changes.get(slot) === change;
      const kind = isOld && wanted['kind'] !== 'refused' ? 'repeated' : wanted['kind'];
      this.note(String(wanted['refusal'] ?? kind));
      expect(found, `answer of shard ${shard.id}`).to.deep.equal(wanted);
    }
    for (const write of writes) await this.lookAt(shard, slotOfWrite(write) ?? (0 as Slot));
    return result;
  }

  private async judgeExpiry(
    shard: SimulatedShard,
    due: readonly Due[],
    command: Uint8Array,
  ): Promise<CommandResult> {
    const states = due.map(({ slot }) => shard.state(slot as Slot));
    const result = await shard.append(command);
    for (const [n, each] of due.entries()) {
      const state = states[n];
      if (state === undefined || !isServing(state)) continue;
      const { model } = this.of(each.slot as Slot);
      model.time(shard.first.machine.logTimeMs);
      if (model.expire(each)) this.note(`${each.kind} expired`);
    }
    for (const slot of new Set(due.map((each) => each.slot as Slot)))
      await this.lookAt(shard, slot);
    return result;
  }

  private async judgeStep(
    shard: SimulatedShard,
    step: MigrationStep,
    command: Uint8Array,
  ): Promise<CommandResult> {
    const touched = slotsOfStep(step);
    const before = touched.map((slot) => shard.state(slot));
    const result = await shard.append(command);
    for (const [n, slot] of touched.entries()) {
      const was = before[n];
      const now = shard.state(slot);
      if (was?.ownership !== now.ownership || was.migration !== now.migration) this.note(step.kind);
      await this.lookAt(shard, slot);
    }
    if ((result.differing ?? []).length > 0) {
      this.note('differs');
      expect(this.lied, 'a copy differs though nobody lied').to.equal(true);
    }
    return result;
  }

  // ---- what a reader sees

  async read(shard: SimulatedShard, slot: Slot): Promise<void> {
    if (!isServing(shard.state(slot))) return;
    const { model } = this.of(slot);
    model.time(shard.first.machine.logTimeMs);
    for (const key of keysOf(slot)) {
      const wanted = model.visible(key);
      expect(plain(await shard.first.get(key)), `${key} read at shard ${shard.id}`).to.deep.equal(
        wanted === undefined ? undefined : { key, ...wanted },
      );
    }
  }

  // ---- what always holds

  private of(slot: Slot): History {
    const history = this.history.get(slot);
    if (history === undefined) throw new RangeError(`no slot ${slot}`);
    return history;
  }

  private async lookAt(shard: SimulatedShard, slot: Slot): Promise<void> {
    this.expectOneHolder(slot);
    this.expectNoWayBack(shard, slot);
    const content = await contentOf(shard.first, slot);
    expectCounted(shard.first, slot, content);
    await expectExactIndex(shard.first, slot, content);
    const sum = slots.reduce((keys, each) => keys + shard.state(each).keys, 0);
    expect(shard.first.machine.keys, 'keys of the shard').to.equal(sum);
    const state = shard.state(slot);
    if (!this.isLatest(state, slot)) return;
    const { model } = this.of(slot);
    expect(state.change, `change number of slot ${slot}`).to.equal(model.changes.get(slot) ?? 0);
    expectContent(model, slot, content);
  }

  /** What was handed over stays as it was until the target has it. Who gave it earlier may still have its own. */
  private isLatest(state: SlotState, slot: Slot): boolean {
    if (holds(state)) return true;
    const others = this.shards.map((shard) => shard.state(slot));
    return isGiven(state) && others.every((other) => other.epoch <= state.epoch && !holds(other));
  }

  /** R71, R72: one shard decides about a slot, or has given it to one that can. */
  private expectOneHolder(slot: Slot): void {
    const states = this.shards.map((shard) => ({ shard, state: shard.state(slot) }));
    const holders = states.filter(({ state }) => holds(state));
    if (holders.length === 1) return;
    const shown = states.map(({ shard, state }) => `${shard.id}: ${ownershipOf(state)}`).join(', ');
    expect(holders.length, `holders of slot ${slot}: ${shown}`).to.equal(0);
    const given = states.filter(({ state: { ownership, migration } }) => {
      if (ownership !== SlotOwnership.handedOver || migration === undefined) return false;
      const there = this.shard(migration.peer).state(slot);
      return there.migration?.id === migration.id && there.ownership === SlotOwnership.ready;
    });
    expect(given.length, `slot ${slot} is with nobody: ${shown}`).to.equal(1);
  }

  /** Epochs only rise, each is one shard's, and what has ended has ended. */
  private expectNoWayBack(shard: SimulatedShard, slot: Slot): void {
    const state = shard.state(slot);
    const name = `${shard.id}/${slot}`;
    const before = this.highest.get(name) ?? { epoch: 0, ended: 0, logTimeMs: 0 };
    const { logTimeMs } = shard.first.machine;
    expect(logTimeMs, `log time of shard ${shard.id}`).to.be.at.least(before.logTimeMs);
    expect(state.epoch, `epoch of ${name}`).to.be.at.least(before.epoch);
    expect(state.ended, `ended migration of ${name}`).to.be.at.least(before.ended);
    this.highest.set(name, { epoch: state.epoch, ended: state.ended, logTimeMs });
    if (!isServing(state)) return;
    const history = this.of(slot);
    expect(
      history.servedBy.get(state.epoch) ?? shard.id,
      `epoch ${state.epoch} of ${slot}`,
    ).to.equal(shard.id);
    expect(state.epoch, `epoch of slot ${slot}`).to.be.at.least(history.epoch);
    if (state.epoch > 2 && state.epoch > history.epoch) this.note('moved on');
    if (state.epoch > history.epoch && [...history.servedBy.values()].includes(shard.id))
      this.note('came back');
    history.servedBy.set(state.epoch, shard.id);
    history.epoch = state.epoch;
  }

  // ---- when everything has come to its end

  async expectHealed(): Promise<void> {
    for (const slot of slots) {
      const owners = this.shards.filter(
        (shard) => shard.state(slot).ownership === SlotOwnership.owned,
      );
      const absent = this.shards.filter(
        (shard) => shard.state(slot).ownership === SlotOwnership.absent,
      );
      expect([owners.length, absent.length], `slot ${slot} has one owner`).to.deep.equal([1, 2]);
      for (const shard of this.shards) {
        await this.lookAt(shard, slot);
        await this.read(shard, slot);
      }
    }
    for (const shard of this.shards) await shard.catchUpAll();
  }
}

export const ownershipOf = ({ ownership, migration }: SlotState): string => {
  const name = Object.entries(SlotOwnership).find(([, code]) => code === ownership)?.[0] ?? '?';
  return `${name}(${migration?.id ?? ''})`;
};

export function slotsOfStep(step: MigrationStep): readonly Slot[] {
  return (step.kind === 'chunk' ? step.parts : step.slots).map(({ slot }) => slot);
}

function describeSent(sent: Sent): string {
  const shown = (value: unknown): string => JSON.stringify(plain(value));
  switch (sent.kind) {
    case 'writes':
      return `write ${shown(sent.writes)}`;
    case 'expire':
      return `expire ${sent.due.map(({ kind, key, dueMs }) => `${kind} ${text(key)} ${dueMs}`).join()}`;
    case 'step': {
      const { kind, id } = sent.step;
      return `${kind}(${id}) ${shown(sent.step.kind === 'chunk' ? sent.step.parts : sent.step.slots)}`;
    }
  }
}
