/**
 * What a shard promises, written down as plainly as possible: Maps, copies and no bytes. The state
 * machine is compared with it, command by command.
 */
import type {
  Compare,
  Condition,
  Operation,
  Session,
  Transaction,
  Write,
  WriteOperation,
} from '../../src/shard/command.js';
import { slotOf } from '../../src/router/slot.js';
import type { Due } from '../../src/shard/command-codec.js';
import { text } from './command-texts.js';

interface Stored {
  value: string;
  revision: number;
  expiresAtMs: number;
}

interface Finished {
  readonly operation: string;
  readonly result: Plain;
}

interface Client {
  floor: number;
  lastNotAfterMs: number;
  finished: Map<number, Finished>;
}

/** A result with text in place of bytes. */
export type Plain = Readonly<Record<string, unknown>>;

/** Bytes as text, all the way down. */
export function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return text(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}

const refused = (refusal: string): Plain => ({ kind: 'refused', refusal });

export class Model {
  logTimeMs = 0;
  stored = new Map<string, Stored>();
  readonly clients = new Map<string, Client>();
  /** Last change number of each slot. */
  readonly changes = new Map<number, number>();

  visible(key: string): Stored | undefined {
    const found = this.stored.get(key);
    const gone =
      found !== undefined && found.expiresAtMs > 0 && found.expiresAtMs <= this.logTimeMs;
    return gone ? undefined : found;
  }

  time(logTimeMs: number): void {
    this.logTimeMs = Math.max(this.logTimeMs, logTimeMs);
  }

  write({ operation, session }: Write): Plain {
    const keys = keysOf(operation);
    const [slot, ...others] = new Set(keys.map((key) => slotOf(Buffer.from(key, 'latin1'))));
    if (slot === undefined || others.length > 0) return refused('tooManySlots');
    if (session === undefined) return new ModelWrite(this, slot).run(operation);
    const name = `${slot}/${text(session.clientId)}`;
    const client = this.clients.get(name);
    const earlier = this.judge(client, session, operation);
    if (earlier !== undefined) return earlier;
    const step = new ModelWrite(this, slot);
    const result = step.run(operation);
    // The record itself is a change, also when the data did not change.
    step.revision();
    this.remember(name, client, session, { operation: printOf(operation), result });
    return result;
  }

  private judge(
    client: Client | undefined,
    session: Session,
    operation: Write['operation'],
  ): Plain | undefined {
    const finished = client?.finished.get(session.sequence);
    if (finished !== undefined)
      return finished.operation === printOf(operation)
        ? finished.result
        : refused('sessionMismatch');
    if (session.notAfterMs < this.logTimeMs) return refused('sessionExpired');
    if (session.sequence < (client?.floor ?? 0)) return refused('sessionForgotten');
    return undefined;
  }

  private remember(
    name: string,
    client: Client | undefined,
    session: Session,
    finished: Finished,
  ): void {
    const floor = Math.max(client?.floor ?? 0, session.firstUnacknowledged);
    const kept = [...(client?.finished ?? [])].filter(([sequence]) => sequence >= floor);
    this.clients.set(name, {
      floor,
      lastNotAfterMs: Math.max(client?.lastNotAfterMs ?? 0, session.notAfterMs),
      finished: new Map([...kept, [session.sequence, finished]]),
    });
  }

  /** True when something was removed. */
  expire({ slot, dueMs, kind, revision, key }: Due): boolean {
    if (dueMs > this.logTimeMs) return false;
    if (kind === 'key') {
      const found = this.stored.get(text(key));
      if (found?.revision !== revision || found.expiresAtMs !== dueMs) return false;
      this.stored.delete(text(key));
      this.nextChange(slot);
      return true;
    }
    const name = `${slot}/${text(key)}`;
    const client = this.clients.get(name);
    if (client === undefined || client.lastNotAfterMs >= this.logTimeMs) return false;
    this.nextChange(slot);
    return this.clients.delete(name);
  }

  nextChange(slot: number): number {
    const change = (this.changes.get(slot) ?? 0) + 1;
    this.changes.set(slot, change);
    return change;
  }
}

/** One write: its operations share one revision, taken at the first change. */
class ModelWrite {
  private taken = 0;
  private readonly model: Model;
  private readonly slot: number;

  constructor(model: Model, slot: number) {
    this.model = model;
    this.slot = slot;
  }

  revision(): number {
    if (this.taken === 0) this.taken = this.model.nextChange(this.slot);
    return this.taken;
  }

  run(operation: Write['operation']): Plain {
    return operation.kind === 'transaction' ? this.transaction(operation) : this.operate(operation);
  }

