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
import type { Clock } from '../observe/clock.js';
import type { Slot } from '../router/slot.js';
import { changesOf } from './change-index.js';
import { SlotOwnership, type SlotState } from './slot-state.js';

/** Looked at between two turns of the event loop: some 100 us each. */
const looksPerTurn = 64;
/** Of pins; behind them are the machine's own keys. */
const lastSlot = 0xfffd;

export interface LitteredPlace {
  readonly engine: Engine;
  readonly prefix: Uint8Array;
  readonly endOfTurn: Clock['endOfTurn'];
}

export async function clearLitter(
  { engine, prefix, endOfTurn }: LitteredPlace,
  slots: ReadonlyMap<Slot, SlotState>,
): Promise<void> {
  const known = [...slots].toSorted(([a], [b]) => a - b);
  if (known.every(([, { ended, migration }]) => ended === 0 && migration === undefined)) return;
  let looks = 0;
  for (const gap of gapsBetween(prefix, known)) {
    if (await holdsAny(engine, gap)) await engine.clear(gap);
    if (++looks % looksPerTurn === 0) await new Promise<void>(endOfTurn);
  }
}

/**
 * Everything of all slots but what is alive: values, session records and expiry index of the slots that
 * are here, and what their states need. A slot of which nothing was ever said has nothing either.
 */
function* gapsBetween(
  prefix: Uint8Array,
  slots: readonly (readonly [Slot, SlotState])[],
): Generator<KeyRange> {
  let { start } = slotRange(prefix, 0);
  for (const [slot, state] of slots) {
    if (state.ownership === SlotOwnership.absent) continue;
    for (const alive of aliveRanges(prefix, slot, state)) {
      if (Buffer.compare(start, alive.start) < 0) yield { start, end: alive.start };
      start = alive.end;
    }
  }
  yield { start, end: slotRange(prefix, lastSlot).end };
}

function aliveRanges(prefix: Uint8Array, slot: Slot, state: SlotState): readonly KeyRange[] {
  const place = { slot, instance: state.instance };
  const data = {
    start: instanceRange(prefix, place).start,
    end: kindRange(prefix, place, KeyKind.expiry).end,
  };
  const control = liveControl(prefix, place, state);
  return control === undefined ? [data] : [data, control];
}

function liveControl(
  prefix: Uint8Array,
  place: { readonly slot: Slot; readonly instance: number },
  { ownership, migration }: SlotState,
): KeyRange | undefined {
  switch (ownership) {
    case SlotOwnership.exporting:
    case SlotOwnership.frozen:
    case SlotOwnership.handedOver:
      return changesOf(prefix, place, migration?.id ?? 0);
    case SlotOwnership.importing:
    case SlotOwnership.ready:
      return kindRange(prefix, place, KeyKind.tombstone);
    default:
      return undefined;
  }
}

async function holdsAny(engine: Engine, { start, end }: KeyRange): Promise<boolean> {
  const view = engine.iterate({ start, end, pageBytesMax: 1, pageLengthMax: 1, keysOnly: true });
  try {
    return (await view.next()).length > 0;
  } finally {
    await view.close();
  }
}
