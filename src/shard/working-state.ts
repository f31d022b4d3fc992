/**
 * The state that one batch of commands changes: slots, their records, log time. Readers see it only
 * when the batch is in the engine. All records of slots are written and removed through here, so that
 * what is kept beside them (counts, content sum, expiry index, change index) cannot be forgotten.
 */
import {
  instanceRange,
  KeyKind,
  kindRange,
  slotKey,
  slotRange,
  type KeyRange,
  type SlotPlace,
} from '../../storage/index.js';
import { isPin } from '../router/pins.js';
import { slotOf, type Slot } from '../router/slot.js';
import type { SlotSpan } from '../router/slot-spans.js';
import type { Due } from './command-codec.js';
import { addSum, recordSum, subtractSum } from './content-sum.js';
import { DueTimes, expiryKey } from './expiry-index.js';
import type { Cell, Overlay } from './overlay.js';
import { placeOf } from './pin-places.js';
import { changeKey, changesOf, type RecordKind } from './change-index.js';
import {
  absentSlotState,
  firstSlotState,
  SlotOwnership,
  type SlotMigration,
  type SlotState,
} from './slot-state.js';

/** A slot's state while a batch works on it; nobody else has this object before the batch is written. */
export type EditedSlot = { -readonly [K in keyof SlotState]: SlotState[K] };

/** What readers see of the shard as a whole. */
export interface Visible {
  readonly logTimeMs: number;
  /** Keys stored, expired ones not yet removed included. */
  readonly keys: number;
}

export interface WorkingStateOptions {
  readonly prefix: Uint8Array;
  readonly overlay: Overlay;
  readonly visible: Visible;
  readonly founding: readonly SlotSpan[] | undefined;
  /** As it was before the batch; undefined: nothing was ever said of the slot. */
  readonly before: (slot: Slot) => SlotState | undefined;
  /** Of a hash slot, as it was before the batch. */
  readonly pinsBefore: (home: Slot) => readonly Slot[];
}

/** Where a record was found. Keys are told apart by identity: they belong to the command. */
interface FoundRecord extends SlotPlace {
  readonly key: Uint8Array;
  readonly cell: Cell;
}

export class WorkingState {
  readonly prefix: Uint8Array;
  logTimeMs: number;
  keys: number;
  /** The slots the shard was born with; undefined: it is not born yet, and owns nothing. */
  founding: readonly SlotSpan[] | undefined;
  readonly changed = new Map<Slot, EditedSlot>();
  readonly due = new DueTimes();
  /** Slots whose data died in this batch. */
  private readonly emptied: (SlotPlace & { readonly slot: Slot })[] = [];
  /** Indexes that did. */
  private readonly forgotten: KeyRange[] = [];
  private readonly overlay: Overlay;
  private readonly found: Partial<Record<RecordKind, FoundRecord>> = {};
  private readonly before: WorkingStateOptions['before'];
  private readonly pinsBefore: WorkingStateOptions['pinsBefore'];
  /** Pins of which nothing was said before the batch. */
  private readonly freshPins: Slot[] = [];

  constructor(options: WorkingStateOptions) {
    const { prefix, overlay, visible, founding, before } = options;
    this.prefix = prefix;
    this.overlay = overlay;
    this.logTimeMs = visible.logTimeMs;
    this.keys = visible.keys;
    this.founding = founding;
    this.before = before;
    this.pinsBefore = options.pinsBefore;
  }

  // ---- slots

  slot(slot: Slot): SlotState {
    return this.changed.get(slot) ?? this.before(slot) ?? bornState(this.founding, slot);
  }

  slotState(slot: Slot): SlotState {
    return this.slot(slot);
  }

  pinsOf(home: Slot): readonly Slot[] {
    const known = this.pinsBefore(home);
    if (this.freshPins.length === 0) return known;
    const fresh = this.freshPins.filter((slot) => {
      const [own] = this.slot(slot).pins;
      return own !== undefined && slotOf(own.key) === home && !known.includes(slot);
    });
    return [...known, ...fresh];
  }

  /** The hash slot of a key, or the pin that it belongs to. */
  slotOf(key: Uint8Array): Slot {
    return placeOf(this, key);
  }

  edit(slot: Slot): EditedSlot {
    let state = this.changed.get(slot);
    if (state === undefined) {
      state = { ...this.slot(slot) };
      this.changed.set(slot, state);
      if (isPin(slot) && this.before(slot) === undefined) this.freshPins.push(slot);
    }
    return state;
  }

  place(slot: Slot): SlotPlace {
    return { slot, instance: this.slot(slot).instance };
  }

  /** The slot's next change number: every change to its data takes one (rule D20), before it is made. */
  nextChange(slot: Slot): number {
    return ++this.edit(slot).change;
  }

  /** The slot's data is dead: nobody reads it, and its instance number never comes back. */
  forgetData(slot: Slot): void {
    const state = this.edit(slot);
    const { bytes, expiring, migration, change } = state;
    const indexed = migration !== undefined && (migration.buried || change > migration.from);
    // Of a slot that was never written there is nothing to clear.
    if (bytes > 0 || expiring || indexed) this.emptied.push({ slot, instance: state.instance });
    this.keys -= state.keys;
    Object.assign(state, { instance: 0, expiring: false, keys: 0, bytes: 0, sum: 0 });
  }

  /** The change index of a migration that has ended. */
  forgetChanges(slot: Slot, { id, from }: SlotMigration): void {
    if (this.slot(slot).change > from)
      this.forgotten.push(changesOf(this.prefix, this.place(slot), id));
  }

  forgetTombstones(slot: Slot): void {
    this.forgotten.push(kindRange(this.prefix, this.place(slot), KeyKind.tombstone));
  }

