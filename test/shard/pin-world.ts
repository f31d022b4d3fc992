/**
 * Shards between which hash slots and pins migrate, while keys go into pins and come back, and a plain
 * model of what stands behind each key. Every command that reaches a log is judged here, and what must
 * hold at every moment is looked at behind it: a key is served in one place at most, with what was
 * written last, its revisions rise, and no write is applied twice.
 */
import { expect } from 'chai';
import { covers, type PinRule } from '../../src/router/pins.js';
import { slotOf, type Slot } from '../../src/router/slot.js';
import { isExpired, keysOfWrite } from '../../src/shard/apply-run.js';
import {
  encodeExpire,
  encodeFound,
  encodeMigrationStep,
  encodePinCommand,
  encodeWrites,
  type Due,
} from '../../src/shard/command-codec.js';
import type {
  CommandResult,
  OperationResult,
  Write,
  WriteOperation,
  WriteResult,
} from '../../src/shard/command.js';
import type { MigrationStep } from '../../src/shard/migration-step.js';
import type { PinStep } from '../../src/shard/pin-step.js';
import { isMoving, isServing, SlotOwnership, type SlotState } from '../../src/shard/slot-state.js';
import { decodeValue } from '../../src/shard/value-codec.js';
import type { SimRandom } from '../sim/random.js';
import { bytes, text } from './command-texts.js';
import { SimulatedShard } from './simulated-shard.js';
import { contentOf, expectCounted, expectExactIndex } from './slot-content.js';

export const tags = ['{1}', '{2}'];
const names = ['a', 'ab', 'b', 'bb', 'c\u0000'];
export const keys = tags.flatMap((tag) => names.map((name) => tag + name));
export const homes: readonly Slot[] = tags.map((tag) => slotOf(bytes(tag)));
/** What may be pinned; some of it overlaps. */
export const pinnable = [
  ['b', false],
  ['c\u0000', false],
  ['a', true],
  ['b', true],
  ['', true],
] as const;

export type Sent =
  | { readonly kind: 'writes'; readonly writes: readonly Write[] }
  | { readonly kind: 'expire'; readonly due: readonly Due[] }
  | { readonly kind: 'step'; readonly step: MigrationStep }
  | { readonly kind: 'pin'; readonly step: PinStep };

/** Where a write belongs at one shard. */
interface WritePlace {
  /** Of the one slot of its keys, or of their hash slot, which says that they do not go together. */
  readonly decider: SlotState;
  readonly isAcross: boolean;
}

interface Truth {
  value: string;
  revision: number;
  expiresAtMs: number;
}

const decides = ({ ownership }: SlotState): boolean =>
  ownership === SlotOwnership.owned ||
  ownership === SlotOwnership.exporting ||
  ownership === SlotOwnership.frozen ||
  ownership === SlotOwnership.filling ||
  ownership === SlotOwnership.draining;

export class PinWorld {
  readonly shards: readonly SimulatedShard[];
  readonly random: SimRandom;
  readonly trace: string[] = [];
  readonly lied = false;
  nowMs = 1000;
  /** Every pin that anybody spoke of. */
  readonly pins: PinRule[] = [];
  private readonly truths = new Map<string, Truth>();
  /** The highest revision that a key ever had, gone ones too. */
  private readonly revisions = new Map<string, number>();
  /** Results of writes that were applied, by client and sequence. */
  private readonly applied = new Map<string, unknown>();
  private readonly note: (what: string) => void;
  private readonly skewMs: readonly number[];

  constructor(random: SimRandom, note: (what: string) => void) {
    this.random = random;
    this.note = note;
    this.shards = [1, 2, 3].map((id) => new SimulatedShard(id, 2, random.split(), note));
    this.skewMs = this.shards.map(() => random.integer(0, 400));
  }

  async found(): Promise<void> {
    for (const [n, shard] of this.shards.entries()) {
      const own = homes.filter((_, at) => at % this.shards.length === n);
      const spans = own.map((slot) => ({ first: slot, last: slot }));
      await shard.append(encodeFound(spans, this.timeAt(shard)));
    }
  }

  shard(id: number): SimulatedShard {
    const shard = this.shards[id - 1];
    if (shard === undefined) throw new RangeError(`no shard ${id}`);
    return shard;
  }

  get slots(): readonly Slot[] {
    return [...homes, ...this.pins.map(({ slot }) => slot)];
  }

  serverOf(key: string): SimulatedShard | undefined {
    return this.shards.find((shard) => this.serves(shard, key));
  }

  serves(shard: SimulatedShard, key: string): boolean {
    const { machine } = shard.first;
    return isServing(machine.slotState(machine.slotOf(bytes(key))));
  }

  /** A leader's clock; the next one's may be behind. */
  private timeAt(shard: SimulatedShard): number {
    return this.nowMs + (this.skewMs[shard.id - 1] ?? 0) - this.random.integer(0, 20);
  }

