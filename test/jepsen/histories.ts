/**
 * Clean histories, made by an object that does take each operation at one moment between its call
 * and its return, and ways to spoil them.
 */
import type { Operation, OperationName } from '../../jepsen/history.js';

/** Numbers from a seed (mulberry32). */
export class Dice {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  chance(share: number): boolean {
    return this.below(1_000_000) < share * 1_000_000;
  }

  below(bound: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * bound);
  }
}

export interface HistoryPlan {
  readonly seed: number;
  readonly kind: 'register' | 'list' | 'set' | 'counter';
  readonly operations: number;
  readonly clients: number;
  /** Share of operations whose outcome their client does not hear. */
  readonly lostShare: number;
}

interface Intent {
  readonly op: OperationName;
  readonly value?: unknown;
  readonly expected?: unknown;
}

/** The object itself: does one operation, gives its answer. */
type Play = (intent: Intent) => unknown;

function playRegister(): Play {
  let state: unknown = null;
  return ({ op, value, expected }) => {
    if (op === 'read') return state;
    if (op === 'cas') {
      const swaps = state === expected;
      if (swaps) state = value;
      return swaps;
    }
    state = value;
    return undefined;
  };
}

function playList(): Play {
  const list: unknown[] = [];
  return ({ op, value }) => {
    if (op === 'read') return [...list];
    list.push(value);
    return undefined;
  };
}

function playCounter(): Play {
  let sum = 0;
  return ({ op, value }) => {
    if (op === 'add') sum += Number(value);
    return sum;
  };
}

function intentOf(kind: HistoryPlan['kind'], n: number, dice: Dice): Intent {
  if (dice.chance(0.4)) return { op: 'read' };
  if (kind === 'list') return { op: 'append', value: n };
  if (kind === 'set') return { op: 'add', value: n };
  if (kind === 'counter') return { op: 'add', value: dice.below(5) - 1 };
  if (dice.chance(0.1)) return { op: 'write', value: null };
  if (dice.chance(0.4)) return { op: 'cas', expected: n - 1 - dice.below(6), value: n };
  return { op: 'write', value: n };
}

/** A step of a client: its operation, and the moments of it. */
interface Step {
  readonly client: number;
  readonly intent: Intent;
  readonly callNs: number;
  readonly effectNs: number;
  readonly returnNs: number;
  readonly lost: boolean;
  readonly happens: boolean;
}

function stepsOf(plan: HistoryPlan, dice: Dice): Step[] {
  const steps: Step[] = [];
  const free = Array.from({ length: plan.clients }, () => dice.below(1000));
  for (let n = 1; n <= plan.operations; n++) {
    const client = dice.below(plan.clients);
    const callNs = (free[client] ?? 0) + dice.below(500);
    const lost = dice.chance(plan.lostShare);
    const effectNs = callNs + dice.below(lost ? 20_000 : 1000);
    const returnNs = lost ? callNs + 2000 : effectNs + dice.below(1000);
    free[client] = returnNs + 1;
    const happens = !lost || dice.chance(0.5);
    steps.push({
      client,
      intent: intentOf(plan.kind, n, dice),
      ...{ callNs, effectNs, returnNs, lost, happens },
    });
  }
  return steps.sort((a, b) => a.effectNs - b.effectNs);
}

/** Linearizable by construction. Sorted by return, as a run would write it. */
export function cleanHistory(plan: HistoryPlan): Operation[] {
  const dice = new Dice(plan.seed);
  const play =
    plan.kind === 'register'
      ? playRegister()
      : plan.kind === 'counter'
        ? playCounter()
        : playList();
  const operations = stepsOf(plan, dice).map(
    ({ client, intent, callNs, returnNs, lost, happens }): Operation => {
      const output = happens ? play(intent) : undefined;
      const head = { client, key: 'k', ...intent, callNs, returnNs };
      if (lost) return { ...head, status: 'info' };
      const isTold = intent.op === 'read' || intent.op === 'cas' || plan.kind === 'counter';
      return { ...head, ...(isTold ? { output } : {}), status: 'ok' };
    },
  );
  return operations.sort((a, b) => a.returnNs - b.returnNs);
}

