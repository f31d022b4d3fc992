/**
 * One batch of commands being applied: a pure function of the commands, the state before, and
 * nothing else (R41). Rejections are results; a throw is a bug and stops the node.
 */
import { KeyKind } from '../../storage/index.js';
import { isPin } from '../router/pins.js';
import { slotOf, type Slot } from '../router/slot.js';
import { applyPinStep } from './apply-pin.js';
import { applyStep } from './apply-step.js';
import type { Command, DecodedWrite, Due } from './command-codec.js';
import type {
  CommandResult,
  Compare,
  Condition,
  KeyValue,
  Operation,
  OperationResult,
  Refusal,
  Transaction,
  Write,
  WriteOperation,
  WriteResult,
} from './command.js';
import { keyDue, sessionDue } from './expiry-index.js';
import { fingerprint, judgeSession, rememberResult } from './sessions.js';
import { isMoving, isServing, type SlotState } from './slot-state.js';
import {
  decodeSessionRecord,
  decodeValue,
  encodeSessionRecord,
  encodeValue,
  type StoredValue,
} from './value-codec.js';
import type { WorkingState } from './working-state.js';

const integerPattern = /^-?(0|[1-9]\d{0,15})$/;

export class ApplyRun {
  private readonly state: WorkingState;

  constructor(state: WorkingState) {
    this.state = state;
  }

  apply(command: Command): CommandResult {
    // Log time never goes back, whatever a new leader's clock says (rule D22).
    this.state.logTimeMs = Math.max(this.state.logTimeMs, command.logTimeMs);
    const { logTimeMs } = this.state;
    switch (command.kind) {
      case 'writes':
        return { logTimeMs, results: command.writes.map((write) => this.write(write)) };
      case 'expire':
        for (const due of command.due) this.expire(due);
        return { logTimeMs, results: [] };
      case 'time':
      case 'hash':
        return { logTimeMs, results: [] };
      case 'found':
        // The first one decides, also when a leader that knew no better proposes it again (D30).
        this.state.founding ??= command.slots;
        return { logTimeMs, results: [] };
      case 'step':
        return { logTimeMs, results: [], differing: applyStep(this.state, command.step) };
      case 'pin':
        applyPinStep(this.state, command.step);
        return { logTimeMs, results: [] };
    }
  }

  // ---- one write

  private write(write: DecodedWrite): WriteResult {
    // Ownership is decided here, at apply, never by a cached map (R75). A routing refusal leaves no
    // session record: the client goes to the owner with the same session.
    const { slot, refused: misplaced } = placeOfWrite(write, this.state);
    const { session } = write;
    const isAcrossPin = misplaced?.refusal === 'tooManySlots' && slotOfWrite(write) === slot;
    if (misplaced !== undefined && !isAcrossPin) return misplaced;
    if (session === undefined) return misplaced ?? new SlotWrite(this, slot).run(write.operation);
    const stored = this.state.get(slot, KeyKind.session, session.clientId);
    const record = stored === undefined ? undefined : decodeSessionRecord(stored);
    const print = fingerprint(write.operationBytes);
    const verdict = judgeSession(record, session, print, this.state.logTimeMs);
    if (verdict.kind === 'refused') return refused(verdict.refusal);
    if (verdict.kind === 'repeated') return verdict.result;
    // Not before its session was asked: it may have been applied before some of its keys were pinned.
    if (misplaced !== undefined) return misplaced;
    const slotWrite = new SlotWrite(this, slot);
    const result = slotWrite.run(write.operation);
    const change = slotWrite.ensureChange();
    const remembered = rememberResult(record, session, print, { result, change });
    const { clientId } = session;
    this.state.put(slot, KeyKind.session, clientId, encodeSessionRecord(remembered));
    if (record === undefined) this.scheduleSession(slot, clientId, remembered.lastNotAfterMs);
    return result;
  }

  // ---- expiry

  /** Judged again: a newer put, or a record with younger entries, stays (rule D22). */
  private expire(due: Due): void {
    const slot = due.slot as Slot;
    if (!isServing(this.state.slot(slot)) || due.dueMs > this.state.logTimeMs) return;
    this.state.unschedule(slot, due);
    if (due.kind === 'key') this.expireKey(slot, due);
    else this.expireSession(slot, due.key);
  }

