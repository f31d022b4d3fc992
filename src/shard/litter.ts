/**
 * What a crash between a batch and its range clears has left (rule D26), or a snapshot taken there has
 * brought along: dead instances of slots that migrated, change indexes and tombstones of migrations
 * that ended. Cleared before anything else is applied, so that replicas stay equal, byte for byte.
 */
import {
  instanceRange,
  KeyKind,
  kindRange,
  slotRange,
  type Engine,
  type KeyRange,
} from '../../storage/index.js';
import type { Slot } from '../router/slot.js';
import { changesOf } from './change-index.js';
import { SlotOwnership, type SlotState } from './slot-state.js';

export async function clearLitter(
  engine: Engine,
  prefix: Uint8Array,
  slots: ReadonlyMap<Slot, SlotState>,
): Promise<void> {
  for (const [slot, state] of slots) {
    if (state.ended === 0 && state.migration === undefined) continue;
    for (const range of deadRanges(prefix, slot, state))
      if (await holdsAny(engine, range)) await engine.clear(range);
  }
}

/** All of the slot but what is alive: values, session records, expiry index, and what the state needs. */
function deadRanges(prefix: Uint8Array, slot: Slot, state: SlotState): readonly KeyRange[] {
  const all = slotRange(prefix, slot);
  if (state.ownership === SlotOwnership.absent) return [all];
  const place = { slot, instance: state.instance };
  const own = instanceRange(prefix, place);
  const behindData = kindRange(prefix, place, KeyKind.expiry).end;
  const control = liveControl(prefix, place, state);
  const gaps =
    control === undefined
      ? [{ start: behindData, end: own.end }]
      : [
          { start: behindData, end: control.start },
          { start: control.end, end: own.end },
        ];
  return [{ start: all.start, end: own.start }, ...gaps, { start: own.end, end: all.end }];
}

function liveControl(
  prefix: Uint8Array,
  place: { readonly slot: Slot; readonly instance: number },
  { ownership, migration }: SlotState,
): KeyRange | undefined {
  switch (ownership) {
    case SlotOwnership.exporting:
    case SlotOwnership.frozen:
      return changesOf(prefix, place, migration?.id ?? 0);
    case SlotOwnership.importing:
    case SlotOwnership.ready:
      return kindRange(prefix, place, KeyKind.tombstone);
    default:
      return undefined;
  }
}

async function holdsAny(engine: Engine, { start, end }: KeyRange): Promise<boolean> {
  if (Buffer.compare(start, end) >= 0) return false;
  const view = engine.iterate({ start, end, pageBytesMax: 1, pageLengthMax: 1, keysOnly: true });
  try {
    return (await view.next()).length > 0;
  } finally {
    await view.close();
  }
}
