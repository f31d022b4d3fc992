/** Which checkers a history of each workload goes through. */
import { checkBank } from './checkers/bank.js';
import { checkCounter } from './checkers/counter.js';
import { checkAppend, checkSet } from './checkers/elements.js';
import { checkLinearizability } from './checkers/linearizability.js';
import { appendList, counter, register } from './checkers/models.js';
import type { Operation, Verdict } from './history.js';
import { bankAccounts, bankTotal } from './workloads/bank.js';

type Check = (operations: readonly Operation[]) => Verdict;

const checks: Readonly<Record<string, readonly Check[]>> = {
  append: [checkAppend, (all) => checkLinearizability(all, appendList)],
  set: [checkSet],
  register: [(all) => checkLinearizability(all, register)],
  counter: [checkCounter, (all) => checkLinearizability(all, counter)],
  bank: [(all) => checkBank(all, { total: bankTotal, accounts: bankAccounts })],
  scan: [(all) => checkLinearizability(readsOfScans(all), register)],
};

/** Throws for a workload that nothing checks. */
export function judge(workload: string, operations: readonly Operation[]): readonly Verdict[] {
  const own = checks[workload];
  if (own === undefined) throw new RangeError(`nothing checks the workload '${workload}'`);
  return own.map((check) => check(operations));
}

/**
 * A scan looks at each key at some moment of its own between its call and its return: it is as many
 * reads as there are keys with its tag, also of those that it did not find.
 */
export function readsOfScans(operations: readonly Operation[]): readonly Operation[] {
  const keys = new Map<string, Set<string>>();
  for (const { op, key } of operations) {
    if (op !== 'write') continue;
    const ofTag = keys.get(tagOf(key)) ?? new Set();
    keys.set(tagOf(key), ofTag.add(key));
  }
  return operations.flatMap((operation): readonly Operation[] => {
    if (operation.op !== 'scan') return [operation];
    if (operation.status !== 'ok' || !Array.isArray(operation.output)) return [];
    const found = new Map(operation.output as readonly (readonly [string, number])[]);
    const all = new Set([...found.keys(), ...(keys.get(operation.key) ?? [])]);
    const { output: _, ...rest } = operation;
    return [...all].map((key) => ({ ...rest, op: 'read', key, output: found.get(key) ?? null }));
  });
}

/** What is between braces. */
function tagOf(key: string): string {
  return /\{(.*?)\}/.exec(key)?.[1] ?? key;
}