  private expireKey(slot: Slot, due: Due): void {
    const value = this.readStored(slot, due.key);
    if (value?.revision !== due.revision || value.expiresAtMs !== due.dueMs) return;
    this.state.nextChange(slot);
    this.state.remove(slot, KeyKind.value, due.key);
  }

  private expireSession(slot: Slot, clientId: Uint8Array): void {
    const stored = this.state.get(slot, KeyKind.session, clientId);
    if (stored === undefined) return;
    const { lastNotAfterMs } = decodeSessionRecord(stored);
    if (lastNotAfterMs >= this.state.logTimeMs) {
      this.scheduleSession(slot, clientId, lastNotAfterMs);
      return;
    }
    this.state.nextChange(slot);
    this.state.remove(slot, KeyKind.session, clientId);
  }

  private scheduleSession(slot: Slot, clientId: Uint8Array, lastNotAfterMs: number): void {
    this.state.schedule(slot, sessionDue(clientId, lastNotAfterMs));
  }

  // ---- keys and values

  nextChange(slot: Slot): number {
    return this.state.nextChange(slot);
  }

  currentChange(slot: Slot): number {
    return this.state.slot(slot).change;
  }

  /** What stands behind a key; expired values are as good as gone. */
  read(slot: Slot, key: Uint8Array): StoredValue | undefined {
    const value = this.readStored(slot, key);
    return value === undefined || isExpired(value, this.state.logTimeMs) ? undefined : value;
  }

  private readStored(slot: Slot, key: Uint8Array): StoredValue | undefined {
    const stored = this.state.get(slot, KeyKind.value, key);
    return stored === undefined ? undefined : decodeValue(stored);
  }

  writeValue(
    slot: Slot,
    key: Uint8Array,
    value: Omit<StoredValue, 'expiresAtMs'> & { readonly ttlMs: number },
  ): void {
    const { revision, ordinal, bytes, ttlMs } = value;
    // Bounded: what is written must be readable again, or the entry stops every replica.
    const expiresAtMs =
      ttlMs === 0 ? 0 : Math.min(this.state.logTimeMs + ttlMs, Number.MAX_SAFE_INTEGER);
    this.storeValue(slot, key, { revision, ordinal, bytes, expiresAtMs });
  }

  /** The old value's place in the expiry index goes with it, also when it has expired meanwhile. */
  storeValue(slot: Slot, key: Uint8Array, value: StoredValue): void {
    this.forgetExpiry(slot, key);
    this.state.put(slot, KeyKind.value, key, encodeValue(value));
    const due = keyDue(key, value);
    if (due !== undefined) this.state.schedule(slot, due);
  }

  removeValue(slot: Slot, key: Uint8Array): void {
    this.forgetExpiry(slot, key);
    this.state.remove(slot, KeyKind.value, key);
  }

  private forgetExpiry(slot: Slot, key: Uint8Array): void {
    const old = this.readStored(slot, key);
    const due = old === undefined ? undefined : keyDue(key, old);
    if (due !== undefined) this.state.unschedule(slot, due);
  }
}

/** Why a slot is neither read nor written here just now; undefined: it is. */
export function routingRefusal(state: SlotState): 'wrongShard' | 'moving' | undefined {
  if (isServing(state)) return undefined;
  return isMoving(state) ? 'moving' : 'wrongShard';
}

/** What decides where a write belongs: a shard's state, as readers see it or in the midst of a batch. */
interface SlotFinder {
  slotOf(key: Uint8Array): Slot;
  slotState(slot: Slot): SlotState;
}

type Refused = Extract<WriteResult, { readonly kind: 'refused' }>;

interface WritePlace {
  readonly slot: Slot;
  readonly refused: Refused | undefined;
}

/** The one slot of a write that is served here, or why there is none. */
export function placeOfWrite({ operation }: Write, finder: SlotFinder): WritePlace {
  const keys = keysOfWrite(operation);
  const slots = keys.map((key) => finder.slotOf(key));
  const [slot = 0 as Slot] = slots;
  if (slots.length === 0 || slots.some((each) => each !== slot))
    return placeOfSeveral(keys, slots, finder);
  const refusal = routingRefusal(finder.slotState(slot));
  if (refusal === undefined) return { slot, refused: undefined };
  return { slot, refused: isPin(slot) ? { ...refused(refusal), pin: slot } : refused(refusal) };
}