  /** Carried out step by step; one refusal undoes them all. */
  private transaction({ compare, then, else: otherwise }: Transaction): Plain {
    const succeeded = compare.every((each) => this.holds(each));
    const operations = succeeded ? then : otherwise;
    const before = new Map(this.model.stored);
    const changesBefore = this.model.changes.get(this.slot);
    const results: Plain[] = [];
    for (const operation of operations) {
      const result = isAmbiguous(operation, operations)
        ? refused('notInteger')
        : this.operate(operation);
      if (result['kind'] === 'refused') {
        this.model.stored = before;
        if (changesBefore === undefined) this.model.changes.delete(this.slot);
        else this.model.changes.set(this.slot, changesBefore);
        this.taken = 0;
        return result;
      }
      results.push(result);
    }
    return { kind: 'transaction', succeeded, results, revision: this.taken };
  }

  private holds(compare: Compare): boolean {
    const found = this.model.visible(text(compare.key));
    if (compare.kind === 'exists') return (found !== undefined) === compare.exists;
    if (compare.kind === 'revision') return (found?.revision ?? 0) === compare.revision;
    return found?.value === text(compare.value);
  }

  private operate(operation: Operation): Plain {
    const key = text(operation.key);
    const found = this.model.visible(key);
    const kv = found === undefined ? undefined : kvOf(key, found);
    switch (operation.kind) {
      case 'get':
        return { kind: 'get', kv };
      case 'increment':
        return this.increment(operation, found);
      case 'put': {
        const { kind, condition, value, ttlMs, returnPrevious } = operation;
        if (!conditionHolds(condition, found))
          return { kind, applied: false, revision: found?.revision ?? 0, previous: kv };
        const revision = this.revision();
        this.store(key, text(value), this.expiryOf(ttlMs));
        return { kind, applied: true, revision, previous: returnPrevious ? kv : undefined };
      }
      case 'delete': {
        const { kind, condition, returnPrevious } = operation;
        const existed = found !== undefined;
        if (!conditionHolds(condition, found))
          return { kind, applied: false, existed, revision: found?.revision ?? 0, previous: kv };
        if (existed) {
          this.revision();
          this.model.stored.delete(key);
        }
        const revision = this.model.changes.get(this.slot) ?? 0;
        const previous = returnPrevious ? kv : undefined;
        return { kind, applied: true, existed, revision, previous };
      }
    }
  }

  private increment(
    { key, delta, ttlMs }: Extract<WriteOperation, { kind: 'increment' }>,
    found: Stored | undefined,
  ): Plain {
    const old = found?.value ?? '0';
    if (!/^(0|-?[1-9][0-9]*|-0)$/.test(old) || !Number.isSafeInteger(Number(old)))
      return refused('notInteger');
    const sum = BigInt(Number(old)) + BigInt(delta);
    if (sum > BigInt(Number.MAX_SAFE_INTEGER) || sum < BigInt(Number.MIN_SAFE_INTEGER))
      return refused('outOfRange');
    const revision = this.revision();
    this.store(text(key), String(sum), found?.expiresAtMs ?? this.expiryOf(ttlMs));
    return { kind: 'increment', value: Number(sum), revision };
  }

  private store(key: string, value: string, expiresAtMs: number): void {
    this.model.stored.set(key, { value, revision: this.revision(), expiresAtMs });
  }

  private expiryOf(ttlMs: number): number {
    return ttlMs === 0 ? 0 : this.model.logTimeMs + ttlMs;
  }
}

const kvOf = (key: string, { value, revision, expiresAtMs }: Stored): Plain => ({
  key,
  value,
  revision,
  expiresAtMs,
});

const printOf = (operation: Write['operation']): string => JSON.stringify(plain(operation));

function keysOf(operation: Write['operation']): readonly string[] {
  if (operation.kind !== 'transaction') return [text(operation.key)];
  return [...operation.compare, ...operation.then, ...operation.else].map(({ key }) => text(key));
}

function conditionHolds(condition: Condition, found: Stored | undefined): boolean {
  if (condition.kind === 'absent') return found === undefined;
  if (condition.kind === 'revision') return (found?.revision ?? 0) === condition.revision;
  return true;
}

/** A conditional write beside an increment of the same key: refused as a whole. */
function isAmbiguous(operation: Operation, all: readonly Operation[]): boolean {
  if (operation.kind !== 'put' && operation.kind !== 'delete') return false;
  if (operation.condition.kind === 'none') return false;
  return all.some(({ kind, key }) => kind === 'increment' && text(key) === text(operation.key));
}
