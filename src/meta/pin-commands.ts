/** Commands about pins: what operators ask for, and what shards say (the states: pins.ts). */
import { slotCount, pinSlotMax, type Slot } from '../router/slot.js';
import type { CommandOf, Refusal } from './commands.js';
import { changed, isRefusal, presentShard, refused, unchanged, type Effect } from './effect.js';
import { leavingTarget, startMigrations } from './migration-commands.js';
import { openMigrations } from './migrations.js';
import {
  homeOf,
  keyOfPin,
  nameOfPin,
  overlappingPin,
  ownerOf,
  pinKeyBytesMax,
  pinsMax,
  pinsPerSlotMax,
  pinUnderWay,
  samePin,
  withPin,
} from './pins.js';
import type { PinRecord, Topology } from './topology.js';

type Named = Pick<PinRecord, 'key' | 'isPrefix'>;

export function applyPinKeys(topology: Topology, command: CommandOf<'pinKeys'>): Effect {
  const { key, isPrefix, nowMs } = command;
  const problem = problemOfName(command);
  if (problem !== undefined) return refused('badPin', problem);
  const target = presentShard(topology, command.shard);
  if (isRefusal(target)) return target;
  const known = samePin(topology, command);
  if (known !== undefined)
    return known.target === target.id && known.state !== 'unpinning'
      ? unchanged({ pin: known.slot })
      : pinnedAlready(known);
  const slot = topology.next.pin as Slot;
  const pin = { slot, key, isPrefix };
  const refusal =
    leavingTarget(topology, target) ??
    noRoom(topology, pin) ??
    overlaps(topology, pin) ??
    slotBusy(topology, homeOf(pin));
  if (refusal !== undefined) return refusal;
  const shard = ownerOf(topology, homeOf(pin));
  if (shard === undefined) throw new Error(`slot ${homeOf(pin)} belongs to no shard`);
  const { next } = topology;
  const record: PinRecord = {
    ...pin,
    state: 'pinning',
    shard,
    epoch: 0,
    target: target.id,
    migration: next.migration,
    sinceMs: nowMs,
  };
  return changed(
    {
      ...topology,
      pins: [...topology.pins, record],
      // Its birth is one of the things that bring a slot to a shard: an instance of its data (rule D25).
      next: { ...next, pin: slot + 1, migration: next.migration + 1 },
    },
    { pin: slot },
  );
}

/** What is wrong with a key or prefix; undefined: nothing. */
function problemOfName({ key, isPrefix }: Named): string | undefined {
  const bytes = keyOfPin({ key });
  if (Buffer.from(bytes).toString('base64') !== key) return 'the key is not written in base64';
  const what = isPrefix ? 'prefix' : 'key';
  if (bytes.byteLength === 0) return `the ${what} is empty: name at least 1 byte`;
  if (bytes.byteLength > pinKeyBytesMax)
    return `the ${what} has ${bytes.byteLength} bytes, the limit is ${pinKeyBytesMax}: keys are shorter`;
  const text = Buffer.from(bytes).toString('latin1');
  if (isPrefix && !/^[^{]*\{[^}]+\}/s.test(text))
    return (
      `${nameOfPin({ key, isPrefix })} has no whole {tag}: its keys would be in many slots; put the ` +
      'common part of the keys into a tag, as in {user:42}'
    );
  return undefined;
}

function pinnedAlready(pin: PinRecord): Refusal {
  const { slot, shard, state } = pin;
  return refused(
    'pinExists',
    state === 'unpinning'
      ? `${nameOfPin(pin)} is being unpinned (slot ${slot}): wait until it is gone, then pin it anew`
      : `${nameOfPin(pin)} is pinned already, as slot ${slot} of shard ${shard}: move it with quorate ` +
          `migration start --slots ${slot} --to N`,
  );
}

function noRoom(topology: Topology, pin: { readonly slot: Slot } & Named): Refusal | undefined {
  const { pins } = topology;
  if (pins.length >= pinsMax)
    return refused(
      'tooManyPins',
      `there are ${pins.length} pins, the limit is ${pinsMax}: unpin one`,
    );
  const home = homeOf(pin);
  const here = pins.filter((each) => homeOf(each) === home).length;
  if (here >= pinsPerSlotMax)
    return refused(
      'tooManyPins',
      `slot ${home} has ${here} pins, the limit is ${pinsPerSlotMax}: pin them by one prefix, or unpin one`,
    );
  if (pin.slot > pinSlotMax)
    return refused(
      'tooManyPins',
      `all ${pinSlotMax - slotCount + 1} ids of pins have been used, and none is used again: ` +
        'make a new cluster, and load it from a dump',
    );
  return undefined;
}

