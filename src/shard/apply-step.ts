/**
 * The steps of a migration, applied (design: the owner gives, nobody takes; rules D25, D30, D32). A
 * step that comes in another state, or of another migration, is no error: it changes nothing.
 */
import { KeyKind } from '../../storage/index.js';
import { isPin } from '../router/pins.js';
import type { Slot } from '../router/slot.js';
import { hasPinBetween } from './apply-pin.js';
import { keyDue, sessionDue } from './expiry-index.js';
import type { ChunkPart, MigrationStep, MovedRecord, SlotTerms } from './migration-step.js';
import { SlotOwnership, type SlotMigration } from './slot-state.js';
import { changeOf, decodeSessionRecord, decodeValue } from './value-codec.js';
import type { EditedSlot, WorkingState } from './working-state.js';

/** One slot of one step: what it is, and the part of its state that says so. */
interface Place {
  readonly state: WorkingState;
  readonly slot: Slot;
  readonly id: number;
  readonly peer: number;
}

/** Slots whose copy differs from the original (only of a handover). */
export function applyStep(state: WorkingState, step: MigrationStep): readonly Slot[] {
  const { id, peer } = step;
  if (step.kind === 'chunk') {
    for (const part of step.parts) takePart({ state, slot: part.slot, id, peer }, part);
    return [];
  }
  const apply = appliers[step.kind];
  return step.slots
    .filter((terms) => apply({ state, slot: terms.slot, id, peer }, terms) === 'differs')
    .map(({ slot }) => slot);
}

type Apply = (place: Place, terms: SlotTerms) => 'differs' | undefined;

const appliers: Readonly<Record<Exclude<MigrationStep['kind'], 'chunk'>, Apply>> = {
  exportBegin,
  freeze,
  thaw,
  handover,
  endExport,
  collect,
  importBegin,
  seal,
  activate,
  endImport,
};

/** The slot, if it is in one of these states and in this very migration. */
function stateIn(
  { state, slot, id }: Place,
  ...ownerships: readonly SlotOwnership[]
): { readonly slot: EditedSlot; readonly migration: SlotMigration } | undefined {
  const { ownership, migration } = state.slot(slot);
  if (!ownerships.includes(ownership) || migration?.id !== id) return undefined;
  return { slot: state.edit(slot), migration };
}

/** Not in any migration, and none as late as this one has ended here. */
function stateBefore({ state, slot, id }: Place, ownership: SlotOwnership): EditedSlot | undefined {
  const now = state.slot(slot);
  return now.ownership === ownership && now.ended < id ? state.edit(slot) : undefined;
}

// ---- at the source

function exportBegin(place: Place): undefined {
  // From here on its pins stay as they are: the target is told them once.
  if (hasPinBetween(place.state, place.state.slot(place.slot))) return;
  const slot = stateBefore(place, SlotOwnership.owned);
  if (slot === undefined) return;
  slot.ownership = SlotOwnership.exporting;
  slot.migration = migrationAt(place, slot.change);
}

function freeze(place: Place): undefined {
  const found = stateIn(place, SlotOwnership.exporting);
  if (found === undefined) return;
  const { slot, migration } = found;
  slot.ownership = SlotOwnership.frozen;
  slot.migration = { ...migration, logTimeMs: place.state.logTimeMs };
}

function thaw(place: Place): undefined {
  const found = stateIn(place, SlotOwnership.frozen);
  if (found === undefined) return;
  found.slot.ownership = SlotOwnership.exporting;
  lookAtExpiry(place, found.slot);
}

/** The one decision of a migration: from here on only the target can serve. */
function handover(place: Place, terms: SlotTerms): 'differs' | undefined {
  const found = stateIn(place, SlotOwnership.frozen);
  // A report of another freeze says nothing of this one, also when nothing has changed between the two:
  // what has expired meanwhile would be seen again. Nor does one from before the target was ready.
  const { logTimeMs } = found?.migration ?? {};
  if (found?.slot.change !== terms.change || logTimeMs !== terms.logTimeMs) return undefined;
  const { slot, migration } = found;
  slot.ended = place.id;
  if (slot.keys !== terms.keys || slot.sum !== terms.sum) {
    place.state.forgetChanges(place.slot, migration);
    stayHere(place, slot);
    return 'differs';
  }
  // Its data and change index go when the target serves: requests wait now.
  slot.ownership = SlotOwnership.handedOver;
  slot.epoch++;
  return undefined;
}

/** Also before the export has begun: then it never does. */
function endExport(place: Place): undefined {
  const found = stateIn(place, SlotOwnership.exporting, SlotOwnership.frozen);
  if (found === undefined) {
    endUnbegun(place);
    return;
  }
  place.state.forgetChanges(place.slot, found.migration);
  found.slot.ended = place.id;
  stayHere(place, found.slot);
}

/** Where it has gone stays written down: who asks here is sent there. */
function collect(place: Place): undefined {
  const found = stateIn(place, SlotOwnership.handedOver);
  if (found === undefined) return;
  found.slot.ownership = SlotOwnership.absent;
  if (!isPin(place.slot)) found.slot.pins = [];
  place.state.forgetData(place.slot);
}

