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
import { slot as slotNumber, slotOf, type Slot } from '../router/slot.js';
import { ApplyRun, keysOfWrite, slotOfWrite, type WorkingState } from './apply-run.js';
import {
  decodeCommand,
  decodeSpans,
  encodeSpans,
  isHash,
  type Command,
  type SlotSpan,
} from './command-codec.js';
import type { CommandResult } from './command.js';
import { DueTimes, firstDue } from './expiry-index.js';
import { Overlay } from './overlay.js';
import {
  absentSlotState,
  decodeSlotState,
  encodeSlotState,
  firstSlotState,
  SlotOwnership,
  type SlotState,
} from './value-codec.js';

const summaryVersion = 1;
const foundingVersion = 1;
const slotStateName = 'slot/';
const foundingName = 'founding';
/** '0' follows '/'. */
const behindSlotStates = 'slot0';

/** What readers see: as of the last batch that is in the engine. */
export interface Visible {
  readonly logTimeMs: number;
  /** Keys stored, expired ones not yet removed included. */
  readonly keys: number;
}

export class ShardMachine implements StateMachine<CommandResult> {
  readonly range: KeyRange;
  readonly prefix: Uint8Array;
  readonly engine: Engine;
  readonly due = new DueTimes();
  /** Told when leadership comes and goes. */
  onLeading: (leadership: Leadership) => void = () => undefined;
  private visible: Visible = { logTimeMs: 0, keys: 0 };
  /** The slots the shard was born with; what is told of a slot since is in `slots`. */
  protected founding: readonly SlotSpan[] | undefined;
  private readonly slots = new Map<Slot, SlotState>();
  /** The state of the batch that is being written, and the slots it changed. */
  private working: { state: BatchState; changed: Map<Slot, SlotState>; due: DueTimes } | undefined;
  /** How often the state was read anew from the engine: at start, and with every snapshot. */
  loads = 0;

  constructor(engine: Engine, prefix: Uint8Array) {
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

  /** Of the batch that is being written too: the engine may show its data before readers hear of it. */
  newestChange(slot: Slot): number {
    return (this.working?.changed.get(slot) ?? this.slotState(slot)).change;
  }

  /** It has been told which slots it begins with. */
  get isFounded(): boolean {
    return this.founding !== undefined;
  }

  /** Slots of which this shard is the owner. */
  get ownedSlots(): number {
    let owned = 0;
    for (const { first, last } of this.founding ?? []) owned += last - first + 1;
    for (const [slot, { ownership }] of this.slots) {
      const wasOwned = bornState(this.founding, slot) === firstSlotState;
      owned += Number(ownership === SlotOwnership.owned) - Number(wasOwned);
    }
    return owned;
  }

  async load(): Promise<void> {
    this.loads++;
    this.slots.clear();
    this.due.clear();
    const [summary, founding] = await this.engine.getMany([
      this.summaryKey(),
      machineKey(this.prefix, foundingName),
    ]);
    this.founding = founding === undefined ? undefined : decodeFounding(founding);
    this.visible = summary === undefined ? { logTimeMs: 0, keys: 0 } : decodeSummary(summary);
    await this.loadSlotStates();
    for (const [slot, { expiring, instance }] of this.slots) {
      if (!expiring) continue;
      const [first] = await firstDue(this.engine, this.prefix, { slot, instance }, 1);
      if (first !== undefined) this.due.note(slot, first.dueMs);
    }
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
          this.slots.set(slotNumber(Number(number)), decodeSlotState(value));
        }
      }
    } finally {
      await view.close();
    }
  }

  async apply(entries: readonly Entry[], batch: EngineBatch): Promise<Applied<CommandResult>> {
    const commands = entries.map((entry) => decodeCommand(entry.data));
    const overlay = await Overlay.load(this.engine, this.keysOf(commands));
    const changed = new Map<Slot, SlotState>();
    const state = new BatchState(this.visible, this.founding, changed, (slot) =>
      this.slots.get(slot),
    );
    const due = new DueTimes();
    const run = new ApplyRun(this.prefix, overlay, state, due);
    const results = commands.map((command) => run.apply(command));
    overlay.writeTo(batch);
    for (const [slot, slotState] of changed)
      batch.put(this.slotStateKey(slot), encodeSlotState(slotState));
    if (commands.length > 0) batch.put(this.summaryKey(), encodeSummary(state));
    if (state.founding !== undefined && state.founding !== this.founding)
      batch.put(machineKey(this.prefix, foundingName), encodeFounding(state.founding));
    this.working = { state, changed, due };
    return { results, clears: [] };
  }

  /** The batch is in the engine: what readers see moves on, in one step with the data (D23). */
  written(): void {
    if (this.working === undefined) return;
    const { state, changed, due } = this.working;
    this.working = undefined;
    this.visible = { logTimeMs: state.logTimeMs, keys: state.keys };
    this.founding = state.founding;
    for (const [slot, slotState] of changed) this.slots.set(slot, slotState);
    this.due.noteAll(due);
  }

  asksForHash(command: Uint8Array): boolean {
    return isHash(command);
  }

  onLeadership(leadership: Leadership): void {
    this.onLeading(leadership);
  }

  valueKey(slot: Slot, key: Uint8Array): Uint8Array {
    return slotKey(
      this.prefix,
      { slot, instance: this.slotState(slot).instance },
      KeyKind.value,
      key,
    );
  }

  private keysOf(commands: readonly Command[]): Uint8Array[] {
    const keys: Uint8Array[] = [];
    for (const command of commands) {
      if (command.kind === 'writes') {
        for (const write of command.writes) {
          for (const key of keysOfWrite(write.operation))
            keys.push(this.valueKey(slotOf(key), key));
          const slot = slotOfWrite(write);
          if (write.session === undefined || slot === undefined) continue;
          keys.push(this.sessionKey(slot, write.session.clientId));
        }
      } else if (command.kind === 'expire') {
        for (const { slot, kind, key } of command.due) {
          keys.push(
            kind === 'key' ? this.valueKey(slot as Slot, key) : this.sessionKey(slot as Slot, key),
          );
        }
      }
    }
    return keys;
  }

  private sessionKey(slot: Slot, clientId: Uint8Array): Uint8Array {
    return slotKey(
      this.prefix,
      { slot, instance: this.slotState(slot).instance },
      KeyKind.session,
      clientId,
    );
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

/** What a slot is to a shard before anything else has been said of it. */
function bornState(founding: readonly SlotSpan[] | undefined, slot: Slot): SlotState {
  const born = founding?.some(({ first, last }) => slot >= first && slot <= last) === true;
  return born ? firstSlotState : absentSlotState;
}

class BatchState implements WorkingState {
  logTimeMs: number;
  keys: number;
  founding: readonly SlotSpan[] | undefined;
  private readonly changed: Map<Slot, SlotState>;
  private readonly before: (slot: Slot) => SlotState | undefined;

  constructor(
    visible: Visible,
    founding: readonly SlotSpan[] | undefined,
    changed: Map<Slot, SlotState>,
    before: (slot: Slot) => SlotState | undefined,
  ) {
    this.logTimeMs = visible.logTimeMs;
    this.keys = visible.keys;
    this.founding = founding;
    this.changed = changed;
    this.before = before;
  }

  slotState(slot: Slot): SlotState {
    return this.changed.get(slot) ?? this.before(slot) ?? bornState(this.founding, slot);
  }

  setSlotState(slot: Slot, state: SlotState): void {
    this.changed.set(slot, state);
  }
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
