/** Commands about migrations: what operators ask for, and what sources say (the states: migrations.ts). */
import type { CommandOf, Refusal } from './commands.js';
import { changed, isRefusal, presentShard, refused, unchanged, type Effect } from './effect.js';
import {
  cancelled,
  ended,
  handedOver,
  isEnded,
  openMigrations,
  reasonLengthMax,
  slotsLeft,
  withMigration,
} from './migrations.js';
import { runningReshape } from './operations.js';
import { homeOf, isBetween, nameOfPin, ownerOf, pinUnderWay, rangesWithPins } from './pins.js';
import {
  countSlots,
  joinSpans,
  partsOf,
  problemOfSpans,
  slotsOf,
  textOfSpans,
  type SlotSpan,
} from '../router/slot-spans.js';
import type { MigrationRecord, PinRecord, ShardRecord, Topology } from './topology.js';

/** Migrations that have not ended. */
export const openMax = 1000;
/** Below, a slot of any size would take days; 0 means something else. */
const throttleMin = 1024;
const throttleMax = 10_000_000_000;

export interface Move {
  readonly slots: readonly SlotSpan[];
  readonly source: number;
  readonly target: number;
}

export function applyStartMigrations(
  topology: Topology,
  { moves, nowMs }: CommandOf<'startMigrations'>,
): Effect {
  if (moves.length === 0)
    return refused('badMove', 'no moves are named: name slots, the shard they leave and another');
  const started = startMigrations(topology, moves, nowMs);
  return isRefusal(started) ? started : changed(started.topology, { migrations: started.ids });
}

/** All of them or none. */
export function startMigrations(
  topology: Topology,
  moves: readonly Move[],
  nowMs: number,
): { readonly topology: Topology; readonly ids: readonly number[] } | Refusal {
  const open = openMigrations(topology);
  if (open.length + moves.length > openMax)
    return refused(
      'tooManyMigrations',
      `${open.length} migrations are open and ${moves.length} more are asked for: ${openMax} at ` +
        'most, wait until some have ended',
    );
  const fresh: MigrationRecord[] = [];
  for (const move of moves) {
    const id = topology.next.migration + fresh.length;
    const migration = checkedMove(topology, { move, id, nowMs }, [...open, ...fresh]);
    if (isRefusal(migration)) return migration;
    fresh.push(migration);
  }
  return {
    topology: {
      ...topology,
      migrations: [...topology.migrations, ...fresh],
      next: { ...topology.next, migration: topology.next.migration + fresh.length },
    },
    ids: fresh.map(({ id }) => id),
  };
}

function checkedMove(
  topology: Topology,
  { move, id, nowMs }: { readonly move: Move; readonly id: number; readonly nowMs: number },
  open: readonly MigrationRecord[],
): MigrationRecord | Refusal {
  const problem = problemOfSpans(move.slots);
  if (problem !== undefined) return refused('badSlots', problem);
  const source = presentShard(topology, move.source);
  if (isRefusal(source)) return source;
  const target = presentShard(topology, move.target);
  if (isRefusal(target)) return target;
  if (source.id === target.id)
    return refused(
      'badMove',
      `slots are to go from shard ${source.id} to itself: name another target`,
    );
  const slots = joinSpans(move.slots);
  const taken =
    slotTaken(slots, open) ??
    notOwned(topology, slots, source) ??
    leavingTarget(topology, target) ??
    pinBetween(topology, slots, target);
  if (taken !== undefined) return taken;
  return {
    id,
    source: source.id,
    target: target.id,
    slots,
    state: 'queued',
    hasRun: false,
    bytesPerSecond: 0,
    reason: '',
    moved: 0,
    keys: 0,
    bytes: 0,
    freezeMsMax: 0,
    sinceMs: nowMs,
    endedMs: 0,
  };
}

function slotTaken(
  slots: readonly SlotSpan[],
  open: readonly MigrationRecord[],
): Refusal | undefined {
  for (const { id, source, target, slots: theirs } of open) {
    const [both] = partsOf(theirs, slots);
    if (both === undefined) continue;
    return refused(
      'slotMigrating',
      `slot ${both.first} is in migration ${id} already, from shard ${source} to shard ${target}: ` +
        'wait until it ends, or cancel it',
    );
  }
  return undefined;
}