function stayHere(place: Place, slot: EditedSlot): void {
  slot.ownership = SlotOwnership.owned;
  slot.migration = undefined;
  lookAtExpiry(place, slot);
}

// ---- at the target

function importBegin(place: Place, { change, pins = [], lastPin = 0 }: SlotTerms): undefined {
  const slot = stateBefore(place, SlotOwnership.absent);
  if (slot === undefined) return;
  slot.ownership = SlotOwnership.importing;
  slot.instance = place.id;
  slot.change = 0;
  slot.pins = pins;
  slot.lastPin = lastPin;
  slot.migration = migrationAt(place, change);
}

function takePart(place: Place, { progress, records }: ChunkPart): void {
  const found = stateIn(place, SlotOwnership.importing, SlotOwnership.ready);
  if (found === undefined) return;
  const { slot, migration } = found;
  if (progress.kind === 'scan') {
    if (migration.copied || Buffer.compare(migration.cursor, progress.after) !== 0) return;
    slot.migration = { ...migration, cursor: progress.next, copied: progress.end };
  } else {
    // Contiguous, and news: nothing behind a handover is, so a slot that is ready for it stays so.
    const { after, through } = progress;
    if (after > migration.through || through <= migration.through) return;
    slot.migration = { ...migration, through };
    slot.ownership = SlotOwnership.importing;
  }
  for (const record of records) takeRecord(place, record);
}

/** The newer one counts, by change number, whichever comes first (R70, R78). */
function takeRecord({ state, slot }: Place, { kind, key, change, stored }: MovedRecord): void {
  const old = state.get(slot, kind, key);
  const known = old === undefined ? 0 : changeOf(kind, old);
  if (stored === undefined) {
    if (change > state.tombstone(slot, kind, key)) state.bury(slot, kind, key, change);
    if (old === undefined || known > change) return;
    forgetDue({ state, slot }, kind, key, old);
    state.remove(slot, kind, key);
    return;
  }
  if (change <= known || change <= state.tombstone(slot, kind, key)) return;
  if (old !== undefined) forgetDue({ state, slot }, kind, key, old);
  state.put(slot, kind, key, stored);
  const due = dueOf(kind, key, stored);
  if (due !== undefined) state.schedule(slot, due);
}

function forgetDue(
  { state, slot }: Pick<Place, 'state' | 'slot'>,
  kind: MovedRecord['kind'],
  key: Uint8Array,
  stored: Uint8Array,
): void {
  const due = dueOf(kind, key, stored);
  if (due !== undefined) state.unschedule(slot, due);
}

/** Again when the source has frozen once more; the seal of an earlier freeze comes too late. */
function seal(place: Place, { change, logTimeMs }: SlotTerms): undefined {
  const found = stateIn(place, SlotOwnership.importing, SlotOwnership.ready);
  if (found?.migration.copied !== true || found.migration.through !== change) return;
  const { slot, migration } = found;
  if (logTimeMs < migration.logTimeMs) return;
  slot.ownership = SlotOwnership.ready;
  slot.change = change;
  slot.migration = { ...migration, logTimeMs };
}

function activate(place: Place, { epoch, change }: SlotTerms): undefined {
  const found = stateIn(place, SlotOwnership.ready);
  if (found?.slot.change !== change) return;
  const { slot, migration } = found;
  // What the source hid by its log time must stay hidden here.
  place.state.logTimeMs = Math.max(place.state.logTimeMs, migration.logTimeMs);
  if (migration.buried) place.state.forgetTombstones(place.slot);
  slot.ownership = SlotOwnership.owned;
  slot.epoch = epoch;
  slot.ended = place.id;
  slot.migration = undefined;
  lookAtExpiry(place, slot);
}

/** Also before the import has begun: then it never does. */
function endImport(place: Place): undefined {
  const found = stateIn(place, SlotOwnership.importing, SlotOwnership.ready);
  if (found === undefined) {
    endUnbegun(place);
    return;
  }
  const { slot } = found;
  slot.ownership = SlotOwnership.absent;
  slot.ended = place.id;
  place.state.forgetData(place.slot);
  slot.migration = undefined;
  slot.pins = [];
}

// ---- at both ends

/** A slot that is in no migration, nor was in a later one. */
function endUnbegun(place: Place): void {
  const slot = stateBefore(place, SlotOwnership.owned) ?? stateBefore(place, SlotOwnership.absent);
  if (slot !== undefined) slot.ended = place.id;
}

function migrationAt({ id, peer }: Place, change: number): SlotMigration {
  return {
    id,
    peer,
    from: change,
    logTimeMs: 0,
    copied: false,
    through: change,
    buried: false,
    cursor: new Uint8Array(),
  };
}

/** It serves again, or from now on: what has become due meanwhile is looked for. */
function lookAtExpiry({ state, slot }: Place, { expiring }: EditedSlot): void {
  if (expiring) state.due.note(slot, 0);
}

function dueOf(
  kind: MovedRecord['kind'],
  key: Uint8Array,
  stored: Uint8Array,
): ReturnType<typeof keyDue> {
  return kind === KeyKind.value
    ? keyDue(key, decodeValue(stored))
    : sessionDue(key, decodeSessionRecord(stored).lastNotAfterMs);
}
