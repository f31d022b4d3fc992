/** Clients of a simulated run: writes to few keys, again and again under the same session. */
import { slotOf, type Slot } from '../../src/router/slot.js';
import type { Operation, Write, WriteOperation } from '../../src/shard/command.js';
import type { SimRandom } from '../sim/random.js';
import {
  bytes,
  get,
  ifAbsent,
  increment,
  put,
  remove,
  session,
  transaction,
} from './command-texts.js';

const tags = ['{1}', '{2}', '{3}'];
const names = ['a', 'b', 'c', 'd\u0000'];

/** Three slots. */
export const slots: readonly Slot[] = tags.map((tag) => slotOf(bytes(tag)));
export const keysOf = (slot: Slot): readonly string[] =>
  tags.filter((tag) => slotOf(bytes(tag)) === slot).flatMap((tag) => names.map((n) => tag + n));

/** How long a session's writes can be repeated: mostly longer than the clocks of shards differ. */
const patienceMs = [300, 3000, 3000, 3000];

function operationOn(keys: readonly string[], random: SimRandom): WriteOperation {
  const key = random.pick(keys) ?? '';
  const ttlMs = random.chance(0.3) ? random.integer(1, 250) : 0;
  const kind = random.weighted([
    ['put', 4],
    ['conditional', 1],
    ['delete', 3],
    ['increment', 3],
  ] as const);
  const number = String(random.integer(0, 99));
  if (kind === 'delete') return remove(key, { returnPrevious: random.chance(0.3) });
  if (kind === 'increment') return increment(key, random.integer(1, 5), ttlMs);
  if (kind === 'put') return put(key, number, { ttlMs, returnPrevious: random.chance(0.3) });
  return put(key, number, { condition: ifAbsent, ttlMs });
}

function anyOperation(random: SimRandom): Write['operation'] {
  const keys = keysOf(random.pick(slots) ?? slots[0] ?? (0 as Slot));
  if (random.chance(0.75)) return operationOn(keys, random);
  const then: Operation[] = Array.from({ length: random.integer(1, 3) }, () =>
    random.chance(0.3) ? get(random.pick(keys) ?? '') : operationOn(keys, random),
  );
  const compare = { kind: 'exists', key: bytes(random.pick(keys) ?? ''), exists: true } as const;
  return transaction(random.chance(0.4) ? [compare] : [], then, then.slice(1));
}

/** One write at a time; one that was refused, or whose answer was lost, is sent again. */
export class Client {
  private readonly number: number;
  private readonly random: SimRandom;
  private sequence = 0;
  private pending: Write | undefined;

  constructor(number: number, random: SimRandom) {
    this.number = number;
    this.random = random;
  }

  next(nowMs: number): Write {
    this.pending ??= this.newWrite(nowMs);
    return this.pending;
  }

  /** An answer has come; it may be lost on its way back. */
  answered(write: Write, routed: boolean): void {
    if (write !== this.pending) return;
    const givesUp = this.random.chance(0.05);
    if (givesUp || (routed && !this.random.chance(0.2))) this.pending = undefined;
  }

  private newWrite(nowMs: number): Write {
    const operation = anyOperation(this.random);
    if (this.random.chance(0.3)) return { operation, session: undefined };
    const sequence = ++this.sequence;
    const firstUnacknowledged = this.random.chance(0.5) ? sequence : Math.max(0, sequence - 3);
    const notAfterMs = nowMs + (this.random.pick(patienceMs) ?? 0);
    return {
      operation,
      session: session(this.number, sequence, { firstUnacknowledged, notAfterMs }),
    };
  }
}