/**
 * Of one hash slot, which is named then, or of more. Which of its keys are pinned is certain only where it
 * is served: elsewhere nobody is told that they never go together.
 */
function placeOfSeveral(
  keys: readonly Uint8Array[],
  slots: readonly Slot[],
  finder: SlotFinder,
): WritePlace {
  const [home, ...others] = keys.map(slotOf);
  const isOne = home !== undefined && others.every((each) => each === home);
  const routing = isOne ? routingRefusal(finder.slotState(home)) : undefined;
  const refusal = refused(routing ?? 'tooManySlots');
  const pin = routing === undefined ? slots.find(isPin) : undefined;
  const slot = home ?? (0 as Slot);
  return { slot, refused: pin === undefined ? refusal : { ...refusal, pin } };
}

/** The operations of one write, which share one change number. */
class SlotWrite {
  private revision = 0;
  private ordinal = 0;
  private readonly run_: ApplyRun;
  private readonly slot: Slot;

  constructor(run: ApplyRun, slot: Slot) {
    this.run_ = run;
    this.slot = slot;
  }

  run(operation: WriteOperation | Transaction): WriteResult {
    return operation.kind === 'transaction' ? this.transaction(operation) : this.operate(operation);
  }

  /** Taken at the first change: a write that changes nothing takes no number. */
  ensureChange(): number {
    if (this.revision === 0) this.revision = this.run_.nextChange(this.slot);
    return this.revision;
  }

  private transaction({ compare, then, else: otherwise }: Transaction): WriteResult {
    const succeeded = compare.every((each) => this.holds(each));
    const operations = succeeded ? then : otherwise;
    // All or nothing: what could be refused is refused before anything is written.
    const refusal = this.refusalOf(operations);
    if (refusal !== undefined) return refused(refusal);
    const results: OperationResult[] = [];
    for (const operation of operations) {
      const result = operation.kind === 'get' ? this.get(operation.key) : this.operate(operation);
      if (result.kind === 'refused')
        throw new Error(`transaction: ${result.refusal} was not foreseen`);
      results.push(result);
    }
    return { kind: 'transaction', succeeded, results, revision: this.revision };
  }

  /** Increments are the only operations that can be refused; several on one key add up. */
  private refusalOf(operations: readonly Operation[]): Refusal | undefined {
    const planned = new Map<string, Uint8Array | undefined>();
    const nameOf = (key: Uint8Array): string => Buffer.from(key).toString('latin1');
    const counters = new Set(
      operations.filter(({ kind }) => kind === 'increment').map(({ key }) => nameOf(key)),
    );
    const bytesOf = (key: Uint8Array): Uint8Array | undefined =>
      planned.has(nameOf(key)) ? planned.get(nameOf(key)) : this.run_.read(this.slot, key)?.bytes;
    for (const operation of operations) {
      if (operation.kind === 'get') continue;
      if (operation.kind === 'increment') {
        const sum = add(bytesOf(operation.key), operation.delta);
        if (typeof sum !== 'number') return sum;
        planned.set(nameOf(operation.key), Buffer.from(String(sum)));
      } else if (operation.condition.kind === 'none') {
        planned.set(nameOf(operation.key), operation.kind === 'put' ? operation.value : undefined);
      } else if (counters.has(nameOf(operation.key))) {
        // Whether it is written depends on a condition that an increment of the same key would see.
        return 'notInteger';
      }
    }
    return undefined;
  }

  private holds(compare: Compare): boolean {
    const value = this.run_.read(this.slot, compare.key);
    switch (compare.kind) {
      case 'exists':
        return (value !== undefined) === compare.exists;
      case 'revision':
        return (value?.revision ?? 0) === compare.revision;
      case 'value':
        return value !== undefined && Buffer.compare(value.bytes, compare.value) === 0;
    }
  }

  private get(key: Uint8Array): OperationResult {
    const value = this.run_.read(this.slot, key);
    return { kind: 'get', kv: value === undefined ? undefined : keyValue(key, value) };
  }

