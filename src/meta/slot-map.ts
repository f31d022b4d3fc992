/** Which shard owns which slot: a pure value with a version, as ranges. */
import { slotCount, type Slot } from '../router/slot.js';

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
