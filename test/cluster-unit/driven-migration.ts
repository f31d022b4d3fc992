/** The driver of one migration between two shards of one replica each, with a clock of the test's. */
import { groupId } from '../../raft/index.js';
import { MigrationDriver } from '../../src/cluster/migration-driver.js';
import type { MigrationOrder, SourceShard } from '../../src/cluster/migration-order.js';
import { KvError } from '../../src/errors.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import { slotOf, type Slot } from '../../src/router/slot.js';
import type { MigrationStep } from '../../src/shard/migration-step.js';
import { changesPart, scanPart, type ExportSource } from '../../src/shard/slot-export.js';
import type { SlotOwnership } from '../../src/shard/slot-state.js';
import { ManualClock } from '../support/manual-clock.js';
import { bytes, put } from '../shard/command-texts.js';
import { sourceShard, targetShard, TwoShards } from '../shard/two-shards.js';

/** As often as the node looks at its migrations. */
const lookEveryMs = 200;
const stepMs = 10;
/** Of the event loop, for what was begun at one moment. */
const turns = 12;

export class DrivenMigration {
  readonly clock = new ManualClock();
  readonly slot: Slot = slotOf(bytes('{a}'));
  readonly two = new TwoShards([this.slot]);
  readonly told: MetaCommand[] = [];
  order: MigrationOrder | undefined = {
    target: groupId(targetShard),
    slots: [{ first: this.slot, last: this.slot }],
    goal: 'go',
    canFail: true,
    bytesPerSecond: 1_000_000_000,
    epochOf: () => 0,
    freezeMsMax: 2000,
    giveUpMs: 10_000,
    pausedChangesMax: 100,
  };
  isTargetAway: () => boolean = () => false;
  /** Until the target's answer comes. */
  targetMs = 0;
  metadataIsAway = false;
  /** In the source's log, and not applied by its new leader yet. */
  unapplied: MigrationStep[] = [];
  /** Each time that the target has carried something out. */
  afterTarget: () => Promise<void> = () => Promise.resolve();
  ended = false;
  readonly driver: MigrationDriver;

  constructor() {
    const { clock } = this;
    this.driver = new MigrationDriver({
      id: this.two.id,
      shard: this.source(),
      clock,
      log: () => undefined,
      order: () => this.order,
      stepAtTarget: async (_target, steps, slots) => {
        if (this.isTargetAway()) throw away('the target');
        for (const step of steps) await this.two.step(this.two.target, step);
        await this.afterTarget();
        if (this.targetMs > 0)
          await new Promise<void>((resolve) => clock.after(this.targetMs, resolve));
        return new Map(slots.map((each) => [each, this.two.stateAt(this.two.target, each)]));
      },
      tell: (command) => {
        if (this.metadataIsAway) return Promise.reject(away('the metadata group'));
        this.told.push(command);
        if (command.kind === 'failMigration') this.change({ goal: 'drop' });
        if (command.kind === 'endMigration' || command.kind === 'moveSlots') this.order = undefined;
        return Promise.resolve();
      },
    });
  }

  change(changes: Partial<MigrationOrder>): void {
    if (this.order !== undefined) this.order = { ...this.order, ...changes };
  }

  get atSource(): SlotOwnership {
    return this.two.stateAt(this.two.source).ownership;
  }

  get atTarget(): SlotOwnership {
    return this.two.stateAt(this.two.target).ownership;
  }

  async write(count: number, size: number): Promise<void> {
    const value = 'v'.repeat(size);
    for (let n = 0; n < count; n++)
      await this.two.source.one({ operation: put(`{a}${n}`, value), session: undefined });
  }

  begin(): void {
    void this.driver.run().then(() => (this.ended = true));
  }

  /** Lets time pass until it is so, or for as long; how long it took, ms. */
  async until(isSo: () => boolean, msMax = 60_000): Promise<number> {
    const { clock } = this;
    const sinceMs = clock.monotonicMs();
    for (let ms = 0; !isSo(); ms += stepMs) {
      for (let turn = 0; turn < turns; turn++) await new Promise((next) => setImmediate(next));
      if (ms >= msMax) return ms;
      clock.jump(stepMs);
      if (ms % lookEveryMs === 0) this.driver.look();
    }
    return clock.monotonicMs() - sinceMs;
  }

  async pass(ms: number): Promise<void> {
    await this.until(() => false, ms);
  }

  /** Nothing is under way any more. */
  async close(): Promise<void> {
    this.driver.close();
    await this.until(() => this.ended);
  }

  private source(): SourceShard {
    const { source } = this.two;
    const { engine, prefix, machine } = source;
    const at = (slot: Slot): ExportSource => {
      return { engine, prefix, slot, instance: machine.slotState(slot).instance };
    };
    return {
      id: groupId(sourceShard),
      isLeader: true,
      leadership: 1,
      operations: 0,
      slotState: (slot) => machine.slotState(slot),
      slotsInMigration: machine.slotsInMigration,
      scanPart: (slot, cursor, room) => scanPart(at(slot), cursor, room),
      changesPart: (slot, from, room) => changesPart(at(slot), from, room),
      step: async (step) => {
        for (const earlier of this.unapplied.splice(0)) await this.two.step(source, earlier);
        return this.two.step(source, step, Math.floor(this.clock.wallMs()));
      },
    };
  }
}

function away(who: string): KvError {
  return new KvError(`${who} is away`, { code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
}
