/**
 * Is there an order of the operations, each at one moment between its call and its return, in which
 * a single copy of the object would have given all these answers? (Herlihy and Wing.) Key by key,
 * which is enough, since linearizability is local.
 *
 * The search of Wing and Gong with Lowe's memory: take any operation that was called before every
 * return still open, step the model, go on; never twice from one (set taken, state). An operation of
 * unknown outcome may be taken at any time after its call, and need not be. It takes exponential
 * time at worst, so it has limits, and "undecided" is an answer of its own and not a pass.
 */
import type { Operation, Verdict } from '../history.js';
import { explain, type Fails } from './counter-example.js';
import { byKey, verdict } from './findings.js';
import type { Model, ModelOf, State } from './models.js';

export interface SearchLimits {
  /** Pairs of (set, state) that are remembered for one key: some 150 bytes each. */
  readonly statesMax?: number;
  /** For one key. Infinity where the verdict must depend on nothing but the history. */
  readonly msMax?: number;
}

export type Decision = 'linearizable' | 'notLinearizable' | 'undecided';

const defaults = { statesMax: 1_000_000, msMax: 10_000 };
/** One of the few dozen searches that make a counter-example smaller. */
const shrinkStepMsMax = 1000;

/** All keys of a history. The details show a shrunk counter-example of the first key that has one. */
export function checkLinearizability(
  operations: readonly Operation[],
  modelOf: ModelOf,
  limits: SearchLimits = {},
): Verdict {
  return verdict('linearizability', operations, (report) => {
    for (const [key, ofKey] of byKey(operations)) {
      const decision = decide(ofKey, modelOf, limits);
      if (decision === 'undecided') report.undecided(`key ${key}: the search met its limit`);
      if (decision === 'notLinearizable') {
        const fails: Fails = (some) =>
          decide(some, modelOf, { ...limits, msMax: shrinkStepMsMax }) === 'notLinearizable';
        const lines = report.hasFound ? [] : explain(ofKey, fails);
        report.found([`key ${key}: not linearizable`, ...lines]);
      }
    }
  });
}

/** One key. */
export function decide(
  operations: readonly Operation[],
  modelOf: ModelOf,
  limits: SearchLimits = {},
): Decision {
  const possible = operations.filter(
    ({ status, op }) => status === 'ok' || (status === 'info' && op !== 'read'),
  );
  const model = modelOf(possible);
  return new Search(settle(possible, modelOf), model, { ...defaults, ...limits }).run();
}

/** Of values that one operation alone can have brought. */
interface Origin {
  readonly operation: Operation;
  readonly isOnly: boolean;
}

/**
 * What the answers of others prove about operations of unknown outcome. If nobody else brings the
 * value: it was seen, so the operation took effect before the first answer that shows it; or nobody
 * saw it, and then leaving it out explains as much as taking it. Without this a few dozen of them
 * would double the work each.
 */
function settle(operations: readonly Operation[], modelOf: ModelOf): readonly Operation[] {
  const model = modelOf(operations);
  const origins = new Map<string, Origin>();
  for (const operation of operations) {
    if (operation.op === 'read' || operation.op === 'add') continue;
    const value = JSON.stringify(operation.value ?? null);
    origins.set(value, { operation, isOnly: !origins.has(value) });
  }
  const seenBy = new Map<string, number>();
  /** A swap of unknown outcome may rest on them. */
  const wanted = new Set(
    operations.filter(({ status }) => status === 'info').map((one) => JSON.stringify(one.expected)),
  );
  for (const operation of operations) {
    if (operation.status !== 'ok') continue;
    for (const value of model.sees(operation)) {
      const name = JSON.stringify(value ?? null);
      seenBy.set(name, Math.min(seenBy.get(name) ?? Infinity, operation.returnNs));
    }
  }
  return operations.flatMap((operation) => {
    const name = JSON.stringify(operation.value ?? null);
    const origin = origins.get(name);
    // null is there without anybody's doing.
    const isJudged = operation.status === 'info' && origin?.isOnly === true && name !== 'null';
    if (!isJudged) return [operation];
    const seenAt = seenBy.get(name);
    if (seenAt === undefined) return model.unseenMatters || wanted.has(name) ? [operation] : [];
    const { output: _, ...rest } = operation;
    return [{ ...rest, status: 'ok', returnNs: seenAt }];
  });
}

/** Changes no state in which it can have been answered so: what fits now need not wait for later. */
function isLook({ op, output, status }: Operation): boolean {
  return op === 'read' || (op === 'cas' && output === false && status === 'ok');
}