function overlaps(topology: Topology, pin: { readonly slot: Slot } & Named): Refusal | undefined {
  const other = overlappingPin(topology, pin);
  if (other === undefined) return undefined;
  return refused(
    'pinExists',
    `${nameOfPin(pin)} and ${nameOfPin(other)}, which is pinned as slot ${other.slot}, have keys in ` +
      'common: unpin that first',
  );
}

/** What moves is left alone: pins and migrations of one slot come one after the other. */
function slotBusy(topology: Topology, slot: Slot): Refusal | undefined {
  const migration = openMigrations(topology).find(({ slots }) =>
    slots.some(({ first, last }) => slot >= first && slot <= last),
  );
  if (migration !== undefined)
    return refused(
      'slotMigrating',
      `slot ${slot} is in migration ${migration.id}: wait until it ends, or cancel it`,
    );
  const other = pinUnderWay(topology, [{ first: slot, last: slot }]);
  if (other === undefined) return undefined;
  return refused(
    'slotMigrating',
    `slot ${slot}: pin ${other.slot} (${nameOfPin(other)}) is ${other.state} just now: wait until it is done`,
  );
}

export function applyUnpinKeys(topology: Topology, command: CommandOf<'unpinKeys'>): Effect {
  const pin = samePin(topology, command);
  if (pin === undefined)
    return refused(
      'unknownPin',
      `${nameOfPin(command)} is not pinned: quorate slot map lists the pins`,
    );
  const { slot, state } = pin;
  if (state === 'pinning')
    return refused(
      'slotMigrating',
      `${nameOfPin(pin)} is only being pinned (slot ${slot}): wait until it is, then unpin it`,
    );
  const home = homeOf(pin);
  const isMoving = openMigrations(topology).some(({ slots }) =>
    slots.some(({ first, last }) => slot >= first && slot <= last),
  );
  if (state === 'unpinning' && (isMoving || pin.shard === ownerOf(topology, home)))
    return unchanged({ pin: slot });
  const refusal = state === 'unpinning' ? undefined : slotBusy(topology, home);
  if (refusal !== undefined) return refusal;
  const begun = withPin(topology, { ...pin, state: 'unpinning', sinceMs: command.nowMs });
  return withMigrationTo(begun, pin, ownerOf(topology, home) ?? pin.shard, command.nowMs);
}

/** The pin goes to the shard, if it is not there. */
function withMigrationTo(
  topology: Topology,
  { slot, shard }: PinRecord,
  target: number,
  nowMs: number,
): Effect {
  if (shard === target) return changed(topology, { pin: slot });
  const slots = [{ first: slot, last: slot }];
  const started = startMigrations(topology, [{ slots, source: shard, target }], nowMs);
  if (isRefusal(started)) return started;
  return changed(started.topology, { pin: slot, migrations: started.ids });
}

/** Said by the shard of its hash slot: it serves the pin. Then that goes where it was asked for. */
export function applyPinFilled(topology: Topology, command: CommandOf<'pinFilled'>): Effect {
  const pin = topology.pins.find(({ slot }) => slot === command.slot);
  if (pin?.state !== 'pinning') return unchanged();
  const filled: PinRecord = { ...pin, state: 'pinned', epoch: 1, sinceMs: command.nowMs };
  const there = withPin(topology, filled);
  const effect = withMigrationTo(there, filled, filled.target, command.nowMs);
  // Its target may be gone by now, or there is too much under way: it stays, and can be moved later.
  return isRefusal(effect) ? changed(there) : effect;
}

/** Said by the shard of its hash slot: its keys are there again. */
export function applyPinGone(topology: Topology, { slot }: CommandOf<'pinGone'>): Effect {
  const pin = topology.pins.find((each) => each.slot === slot);
  if (pin?.state !== 'unpinning') return unchanged();
  return changed({ ...topology, pins: topology.pins.filter((each) => each !== pin) });
}
