/**
 * Carries operations out and measures them. Closed loop: each client begins its next operation when the
 * last has ended. Open loop: operations are due at a fixed rate, whatever became of those before them,
 * and the latency counts from then: what waits for a slow one is slow itself (no coordinated omission).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { build, type Histogram } from 'hdr-histogram-js';
import { SessionToken, type OperationOptions } from '../../client/index.js';
import { KvError } from '../../errors.js';
import type { Action, Kind } from './workload.js';

/** An hour: no operation takes longer, no backlog is waited for so long. */
const latencyUsMax = 3_600_000_000;

export interface DriveOptions {
  /** At most so many operations at a time. */
  readonly clients: number;
  /** Begins no more than so many; Infinity: no limit. */
  readonly operations: number;
  /** Begins none later; Infinity: no limit. */
  readonly seconds: number;
  /** Operations that are due each second; 0: closed loop. */
  readonly ratePerSecond: number;
  /** Each client is a session of its own, with a token. */
  readonly sessions: boolean;
  /** Nothing more is begun; what was begun is waited for. */
  readonly stop: AbortSignal;
}

/** Of the operations of one kind. Latencies in microseconds, of those that succeeded. */
export class KindFigures {
  readonly latencyUs: Histogram = newHistogram();
  errors = 0;
  /** A record it asked for was not there. */
  missing = 0;
}

export interface FailureCount {
  count: number;
  /** Of the first. */
  readonly message: string;
}

export interface DriveFigures {
  readonly kinds: ReadonlyMap<Kind, KindFigures>;
  /** By error code. */
  readonly failures: ReadonlyMap<string, FailureCount>;
  /** Open loop: from when an operation was due until it was begun, us. */
  readonly lateUs: Histogram;
  /** Open loop: were due, and not begun before the end. */
  readonly notBegun: number;
  readonly seconds: number;
  readonly interrupted: boolean;
}

function newHistogram(): Histogram {
  return build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: latencyUsMax,
    numberOfSignificantValueDigits: 3,
  });
}

export class Drive {
  readonly kinds = new Map<Kind, KindFigures>();
  readonly failures = new Map<string, FailureCount>();
  readonly lateUs = newHistogram();
  /** Ended, well or not. */
  ended = 0;
  private readonly next: () => Action;
  private readonly options: DriveOptions;
  private startedMs = 0;
  private taken = 0;
  private begun = 0;

  constructor(next: () => Action, options: DriveOptions) {
    this.next = next;
    this.options = options;
  }

  /** Rejects with what is no failure of an operation. */
  async run(): Promise<DriveFigures> {
    const { clients, operations, sessions, stop } = this.options;
    this.startedMs = performance.now();
    await Promise.all(
      Array.from({ length: Math.min(clients, operations) }, () =>
        this.work(sessions ? { token: new SessionToken() } : {}),
      ),
    );
    const { kinds, failures, lateUs } = this;
    const endedMs = performance.now();
    return {
      ...{ kinds, failures, lateUs },
      notBegun: this.notBegun(endedMs),
      seconds: (endedMs - this.startedMs) / 1000,
      interrupted: stop.aborted,
    };
  }

  private get endMs(): number {
    return this.startedMs + this.options.seconds * 1000;
  }

  /** One client, until there is nothing more to begin. */
  private async work(session: OperationOptions): Promise<void> {
    for (;;) {
      const dueMs = this.take();
      if (dueMs === undefined || !(await this.isDue(dueMs))) return;
      await this.carryOut(dueMs, session);
    }
  }

  /** When the next operation is due; undefined: there is none. */
  private take(): number | undefined {
    const { operations, ratePerSecond, stop } = this.options;
    const nowMs = performance.now();
    if (stop.aborted || nowMs >= this.endMs || this.taken >= operations) return undefined;
    const dueMs =
      ratePerSecond === 0 ? nowMs : this.startedMs + (this.taken * 1000) / ratePerSecond;
    if (dueMs >= this.endMs) return undefined;
    this.taken += 1;
    return dueMs;
  }

  private async isDue(dueMs: number): Promise<boolean> {
    const { stop } = this.options;
    try {
      for (let ms = dueMs - performance.now(); ms > 0; ms = dueMs - performance.now())
        await sleep(Math.ceil(ms), undefined, { signal: stop });
    } catch (error) {
      if (!stop.aborted) throw error;
      return false;
    }
    return true;
  }

  private async carryOut(dueMs: number, session: OperationOptions): Promise<void> {
    const { kind, run } = this.next();
    const figures = this.figuresOf(kind);
    this.begun += 1;
    if (this.options.ratePerSecond > 0) record(this.lateUs, dueMs);
    try {
      if (!(await run(session))) figures.missing += 1;
      record(figures.latencyUs, dueMs);
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      figures.errors += 1;
      const seen = this.failures.get(error.code);
      if (seen === undefined) this.failures.set(error.code, { count: 1, message: error.message });
      else seen.count += 1;
    }
    this.ended += 1;
  }

  private figuresOf(kind: Kind): KindFigures {
    const known = this.kinds.get(kind) ?? new KindFigures();
    this.kinds.set(kind, known);
    return known;
  }

  private notBegun(nowMs: number): number {
    const { operations, ratePerSecond, stop } = this.options;
    if (ratePerSecond === 0 || stop.aborted) return 0;
    const ms = Math.min(nowMs, this.endMs) - this.startedMs;
    return Math.max(0, Math.min(operations, Math.floor((ms * ratePerSecond) / 1000)) - this.begun);
  }
}

function record(histogram: Histogram, sinceMs: number): void {
  const us = Math.round((performance.now() - sinceMs) * 1000);
  histogram.recordValue(Math.min(latencyUsMax, Math.max(1, us)));
}