/** Changes one operation; undefined: this history has no place for it. */
export type Spoiler = (operations: readonly Operation[], dice: Dice) => Operation[] | undefined;

function pick<T>(some: readonly T[], dice: Dice): T | undefined {
  return some[dice.below(some.length)];
}

function replaced(
  operations: readonly Operation[],
  old: Operation | undefined,
  output: unknown,
): Operation[] | undefined {
  if (old === undefined) return undefined;
  return operations.map((one) => (one === old ? { ...one, output } : one));
}

const listOf = ({ output }: Operation): readonly unknown[] => (Array.isArray(output) ? output : []);
const readsOf = (operations: readonly Operation[]): readonly Operation[] =>
  operations.filter(({ op, status }) => op === 'read' && status === 'ok');

/** An acknowledged element disappears from all later reads. */
export const losesElement: Spoiler = (operations, dice) => {
  const lastRead = readsOf(operations).at(-1);
  const put = pick(
    operations.filter(
      ({ op, status, returnNs }) =>
        op !== 'read' && status === 'ok' && returnNs < (lastRead?.callNs ?? 0),
    ),
    dice,
  );
  if (put === undefined) return undefined;
  return operations.map((one) =>
    one.op === 'read' && one.status === 'ok'
      ? { ...one, output: listOf(one).filter((element) => element !== put.value) }
      : one,
  );
};

/** An element stands twice in one read. */
export const doublesElement: Spoiler = (operations, dice) => {
  const read = pick(
    readsOf(operations).filter((one) => listOf(one).length > 0),
    dice,
  );
  return read && replaced(operations, read, [...listOf(read), pick(listOf(read), dice)]);
};

/** Two neighbours change places in one read. */
export const reordersRead: Spoiler = (operations, dice) => {
  const long = readsOf(operations).filter((one) => listOf(one).length > 1);
  const read = pick(long.slice(0, -1), dice);
  if (read === undefined) return undefined;
  const list = [...listOf(read)];
  const at = dice.below(list.length - 1);
  list.splice(at, 2, list[at + 1], list[at]);
  return replaced(operations, read, list);
};

/** A read shows an element that nobody put in. */
export const inventsElement: Spoiler = (operations, dice) => {
  const read = pick(readsOf(operations), dice);
  return read && replaced(operations, read, [...listOf(read), 'invented']);
};

/** A read shows what is put in only after it has returned. */
export const readsFuture: Spoiler = (operations, dice) => {
  const read = pick(readsOf(operations), dice);
  const later = operations.find(
    ({ op, callNs }) => op !== 'read' && op !== 'cas' && callNs > (read?.returnNs ?? Infinity),
  );
  if (read === undefined || later?.value === null || later === undefined) return undefined;
  const isList = Array.isArray(read.output);
  return replaced(operations, read, isList ? [...listOf(read), later.value] : later.value);
};

/** A read shows what failed. */
export const readsDirty: Spoiler = (operations, dice) => {
  const put = pick(
    operations.filter(({ op, status }) => op !== 'read' && op !== 'cas' && status === 'ok'),
    dice,
  );
  const seen = readsOf(operations).some(
    (one) => one.output === put?.value || listOf(one).includes(put?.value),
  );
  if (put === undefined || !seen || put.value === null) return undefined;
  return operations.map((one) => (one === put ? { ...one, status: 'fail' } : one));
};

/** A read answers with what an earlier read had found, though more was acknowledged since. */
export const readsStale: Spoiler = (operations, dice) => {
  const reads = readsOf(operations);
  const read = pick(reads, dice);
  if (read === undefined) return undefined;
  const old = reads.find((one) => {
    const acknowledged = operations.some(
      ({ op, status, callNs, returnNs }) =>
        op !== 'read' &&
        op !== 'cas' &&
        status === 'ok' &&
        callNs > one.returnNs &&
        returnNs < read.callNs,
    );
    return acknowledged && JSON.stringify(one.output) !== JSON.stringify(read.output);
  });
  return old && replaced(operations, read, old.output);
};
