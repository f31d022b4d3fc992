/**
 * Pins as the metadata group keeps them: what is asked for, and what the shards have said. Which keys are
 * whose is decided in the shards' logs (src/README.md, "One pin").
 *
 *   pinning -> pinned      its keys have left their hash slot, in whose shard it begins
 *   pinned -> unpinning    it goes to the shard of its hash slot, and back into it
 *
 * While a pin is in between, its hash slot stays where it is.
 */
import { overlap, type PinRule } from '../router/pins.js';
import { partsOf, type SlotSpan } from '../router/slot-spans.js';
import { slotOf, type Slot } from '../router/slot.js';
import type { SlotRange } from './slot-map.js';
import type { PinRecord, Topology } from './topology.js';

/** Each costs every router a look, and every write to its hash slot some bytes. */
export const pinsMax = 1000;
export const pinsPerSlotMax = 16;
/** As keys by default. */
export const pinKeyBytesMax = 4096;

export function keyOfPin({ key }: Pick<PinRecord, 'key'>): Uint8Array {
  return Buffer.from(key, 'base64');
}

export function ruleOf(pin: Pick<PinRecord, 'slot' | 'key' | 'isPrefix'>): PinRule {
  return { slot: pin.slot, key: keyOfPin(pin), isPrefix: pin.isPrefix };
}

export function homeOf(pin: Pick<PinRecord, 'key'>): Slot {
  return slotOf(keyOfPin(pin));
}

/** Pins are slots like others to whoever asks for owners: ranges of one slot behind those of the map. */
export function rangesWithPins({ slots, pins }: Topology): readonly SlotRange[] {
  if (pins.length === 0) return slots;
  return [
    ...slots,
    ...pins.map(({ slot, shard, epoch }) => ({ first: slot, last: slot, shard, epoch })),
  ];
}

/** The shard of a slot, pins among them; undefined: there is no such pin. */
export function ownerOf(topology: Topology, slot: Slot): number | undefined {
  return partsOf(rangesWithPins(topology), [{ first: slot, last: slot }])[0]?.shard;
}

export function isBetween({ state }: PinRecord): boolean {
  return state !== 'pinned';
}

/** A pin whose keys are on their way to it, or back, out of or into one of these slots. */
export function pinUnderWay({ pins }: Topology, slots: readonly SlotSpan[]): PinRecord | undefined {
  return pins.find((pin) => {
    const home = homeOf(pin);
    return isBetween(pin) && slots.some(({ first, last }) => home >= first && home <= last);
  });
}

export function samePin(
  { pins }: Topology,
  { key, isPrefix }: Pick<PinRecord, 'key' | 'isPrefix'>,
): PinRecord | undefined {
  return pins.find((pin) => pin.key === key && pin.isPrefix === isPrefix);
}

export function overlappingPin(
  { pins }: Topology,
  pin: Pick<PinRecord, 'slot' | 'key' | 'isPrefix'>,
): PinRecord | undefined {
  const rule = ruleOf(pin);
  return pins.find((each) => overlap(ruleOf(each), rule));
}

export function withPin(topology: Topology, pin: PinRecord): Topology {
  const pins = topology.pins.map((each) => (each.slot === pin.slot ? pin : each));
  return { ...topology, pins };
}

/** For people: "key 'user:1'", "prefix '{a}'". */
export function nameOfPin({ key, isPrefix }: Pick<PinRecord, 'key' | 'isPrefix'>): string {
  const text = Buffer.from(key, 'base64').subarray(0, 64).toString('utf8');
  return `${isPrefix ? 'prefix' : 'key'} '${text}'`;
}