  say(line: string): void {
    this.trace.push(line);
  }

  async arrive(shard: SimulatedShard, sent: Sent): Promise<CommandResult> {
    const logTimeMs = this.timeAt(shard);
    this.say(`${shard.id} <- ${describeSent(sent)}`);
    const before = this.slots.map((slot) => shard.state(slot));
    const places = sent.kind === 'writes' ? sent.writes.map((w) => placeOf(shard, w)) : [];
    const result = await shard.append(encoded(sent, logTimeMs));
    if (sent.kind === 'writes')
      for (const [n, write] of sent.writes.entries())
        this.judge(shard, write, result.results[n], places[n]);
    if (sent.kind === 'step' || sent.kind === 'pin') {
      expect(result.differing ?? [], 'a copy differs').to.deep.equal([]);
      const isNews = this.slots.some(
        (slot, n) =>
          shard.state(slot).ownership !== before[n]?.ownership ||
          shard.state(slot).migration !== before[n]?.migration,
      );
      if (isNews) this.note(sent.step.kind);
    }
    await this.lookAt(shard);
    return result;
  }

  // ---- writes

  private judge(
    shard: SimulatedShard,
    { operation, session }: Write,
    result: WriteResult | undefined,
    place: WritePlace | undefined,
  ): void {
    if (result === undefined || place === undefined)
      throw new TypeError('a write without a result');
    const { decider, isAcross } = place;
    const name = session && `${text(session.clientId)}/${session.sequence}`;
    const known = name === undefined ? undefined : this.applied.get(name);
    if (!isServing(decider)) {
      const refusal = isMoving(decider) ? 'moving' : 'wrongShard';
      expect(result).to.include({ kind: 'refused', refusal });
      this.note(refusal);
      return;
    }
    if (result.kind === 'refused') {
      this.note(result.refusal);
      const across = isAcross && known === undefined ? ['tooManySlots'] : [];
      expect(result.refusal).to.be.oneOf(['sessionExpired', 'sessionForgotten', ...across]);
      return;
    }
    const shown: unknown = JSON.parse(JSON.stringify(result));
    if (known !== undefined) {
      expect(shown, 'R76: a repetition is answered, not applied').to.deep.equal(known);
      this.note('repeated');
      return;
    }
    expect(isAcross, 'applied over the border of a pin').to.equal(false);
    if (name !== undefined) this.applied.set(name, shown);
    this.note(operation.kind);
    this.applyAll(shard, operation, result);
  }

  private applyAll(
    shard: SimulatedShard,
    operation: Write['operation'],
    result: Exclude<WriteResult, { kind: 'refused' }>,
  ): void {
    if (operation.kind !== 'transaction') {
      if (result.kind === 'transaction') throw new TypeError(result.kind);
      this.apply(shard, operation, result);
      return;
    }
    if (result.kind !== 'transaction') throw new TypeError(result.kind);
    expect(result.results).to.have.length(operation.then.length);
    for (const [n, each] of operation.then.entries()) {
      const own = result.results[n];
      if (each.kind === 'get' || own === undefined) throw new TypeError('only writes here');
      this.apply(shard, each, own);
    }
  }

  private apply(shard: SimulatedShard, operation: WriteOperation, result: OperationResult): void {
    const key = text(operation.key);
    const { logTimeMs } = shard.first.machine;
    const old = this.visible(key, logTimeMs);
    if (operation.kind === 'delete') {
      expect(result, key).to.include({ kind: 'delete', existed: old !== undefined });
      if (old !== undefined) this.truths.delete(key);
      return;
    }
    if (result.kind !== 'put' && result.kind !== 'increment') throw new TypeError(result.kind);
    expect(result.revision, `revision of ${key}`).to.be.above(this.revisions.get(key) ?? 0);
    this.revisions.set(key, result.revision);
    const { ttlMs } = operation;
    const fresh = ttlMs === 0 ? 0 : logTimeMs + ttlMs;
    const isCount = operation.kind === 'increment';
    const value = isCount
      ? String(Number(old?.value ?? 0) + operation.delta)
      : text(operation.value);
    if (result.kind === 'increment') expect(String(result.value), key).to.equal(value);
    const expiresAtMs = isCount && old !== undefined ? old.expiresAtMs : fresh;
    this.truths.set(key, { value, revision: result.revision, expiresAtMs });
  }

  private visible(key: string, logTimeMs: number): Truth | undefined {
    const truth = this.truths.get(key);
    return truth === undefined || isExpired(truth, logTimeMs) ? undefined : truth;
  }

  // ---- what always holds

