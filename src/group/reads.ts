/**
 * Reads that wait for a read index, and then for the state machine to reach it.
 *
 * All reads of a turn share one context. A context is never used again, also not for a retry (rule
 * D08, R30): it begins with 8 bytes drawn at every start of the node.
 */
import type { LogIndex, RawNode } from '../../raft/index.js';
import type { ReadOutcome } from './group.js';

export type ReadDone = (outcome: ReadOutcome) => void;

interface WaitingRead {
  readonly lease: boolean;
  readonly done: ReadDone;
  /** Tick after which it is not asked for again. */
  readonly untilTick: number;
  /** Monotonic ms at which it came: what it sees is at least as new. */
  readonly sinceMs: number;
}

interface Confirmed {
  readonly index: LogIndex;
  readonly reads: readonly WaitingRead[];
  readonly stillValid: () => boolean;
}

const alwaysValid = (): boolean => true;

export interface ReadsOptions {
  readonly node: RawNode;
  /** Drawn at each start, so that no context of an earlier one can come again. */
  readonly contextPrefix: string;
  readonly queueLengthMax: number;
  /** How long a read is asked for again when nobody leads, ticks. */
  readonly patienceTicks: number;
  readonly now: () => { readonly tick: number; readonly monotonicMs: number };
  /** Ages the lease by the time that passed without ticks; before every use of a lease. */
  readonly accountTime: () => void;
  /** A read that came at this monotonic time has seen everything up to it. */
  readonly onFresh: (sinceMs: number) => void;
}

export class Reads {
  private gathered: WaitingRead[] = [];
  private readonly asked = new Map<string, readonly WaitingRead[]>();
  /** Confirmed, waiting for the applied index; in order of arrival. */
  private confirmed: Confirmed[] = [];
  private waitingLength = 0;
  private contexts = 0;
  private readonly options: ReadsOptions;
  rounds = 0;
  /** Reads taken, since the start. */
  taken = 0;

  constructor(options: ReadsOptions) {
    this.options = options;
  }

  get length(): number {
    return this.waitingLength;
  }

  add(lease: boolean, done: ReadDone): void {
    if (this.waitingLength >= this.options.queueLengthMax) {
      queueMicrotask(() => {
        done({ kind: 'notReady', reason: 'overloaded' });
      });
      return;
    }
    const { tick, monotonicMs } = this.options.now();
    this.waitingLength++;
    this.taken++;
    this.gathered.push({
      lease,
      done,
      untilTick: tick + this.options.patienceTicks,
      sinceMs: monotonicMs,
    });
  }

  get hasGathered(): boolean {
    return this.gathered.length > 0;
  }

  /** Asks for everything gathered; called once a turn, before `ready()`. */
  ask(): void {
    if (this.gathered.length === 0) return;
    const reads = this.gathered;
    this.gathered = [];
    const withLease = reads.filter((read) => read.lease);
    if (withLease.length > 0) this.askFor(withLease, true);
    if (withLease.length < reads.length)
      this.askFor(
        reads.filter((read) => !read.lease),
        false,
      );
  }

  private askFor(reads: readonly WaitingRead[], lease: boolean): void {
    const { node, accountTime } = this.options;
    const context = `${this.options.contextPrefix}-${++this.contexts}`;
    if (lease) accountTime();
    const verdict = node.readIndex(context, lease);
    switch (verdict.kind) {
      case 'pending':
        this.rounds++;
        this.asked.set(context, reads);
        break;
      case 'lease': {
        const { index, term } = verdict;
        const stillValid = (): boolean => {
          accountTime();
          return node.leaseValid(term);
        };
        this.confirmed.push({ index, reads, stillValid });
        break;
      }
      case 'notLeader':
      case 'refused':
        // Asked again at the next tick, until patience ends.
        this.retry(reads);
        break;
    }
  }

  /** A read state of the core: confirmed at `index`, or refused. */
  answered(context: string, index: LogIndex | undefined): void {
    const reads = this.asked.get(context);
    if (reads === undefined) return;
    this.asked.delete(context);
    if (index === undefined) this.retry(reads);
    else this.confirmed.push({ index, reads, stillValid: alwaysValid });
  }

  private readonly refused: WaitingRead[] = [];

  private retry(reads: readonly WaitingRead[]): void {
    for (const read of reads) this.refused.push(read);
  }

  /** Gathers the refused ones again, under a new context; gives up on those out of patience. */
  tick(now: number): void {
    for (const read of this.refused.splice(0)) {
      if (now < read.untilTick) this.gathered.push(read);
      else this.finish(read, { kind: 'notReady', reason: 'noQuorum' });
    }
  }

  /** The state machine has applied `index`. */
  applied(applied: LogIndex): void {
    if (this.confirmed.length === 0) return;
    const ready = this.confirmed.filter((each) => each.index <= applied);
    if (ready.length === 0) return;
    this.confirmed = this.confirmed.filter((each) => each.index > applied);
    for (const { index, reads, stillValid } of ready) {
      this.options.onFresh(reads[0]?.sinceMs ?? 0);
      for (const read of reads) this.finish(read, { kind: 'ready', index, stillValid });
    }
  }

  failAll(reason: 'closed' | 'restoring'): void {
    const all = [
      ...this.gathered.splice(0),
      ...this.refused.splice(0),
      ...[...this.asked.values()].flat(),
      ...this.confirmed.flatMap(({ reads }) => reads),
    ];
    this.asked.clear();
    this.confirmed = [];
    for (const read of all) this.finish(read, { kind: 'notReady', reason });
  }

  private finish(read: WaitingRead, outcome: ReadOutcome): void {
    this.waitingLength--;
    read.done(outcome);
  }
}