  private operate(
    operation: WriteOperation,
  ): OperationResult | { readonly kind: 'refused'; readonly refusal: Refusal } {
    switch (operation.kind) {
      case 'put':
        return this.put(operation);
      case 'delete':
        return this.delete(operation);
      case 'increment':
        return this.increment(operation);
    }
  }

  private put(operation: Extract<WriteOperation, { kind: 'put' }>): OperationResult {
    const { key, value: bytes, ttlMs, condition, returnPrevious } = operation;
    const old = this.run_.read(this.slot, key);
    const previous = old === undefined ? undefined : keyValue(key, old);
    if (!conditionHolds(condition, old)) {
      return { kind: 'put', applied: false, revision: old?.revision ?? 0, previous };
    }
    const revision = this.ensureChange();
    this.run_.writeValue(this.slot, key, { revision, ordinal: this.ordinal++, bytes, ttlMs });
    return {
      kind: 'put',
      applied: true,
      revision,
      previous: returnPrevious ? previous : undefined,
    };
  }

  private delete(operation: Extract<WriteOperation, { kind: 'delete' }>): OperationResult {
    const { key, condition, returnPrevious } = operation;
    const old = this.run_.read(this.slot, key);
    const existed = old !== undefined;
    const previous = existed ? keyValue(key, old) : undefined;
    if (!conditionHolds(condition, old)) {
      return { kind: 'delete', applied: false, existed, revision: old?.revision ?? 0, previous };
    }
    if (existed) {
      this.ensureChange();
      this.run_.removeValue(this.slot, key);
    }
    const revision = this.run_.currentChange(this.slot);
    return {
      kind: 'delete',
      applied: true,
      existed,
      revision,
      previous: returnPrevious ? previous : undefined,
    };
  }

  private increment(
    operation: Extract<WriteOperation, { kind: 'increment' }>,
  ): OperationResult | { readonly kind: 'refused'; readonly refusal: Refusal } {
    const { key, delta, ttlMs } = operation;
    const old = this.run_.read(this.slot, key);
    const sum = add(old?.bytes, delta);
    if (typeof sum !== 'number') return refused(sum);
    const revision = this.ensureChange();
    const bytes = Buffer.from(String(sum));
    const ordinal = this.ordinal++;
    if (old === undefined) {
      this.run_.writeValue(this.slot, key, { revision, ordinal, bytes, ttlMs });
    } else {
      // A counter keeps the expiry it was created with.
      this.run_.storeValue(this.slot, key, {
        revision,
        ordinal,
        bytes,
        expiresAtMs: old.expiresAtMs,
      });
    }
    return { kind: 'increment', value: sum, revision };
  }
}

export function isExpired(value: { readonly expiresAtMs: number }, logTimeMs: number): boolean {
  return value.expiresAtMs > 0 && value.expiresAtMs <= logTimeMs;
}

export function keyValue(key: Uint8Array, value: StoredValue): KeyValue {
  return { key, value: value.bytes, revision: value.revision, expiresAtMs: value.expiresAtMs };
}

function refused(refusal: Refusal): Refused {
  return { kind: 'refused', refusal };
}

/** The one hash slot of a write; undefined for a transaction over several, or over no key. */
export function slotOfWrite({ operation }: Write): Slot | undefined {
  if (operation.kind !== 'transaction') return slotOf(operation.key);
  const [first, ...rest] = keysOfWrite(operation).map(slotOf);
  return rest.every((slot) => slot === first) ? first : undefined;
}

/** Every user key a write reads or writes. */
export function keysOfWrite(operation: WriteOperation | Transaction): readonly Uint8Array[] {
  if (operation.kind !== 'transaction') return [operation.key];
  return [...operation.compare, ...operation.then, ...operation.else].map((each) => each.key);
}

function conditionHolds(condition: Condition, old: StoredValue | undefined): boolean {
  switch (condition.kind) {
    case 'none':
      return true;
    case 'absent':
      return old === undefined;
    case 'revision':
      return (old?.revision ?? 0) === condition.revision;
  }
}

/** The counter's next value, or why there is none. No value counts as 0. */
function add(bytes: Uint8Array | undefined, delta: number): number | 'notInteger' | 'outOfRange' {
  const text =
    bytes === undefined
      ? '0'
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
  const value = integerPattern.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) return 'notInteger';
  const sum = value + delta;
  return Number.isSafeInteger(sum) ? sum : 'outOfRange';
}
