/** Key -> slot -> shard, over the slot map this node knows. Pure: a stale map costs a redirect. */
import { rangeOf, type SlotMap, type SlotRange } from '../meta/slot-map.js';
import type { Slot } from './slot.js';

export class Router {
  private map: SlotMap;

  constructor(map: SlotMap) {
    this.map = map;
  }

  get version(): number {
    return this.map.version;
  }

  /** The range that holds the slot: its shard and epoch. */
  ownerOf(slot: Slot): SlotRange {
    return rangeOf(this.map, slot);
  }

  shardOf(slot: Slot): number {
    return this.ownerOf(slot).shard;
  }

  /** Takes a newer map; an older one is ignored. */
  update(map: SlotMap): void {
    if (map.version > this.map.version) this.map = map;
  }
}
