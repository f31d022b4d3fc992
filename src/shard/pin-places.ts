/**
 * Which slot a key belongs to by what a shard knows: its hash slot, or a pin of that. Where the hash slot
 * is served, its state says so, and nothing else counts. Where it is not, a pin that is served here has its
 * keys for certain; of other keys the answer only says where to ask.
 */
import { covers, segmentAt, type PinRule, type Segment } from '../router/pins.js';
import { slotOf, type Slot } from '../router/slot.js';
import { goneTo, isServing, SlotOwnership, type SlotState } from './slot-state.js';

export interface SlotStates {
  slotState(slot: Slot): SlotState;
  /** Of a hash slot: pins that this shard has heard of, as far as they are or were here. */
  pinsOf(home: Slot): readonly Slot[];
}

const nothing: readonly PinRule[] = [];

export function placeOf(states: SlotStates, key: Uint8Array): Slot {
  const home = slotOf(key);
  const rules = rulesOf(states, home);
  return rules.length === 0 ? home : (rules.find((rule) => covers(rule, key))?.slot ?? home);
}

/** The segment of a hash slot that holds the key `from`, or would. */
export function segmentOf(states: SlotStates, home: Slot, from: Uint8Array): Segment {
  return segmentAt(home, rulesOf(states, home), from);
}

function rulesOf(states: SlotStates, home: Slot): readonly PinRule[] {
  const state = states.slotState(home);
  if (isServing(state)) return state.pins;
  const pins = states.pinsOf(home);
  if (pins.length === 0 && state.pins.length === 0) return nothing;
  const known = pins.map((pin) => states.slotState(pin));
  const served = known.filter(isServing).flatMap((each) => each.pins);
  // On its way here, or away, it names its pins: others that were here once are dead, or will be.
  if (state.ownership !== SlotOwnership.absent) return [...served, ...state.pins];
  const others = known.filter((each) => !isServing(each));
  const here = others.filter(({ ownership }) => ownership !== SlotOwnership.absent);
  // Those that have left are named for their hint alone.
  const gone = others.filter((each) => !here.includes(each) && goneTo(each) !== undefined);
  return [...served, ...[...here, ...gone].flatMap((each) => each.pins)];
}
