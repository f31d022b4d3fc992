/**
 * What a shard knows of a slot besides its data: whose it is, and how far a migration of it has come.
 * Kept for ever, also of a slot that has left (rule D30).
 *
 *   slot      = version u8, ownership u8, epoch u64, instance u64, change number u64, flags u8 (1
 *               expiring), keys u64, bytes u64, sum u64, ended u64, flag u8, [migration]; from version 4
 *               on also: last pin u16, pins
 *   pins      = count u16, then each: slot u16, flag u8 (1 prefix), epoch u64, change u64, key (length
 *               u32, bytes)
 *   migration = id u64, peer u32, from u64, log time u64, copied u8, through u64, buried u8, cursor
 *               (length u32, bytes)
 */
import { ByteReader, ByteWriter } from '../bytes.js';
import type { PinRule } from '../router/pins.js';
import type { Slot } from '../router/slot.js';

const version = 4;
/** Of states without pins: a program that knows no pins goes on until there are some. */
const pinlessVersion = 3;

/**
 * The states of a slot at one shard. Source: owned -> exporting -> frozen -> handedOver -> absent;
 * target: absent -> importing -> ready -> owned, at the next epoch. A pin, whose keys come from its hash
 * slot in the same shard and go back there: absent -> filling -> owned -> draining -> absent.
 */
export const SlotOwnership = {
  absent: 0,
  owned: 1,
  exporting: 2,
  frozen: 3,
  handedOver: 4,
  importing: 5,
  ready: 6,
  filling: 7,
  draining: 8,
} as const;
export type SlotOwnership = (typeof SlotOwnership)[keyof typeof SlotOwnership];

/** One slot's part in a migration, at the source or at the target. */
export interface SlotMigration {
  /** Of the migration; a later one is greater. */
  readonly id: number;
  /** The shard at the other end. */
  readonly peer: number;
  /** The slot's change number when the export began: later changes are in the change index. */
  readonly from: number;
  /** The source's log time when it froze; 0 before. */
  readonly logTimeMs: number;
  /** Target: the scan has come to its end. */
  readonly copied: boolean;
  /** Target: it has every change up to this one, once the scan is at its end. */
  readonly through: number;
  /** Target: it has tombstones. */
  readonly buried: boolean;
  /** Target: where the scan goes on; empty: at the beginning. */
  readonly cursor: Uint8Array;
}

/** A pin in the state of its hash slot, and in its own. */
export interface SlotPin extends PinRule {
  /**
   * Of the hash slot when the pin began. Whoever has seen the pin has seen this of the hash slot: a
   * replica that does not know the pin yet lacks it (rule D24).
   */
  readonly epoch: number;
  readonly change: number;
}

export interface SlotState {
  readonly ownership: SlotOwnership;
  readonly epoch: number;
  /** The migration that brought the slot, 0 at first: part of the keys of its data. */
  readonly instance: number;
  /** Number of the last change to the slot's data; never goes back (rule D20). */
  readonly change: number;
  /** Something in the slot has expired or will: worth looking at after a restart. */
  readonly expiring: boolean;
  /** Values stored, expired ones not yet removed included. */
  readonly keys: number;
  /** Of values and session records, with their keys, as stored. */
  readonly bytes: number;
  /** Over values and session records: equal for equal contents (content-sum.ts). */
  readonly sum: number;
  /** The latest migration that ended here, however it ended; 0: none. No command of it counts any more. */
  readonly ended: number;
  /** The migration under way; of a slot that has left, the one that took it. */
  readonly migration: SlotMigration | undefined;
  /** Of a hash slot: keys that are not its own. Of a pin: the pin itself, also when it has left. */
  readonly pins: readonly SlotPin[];
  /** Of a hash slot: the latest pin that began here, or 0; no earlier one begins any more (rule D30). */
  readonly lastPin: number;
}

/** A slot that this shard never had. */
export const absentSlotState: SlotState = {
  ownership: SlotOwnership.absent,
  epoch: 0,
  instance: 0,
  change: 0,
  expiring: false,
  keys: 0,
  bytes: 0,
  sum: 0,
  ended: 0,
  migration: undefined,
  pins: [],
  lastPin: 0,
};

/** A slot that this shard was born with, and that was never written. */
export const firstSlotState: SlotState = {
  ...absentSlotState,
  ownership: SlotOwnership.owned,
  epoch: 1,
};

/** It reads and writes the slot: until it is frozen, the source serves. */
export function isServing({ ownership }: SlotState): boolean {
  return ownership === SlotOwnership.owned || ownership === SlotOwnership.exporting;
}

