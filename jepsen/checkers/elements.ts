/**
 * Elements that are put in and read back, each of them once: sets, and lists that only grow. What an
 * element may look like in a read follows from when it was put in and when the read was done.
 */
import type { Operation, Verdict } from '../history.js';
import { byKey, describeOperation, verdict, type Findings } from './findings.js';
import { elementsOf } from './models.js';

const nameOf = (element: unknown): string => JSON.stringify(element);

/** A read with its elements by name, in their order. */
interface Read {
  readonly operation: Operation;
  readonly names: readonly string[];
  readonly present: ReadonlySet<string>;
}

/**
 * Each element that was acknowledged is in every read that began later, once; one of an unknown
 * outcome may be, and stays once seen; one that failed, or nobody put in, or not yet, never is.
 */
export function checkSet(operations: readonly Operation[]): Verdict {
  return verdict('set', operations, (findings) => {
    for (const ofKey of byKey(operations).values()) checkElements(ofKey, 'add', findings);
  });
}

/** As a set, and in one order: each read is a prefix of the longest, and no order of times is broken. */
export function checkAppend(operations: readonly Operation[]): Verdict {
  return verdict('append', operations, (findings) => {
    for (const ofKey of byKey(operations).values()) {
      const reads = checkElements(ofKey, 'append', findings);
      checkPrefixes(reads, findings);
      checkRealTimeOrder(ofKey, reads, findings);
    }
  });
}

function readsOf(operations: readonly Operation[]): readonly Read[] {
  return operations
    .filter(({ op, status }) => op === 'read' && status === 'ok')
    .sort((a, b) => a.callNs - b.callNs)
    .map((operation) => {
      const names = elementsOf(operation).map(nameOf);
      return { operation, names, present: new Set(names) };
    });
}

function checkElements(
  operations: readonly Operation[],
  op: 'add' | 'append',
  findings: Findings,
): readonly Read[] {
  const reads = readsOf(operations);
  const puts = operations.filter((one) => one.op === op);
  const byName = new Map(puts.map((put) => [nameOf(put.value), put]));
  for (const read of reads) checkOrigins(read, byName, findings);
  const acknowledged = puts.filter(({ status }) => status === 'ok');
  // When each element is surely there: acknowledged, or read by somebody.
  const sureFrom = new Map(acknowledged.map((put) => [nameOf(put.value), put]));
  for (const { operation, names } of reads) {
    for (const name of names) {
      const known = sureFrom.get(name);
      if (known === undefined || operation.returnNs < known.returnNs) sureFrom.set(name, operation);
    }
  }
  checkPresence(reads, sureFrom, findings);
  return reads;
}

/** No element twice, and each from somebody who had begun to put it in and did not fail. */
function checkOrigins(
  { operation, names, present }: Read,
  byName: ReadonlyMap<string, Operation>,
  findings: Findings,
): void {
  if (present.size < names.length) {
    const twice = names.find((name, n) => names.indexOf(name) !== n);
    findings.found([`${twice} is there twice: ${describeOperation(operation)}`]);
  }
  for (const name of present) {
    const put = byName.get(name);
    if (put === undefined) findings.found([`${name} was put in by nobody: ${place(operation)}`]);
    else if (put.status === 'fail')
      findings.found([`${name} is there though it failed: ${place(operation)}`]);
    else if (put.callNs > operation.returnNs)
      findings.found([`${name} was read before it was put in: ${place(operation)}`]);
  }
}

function checkPresence(
  reads: readonly Read[],
  sureFrom: ReadonlyMap<string, Operation>,
  findings: Findings,
): void {
  const sure = [...sureFrom].sort(([, a], [, b]) => a.returnNs - b.returnNs);
  for (const { operation, present } of reads) {
    for (const [name, proof] of sure) {
      if (proof.returnNs >= operation.callNs) break;
      if (present.has(name)) continue;
      findings.found([
        `${name} is missing: ${place(operation)}`,
        `  it was there before: ${place(proof)}`,
      ]);
    }
  }
}

function checkPrefixes(reads: readonly Read[], findings: Findings): void {
  const [first] = reads;
  if (first === undefined) return;
  const longest = reads.reduce((a, b) => (b.names.length > a.names.length ? b : a), first);
  for (const { operation, names } of reads) {
    const at = names.findIndex((name, n) => name !== longest.names[n]);
    if (at < 0) continue;
    findings.found([
      `two orders: place ${at} holds ${names[at]} and ${longest.names[at]}`,
      `  ${place(operation)}`,
      `  ${place(longest.operation)}`,
    ]);
  }
}

/** What was acknowledged before another was begun stands before it. */
function checkRealTimeOrder(
  operations: readonly Operation[],
  reads: readonly Read[],
  findings: Findings,
): void {
  const longest = reads.reduce<readonly string[]>(
    (names, read) => (read.names.length > names.length ? read.names : names),
    [],
  );
  const appends = new Map(
    operations.filter(({ op }) => op === 'append').map((one) => [nameOf(one.value), one]),
  );
  // The latest call so far in list order: whatever comes behind it must not have ended before it.
  let latest: Operation | undefined;
  for (const name of longest) {
    const append = appends.get(name);
    if (append === undefined) continue;
    if (append.status === 'ok' && latest !== undefined && append.returnNs < latest.callNs)
      findings.found([`behind ${nameOf(latest.value)}, which was begun later: ${place(append)}`]);
    if (latest === undefined || append.callNs > latest.callNs) latest = append;
  }
}

function place(operation: Operation): string {
  return `${describeOperation(operation)} at ${(operation.callNs / 1e6).toFixed(1)} ms`;
}
