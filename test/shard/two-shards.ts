/** A source and a target of migrations, each one replica, and what their leaders would propose. */
import { encodeMigrationStep } from '../../src/shard/command-codec.js';
import type { CommandResult } from '../../src/shard/command.js';
import {
  bareTerms,
  noTerms,
  type ChunkPart,
  type MigrationStep,
  type SlotStepKind,
  type SlotTerms,
} from '../../src/shard/migration-step.js';
import { ShardMachine } from '../../src/shard/shard-machine.js';
import { changesPart, scanPart } from '../../src/shard/slot-export.js';
import type { SlotState } from '../../src/shard/slot-state.js';
import type { Slot } from '../../src/router/slot.js';
import { Replica } from './replica.js';

export const sourceShard = 1;
export const targetShard = 2;

/** What a target has of a slot, as a handover names it. */
export function reportOf(slot: Slot, { change, keys, sum, migration }: SlotState): SlotTerms {
  return { ...noTerms, slot, change, keys, sum, logTimeMs: migration?.logTimeMs ?? 0 };
}

/** A shard that is born without slots. */
class EmptyShard extends ShardMachine {
  protected override founding = [];
}

export class TwoShards {
  readonly source: Replica;
  readonly target: Replica;
  readonly slots: readonly Slot[];
  id = 1;

  constructor(slots: readonly Slot[]) {
    this.slots = slots;
    this.source = Replica.fresh();
    this.target = Replica.fresh(undefined, 2, (engine, prefix) => new EmptyShard(engine, prefix));
  }

  stateAt(replica: Replica, slot = this.slots[0] ?? (0 as Slot)): SlotState {
    return replica.machine.slotState(slot);
  }

  async step(replica: Replica, step: MigrationStep, logTimeMs = 1000): Promise<CommandResult> {
    const [result] = await replica.apply([encodeMigrationStep(step, logTimeMs)]);
    if (result === undefined) throw new Error('a step without a result');
    return result;
  }

  private peerOf(replica: Replica): number {
    return replica === this.source ? targetShard : sourceShard;
  }

  /** A step that says no more than its slots. */
  say(replica: Replica, kind: SlotStepKind, slots = this.slots): Promise<CommandResult> {
    return this.tell(replica, kind, bareTerms(slots));
  }

  tell(replica: Replica, kind: SlotStepKind, slots: readonly SlotTerms[]): Promise<CommandResult> {
    return this.step(replica, { kind, id: this.id, peer: this.peerOf(replica), slots });
  }

  chunk(parts: readonly ChunkPart[]): Promise<CommandResult> {
    return this.step(this.target, { kind: 'chunk', id: this.id, peer: sourceShard, parts });
  }

  async begin(): Promise<void> {
    await this.say(this.source, 'exportBegin');
    await this.tell(
      this.target,
      'importBegin',
      this.slots.map((slot) => {
        const { epoch, migration } = this.stateAt(this.source, slot);
        return { ...noTerms, slot, epoch, change: migration?.from ?? 0 };
      }),
    );
  }

  /** The next piece for a slot, as the target's state asks for it; undefined: it has everything. */
  async nextPart(slot: Slot, bytesMax = 200): Promise<ChunkPart | undefined> {
    const { engine, prefix, machine } = this.source;
    const { instance } = machine.slotState(slot);
    const at = { engine, prefix, slot, instance };
    const { migration } = this.stateAt(this.target, slot);
    const room = { bytesMax, lengthMax: 1000 };
    if (migration === undefined) return undefined;
    return migration.copied
      ? changesPart(at, { migration: this.id, after: migration.through }, room)
      : scanPart(at, migration.cursor, room);
  }

  /** Until the target has everything of the slot. */
  async copy(slot: Slot, bytesMax = 200): Promise<void> {
    for (let n = 0; n < 10_000; n++) {
      const part = await this.nextPart(slot, bytesMax);
      if (part === undefined) return;
      await this.chunk([part]);
    }
    throw new Error('the copy does not come to an end');
  }

  async copyAll(bytesMax = 200): Promise<void> {
    for (const slot of this.slots) await this.copy(slot, bytesMax);
  }

  freeze(logTimeMs: number): Promise<CommandResult> {
    const slots = bareTerms(this.slots);
    const step = { kind: 'freeze', id: this.id, peer: targetShard, slots } as const;
    return this.step(this.source, step, logTimeMs);
  }

  async seal(): Promise<void> {
    await this.tell(
      this.target,
      'seal',
      this.slots.map((slot) => {
        const { change, migration } = this.stateAt(this.source, slot);
        return { ...noTerms, slot, change, logTimeMs: migration?.logTimeMs ?? 0 };
      }),
    );
  }

  /** As the target reports it. */
  handover(): Promise<CommandResult> {
    return this.tell(
      this.source,
      'handover',
      this.slots.map((slot) => reportOf(slot, this.stateAt(this.target, slot))),
    );
  }

  async activate(): Promise<void> {
    await this.tell(
      this.target,
      'activate',
      this.slots.map((slot) => {
        const { change, epoch } = this.stateAt(this.source, slot);
        return { ...noTerms, slot, change, epoch };
      }),
    );
  }

  /** From beginning to end, with nothing in between. */
  async migrate(): Promise<void> {
    await this.begin();
    await this.copyAll();
    await this.say(this.source, 'freeze');
    await this.copyAll();
    await this.seal();
    await this.handover();
    await this.activate();
    await this.say(this.source, 'collect');
  }
}