/** It is the source of a migration, before or after the handover. */
export function isExport(ownership: SlotOwnership): boolean {
  return (
    ownership === SlotOwnership.exporting ||
    ownership === SlotOwnership.frozen ||
    ownership === SlotOwnership.handedOver
  );
}

/** It is about to serve, here or at the other end: requests wait. */
export function isMoving({ ownership }: SlotState): boolean {
  return (
    ownership === SlotOwnership.frozen ||
    ownership === SlotOwnership.ready ||
    isBetween({ ownership })
  );
}

/** Keys are between a pin and its hash slot: neither serves them. */
export function isBetween({ ownership }: Pick<SlotState, 'ownership'>): boolean {
  return ownership === SlotOwnership.filling || ownership === SlotOwnership.draining;
}

/** Where a slot has gone that was here; undefined: nowhere, or it never was. */
export function goneTo({ ownership, migration }: SlotState): number | undefined {
  const left = ownership === SlotOwnership.handedOver || ownership === SlotOwnership.absent;
  return left ? migration?.peer : undefined;
}

const ownerships = new Set<number>(Object.values(SlotOwnership));

export function encodeSlotState(state: SlotState): Uint8Array {
  const writer = new ByteWriter();
  const isPinless = state.lastPin === 0 && state.pins.length === 0;
  writer.u8(isPinless ? pinlessVersion : version);
  writer.u8(state.ownership);
  writer.u64(state.epoch);
  writer.u64(state.instance);
  writer.u64(state.change);
  writer.bool(state.expiring);
  writer.u64(state.keys);
  writer.u64(state.bytes);
  writer.u64(state.sum);
  writer.u64(state.ended);
  const { migration } = state;
  writer.bool(migration !== undefined);
  if (migration !== undefined) encodeMigration(writer, migration);
  if (isPinless) return writer.take();
  writer.u16(state.lastPin);
  encodePins(writer, state.pins);
  return writer.take();
}

function encodeMigration(writer: ByteWriter, migration: SlotMigration): void {
  writer.u64(migration.id);
  writer.u32(migration.peer);
  writer.u64(migration.from);
  writer.u64(migration.logTimeMs);
  writer.bool(migration.copied);
  writer.u64(migration.through);
  writer.bool(migration.buried);
  writer.sized(migration.cursor);
}

export function encodePins(writer: ByteWriter, pins: readonly SlotPin[]): void {
  writer.u16(pins.length);
  for (const { slot, isPrefix, epoch, change, key } of pins) {
    writer.u16(slot);
    writer.bool(isPrefix);
    writer.u64(epoch);
    writer.u64(change);
    writer.sized(key);
  }
}

export function decodePins(reader: ByteReader): readonly SlotPin[] {
  return Array.from({ length: reader.u16() }, () => ({
    slot: reader.u16() as Slot,
    isPrefix: reader.bool(),
    epoch: reader.u64(),
    change: reader.u64(),
    // What it is read from may be a page of the engine, or a request: longer than the state lives.
    key: Buffer.from(reader.sized()),
  }));
}

/** Throws RangeError for anything else: damage, or data of another version. */
export function decodeSlotState(stored: Uint8Array): SlotState {
  const reader = new ByteReader(stored);
  const found = reader.u8();
  if (found !== version && found !== pinlessVersion)
    throw new RangeError(`slot state of version ${found}, this program knows ${version}`);
  const ownership = reader.u8();
  if (!ownerships.has(ownership)) throw new RangeError(`slot ownership ${ownership}`);
  const state = {
    // One of the numbers of SlotOwnership, as just checked.
    ownership: ownership as SlotOwnership,
    epoch: reader.u64(),
    instance: reader.u64(),
    change: reader.u64(),
    expiring: reader.bool(),
    keys: reader.u64(),
    bytes: reader.u64(),
    sum: reader.u64(),
    ended: reader.u64(),
    migration: reader.bool() ? decodeMigration(reader) : undefined,
    lastPin: found === version ? reader.u16() : 0,
    pins: found === version ? decodePins(reader) : [],
  };
  reader.end('slot state');
  return state;
}

function decodeMigration(reader: ByteReader): SlotMigration {
  return {
    id: reader.u64(),
    peer: reader.u32(),
    from: reader.u64(),
    logTimeMs: reader.u64(),
    copied: reader.bool(),
    through: reader.u64(),
    buried: reader.bool(),
    cursor: reader.sized(),
  };
}
