/** Which shard owns which slot: a pure value with a version, as ranges. */
import { slotCount, type Slot } from '../router/slot.js';
import { joinSpans, type SlotSpan } from '../router/slot-spans.js';

export interface SlotRange {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
  readonly shard: number;
  readonly epoch: number;
}

/** Ranges ascend, touch one another and cover all slots: every slot is owned exactly once. */
export interface SlotMap {
  /** Rises with every change. */
  readonly version: number;
  readonly ranges: readonly SlotRange[];
}

/** The first map of a cluster: everything belongs to one shard. */
export function wholeMap(shard: number): SlotMap {
  return { version: 1, ranges: [{ first: 0, last: slotCount - 1, shard, epoch: 1 }] };
}

/** The range that holds a slot. */
export function rangeOf(map: SlotMap, slot: Slot): SlotRange {
  let low = 0;
  let high = map.ranges.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((map.ranges[middle]?.last ?? slotCount) < slot) low = middle + 1;
    else high = middle;
  }
  const found = map.ranges[low];
  if (found === undefined || slot < found.first || slot > found.last) {
    throw new RangeError(`slot map ${map.version} does not cover slot ${slot}`);
  }
  return found;
}

/** The slots of a shard, as a list. */
export function slotsOfShard(slots: readonly SlotRange[], shard: number): readonly SlotSpan[] {
  return joinSpans(slots.filter((range) => range.shard === shard));
}

/** The map with these parts of it changed; each part lies in one range of the map. */
export function overlaid(
  slots: readonly SlotRange[],
  parts: readonly SlotRange[],
): readonly SlotRange[] {
  const after: SlotRange[] = [];
  const append = (range: SlotRange): void => {
    const before = after.at(-1);
    if (before?.shard === range.shard && before.epoch === range.epoch)
      after[after.length - 1] = { ...before, last: range.last };
    else after.push(range);
  };
  let at = 0;
  for (const range of slots) {
    let { first } = range;
    for (let part = parts[at]; part !== undefined && part.first <= range.last; part = parts[++at]) {
      if (part.first > first) append({ ...range, first, last: part.first - 1 });
      append(part);
      first = part.last + 1;
    }
    if (first <= range.last) append({ ...range, first });
  }
  return after;
}
