/**
 * User data as a replicated state machine. Applying is in apply-run.ts; this class decodes, loads
 * what a batch needs, and keeps what readers may see apart from what is being applied.
 */
import type { Entry } from '../../raft/index.js';
import {
  KeyKind,
  machineKey,
  machineRange,
  slotKey,
  type Engine,
  type EngineBatch,
  type KeyRange,
} from '../../storage/index.js';
import { ByteReader, ByteWriter } from '../bytes.js';
import type { Applied, Leadership, StateMachine } from '../group/state-machine.js';
import type { Clock } from '../observe/clock.js';
import { isPin, type Segment } from '../router/pins.js';
import { anySlot, slotCount, slotOf, type Slot } from '../router/slot.js';
import type { SlotSpan } from '../router/slot-spans.js';
import { ApplyRun, keysOfWrite } from './apply-run.js';
import type { RecordKind } from './change-index.js';
import { decodeCommand, decodeSpans, encodeSpans, isHash, type Command } from './command-codec.js';
import type { CommandResult } from './command.js';
import { DueTimes, firstDue } from './expiry-index.js';
import { clearLitter } from './litter.js';
import { Overlay } from './overlay.js';
import { placeOf, segmentOf } from './pin-places.js';
import {
  decodeSlotState,
  encodeSlotState,
  isServing,
  SlotOwnership,
  type SlotState,
} from './slot-state.js';
import { bornState, tombstoneKey, WorkingState, type Visible } from './working-state.js';

const atOnce = (run: () => void): void => {
  run();
};

const noPins: readonly Slot[] = [];
const summaryVersion = 1;
const foundingVersion = 1;
const slotStateName = 'slot/';
const foundingName = 'founding';
/** '0' follows '/'. */
const behindSlotStates = 'slot0';

export class ShardMachine implements StateMachine<CommandResult> {
  readonly range: KeyRange;
  readonly prefix: Uint8Array;
  readonly engine: Engine;
  readonly endOfTurn: Clock['endOfTurn'];
  readonly due = new DueTimes();
  /** Told when leadership comes and goes. */
  onLeading: (leadership: Leadership) => void = () => undefined;
  /** Told of each slot whose ownership or epoch has changed; of all after the state was read anew. */
  onOwnership: (slot: Slot, state: SlotState) => void = () => undefined;
  private visible: Visible = { logTimeMs: 0, keys: 0 };
  /** The slots the shard was born with; what is told of a slot since is in `slots`. */
  protected founding: readonly SlotSpan[] | undefined;
  private readonly slots = new Map<Slot, SlotState>();
  /** Those that are on their way somewhere, from here or to here. */
  private readonly moving = new Set<Slot>();
  /** By hash slot: pins that are here, or were. */
  private readonly pins = new Map<Slot, readonly Slot[]>();
  /** The state of the batch that is being written, and the slots it changed. */
  private working: WorkingState | undefined;
  /** How often the state was read anew from the engine: at start, and with every snapshot. */
  loads = 0;

  /** `endOfTurn`: others get their turn between pieces of long work. */
  constructor(engine: Engine, prefix: Uint8Array, endOfTurn: Clock['endOfTurn'] = atOnce) {
    this.endOfTurn = endOfTurn;
    this.engine = engine;
    this.prefix = prefix;
    this.range = machineRange(prefix);
  }

  get logTimeMs(): number {
    return this.visible.logTimeMs;
  }

  get keys(): number {
    return this.visible.keys;
  }

  /** The state of a slot as readers may see it. */
  slotState(slot: Slot): SlotState {
    return this.slots.get(slot) ?? bornState(this.founding, slot);
  }

  pinsOf(home: Slot): readonly Slot[] {
    return this.pins.get(home) ?? noPins;
  }

  /** The hash slot of a key, or the pin that it belongs to. */
  slotOf(key: Uint8Array): Slot {
    return placeOf(this, key);
  }

  segmentOf(home: Slot, from: Uint8Array): Segment {
    return segmentOf(this, home, from);
  }

  /** Of the batch that is being written too: the engine may show its data before readers hear of it. */
  newestChange(slot: Slot): number {
    return (this.working?.changed.get(slot) ?? this.slotState(slot)).change;
  }

  /** It has been told which slots it begins with. */
  get isFounded(): boolean {
    return this.founding !== undefined;
  }

  /** Hash slots of which this shard is the owner. */
  get ownedSlots(): number {
    let owned = 0;
    for (const { first, last } of this.founding ?? []) owned += last - first + 1;
    for (const [slot, state] of this.slots)
      if (slot < slotCount)
        owned += Number(isServing(state)) - Number(isServing(bornState(this.founding, slot)));
    return owned;
  }