  /** What a reader sees of each key where it is served. */
  async read(shard: SimulatedShard): Promise<void> {
    const { machine, engine } = shard.first;
    for (const key of keys) {
      if (!this.serves(shard, key)) continue;
      const [stored] = await engine.getMany([
        machine.valueKey(machine.slotOf(bytes(key)), bytes(key)),
      ]);
      const value = stored && decodeValue(stored);
      const seen =
        value === undefined || isExpired(value, machine.logTimeMs)
          ? undefined
          : {
              value: text(value.bytes),
              revision: value.revision,
              expiresAtMs: value.expiresAtMs,
            };
      const wanted = this.visible(key, machine.logTimeMs);
      expect(seen, `${key} at shard ${shard.id}`).to.deep.equal(wanted && { ...wanted });
    }
  }

  private async lookAt(shard: SimulatedShard): Promise<void> {
    for (const slot of this.slots) {
      this.expectOneHolder(slot);
      const content = await contentOf(shard.first, slot);
      expectCounted(shard.first, slot, content);
      await expectExactIndex(shard.first, slot, content);
    }
    const sum = this.slots.reduce((total, slot) => total + shard.state(slot).keys, 0);
    expect(shard.first.machine.keys, 'keys of the shard').to.equal(sum);
    for (const key of keys) {
      const servers = this.shards.filter((each) => this.serves(each, key));
      expect(servers.length, `shards that serve ${key}`).to.be.at.most(1);
    }
    if (this.random.chance(0.2)) await this.read(shard);
  }

  /** R71: at most one shard decides about a slot; about a pin's keys, it or its hash slot. */
  private expectOneHolder(slot: Slot): void {
    const holders = this.shards.filter((shard) => decides(shard.state(slot)));
    expect(holders.length, `holders of slot ${slot}`).to.be.at.most(1);
    const [holder] = holders;
    if (holder === undefined) return;
    const state = holder.state(slot);
    const wanted = this.pins.find((pin) => pin.slot === slot);
    if (wanted === undefined) return;
    const home = slotOf(wanted.key);
    const knowing = this.shards.filter((shard) => decides(shard.state(home)));
    for (const shard of knowing)
      expect(
        shard.state(home).pins.some((pin) => pin.slot === slot),
        `hash slot ${home} at shard ${shard.id} names pin ${slot} (${state.ownership})`,
      ).to.equal(true);
  }

  /** Every key has its place, and what was written is there. */
  async expectHealed(): Promise<void> {
    for (const key of keys) expect(this.serverOf(key), `${key} is served`).to.not.equal(undefined);
    for (const shard of this.shards) {
      await this.lookAt(shard);
      await this.read(shard);
      await shard.catchUpAll();
    }
    // Nothing of pins that are gone stands anywhere: what is alive is in slots that are owned.
    for (const { slot } of this.pins) {
      const owners = this.shards.filter(
        (each) => each.state(slot).ownership === SlotOwnership.owned,
      );
      const home = slotOf(this.pins.find((pin) => pin.slot === slot)?.key ?? bytes(''));
      const isNamed = this.shards.some(
        (each) => isServing(each.state(home)) && each.state(home).pins.some((p) => p.slot === slot),
      );
      expect(owners.length, `owners of pin ${slot}`).to.equal(isNamed ? 1 : 0);
    }
  }

  /** Keys of a pin. */
  keysOf(pin: PinRule): readonly string[] {
    return keys.filter((key) => covers(pin, bytes(key)));
  }
}

/** Keys of a transaction are of one hash slot. */
function placeOf(shard: SimulatedShard, { operation }: Write): WritePlace {
  const { machine } = shard.first;
  const all = keysOfWrite(operation);
  const [slot, ...others] = all.map((key) => machine.slotOf(key));
  const [key] = all;
  if (slot === undefined || key === undefined) throw new TypeError('a write without keys');
  const isAcross = others.some((each) => each !== slot);
  return { decider: machine.slotState(isAcross ? slotOf(key) : slot), isAcross };
}

function encoded(sent: Sent, logTimeMs: number): Uint8Array {
  switch (sent.kind) {
    case 'writes':
      return encodeWrites(sent.writes, logTimeMs);
    case 'expire':
      return encodeExpire(sent.due, logTimeMs);
    case 'step':
      return encodeMigrationStep(sent.step, logTimeMs);
    case 'pin':
      return encodePinCommand(sent.step, logTimeMs);
  }
}

function describeSent(sent: Sent): string {
  const shown = (value: unknown): string =>
    JSON.stringify(value, (_, each: unknown) =>
      each instanceof Uint8Array || isBuffer(each) ? text(bytesOf(each)) : each,
    );
  if (sent.kind === 'writes') return `write ${shown(sent.writes)}`;
  if (sent.kind === 'expire') return `expire ${shown(sent.due)}`;
  return shown(sent.step);
}

function isBuffer(value: unknown): value is { readonly data: readonly number[] } {
  return typeof value === 'object' && value !== null && 'data' in value;
}

function bytesOf(value: Uint8Array | { readonly data: readonly number[] }): Uint8Array {
  return value instanceof Uint8Array ? value : Buffer.from(value.data);
}