function notOwned(
  topology: Topology,
  slots: readonly SlotSpan[],
  { id }: ShardRecord,
): Refusal | undefined {
  const parts = partsOf(rangesWithPins(topology), slots);
  const other = parts.find(({ shard }) => shard !== id);
  if (other === undefined) return noSuchPin(slots, parts);
  return refused(
    'notOwner',
    `slot ${other.first} belongs to shard ${other.shard}, not to shard ${id}: name its owner as ` +
      'the source',
  );
}

function noSuchPin(slots: readonly SlotSpan[], found: readonly SlotSpan[]): Refusal | undefined {
  if (countSlots(found) === countSlots(slots)) return undefined;
  const known = new Set([...slotsOf(found)]);
  const missing = [...slotsOf(slots)].find((slot) => !known.has(slot));
  return refused(
    'badSlots',
    `there is no pin ${missing}: slots are 0 to 16383, and quorate slot map lists the pins above them`,
  );
}

/** Keys that are between a pin and its hash slot keep both in one shard. */
function pinBetween(
  topology: Topology,
  slots: readonly SlotSpan[],
  { id }: ShardRecord,
): Refusal | undefined {
  const wait = (pin: PinRecord, slot: number): Refusal =>
    refused(
      'slotMigrating',
      `slot ${slot}: pin ${pin.slot} (${nameOfPin(pin)}) is ${pin.state} just now: wait until it is done` +
        (pin.state === 'unpinning' ? ', or repeat quorate slot unpin if that stands still' : ''),
    );
  const under = pinUnderWay(topology, slots);
  if (under !== undefined) return wait(under, homeOf(under));
  const own = topology.pins.find(
    (pin) =>
      isBetween(pin) && slots.some(({ first, last }) => pin.slot >= first && pin.slot <= last),
  );
  // Only the way home is open to it.
  const isHome = own?.state === 'unpinning' && ownerOf(topology, homeOf(own)) === id;
  return own === undefined || isHome ? undefined : wait(own, own.slot);
}

/** Slots that came to it would only have to leave again. */
export function leavingTarget(topology: Topology, { id }: ShardRecord): Refusal | undefined {
  const merge = runningReshape(topology, id);
  if (merge?.kind !== 'mergeShard') return undefined;
  return refused(
    'operationRunning',
    `shard ${id} is to be removed (operation ${merge.id}): name another target`,
  );
}

export function applySetMigration(topology: Topology, command: CommandOf<'setMigration'>): Effect {
  const { id, action, reason, nowMs } = command;
  const migration = knownMigration(topology, id);
  if (isRefusal(migration)) return migration;
  const { state } = migration;
  if (action === 'cancel' && state === 'cancelled') return unchanged();
  if (isEnded(migration)) return endedAlready(migration);
  if (action === 'cancel')
    return changedIf(topology, migration, cancelled(migration, reason, nowMs));
  if (state === 'cancelling' || state === 'failing')
    return refused(
      'migrationEnded',
      `migration ${id} is ${state}, which it cannot be kept from: wait, then start one anew`,
    );
  const isPaused = state === 'paused';
  if (isPaused === (action === 'pause')) return unchanged();
  const text = reason.slice(0, reasonLengthMax);
  return changed(
    withMigration(
      topology,
      isPaused
        ? { ...migration, state: 'queued', reason: '' }
        : { ...migration, state: 'paused', reason: text },
    ),
  );
}

export function applyThrottleMigration(
  topology: Topology,
  { id, bytesPerSecond }: CommandOf<'throttleMigration'>,
): Effect {
  const migration = knownMigration(topology, id);
  if (isRefusal(migration)) return migration;
  if (isEnded(migration)) return endedAlready(migration);
  const isGood =
    Number.isInteger(bytesPerSecond) &&
    (bytesPerSecond === 0 || (bytesPerSecond >= throttleMin && bytesPerSecond <= throttleMax));
  if (!isGood)
    return refused(
      'badThrottle',
      `bytes per second must be an integer from ${throttleMin} to ${throttleMax}, or 0 for what the ` +
        `setting migrationBytesPerSecond says, got ${bytesPerSecond}: to stop it, pause it`,
    );
  return changedIf(topology, migration, { ...migration, bytesPerSecond });
}

