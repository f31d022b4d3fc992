/** Keys that go into a pin and come back, in a shard of one replica. */
import type { PinRule } from '../../src/router/pins.js';
import { slotOf } from '../../src/router/slot.js';
import { encodePinCommand } from '../../src/shard/command-codec.js';
import { carriedPart } from '../../src/shard/pin-records.js';
import type { PinStep } from '../../src/shard/pin-step.js';
import { SlotOwnership, type SlotState } from '../../src/shard/slot-state.js';
import { bytes } from './command-texts.js';
import type { Replica } from './replica.js';

/** The next piece, as a replica has it that knows where the one before has ended. */
export async function carryOf(
  pin: PinRule,
  { machine, engine, prefix }: Replica,
  { ownership, migration, instance }: SlotState,
  lengthMax: number,
): Promise<PinStep> {
  const home = slotOf(pin.key);
  const isBack = ownership === SlotOwnership.draining;
  const slot = isBack ? pin.slot : home;
  const source = { engine, prefix, slot, instance: machine.slotState(slot).instance };
  const room = { bytesMax: 400, lengthMax };
  const part = await carriedPart(source, pin, migration?.cursor ?? bytes(''), room);
  return { kind: 'carry', pin: pin.slot, home, isBack, instance, ...part };
}

export async function sayOfPin(replica: Replica, step: PinStep): Promise<void> {
  await replica.apply([encodePinCommand(step, 1000)]);
}

async function carryAll(replica: Replica, pin: PinRule): Promise<void> {
  const state = (): SlotState => replica.machine.slotState(pin.slot);
  while (state().migration?.copied === false)
    await sayOfPin(replica, await carryOf(pin, replica, state(), 10));
}

/** `id`: of its data. */
export async function pinAt(replica: Replica, pin: PinRule, id: number): Promise<void> {
  const { slot, key, isPrefix } = pin;
  await sayOfPin(replica, { kind: 'pin', pin: slot, id, key, isPrefix });
  await carryAll(replica, pin);
  await sayOfPin(replica, { kind: 'pinned', pin: slot, id });
}

export async function unpinAt(replica: Replica, pin: PinRule): Promise<void> {
  const ends = { pin: pin.slot, home: slotOf(pin.key) };
  await sayOfPin(replica, { kind: 'unpin', ...ends });
  await carryAll(replica, pin);
  await sayOfPin(replica, { kind: 'unpinned', ...ends });
}
