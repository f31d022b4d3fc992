/** Steps of a migration from the source's leader to the target's: both ends of that call. */
import type { StepMigrationReply, StepMigrationRequest } from '../../proto/messages.js';
import { ByteReader, ByteWriter } from '../bytes.js';
import type { StepAtTarget } from '../cluster/migration-order.js';
import { pinSlotMax, type Slot } from '../router/slot.js';
import {
  decodeStep,
  encodeStep,
  sourceSteps,
  type MigrationStep,
  type MovedRecord,
} from '../shard/migration-step.js';
import type { Shard } from '../shard/shard.js';
import { decodeSlotState, encodeSlotState, type SlotState } from '../shard/slot-state.js';
import { changeOf } from '../shard/value-codec.js';
import { invalid } from './convert.js';
import { diskFull } from './dispatch.js';
import type { GroupDoor } from './group-door.js';

/** From here to whichever node leads the target. */
export function stepsThrough(door: GroupDoor): StepAtTarget {
  return async (shardId, steps, slots, patienceMs) => {
    const request = { shardId, steps: steps.map(bytesOf), slots: [...slots] };
    const { states } = await door.stepMigration(request, false, patienceMs);
    const reports = new Map<Slot, SlotState>();
    for (const [n, slot] of slots.entries()) {
      const state = states[n];
      if (state !== undefined) reports.set(slot, stateOf(state));
    }
    return reports;
  };
}

/** At the leader of the target. Rejects with KvError; KV_INVALID for what no source sends. */
export async function stepHere(
  shard: Pick<Shard, 'step' | 'slotState'>,
  { steps, slots }: StepMigrationRequest,
  isDiskFull: boolean,
): Promise<StepMigrationReply> {
  const decoded = steps.map(stepOf);
  const wrong = slots.find((slot) => slot > pinSlotMax);
  if (wrong !== undefined) throw invalid(`slot ${wrong}: slots are 0 to ${pinSlotMax}`);
  if (isDiskFull && decoded.some(({ kind }) => kind === 'chunk')) throw diskFull();
  // One after the other in the log, and all on their way at once. The states may be later ones than those
  // right behind the steps: the source takes each for what it says, not for what it asked.
  await Promise.all(decoded.map((step) => shard.step(step)));
  return { states: slots.map((slot) => encodeSlotState(shard.slotState(slot as Slot))) };
}

function bytesOf(step: MigrationStep): Uint8Array {
  const writer = new ByteWriter();
  encodeStep(writer, step);
  return writer.take();
}

/** A target of a newer version must not stop the source. */
function stateOf(bytes: Uint8Array): SlotState {
  try {
    return decodeSlotState(bytes);
  } catch (error) {
    throw invalid(
      'the target said what this node does not understand, as a newer version does: bring all nodes to ' +
        `one version, then it goes on (${String(error)})`,
    );
  }
}

function stepOf(bytes: Uint8Array): MigrationStep {
  let step: MigrationStep;
  try {
    const reader = new ByteReader(bytes);
    step = decodeStep(reader);
    reader.end('migration step');
    // In the log a record that cannot be read would stop every replica of the shard, for ever (D16).
    if (step.kind === 'chunk') for (const part of step.parts) checkRecords(part.records);
  } catch (error) {
    throw invalid(
      'a migration step that this node does not know, as a newer source sends: bring all nodes to one ' +
        `version, then it goes on (${String(error)})`,
    );
  }
  if (sourceSteps.has(step.kind))
    throw invalid(`the step ${step.kind} is the source's own: nobody else may ask for it`);
  const slots = step.kind === 'chunk' ? step.parts : step.slots;
  const wrong = slots.find(({ slot }) => slot > pinSlotMax);
  if (wrong !== undefined) throw invalid(`slot ${wrong.slot}: slots are 0 to ${pinSlotMax}`);
  return step;
}

function checkRecords(records: readonly MovedRecord[]): void {
  for (const { kind, change, stored } of records) {
    if (stored === undefined || changeOf(kind, stored) === change) continue;
    throw new RangeError(`a record is of change ${changeOf(kind, stored)}, not ${change}`);
  }
}