  /**
   * To be dropped when the batch is written and before the next one (D26). Dead instances are never
   * written again (D25); of slots that are not here now whatever lies there is dead, so neighbours go
   * as one range: a range costs the event loop 0.1 ms, and hundreds of slots leave together.
   */
  clears(): readonly KeyRange[] {
    const ranges = [...this.forgotten];
    let run: { first: Slot; last: Slot } | undefined;
    const endRun = (): void => {
      if (run === undefined) return;
      const { start } = slotRange(this.prefix, run.first);
      ranges.push({ start, end: slotRange(this.prefix, run.last).end });
      run = undefined;
    };
    for (const place of this.emptied.toSorted((a, b) => a.slot - b.slot)) {
      if (!this.isAbsent(place.slot)) ranges.push(instanceRange(this.prefix, place));
      else if (run !== undefined && this.areAbsent(run.last, place.slot)) run.last = place.slot;
      else {
        endRun();
        run = { first: place.slot, last: place.slot };
      }
    }
    endRun();
    return ranges;
  }

  private isAbsent(slot: Slot): boolean {
    return this.slot(slot).ownership === SlotOwnership.absent;
  }

  private areAbsent(first: Slot, last: Slot): boolean {
    for (let slot = first + 1; slot < last; slot++) if (!this.isAbsent(slot as Slot)) return false;
    return true;
  }

  // ---- records

  get(slot: Slot, kind: RecordKind, key: Uint8Array): Uint8Array | undefined {
    return this.find(slot, kind, key).value;
  }

  /** A write looks for its key and its session several times over: the last place of each is kept. */
  private find(slot: Slot, kind: RecordKind, key: Uint8Array): Cell {
    const { instance } = this.slot(slot);
    const last = this.found[kind];
    if (last?.key === key && last.slot === slot && last.instance === instance) return last.cell;
    const cell = this.overlay.find(slotKey(this.prefix, { slot, instance }, kind, key));
    this.found[kind] = { slot, instance, key, cell };
    return cell;
  }

  put(slot: Slot, kind: RecordKind, key: Uint8Array, stored: Uint8Array): void {
    const cell = this.find(slot, kind, key);
    this.discount(slot, kind, key, cell.value);
    const state = this.edit(slot);
    state.bytes += key.byteLength + stored.byteLength;
    state.sum = addSum(state.sum, recordSum(kind, key, stored));
    if (kind === KeyKind.value) {
      state.keys++;
      this.keys++;
    }
    this.overlay.set(cell, stored);
    this.index(slot, kind, key);
  }

  remove(slot: Slot, kind: RecordKind, key: Uint8Array): void {
    const cell = this.find(slot, kind, key);
    if (cell.value === undefined) return;
    this.discount(slot, kind, key, cell.value);
    this.overlay.set(cell, undefined);
    this.index(slot, kind, key);
  }

  private discount(
    slot: Slot,
    kind: RecordKind,
    key: Uint8Array,
    old: Uint8Array | undefined,
  ): void {
    if (old === undefined) return;
    const state = this.edit(slot);
    state.bytes -= key.byteLength + old.byteLength;
    state.sum = subtractSum(state.sum, recordSum(kind, key, old));
    if (kind !== KeyKind.value) return;
    state.keys--;
    this.keys--;
  }

  /** While the slot is exported the target hears of the record under the change's number. */
  private index(slot: Slot, kind: RecordKind, key: Uint8Array): void {
    const { ownership, migration, change } = this.slot(slot);
    if (ownership !== SlotOwnership.exporting || migration === undefined) return;
    const entry = { migration: migration.id, change, kind, key };
    this.overlay.put(changeKey(this.prefix, this.place(slot), entry), new Uint8Array());
  }

  // ---- tombstones: what the source has removed, so that a late chunk does not bring it back (R78)

  /** The change that removed the record; 0: none did. */
  tombstone(slot: Slot, kind: RecordKind, key: Uint8Array): number {
    const stored = this.overlay.get(tombstoneKey(this.prefix, this.place(slot), kind, key));
    return stored === undefined ? 0 : Number(Buffer.from(stored).readBigUInt64BE());
  }

  bury(slot: Slot, kind: RecordKind, key: Uint8Array, change: number): void {
    const stored = Buffer.alloc(8);
    stored.writeBigUInt64BE(BigInt(change));
    this.overlay.put(tombstoneKey(this.prefix, this.place(slot), kind, key), stored);
    const { migration } = this.slot(slot);
    if (migration?.buried === false) this.edit(slot).migration = { ...migration, buried: true };
  }

  // ---- expiry index

  schedule(slot: Slot, due: Omit<Due, 'slot'>): void {
    const key = expiryKey(this.prefix, this.place(slot), { ...due, slot });
    this.overlay.put(key, new Uint8Array());
    this.due.note(slot, due.dueMs);
    if (!this.slot(slot).expiring) this.edit(slot).expiring = true;
  }

  unschedule(slot: Slot, due: Omit<Due, 'slot'>): void {
    this.overlay.delete(expiryKey(this.prefix, this.place(slot), { ...due, slot }));
  }
}

export function tombstoneKey(
  prefix: Uint8Array,
  place: SlotPlace,
  kind: RecordKind,
  key: Uint8Array,
): Uint8Array {
  return slotKey(prefix, place, KeyKind.tombstone, Buffer.concat([Buffer.of(kind), key]));
}

/** What a slot is to a shard before anything else has been said of it. */
export function bornState(founding: readonly SlotSpan[] | undefined, slot: Slot): SlotState {
  const born = founding?.some(({ first, last }) => slot >= first && slot <= last) === true;
  return born ? firstSlotState : absentSlotState;
}
