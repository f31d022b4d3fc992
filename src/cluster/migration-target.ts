/** The target of a migration as its driver sees it: what it last said of the slots, and when. */
import type { GroupId } from '../../raft/index.js';
import { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { Slot } from '../router/slot.js';
import type { MigrationStep } from '../shard/migration-step.js';
import { SlotOwnership, type SlotMigration, type SlotState } from '../shard/slot-state.js';
import type { StepAtTarget } from './migration-order.js';

/** A target that was heard of within this time is there. */
const heardWithinMs = 1000;

export interface MigrationTargetOptions {
  /** Of the migration. */
  readonly id: number;
  readonly clock: Clock;
  readonly stepAtTarget: StepAtTarget;
}

export class MigrationTarget {
  private readonly options: MigrationTargetOptions;
  private readonly reports = new Map<Slot, SlotState>();
  private heardMs = Number.NEGATIVE_INFINITY;

  constructor(options: MigrationTargetOptions) {
    this.options = options;
  }

  /** Steps in its log, and the slots' states behind them. Rejects with KvError. */
  async step(
    target: GroupId,
    steps: readonly MigrationStep[],
    slots: readonly Slot[],
    withinMs: number,
  ): Promise<void> {
    const { clock, stepAtTarget } = this.options;
    const reports = await this.within(withinMs, stepAtTarget(target, steps, slots, withinMs));
    for (const [slot, report] of reports) this.reports.set(slot, report);
    this.heardMs = clock.monotonicMs();
  }

  /** Undefined: it has not said anything of the slot yet. */
  state(slot: Slot): SlotState | undefined {
    return this.reports.get(slot);
  }

  /** Its part in this very migration. */
  part(slot: Slot): SlotMigration | undefined {
    const migration = this.reports.get(slot)?.migration;
    return migration?.id === this.options.id ? migration : undefined;
  }

  knowsAll(slots: readonly Slot[]): boolean {
    return slots.every((slot) => this.reports.has(slot));
  }

  /**
   * Why it will never take one of the slots under this migration. Throws KvError when it will, but not yet.
   */
  problemWith(slots: readonly Slot[]): string | undefined {
    for (const slot of slots) {
      const report = this.reports.get(slot);
      if (report === undefined || this.part(slot) !== undefined) continue;
      if (report.ownership === SlotOwnership.handedOver) {
        // It lets go of it in a moment: to be asked again.
        this.reports.delete(slot);
        throw notYet(`the target still holds what it gave away of slot ${slot}`);
      }
      return (
        `the target does not take slot ${slot}: it has it already, or has ended this migration; look at ` +
        `quorate slot show ${slot}, then start another one`
      );
    }
    return undefined;
  }

  get isThere(): boolean {
    return this.options.clock.monotonicMs() - this.heardMs < heardWithinMs;
  }

  /** Nothing is taken for granted before it was heard of again. */
  doubt(): void {
    this.heardMs = Number.NEGATIVE_INFINITY;
  }

  forget(): void {
    this.reports.clear();
  }

  /** What comes later is not waited for, wherever it hangs: slots may stand still meanwhile. */
  private within<T>(ms: number, work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = this.options.clock.after(ms, () => {
        reject(notYet('the target does not answer in time'));
      });
      void work.then(resolve, reject).finally(cancel);
    });
  }
}

/** Tried again a little later. */
export function notYet(message: string): KvError {
  return new KvError(message, { code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
}
