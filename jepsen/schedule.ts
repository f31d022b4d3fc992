/**
 * Faults over time: every nemesis has a rhythm of its own, from the seed, so they overlap. One that
 * must be alone waits for the others to heal, and they wait for it.
 */
import { setMaxListeners } from 'node:events';
import { lackingOf, type EffectsWanted } from './coverage.js';
import type { FaultSpan } from './history.js';
import type { Fault, Field, Nemesis } from './nemesis/nemesis.js';
import type { Random } from './random.js';

export interface ScheduleOptions {
  readonly field: Field;
  readonly nemeses: readonly Nemesis[];
  readonly random: Random;
  readonly durationMs: number;
  /** The quiet between two faults of a nemesis is so many times as long as it says. */
  readonly gapFactor: number;
  readonly effectsWanted: EffectsWanted;
  readonly nowNs: () => number;
  /** A line for the person who watches. */
  readonly say: (line: string) => void;
}

export class Schedule {
  readonly spans: FaultSpan[] = [];
  private readonly options: ScheduleOptions;
  private readonly gate = new Gate();
  private isLate = false;
  private readonly stopping = new AbortController();

  constructor(options: ScheduleOptions) {
    this.options = options;
    // Every nemesis waits for it.
    setMaxListeners(options.nemeses.length + 1, this.stopping.signal);
  }

  /**
   * Resolves when the time is over and every fault is healed. Takes up to twice the time as long as one
   * of the nemeses has had too few effects yet. Rejects when a fault cannot be healed.
   */
  async run(): Promise<void> {
    const { durationMs } = this.options;
    const over = (): void => {
      if (this.isComplete()) this.stop();
      else this.isLate = true;
    };
    const timer = setTimeout(over, durationMs);
    const lastTimer = setTimeout(() => {
      this.stop();
    }, 2 * durationMs);
    try {
      const { nemeses, random } = this.options;
      const each = nemeses.map((nemesis) => this.play(nemesis, random.split(nemesis.name)));
      const ended = await Promise.allSettled(each);
      const failed = ended.find((result) => result.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    } finally {
      clearTimeout(timer);
      clearTimeout(lastTimer);
    }
  }

  private isComplete(): boolean {
    const { nemeses, effectsWanted } = this.options;
    const names = nemeses.map(({ name }) => name);
    return lackingOf(names, this.spans, effectsWanted).length === 0;
  }

  /** Heals everything and ends. */
  stop(): void {
    this.stopping.abort();
  }

  private async play(nemesis: Nemesis, random: Random): Promise<void> {
    const { signal } = this.stopping;
    const { gapFactor } = this.options;
    const [gapMsMin, gapMsMax] = nemesis.gapMs;
    // The first one soon: a short run has few.
    let gapMs = random.integer(0, gapMsMin);
    try {
      while (!signal.aborted) {
        await pause(gapMs * gapFactor, signal);
        gapMs = random.integer(gapMsMin, gapMsMax);
        const holdMs = random.integer(...nemesis.holdMs);
        const leave = await this.gate.enter(nemesis.isAlone === true);
        try {
          if (!signal.aborted) await this.once(nemesis, random, holdMs);
        } finally {
          leave();
        }
      }
    } catch (error) {
      this.stop();
      throw new Error(`${nemesis.name}: ${String(error)}`, { cause: error });
    }
  }

  private async once(nemesis: Nemesis, random: Random, holdMs: number): Promise<void> {
    const { field, nowNs, say } = this.options;
    const fromNs = nowNs();
    const fault: Fault | undefined = await nemesis.inject(field, random);
    if (fault === undefined) return;
    const name = `${nemesis.name}: ${fault.what} ${fault.target}`;
    say(`+ ${name}`);
    await pause(holdMs, this.stopping.signal);
    await fault.heal();
    const hadEffect = await fault.verifyEffect();
    const toNs = nowNs();
    say(`- ${name}, ${Math.round((toNs - fromNs) / 1e6)} ms${hadEffect ? '' : ', WITHOUT EFFECT'}`);
    const { what, target } = fault;
    this.spans.push({ nemesis: nemesis.name, what, target, fromNs, toNs, hadEffect });
    if (this.isLate && this.isComplete()) this.stop();
  }
}

/** Many at a time, or one alone; whoever wants to be alone is let in before those who come later. */
class Gate {
  private inside = 0;
  private alone: Promise<void> = Promise.resolve();
  private readonly emptied: (() => void)[] = [];

  async enter(alone: boolean): Promise<() => void> {
    if (!alone) {
      await this.alone;
      this.inside++;
      return () => {
        this.inside--;
        if (this.inside === 0) for (const wake of this.emptied.splice(0)) wake();
      };
    }
    const before = this.alone;
    let leave = (): void => undefined;
    this.alone = new Promise((resolve) => (leave = resolve));
    await before;
    while (this.inside > 0) await new Promise<void>((resolve) => this.emptied.push(resolve));
    return leave;
  }
}

/** Ends early when the schedule does. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end);
  });
}
