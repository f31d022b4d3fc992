/** Turns random steps into the commands a leader would propose: it stamps times and finds what is due. */
import { encodeExpire, encodeTime, encodeWrites, type Due } from '../../src/shard/command-codec.js';
import type { Write } from '../../src/shard/command.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes } from './command-texts.js';
import type { Step, TimedStep } from './random-commands.js';
import { keys } from './random-commands.js';
import type { Replica } from './replica.js';

export type Played =
  | { readonly kind: 'writes'; readonly logTimeMs: number; readonly writes: readonly Write[] }
  | { readonly kind: 'expire'; readonly logTimeMs: number; readonly due: readonly Due[] }
  | { readonly kind: 'time'; readonly logTimeMs: number };

const firstMs = 1000;
const slots = [...new Set(keys.map((key) => slotOf(bytes(key))))];

export class Player {
  private readonly leader: Replica;
  private readonly sent: Write[] = [];
  private readonly expired: (readonly Due[])[] = [];

  /** `leader`: in whose index due keys are looked up. */
  constructor(leader: Replica) {
    this.leader = leader;
  }

  async play({ step, passedMs }: TimedStep): Promise<Played> {
    const base = Math.max(firstMs, this.leader.machine.logTimeMs);
    const logTimeMs = base + passedMs;
    if (step.kind === 'time') return { kind: 'time', logTimeMs };
    if (step.kind === 'expire' || step.kind === 'lateExpire')
      return { kind: 'expire', logTimeMs, due: await this.due(step, logTimeMs) };
    const writes = step.kind === 'writes' ? this.stamped(step.writes, base) : this.again(step.ago);
    this.sent.push(...writes);
    return { kind: 'writes', logTimeMs, writes };
  }

  private stamped(writes: readonly Write[], base: number): readonly Write[] {
    return writes.map(({ operation, session }) => ({
      operation,
      session:
        session === undefined ? undefined : { ...session, notAfterMs: base + session.notAfterMs },
    }));
  }

  private again(ago: number): readonly Write[] {
    const write = this.sent[this.sent.length - 1 - ago];
    return write === undefined ? [] : [write];
  }

  private async due(
    step: Extract<Step, { kind: 'expire' | 'lateExpire' }>,
    logTimeMs: number,
  ): Promise<readonly Due[]> {
    if (step.kind === 'lateExpire') return this.expired[this.expired.length - 1 - step.ago] ?? [];
    const found = await Promise.all(slots.map((slot) => this.leader.dueOf(slot)));
    const due = found.flat().filter(({ dueMs }) => dueMs <= logTimeMs);
    this.expired.push(due);
    return due;
  }
}

export function encode(played: Played): Uint8Array {
  switch (played.kind) {
    case 'writes':
      return encodeWrites(played.writes, played.logTimeMs);
    case 'expire':
      return encodeExpire(played.due, played.logTimeMs);
    case 'time':
      return encodeTime(played.logTimeMs);
  }
}