  /** Every slot that is served here and of which something was ever said. */
  *servedSlots(): Generator<readonly [Slot, SlotState]> {
    for (const each of this.slots) if (isServing(each[1])) yield each;
  }

  /** Slots that are in a migration just now, as source or target. */
  get slotsInMigration(): ReadonlySet<Slot> {
    return this.moving;
  }

  async load(): Promise<void> {
    this.loads++;
    this.slots.clear();
    this.moving.clear();
    this.pins.clear();
    this.due.clear();
    const [summary, founding] = await this.engine.getMany([
      this.summaryKey(),
      machineKey(this.prefix, foundingName),
    ]);
    this.founding = founding === undefined ? undefined : decodeFounding(founding);
    this.visible = summary === undefined ? { logTimeMs: 0, keys: 0 } : decodeSummary(summary);
    await this.loadSlotStates();
    await clearLitter(this, this.slots);
    for (const [slot, { expiring, instance }] of this.slots) {
      if (!expiring) continue;
      const [first] = await firstDue(this.engine, this.prefix, { slot, instance }, 1);
      if (first !== undefined) this.due.note(slot, first.dueMs);
    }
    for (const [slot, state] of this.slots) this.onOwnership(slot, state);
  }

  private async loadSlotStates(): Promise<void> {
    const start = machineKey(this.prefix, slotStateName);
    const nameStart = start.byteLength;
    const view = this.engine.iterate({
      start,
      end: machineKey(this.prefix, behindSlotStates),
      pageBytesMax: 256 * 1024,
    });
    try {
      for (let page = await view.next(); page.length > 0; page = await view.next()) {
        for (const { key, value } of page) {
          const number = Buffer.from(key.subarray(nameStart)).toString('latin1');
          this.keepState(anySlot(Number(number)), decodeSlotState(value));
        }
      }
    } finally {
      await view.close();
    }
  }

  async apply(entries: readonly Entry[], batch: EngineBatch): Promise<Applied<CommandResult>> {
    const commands = entries.map((entry) => decodeCommand(entry.data));
    const overlay = await Overlay.load(this.engine, this.keysOf(commands));
    const { prefix, visible, founding } = this;
    const before = (slot: Slot): SlotState | undefined => this.slots.get(slot);
    const pinsBefore = (home: Slot): readonly Slot[] => this.pinsOf(home);
    const state = new WorkingState({ prefix, overlay, visible, founding, before, pinsBefore });
    const run = new ApplyRun(state);
    const results = commands.map((command) => run.apply(command));
    overlay.writeTo(batch);
    for (const [slot, slotState] of state.changed)
      batch.put(this.slotStateKey(slot), encodeSlotState(slotState));
    if (commands.length > 0) batch.put(this.summaryKey(), encodeSummary(state));
    if (state.founding !== undefined && state.founding !== founding)
      batch.put(machineKey(prefix, foundingName), encodeFounding(state.founding));
    this.working = state;
    return { results, clears: state.clears() };
  }

  /** The batch is in the engine: what readers see moves on, in one step with the data (D23). */
  written(): void {
    if (this.working === undefined) return;
    const { logTimeMs, keys, founding, changed, due } = this.working;
    this.working = undefined;
    this.visible = { logTimeMs, keys };
    this.founding = founding;
    for (const [slot, state] of changed) {
      const { ownership, epoch } = this.slotState(slot);
      this.keepState(slot, state);
      if (state.ownership !== ownership || state.epoch !== epoch) this.onOwnership(slot, state);
    }
    this.due.noteAll(due);
  }

  private keepState(slot: Slot, state: SlotState): void {
    this.slots.set(slot, state);
    const { ownership } = state;
    const settled = ownership === SlotOwnership.owned || ownership === SlotOwnership.absent;
    if (settled) this.moving.delete(slot);
    else this.moving.add(slot);
    const [own] = isPin(slot) ? state.pins : [];
    const home = own && slotOf(own.key);
    if (home !== undefined && !this.pinsOf(home).includes(slot))
      this.pins.set(home, [...this.pinsOf(home), slot]);
  }

  asksForHash(command: Uint8Array): boolean {
    return isHash(command);
  }

  onLeadership(leadership: Leadership): void {
    this.onLeading(leadership);
  }

  /** `state`: of the slot, for a caller that has looked it up. */
  valueKey(
    slot: Slot,
    key: Uint8Array,
    { instance }: Pick<SlotState, 'instance'> = this.slotState(slot),
  ): Uint8Array {
    return slotKey(this.prefix, { slot, instance }, KeyKind.value, key);
  }

