/**
 * The leader's sweep over what has expired. Only the leader proposes; everybody judges again at apply.
 * In an idle shard these entries are what moves log time on (rule D22); where nothing is due, nobody
 * needs it to move. So one timer is set for the earliest time, and none where nothing can become due.
 */
import type { Group } from '../group/group.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Slot } from '../router/slot.js';
import { encodeExpire, type Due } from './command-codec.js';
import type { CommandResult } from './command.js';
import { firstDue } from './expiry-index.js';
import type { ShardMachine } from './shard-machine.js';
import { isServing } from './slot-state.js';

const everyMs = 100;
/** No timer is set for longer: it would fire at once beyond 2^31 ms. */
const waitMsMax = 3_600_000;
const batchMax = 500;

export interface ExpirySweepOptions {
  readonly group: Pick<Group<CommandResult>, 'isLeader' | 'propose'>;
  readonly machine: ShardMachine;
  readonly clock: Clock;
  /** The leader's log time. */
  readonly nowMs: () => number;
  /** Leads a shard that has not been told its slots; called with each sweep until it has. */
  readonly found: () => void;
  readonly onFatal: (error: Error) => void;
}

export class ExpirySweep {
  private readonly options: ExpirySweepOptions;
  private cancel: Cancel = () => undefined;
  /** Monotonic ms of the next sweep. */
  private nextMs = Number.POSITIVE_INFINITY;
  private leading = false;
  private busy = false;
  private closed = false;

  constructor(options: ExpirySweepOptions) {
    this.options = options;
    options.machine.due.onNoted = (dueMs) => {
      if (this.leading) this.runWithin(Math.max(everyMs, dueMs - options.nowMs()));
    };
  }

  /** From when log time has begun. */
  lead(leading: boolean): void {
    this.leading = leading;
    this.runWithin(0);
  }

  close(): void {
    this.closed = true;
    this.cancel();
  }

  private runWithin(delayMs: number): void {
    if (!this.leading || this.closed) return;
    const { clock } = this.options;
    const waitMs = Math.min(delayMs, waitMsMax);
    const atMs = clock.monotonicMs() + waitMs;
    if (atMs >= this.nextMs) return;
    this.cancel();
    this.nextMs = atMs;
    this.cancel = clock.after(waitMs, () => {
      this.run();
    });
  }

  private run(): void {
    this.nextMs = Number.POSITIVE_INFINITY;
    // One under way sets the next timer when it is done.
    if (!this.leading || this.busy) return;
    const { group, machine, found, nowMs, onFatal } = this.options;
    if (group.isLeader && !machine.isFounded) found();
    const logTimeMs = nowMs();
    const slots = [...machine.due.dueBy(logTimeMs)];
    if (!group.isLeader || slots.length === 0) {
      this.setNext();
      return;
    }
    this.busy = true;
    this.expire(slots, logTimeMs).then(
      () => {
        this.busy = false;
        this.setNext();
      },
      (error: unknown) => {
        onFatal(error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  private setNext(): void {
    const { group, machine, nowMs } = this.options;
    const { earliestMs } = machine.due;
    // An office that is about to be noticed as lost, and a shard without its slots, is looked at again.
    if (!group.isLeader || !machine.isFounded) this.runWithin(everyMs);
    else if (earliestMs < Number.POSITIVE_INFINITY)
      this.runWithin(Math.max(everyMs, earliestMs - nowMs()));
  }

  private async expire(slots: readonly Slot[], logTimeMs: number): Promise<void> {
    const { group, machine } = this.options;
    const due: Due[] = [];
    for (const slot of slots) {
      // Each look at the engine takes a turn, in which office or node may have been given up.
      if (this.closed || !group.isLeader) return;
      machine.due.take(slot);
      const state = machine.slotState(slot);
      // Whoever owns it next looks at it anew.
      if (!isServing(state)) continue;
      const place = { slot, instance: state.instance };
      const room = batchMax - due.length;
      const found = await firstDue(machine.engine, machine.prefix, place, room);
      due.push(...found.filter(({ dueMs }) => dueMs <= logTimeMs));
      // What is proposed now comes off the index when it is applied; until then look again.
      if (found[0] !== undefined) machine.due.note(slot, found[0].dueMs);
      if (due.length >= batchMax) break;
    }
    if (due.length === 0) return;
    await new Promise<void>((resolve) => {
      // Whatever becomes of it: what is still due is found again by the next sweep.
      group.propose(encodeExpire(due, logTimeMs), () => {
        resolve();
      });
    });
  }
}