/** A choice of the search. */
interface Taken {
  readonly n: number;
  readonly before: State;
  /** A look: nothing else has to be tried in its place. */
  readonly isForced: boolean;
}

/**
 * The calls and returns still open of operations whose outcome is known, in order of time, as a
 * doubly linked list over positions 1..last; 0 is its head. What is taken leaves the list, and comes
 * back at its old place when it is put back. Those of unknown outcome stand beside it: they are tried
 * when nothing else fits, since most of them explain nothing.
 */
class Search {
  /** By call. */
  private readonly operations: readonly Operation[];
  private readonly model: Model;
  private readonly limits: { readonly statesMax: number; readonly msMax: number };
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** Of each position: n + 1 for the call of operation n, -(n + 1) for its return, 0 for the head. */
  private readonly events: Int32Array;
  private readonly callAt: Int32Array;
  private readonly returnAt: Int32Array;
  /** Numbers of the operations of unknown outcome, by call. */
  private readonly optional: readonly number[];
  /** Equal for operations with the same effect and answer. */
  private readonly kinds: Int32Array;
  /**
   * Of an optional operation: the one before it of the same kind, or -1. Which of the two took effect
   * makes no difference, and the earlier may stand wherever the later may.
   */
  private readonly twin: Int32Array;
  /** Bit n: operation n is taken. */
  private readonly taken: Uint16Array;
  private readonly visited = new Set<string>();
  private readonly path: Taken[] = [];
  private state: State;
  /** Known outcomes that are not taken yet. */
  private owed: number;

  constructor(
    operations: readonly Operation[],
    model: Model,
    limits: { readonly statesMax: number; readonly msMax: number },
  ) {
    this.operations = [...operations].sort((a, b) => a.callNs - b.callNs);
    this.model = model;
    this.limits = limits;
    this.state = model.initial;
    const count = this.operations.length;
    this.callAt = new Int32Array(count);
    this.returnAt = new Int32Array(count);
    this.taken = new Uint16Array((count + 15) >> 4);
    this.optional = [...this.operations.keys()].filter((n) => !this.isOwed(n));
    this.owed = count - this.optional.length;
    this.kinds = this.kindsOf(this.operations);
    this.twin = this.twins();
    this.events = this.eventsInOrder();
    this.next = Int32Array.from(this.events, (_, at) => at + 1);
    this.previous = Int32Array.from(this.events, (_, at) => at - 1);
  }

  private isOwed(n: number): boolean {
    return this.operations[n]?.status === 'ok';
  }

  private kindsOf(operations: readonly Operation[]): Int32Array {
    const numbers = new Map<string, number>();
    return Int32Array.from(operations, (operation) => {
      const answer = operation.status === 'ok' ? JSON.stringify(operation.output) : '';
      const kind = `${operation.status} ${this.model.effect(operation)} ${answer}`;
      const number = numbers.get(kind) ?? numbers.size;
      numbers.set(kind, number);
      return number;
    });
  }

  private twins(): Int32Array {
    const twin = new Int32Array(this.operations.length).fill(-1);
    const last = new Map<number, number>();
    for (const n of this.optional) {
      const kind = this.kinds[n] ?? 0;
      twin[n] = last.get(kind) ?? -1;
      last.set(kind, n);
    }
    return twin;
  }

  /** At one moment calls stand before returns: such operations may have overlapped. */
  private eventsInOrder(): Int32Array {
    const times = this.operations.flatMap(({ callNs, returnNs, status }, n) =>
      status === 'ok'
        ? [
            { at: callNs, rank: 0, event: n + 1 },
            { at: returnNs, rank: 1, event: -(n + 1) },
          ]
        : [],
    );
    times.sort((a, b) => a.at - b.at || a.rank - b.rank);
    const events = Int32Array.from([0, ...times.map(({ event }) => event)]);
    events.forEach((event, at) => {
      if (event > 0) this.callAt[event - 1] = at;
      if (event < 0) this.returnAt[-event - 1] = at;
    });
    return events;
  }

  run(): Decision {
    const { limits } = this;
    const began = performance.now();
    /** What was put back last: the next try comes after it. */
    let after = -1;
    for (let steps = 1; this.owed > 0; steps++) {
      if (this.visited.size > limits.statesMax) return 'undecided';
      if ((steps & 255) === 0 && performance.now() - began > limits.msMax) return 'undecided';
      if (this.takeOneAfter(after)) {
        after = -1;
        continue;
      }
      // Something has to be taken before the first return, and nothing fits: a choice was wrong.
      let last = this.putBack();
      while (last?.isForced === true) last = this.putBack();
      if (last === undefined) return 'notLinearizable';
      after = last.n;
    }
    return 'linearizable';
  }