/**
 * A fact, whatever has been asked for meanwhile, as long as the migration is open. Said again, it changes
 * nothing. A report that was recorded in part before moves the rest, but counts no keys: how many of them
 * were counted then is not known.
 *
 * After the end it is too late: by then a slot may have come back to the source, and an old report said
 * again would give it away once more (rule D30). So a source says the end only when all that it handed over
 * is recorded.
 */
export function applyMoveSlots(topology: Topology, command: CommandOf<'moveSlots'>): Effect {
  const { id, nowMs } = command;
  const migration = knownMigration(topology, id);
  if (isRefusal(migration)) return migration;
  const slots = problemOfSpans(command.slots) === undefined ? joinSpans(command.slots) : [];
  if (slots.length === 0 || countSlots(partsOf(migration.slots, slots)) < countSlots(slots))
    return refused(
      'badSlots',
      `slots ${textOfSpans(command.slots)} are not all among those of migration ${id}: ` +
        textOfSpans(migration.slots.slice(0, 8)),
    );
  if (!migration.hasRun)
    return refused('migrationNotBegun', `migration ${id} has not begun: nothing can have moved`);
  const { topology: after, moved } = handedOver(topology, migration, slots);
  if (moved === 0) return unchanged();
  if (isEnded(migration)) return endedAlready(migration);
  const isFresh = moved === countSlots(slots);
  const counted: MigrationRecord = {
    ...migration,
    moved: migration.moved + moved,
    keys: migration.keys + (isFresh ? command.keys : 0),
    bytes: migration.bytes + (isFresh ? command.bytes : 0),
    freezeMsMax: Math.max(migration.freezeMsMax, command.freezeMs),
  };
  const isDone = slotsLeft(after, migration) === 0;
  return changed(withMigration(after, isDone ? ended(counted, 'done', nowMs) : counted));
}

export function applyFailMigration(
  topology: Topology,
  { id, reason }: CommandOf<'failMigration'>,
): Effect {
  const migration = knownMigration(topology, id);
  if (isRefusal(migration)) return migration;
  if (isEnded(migration) || migration.state === 'cancelling' || migration.state === 'failing')
    return unchanged();
  if (!migration.hasRun)
    return refused('migrationNotBegun', `migration ${id} has not begun: cancel it instead`);
  const failing = {
    ...migration,
    state: 'failing',
    reason: reason.slice(0, reasonLengthMax),
  } as const;
  return changed(withMigration(topology, failing));
}

export function applyEndMigration(
  topology: Topology,
  { id, nowMs }: CommandOf<'endMigration'>,
): Effect {
  const migration = knownMigration(topology, id);
  if (isRefusal(migration)) return migration;
  const { state } = migration;
  if (state !== 'cancelling' && state !== 'failing') return unchanged();
  const over = ended(migration, state === 'cancelling' ? 'cancelled' : 'failed', nowMs);
  return changed(withMigration(topology, over));
}

function changedIf(topology: Topology, before: MigrationRecord, after: MigrationRecord): Effect {
  const isSame = before === after || JSON.stringify(before) === JSON.stringify(after);
  return isSame ? unchanged() : changed(withMigration(topology, after));
}

function knownMigration({ migrations }: Topology, id: number): MigrationRecord | Refusal {
  return (
    migrations.find((each) => each.id === id) ??
    refused(
      'unknownMigration',
      `there is no migration ${id}: it never was, or ended long ago (the last hundred are kept)`,
    )
  );
}

function endedAlready({ id, state, source, target, reason }: MigrationRecord): Refusal {
  const why = reason === '' ? '' : ` (${reason})`;
  return refused(
    'migrationEnded',
    state === 'done'
      ? `migration ${id} is done: all its slots belong to shard ${target}; start one in the other ` +
          'direction to take them back'
      : `migration ${id} has ${state === 'failed' ? 'failed' : 'been cancelled'}${why}: start a new ` +
          `one for the slots that shard ${source} still has`,
  );
}