  private keysOf(commands: readonly Command[]): Uint8Array[] {
    const keys: Uint8Array[] = [];
    const instances = new Map<Slot, number[]>();
    for (const command of commands) {
      for (const [slot, instance] of instancesBegun(command))
        instances.set(slot, [...(instances.get(slot) ?? []), instance]);
    }
    // A slot that comes in this very batch is read and written in it under its new instance.
    const add = (slot: Slot, kind: RecordKind, key: Uint8Array): void => {
      const { instance } = this.slotState(slot);
      for (const each of [instance, ...(instances.get(slot) ?? [])])
        keys.push(slotKey(this.prefix, { slot, instance: each }, kind, key));
    };
    // A key may belong to its hash slot or to a pin of it by the time its command is applied.
    const places = this.placesAt(commands);
    for (const command of commands) {
      if (command.kind === 'writes') {
        for (const write of command.writes) {
          const touched = keysOfWrite(write.operation);
          for (const key of touched)
            for (const slot of places(slotOf(key))) add(slot, KeyKind.value, key);
          const home = touched[0] && slotOf(touched[0]);
          if (write.session === undefined || home === undefined) continue;
          for (const slot of places(home)) add(slot, KeyKind.session, write.session.clientId);
        }
      } else if (command.kind === 'pin' && command.step.kind === 'carry') {
        const { pin, home, instance, records } = command.step;
        for (const { kind, key } of records) {
          add(home, kind, key);
          keys.push(slotKey(this.prefix, { slot: pin, instance }, kind, key));
        }
      } else if (command.kind === 'expire') {
        for (const { slot, kind, key } of command.due)
          add(slot as Slot, kind === 'key' ? KeyKind.value : KeyKind.session, key);
      } else if (command.kind === 'step' && command.step.kind === 'chunk') {
        const { id, parts } = command.step;
        for (const { slot, records } of parts) {
          const place = { slot, instance: id };
          for (const { kind, key } of records)
            keys.push(
              slotKey(this.prefix, place, kind, key),
              tombstoneKey(this.prefix, place, kind, key),
            );
        }
      }
    }
    return keys;
  }

  /** The hash slot and every pin of it that is known here, or that the commands bring. */
  private placesAt(commands: readonly Command[]): (home: Slot) => readonly Slot[] {
    const fresh = commands.flatMap(pinsBegun);
    return (home) => {
      const known = this.pinsOf(home);
      const coming = fresh.filter(({ key, slot }) => slotOf(key) === home && !known.includes(slot));
      if (known.length === 0 && coming.length === 0) return [home];
      return [home, ...known, ...coming.map(({ slot }) => slot)];
    };
  }

  /**
   * Kept for ever (rule D30), so outside of the slot's range: the late clear of an instance, 0 among
   * them, must not take it along.
   */
  private slotStateKey(slot: Slot): Uint8Array {
    return machineKey(this.prefix, `${slotStateName}${slot}`);
  }

  private summaryKey(): Uint8Array {
    return machineKey(this.prefix, 'summary');
  }
}

/** Slots of which a command may make a new instance here. */
function instancesBegun(command: Command): readonly (readonly [Slot, number])[] {
  if (command.kind === 'pin')
    return command.step.kind === 'pin' ? [[command.step.pin, command.step.id]] : [];
  if (command.kind !== 'step' || command.step.kind !== 'importBegin') return [];
  const { id, slots } = command.step;
  return slots.map(({ slot }) => [slot, id]);
}

/** Pins that a command may bring here. */
function pinsBegun(command: Command): readonly { readonly slot: Slot; readonly key: Uint8Array }[] {
  if (command.kind === 'pin')
    return command.step.kind === 'pin' ? [{ slot: command.step.pin, key: command.step.key }] : [];
  if (command.kind !== 'step' || command.step.kind !== 'importBegin') return [];
  return command.step.slots.flatMap(({ slot, pins = [] }) => (isPin(slot) ? pins : []));
}

/** Layout: version u8, log time u64, keys u64. */
function encodeSummary({ logTimeMs, keys }: Visible): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(summaryVersion);
  writer.u64(logTimeMs);
  writer.u64(keys);
  return writer.take();
}

function decodeSummary(stored: Uint8Array): Visible {
  const reader = new ByteReader(stored);
  const version = reader.u8();
  if (version !== summaryVersion) throw new RangeError(`shard summary of version ${version}`);
  return { logTimeMs: reader.u64(), keys: reader.u64() };
}

/** Layout: version u8, spans. */
function encodeFounding(slots: readonly SlotSpan[]): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(foundingVersion);
  encodeSpans(writer, slots);
  return writer.take();
}

function decodeFounding(stored: Uint8Array): readonly SlotSpan[] {
  const reader = new ByteReader(stored);
  const version = reader.u8();
  if (version !== foundingVersion) throw new RangeError(`shard founding of version ${version}`);
  return decodeSpans(reader);
}
