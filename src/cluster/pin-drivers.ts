/**
 * Brings keys into pins and back into their hash slots, on the node that leads the shard which has both.
 * What is wanted is in the topology; how far it is, in the shard's state: whoever leads next goes on at any
 * step. Driven from here are only steps of this one shard; a pin's way to another is a migration.
 */
import { KvError } from '../errors.js';
import type { MetaCommand } from '../meta/commands.js';
import { homeOf, isBetween, ownerOf, ruleOf } from '../meta/pins.js';
import type { PinRecord, Topology } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { Slot } from '../router/slot.js';
import type { Shard } from '../shard/shard.js';
import { isServing, SlotOwnership } from '../shard/slot-state.js';

export type PinnedShard = Pick<Shard, 'id' | 'isLeader' | 'slotState' | 'pinStep' | 'carriedPart'>;

export interface PinDriversOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly topology: () => Topology;
  /** Of this node. */
  readonly shards: () => Iterable<PinnedShard>;
  readonly tell: (command: MetaCommand) => Promise<void>;
  readonly onFatal: (error: Error) => void;
}

const lookEveryMs = 200;
/** Of one entry: more would hold the log for too long. */
const room = { bytesMax: 256 * 1024, lengthMax: 512 };

export class PinDrivers {
  private readonly options: PinDriversOptions;
  private readonly driven = new Set<Slot>();
  /** What stood in the way of a pin last, so that it is logged once. */
  private readonly troubles = new Map<Slot, string>();
  private readonly stop: Cancel;
  private closed = false;

  constructor(options: PinDriversOptions) {
    this.options = options;
    this.stop = options.clock.every(lookEveryMs, () => {
      this.look();
    });
  }

  /** The topology has changed. */
  look(): void {
    if (this.closed) return;
    const topology = this.options.topology();
    for (const pin of topology.pins) {
      if (!isBetween(pin) || this.driven.has(pin.slot)) continue;
      // On its way to the shard of its hash slot it is a migration's.
      if (ownerOf(topology, homeOf(pin)) !== pin.shard) continue;
      for (const shard of this.options.shards())
        if (shard.id === pin.shard && shard.isLeader) this.start(pin, shard);
    }
  }

  close(): void {
    this.closed = true;
    this.stop();
  }

  private start(pin: PinRecord, shard: PinnedShard): void {
    const { slot } = pin;
    this.driven.add(slot);
    const work = pin.state === 'pinning' ? this.fill(pin, shard) : this.drain(pin, shard);
    work
      .then(() => {
        this.troubles.delete(slot);
      })
      .catch((error: unknown) => {
        // Begun anew with the next look; what was done stays done.
        if (error instanceof KvError) this.noteTrouble(slot, error.message);
        // What is under way while the node stops finds log and engine closed.
        else if (!this.closed)
          this.options.onFatal(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => {
        this.driven.delete(slot);
      });
  }

  private noteTrouble(slot: Slot, message: string): void {
    if (this.troubles.get(slot) === message) return;
    this.troubles.set(slot, message);
    this.options.log('warn', { pin: slot, message }, 'a pin waits');
  }

  /**
   * The first step is said again each time: what this leader logs is applied behind all that the log held
   * when it was elected, so that the states are known then.
   */
  private async fill(pin: PinRecord, shard: PinnedShard): Promise<void> {
    const { slot, migration: id } = pin;
    const { key, isPrefix } = ruleOf(pin);
    await shard.pinStep({ kind: 'pin', pin: slot, id, key, isPrefix });
    await this.carry(pin, shard, homeOf(pin));
    await shard.pinStep({ kind: 'pinned', pin: slot, id });
    if (shard.slotState(slot).ended < id) return;
    const nowMs = Math.floor(this.options.clock.wallMs());
    await this.options.tell({ kind: 'pinFilled', slot, nowMs });
  }

  private async drain(pin: PinRecord, shard: PinnedShard): Promise<void> {
    const { slot } = pin;
    const home = homeOf(pin);
    await shard.pinStep({ kind: 'unpin', pin: slot, home });
    await this.carry(pin, shard, slot);
    await shard.pinStep({ kind: 'unpinned', pin: slot, home });
    const hash = shard.slotState(home);
    const isBack = isServing(hash) && hash.pins.every((each) => each.slot !== slot);
    // Of a hash slot that has never heard of it nothing has come back.
    if (isBack && hash.lastPin >= slot) await this.options.tell({ kind: 'pinGone', slot });
  }

  /** What is left, piece by piece, out of the slot that the keys are to leave. */
  private async carry(pin: PinRecord, shard: PinnedShard, from: Slot): Promise<void> {
    const { slot } = pin;
    const home = homeOf(pin);
    const isBack = pin.state !== 'pinning';
    const wanted = isBack ? SlotOwnership.draining : SlotOwnership.filling;
    for (;;) {
      const { ownership, migration, instance } = shard.slotState(slot);
      const isOver = ownership !== wanted || migration === undefined || migration.copied;
      if (isOver || !shard.isLeader || this.closed) return;
      // The slot may change meanwhile, or another leader be faster: a piece counts only where the one
      // before has ended, in this very instance, and names keys whose records are taken at apply.
      const part = await shard.carriedPart(from, ruleOf(pin), migration.cursor, room);
      await shard.pinStep({ kind: 'carry', pin: slot, home, isBack, instance, ...part });
    }
  }
}
