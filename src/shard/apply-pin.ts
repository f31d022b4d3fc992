/**
 * The steps of a pin, applied, where hash slot and pin are in one shard. The hash slot's state names the
 * keys that are not its own from the first step to the last, and the pin serves in between: so at every
 * index of this log at most one of them serves a key. Records go over one by one, each removed and written
 * in one entry; of session records the pin gets copies, and what has come since is merged on the way back,
 * so that no retry is applied twice (R76).
 */
import { KeyKind } from '../../storage/index.js';
import { overlap } from '../router/pins.js';
import { slotOf, type Slot } from '../router/slot.js';
import { keyDue, sessionDue } from './expiry-index.js';
import type { Carry, CarriedRecord, PinStep } from './pin-step.js';
import { mergeSessions } from './sessions.js';
import { absentSlotState, isBetween, SlotOwnership, type SlotState } from './slot-state.js';
import { decodeSessionRecord, decodeValue, encodeSessionRecord } from './value-codec.js';
import type { WorkingState } from './working-state.js';

export function applyPinStep(state: WorkingState, step: PinStep): void {
  switch (step.kind) {
    case 'pin':
      begin(state, step);
      break;
    case 'pinned':
      serve(state, step);
      break;
    case 'unpin':
      beginBack(state, step.pin, step.home);
      break;
    case 'unpinned':
      end(state, step.pin, step.home);
      break;
    case 'carry':
      carry(state, step);
  }
}

/** Some keys are between it and its hash slot: then that must not leave the shard. */
export function hasPinBetween(state: WorkingState, { pins }: SlotState): boolean {
  return pins.some(({ slot }) => isBetween(state.slot(slot)));
}

function begin(state: WorkingState, step: Extract<PinStep, { kind: 'pin' }>): void {
  const { pin: slot, id, key, isPrefix } = step;
  const home = slotOf(key);
  const before = state.slot(home);
  if (before.ownership !== SlotOwnership.owned || slot <= before.lastPin) return;
  if (before.pins.some((each) => overlap(each, { slot, key, isPrefix }))) return;
  const change = state.nextChange(home);
  const hash = state.edit(home);
  const pin = { slot, key, isPrefix, epoch: hash.epoch, change };
  hash.pins = [...hash.pins, pin];
  hash.lastPin = slot;
  Object.assign(state.edit(slot), {
    ...absentSlotState,
    ownership: SlotOwnership.filling,
    instance: id,
    // No revision of its keys is higher, nor will one that it gives be as low (rule D20).
    change,
    pins: [pin],
    migration: between(id),
  });
}

function serve(state: WorkingState, { pin, id }: Extract<PinStep, { kind: 'pinned' }>): void {
  const { ownership, migration, expiring } = state.slot(pin);
  if (ownership !== SlotOwnership.filling || migration?.copied !== true) return;
  const edited = state.edit(pin);
  edited.ownership = SlotOwnership.owned;
  edited.epoch = 1;
  edited.ended = id;
  edited.migration = undefined;
  if (expiring) state.due.note(pin, 0);
}

function beginBack(state: WorkingState, pin: Slot, home: Slot): void {
  const now = state.slot(pin);
  const hash = state.slot(home);
  const areHere = now.ownership === SlotOwnership.owned && hash.ownership === SlotOwnership.owned;
  if (!areHere || !hash.pins.some(({ slot }) => slot === pin)) return;
  const edited = state.edit(pin);
  edited.ownership = SlotOwnership.draining;
  edited.migration = between(now.ended);
}

function end(state: WorkingState, pin: Slot, home: Slot): void {
  const { ownership, migration, change } = state.slot(pin);
  if (ownership !== SlotOwnership.draining || migration?.copied !== true) return;
  const hash = state.edit(home);
  hash.pins = hash.pins.filter(({ slot }) => slot !== pin);
  // Above every revision that the pin has given.
  hash.change = Math.max(hash.change, change) + 1;
  state.forgetData(pin);
  const edited = state.edit(pin);
  edited.ownership = SlotOwnership.absent;
  edited.migration = undefined;
}

function carry(state: WorkingState, step: Carry): void {
  const { pin, home, isBack, instance, after, next, end: copied, records } = step;
  const { ownership, migration, instance: own } = state.slot(pin);
  const wanted = isBack ? SlotOwnership.draining : SlotOwnership.filling;
  if (ownership !== wanted || migration === undefined || own !== instance) return;
  // Contiguous: one that comes twice, or late, brings nothing.
  if (migration.copied || Buffer.compare(migration.cursor, after) !== 0) return;
  for (const record of records) {
    if (record.kind === KeyKind.value)
      moveValue(state, record, isBack ? { from: pin, to: home } : { from: home, to: pin });
    else if (isBack) mergeSession(state, record.key, { pin, home });
    else copySession(state, record.key, { pin, home });
  }
  state.edit(pin).migration = { ...migration, cursor: next, copied };
}

interface Ends {
  readonly pin: Slot;
  readonly home: Slot;
}

function moveValue(
  state: WorkingState,
  { key }: CarriedRecord,
  { from, to }: { readonly from: Slot; readonly to: Slot },
): void {
  const stored = state.get(from, KeyKind.value, key);
  // It has expired since it was looked for.
  if (stored === undefined) return;
  const due = keyDue(key, decodeValue(stored));
  if (due !== undefined) state.unschedule(from, due);
  state.remove(from, KeyKind.value, key);
  state.put(to, KeyKind.value, key, stored);
  if (due !== undefined) state.schedule(to, due);
}

function copySession(state: WorkingState, clientId: Uint8Array, { pin, home }: Ends): void {
  const stored = state.get(home, KeyKind.session, clientId);
  if (stored === undefined) return;
  // The hash slot has gone on since the pin began: its numbers are not the pin's, where a later record
  // would look like an older one.
  const record = { ...decodeSessionRecord(stored), change: state.nextChange(pin) };
  state.put(pin, KeyKind.session, clientId, encodeSessionRecord(record));
  state.schedule(pin, sessionDue(clientId, record.lastNotAfterMs));
}

function mergeSession(state: WorkingState, clientId: Uint8Array, { pin, home }: Ends): void {
  const stored = state.get(pin, KeyKind.session, clientId);
  if (stored === undefined) return;
  const record = decodeSessionRecord(stored);
  const there = state.get(home, KeyKind.session, clientId);
  const change = state.nextChange(home);
  const merged = mergeSessions(record, there && decodeSessionRecord(there), change);
  state.put(home, KeyKind.session, clientId, encodeSessionRecord(merged));
  // The due time that a record has already is looked at again when it comes (as after any later write).
  if (there === undefined) state.schedule(home, sessionDue(clientId, merged.lastNotAfterMs));
}

function between(id: number): NonNullable<SlotState['migration']> {
  return {
    id,
    peer: 0,
    from: 0,
    logTimeMs: 0,
    copied: false,
    through: 0,
    buried: false,
    cursor: new Uint8Array(),
  };
}