  /** The first that fits; first those that owe an answer, then the others. */
  private takeOneAfter(after: number): boolean {
    let at = this.next[after >= 0 && this.isOwed(after) ? (this.callAt[after] ?? 0) : 0] ?? 0;
    while ((this.events[at] ?? 0) > 0) {
      if ((after < 0 || this.isOwed(after)) && this.tryToTake((this.events[at] ?? 0) - 1))
        return true;
      at = this.next[at] ?? 0;
    }
    const returning = this.operations[-(this.events[at] ?? 0) - 1];
    for (const n of this.optional) {
      if (after >= 0 && !this.isOwed(after) && n <= after) continue;
      if ((this.operations[n]?.callNs ?? 0) > (returning?.returnNs ?? 0)) break;
      if (!this.isTaken(n) && this.tryToTake(n)) return true;
    }
    return false;
  }

  /** False if it cannot come next, or leads where the search has been. */
  private tryToTake(n: number): boolean {
    const operation = this.operations[n];
    const twin = this.twin[n] ?? -1;
    if (operation === undefined || (twin >= 0 && !this.isTaken(twin))) return false;
    const { state: before } = this;
    const after = this.model.step(before, operation);
    if (after === undefined) return false;
    const isOwed = this.isOwed(n);
    if (after === before && !isOwed) return false;
    if (this.makesLastIdle(operation, after)) return false;
    if (isOwed && this.hasUrgentTwin(n)) return false;
    this.flip(n);
    // What may follow an optional one depends on the state before it, too.
    const origin = isOwed ? '' : `<${before}`;
    const place = `${String.fromCharCode(...this.taken)}${after}${origin}`;
    if (this.visited.has(place)) {
      this.flip(n);
      return false;
    }
    this.visited.add(place);
    if (isOwed) {
      this.unlink(this.callAt[n] ?? 0);
      this.unlink(this.returnAt[n] ?? 0);
      this.owed--;
    }
    this.path.push({ n, before, isForced: isLook(operation) });
    this.state = after;
    return true;
  }

  /**
   * An optional operation is taken only for the sake of the next one: without it that one does not
   * fit, or leads elsewhere. Otherwise leaving it out, or taking it behind a look, explains the same.
   */
  private makesLastIdle(operation: Operation, after: State): boolean {
    const last = this.path.at(-1);
    if (last === undefined || this.isOwed(last.n)) return false;
    const without = this.model.step(last.before, operation);
    return without !== undefined && (isLook(operation) || without === after);
  }

  /** Another one of its kind can be taken as well, and has to be sooner. */
  private hasUrgentTwin(n: number): boolean {
    const returnAt = this.returnAt[n] ?? 0;
    for (let at = this.next[0] ?? 0; (this.events[at] ?? 0) > 0; at = this.next[at] ?? 0) {
      const other = (this.events[at] ?? 0) - 1;
      if (this.kinds[other] === this.kinds[n] && (this.returnAt[other] ?? 0) < returnAt)
        return true;
    }
    return false;
  }

  private putBack(): Taken | undefined {
    const last = this.path.pop();
    if (last === undefined) return undefined;
    this.flip(last.n);
    this.state = last.before;
    if (this.isOwed(last.n)) {
      this.owed++;
      this.relink(this.returnAt[last.n] ?? 0);
      this.relink(this.callAt[last.n] ?? 0);
    }
    return last;
  }

  private isTaken(n: number): boolean {
    return (((this.taken[n >> 4] ?? 0) >> (n & 15)) & 1) === 1;
  }

  private flip(n: number): void {
    this.taken[n >> 4] = (this.taken[n >> 4] ?? 0) ^ (1 << (n & 15));
  }

  private unlink(at: number): void {
    const previous = this.previous[at] ?? 0;
    const next = this.next[at] ?? 0;
    this.next[previous] = next;
    if (next < this.previous.length) this.previous[next] = previous;
  }

  /** In the opposite order of `unlink`, so that both neighbours are there again. */
  private relink(at: number): void {
    const previous = this.previous[at] ?? 0;
    const next = this.next[at] ?? 0;
    this.next[previous] = at;
    if (next < this.previous.length) this.previous[next] = at;
  }
}
