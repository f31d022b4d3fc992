/**
 * Counters: every value that was told lies between what must have been added by then and what can
 * have been. Weaker than the search over all orders and never undecided, however many additions
 * have an unknown outcome.
 */
import type { Operation, Verdict } from '../history.js';
import { byKey, describeOperation, verdict, type Findings } from './findings.js';
import { numberOf } from './models.js';

export function checkCounter(operations: readonly Operation[]): Verdict {
  return verdict('counter', operations, (findings) => {
    for (const ofKey of byKey(operations).values()) checkOneCounter(ofKey, findings);
  });
}

function checkOneCounter(operations: readonly Operation[], findings: Findings): void {
  const adds = operations.filter(({ op, status }) => op === 'add' && status !== 'fail');
  const sure = adds.filter(({ status }) => status === 'ok');
  const positive = (one: Operation): number => Math.max(0, numberOf(one.value));
  const negative = (one: Operation): number => Math.min(0, numberOf(one.value));
  const mustRise = new RunningSum(sure, ({ returnNs }) => returnNs, positive);
  const mustFall = new RunningSum(sure, ({ returnNs }) => returnNs, negative);
  const canRise = new RunningSum(adds, ({ callNs }) => callNs, positive);
  const canFall = new RunningSum(adds, ({ callNs }) => callNs, negative);
  const told = operations.filter(
    ({ op, status, output }) => status === 'ok' && (op === 'read' || output !== undefined),
  );
  for (const one of told) {
    const value = numberOf(one.output);
    // An answer to an addition contains it.
    const own = one.op === 'add' ? numberOf(one.value) : 0;
    const least = mustRise.before(one.callNs) + canFall.upTo(one.returnNs) + Math.max(0, own);
    const most = canRise.upTo(one.returnNs) + mustFall.before(one.callNs) + Math.min(0, own);
    if (value >= least && value <= most) continue;
    findings.found([
      `${value} is not within ${least}..${most}: ${describeOperation(one)}, key ${one.key}, ` +
        `at ${(one.callNs / 1e6).toFixed(1)} ms`,
    ]);
  }
}

/** The sum of what happened until a time. */
class RunningSum {
  private readonly times: readonly number[];
  private readonly sums: readonly number[];

  constructor(
    operations: readonly Operation[],
    timeOf: (operation: Operation) => number,
    amountOf: (operation: Operation) => number,
  ) {
    const inOrder = [...operations].sort((a, b) => timeOf(a) - timeOf(b));
    let sum = 0;
    this.times = inOrder.map(timeOf);
    this.sums = inOrder.map((one) => (sum += amountOf(one)));
  }

  before(ns: number): number {
    return this.sums[this.countWhile((time) => time < ns) - 1] ?? 0;
  }

  upTo(ns: number): number {
    return this.sums[this.countWhile((time) => time <= ns) - 1] ?? 0;
  }

  /** `holds`: true of a first part of all times. */
  private countWhile(holds: (time: number) => boolean): number {
    let low = 0;
    let high = this.times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (holds(this.times[middle] ?? Infinity)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
