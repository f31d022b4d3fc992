/**
 * The migrations that this node drives: those whose source shards it leads. What is wanted of each is in
 * the topology; what is under way is in the slots' states, which count where the topology knows nothing.
 */
import { groupId, type GroupId } from '../../raft/index.js';
import type { MetaCommand } from '../meta/commands.js';
import { isEnded } from '../meta/migrations.js';
import { settingOf } from '../meta/settings.js';
import type { MigrationRecord, Topology } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import { isPin } from '../router/pins.js';
import type { Slot } from '../router/slot.js';
import { isExport } from '../shard/slot-state.js';
import { MigrationDriver } from './migration-driver.js';
import type {
  MigrationFigures,
  MigrationOrder,
  SourceShard,
  StepAtTarget,
} from './migration-order.js';

export interface MigrationDriversOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly topology: () => Topology;
  /** Of this node. */
  readonly shards: () => Iterable<SourceShard>;
  readonly stepAtTarget: StepAtTarget;
  readonly tell: (command: MetaCommand) => Promise<void>;
  readonly onFatal: (error: Error) => void;
}

const lookEveryMs = 200;
/** Each takes its key and some 30 bytes in the engine, for each record that it touched. */
const pausedChangesMax = 10_000_000;

export class MigrationDrivers {
  private readonly options: MigrationDriversOptions;
  private readonly drivers = new Map<number, MigrationDriver>();
  private readonly stop: Cancel;
  private closed = false;

  constructor(options: MigrationDriversOptions) {
    this.options = options;
    this.stop = options.clock.every(lookEveryMs, () => {
      this.look();
    });
  }

  /** The topology has changed. */
  look(): void {
    if (this.closed) return;
    const { topology, shards } = this.options;
    const open = topology().migrations.filter((each) => !isEnded(each) && each.hasRun);
    for (const shard of shards()) {
      if (!shard.isLeader) continue;
      const ids = new Set(open.filter(({ source }) => source === shard.id).map(({ id }) => id));
      for (const slot of shard.slotsInMigration) {
        const id = exportOf(shard, slot);
        if (id !== undefined) ids.add(id);
      }
      for (const id of ids) this.drive(id, shard);
    }
  }

  /** Of the migrations that this node drives from a shard. */
  *figuresOf(shard: GroupId): Generator<readonly [id: number, MigrationFigures]> {
    for (const [id, driver] of this.drivers)
      if (driver.sourceId === shard) yield [id, driver.figures];
  }

  close(): void {
    this.closed = true;
    this.stop();
    for (const driver of this.drivers.values()) driver.close();
  }

  private drive(id: number, shard: SourceShard): void {
    const known = this.drivers.get(id);
    if (known !== undefined) {
      known.look();
      return;
    }
    const { clock, log, stepAtTarget, tell, onFatal } = this.options;
    const order = (): MigrationOrder | undefined => this.orderOf(id, shard);
    const driver = new MigrationDriver({ id, shard, stepAtTarget, clock, log, order, tell });
    this.drivers.set(id, driver);
    driver
      .run()
      .catch((error: unknown) => {
        // What is under way while the node stops finds log and engine closed.
        if (!this.closed) onFatal(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => {
        this.drivers.delete(id);
      });
  }

  private orderOf(id: number, shard: SourceShard): MigrationOrder | undefined {
    // A replica that was removed leads nothing any more, whatever it says.
    if (![...this.options.shards()].includes(shard)) return undefined;
    const topology = this.options.topology();
    const record = topology.migrations.find((each) => each.id === id);
    const here = [...shard.slotsInMigration].filter((slot) => exportOf(shard, slot) === id);
    const { settings } = topology;
    const limits = {
      bytesPerSecond: record?.bytesPerSecond || settingOf(settings, 'migrationBytesPerSecond'),
      epochOf: (slot: Slot) => epochOf(topology, slot),
      freezeMsMax: settingOf(settings, 'freezeMsMax'),
      giveUpMs: settingOf(settings, 'migrationGiveUpMs'),
      pausedChangesMax,
    };
    if (record !== undefined && !isEnded(record)) {
      const { target, slots, state } = record;
      const canFail = state !== 'cancelling' && state !== 'failing';
      return { ...limits, target, slots, goal: goalOf(record), canFail };
    }
    const [first] = here;
    if (first === undefined) return undefined;
    const target: GroupId = groupId(shard.slotState(first).migration?.peer ?? 0);
    const slots = here.map((slot) => ({ first: slot, last: slot }));
    // Not heard of yet: a newer topology says more.
    const goal = record === undefined && id >= topology.next.migration ? 'pause' : 'settle';
    return { ...limits, target, slots, goal, canFail: false };
  }
}

function epochOf({ slots, pins }: Topology, slot: Slot): number {
  if (isPin(slot)) return pins.find((pin) => pin.slot === slot)?.epoch ?? 0;
  return slots.find(({ last }) => slot <= last)?.epoch ?? 0;
}

function goalOf({ state }: MigrationRecord): MigrationOrder['goal'] {
  if (state === 'running') return 'go';
  return state === 'cancelling' || state === 'failing' ? 'drop' : 'pause';
}

/** The migration that takes the slot from here; undefined: none does, or it only comes. */
function exportOf(shard: SourceShard, slot: Slot): number | undefined {
  const { ownership, migration } = shard.slotState(slot);
  return isExport(ownership) ? migration?.id : undefined;
}
