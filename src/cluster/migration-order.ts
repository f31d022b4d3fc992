/** What the driver of a migration works with, is told, and tells. */
import type { GroupId } from '../../raft/index.js';
import type { Slot } from '../router/slot.js';
import type { SlotSpan } from '../router/slot-spans.js';
import type { MigrationStep } from '../shard/migration-step.js';
import type { Shard } from '../shard/shard.js';
import type { SlotState } from '../shard/slot-state.js';

export type SourceShard = Pick<
  Shard,
  | 'id'
  | 'isLeader'
  | 'leadership'
  | 'operations'
  | 'slotState'
  | 'slotsInMigration'
  | 'scanPart'
  | 'changesPart'
  | 'step'
>;

/** What the source needs of the target: steps in its log, and the slots' states behind them. */
export type StepAtTarget = (
  target: GroupId,
  steps: readonly MigrationStep[],
  slots: readonly Slot[],
  patienceMs: number,
) => Promise<ReadonlyMap<Slot, SlotState>>;

/** What is wanted of a migration: as the topology says, or what follows from its silence. */
export interface MigrationOrder {
  readonly target: GroupId;
  /** All that are to go. */
  readonly slots: readonly SlotSpan[];
  /**
   * `drop`: end it on both sides, and say so; what was handed over stays so. `settle`: the metadata group
   * knows of its end; only what is left of it here is to be finished or dropped.
   */
  readonly goal: 'go' | 'pause' | 'drop' | 'settle';
  /** Open and not ending, as far as is known: only then it can fail. */
  readonly canFail: boolean;
  readonly bytesPerSecond: number;
  /** Of a slot in the map, which is told of a slot's new owner when that serves. */
  readonly epochOf: (slot: Slot) => number;
  readonly freezeMsMax: number;
  readonly giveUpMs: number;
  /** Changes to slots on their way that are kept while it is paused; it fails beyond. */
  readonly pausedChangesMax: number;
}

/** How far it is; for people. */
export interface MigrationFigures {
  /** What it has not handed over yet. */
  readonly slotsLeft: number;
  readonly keysLeft: number;
  readonly bytesLeft: number;
  /** Bytes and records sent since this node drives it. */
  readonly bytes: number;
  readonly records: number;
  /** Changes that the target does not have yet, of the slots at hand. */
  readonly lag: number;
  /** Of the last handovers, ms, oldest first. */
  readonly freezes: readonly number[];
  /** Why it is not getting on just now; empty: it is. */
  readonly trouble: string;
}
