/**
 * Migrations as the metadata group keeps them: which there are to be, and what their sources have said
 * of them. Here is how records change; which command does what is in migration-commands.ts.
 *
 *   queued -> running -> done            all slots belong to the target
 *   running <-> paused                   resumed, it queues again
 *   running, paused -> cancelling -> cancelled
 *   running, paused -> failing -> failed
 *
 * In `cancelling` and `failing` source and target drop what they have begun. One that never ran has
 * nothing to drop: cancelled, it has ended. Slots that were handed over stay with the target, however
 * the migration ends.
 */
import { overlaid, type SlotRange } from './slot-map.js';
import { settingOf } from './settings.js';
import { rangesWithPins } from './pins.js';
import { slotCount } from '../router/slot.js';
import { countSlots, partsOf, type SlotSpan } from '../router/slot-spans.js';
import type { MigrationRecord, MigrationState, PinRecord, Topology } from './topology.js';

/** Ended migrations that are kept to be looked at, besides those that a running operation waits for. */
const endedMax = 100;
/** Active migrations with one target: one is copied while another one ends. */
const perTargetMax = 2;
export const reasonLengthMax = 512;

export function isEnded({ state }: Pick<MigrationRecord, 'state'>): boolean {
  return state === 'done' || state === 'cancelled' || state === 'failed';
}

/** Its source works on it, or on dropping it. */
function isActive({ state }: MigrationRecord): boolean {
  return state === 'running' || state === 'cancelling' || state === 'failing';
}

export function openMigrations({ migrations }: Topology): readonly MigrationRecord[] {
  return migrations.filter((each) => !isEnded(each));
}

/** The slots of a migration that its source still has. */
export function slotsLeft(topology: Topology, { slots, source }: MigrationRecord): number {
  const parts = partsOf(rangesWithPins(topology), slots);
  return countSlots(parts.filter(({ shard }) => shard === source));
}

export function withMigration(topology: Topology, migration: MigrationRecord): Topology {
  const migrations = topology.migrations.map((each) =>
    each.id === migration.id ? migration : each,
  );
  return { ...topology, migrations: withoutOldest(topology, migrations) };
}

export function ended(
  migration: MigrationRecord,
  state: Extract<MigrationState, 'done' | 'cancelled' | 'failed'>,
  nowMs: number,
): MigrationRecord {
  return { ...migration, state, endedMs: nowMs };
}

/** Of an open one; one that is ending already goes on to its end. */
export function cancelled(
  migration: MigrationRecord,
  reason: string,
  nowMs: number,
): MigrationRecord {
  if (migration.state === 'cancelling' || migration.state === 'failing') return migration;
  const withReason = { ...migration, reason: reason.slice(0, reasonLengthMax) };
  return migration.hasRun
    ? { ...withReason, state: 'cancelling' }
    : ended(withReason, 'cancelled', nowMs);
}

/** The map as it is once the source has handed these slots over; slots that it has not stay as they are. */
export function handedOver(
  topology: Topology,
  { source, target }: MigrationRecord,
  slots: readonly SlotSpan[],
): { readonly topology: Topology; readonly moved: number } {
  const parts = partsOf(rangesWithPins(topology), slots).filter(({ shard }) => shard === source);
  if (parts.length === 0) return { topology, moved: 0 };
  const given = parts.map((part) => ({ ...part, shard: target, epoch: part.epoch + 1 }));
  const hashed = given.filter(({ first }) => first < slotCount);
  return {
    topology: {
      ...topology,
      slots: hashed.length === 0 ? topology.slots : overlaid(topology.slots, hashed),
      pins: hashed.length === given.length ? topology.pins : movedPins(topology.pins, given),
    },
    moved: countSlots(parts),
  };
}

function movedPins(pins: readonly PinRecord[], given: readonly SlotRange[]): readonly PinRecord[] {
  return pins.map((pin) => {
    const owner = given.find(({ first }) => first === pin.slot);
    return owner === undefined ? pin : { ...pin, shard: owner.shard, epoch: owner.epoch };
  });
}

/**
 * Queued migrations that may run now do, in the order of their ids: at most `migrationsMax` at a time,
 * one of each source, two of each target. Those that are being dropped count too, since they still cost.
 */
export function promoted(topology: Topology): Topology {
  const queued = topology.migrations.filter(({ state }) => state === 'queued');
  if (queued.length === 0) return topology;
  const max = settingOf(topology.settings, 'migrationsMax');
  const active = topology.migrations.filter(isActive);
  const sources = new Set(active.map(({ source }) => source));
  const targets = new Map<number, number>();
  for (const { target } of active) targets.set(target, (targets.get(target) ?? 0) + 1);
  const chosen = new Set<MigrationRecord>();
  for (const each of queued) {
    if (active.length + chosen.size >= max) break;
    const inbound = targets.get(each.target) ?? 0;
    if (sources.has(each.source) || inbound >= perTargetMax) continue;
    sources.add(each.source);
    targets.set(each.target, inbound + 1);
    chosen.add(each);
  }
  if (chosen.size === 0) return topology;
  const migrations = topology.migrations.map((each): MigrationRecord =>
    chosen.has(each) ? { ...each, state: 'running', hasRun: true } : each,
  );
  return { ...topology, migrations };
}

/** Those that ended first go first; an operation under way finds all of its own. */
function withoutOldest(
  { operations }: Topology,
  migrations: readonly MigrationRecord[],
): readonly MigrationRecord[] {
  const over = migrations.filter(isEnded);
  if (over.length <= endedMax) return migrations;
  const awaited = new Set(
    operations.flatMap((each) => (each.state === 'running' ? (each.migrations ?? []) : [])),
  );
  const oldest = over
    .toSorted((a, b) => a.endedMs - b.endedMs || a.id - b.id)
    .slice(0, over.length - endedMax)
    .filter(({ id }) => !awaited.has(id));
  const gone = new Set(oldest);
  return migrations.filter((each) => !gone.has(each));
}
