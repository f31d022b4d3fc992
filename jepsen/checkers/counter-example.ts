/**
 * Makes a history that is not linearizable small enough to be understood: the shortest stretch of
 * time, and in it only the operations without which it could be explained. All others may still
 * have taken effect or not, whenever that helps; so what remains is impossible by itself.
 */
import type { Operation } from '../history.js';
import { describeOperation } from './findings.js';

/** Whether a history surely has no explanation. */
export type Fails = (operations: readonly Operation[]) => boolean;

/** Of one key; `fails` is true of them. The lines show the operations and draw them over time. */
export function explain(operations: readonly Operation[], fails: Fails): readonly string[] {
  return ['these alone cannot be explained:', ...draw(shrink(operations, fails))];
}

/** Looking for a smaller one ends then, and what was found is shown. */
const shrinkMsMax = 15_000;

/** The operations whose answers contradict one another, by call. */
export function shrink(operations: readonly Operation[], fails: Fails): readonly Operation[] {
  const deadline = performance.now() + shrinkMsMax;
  // Each step only takes knowledge away, so what fails behind it failed before it, too; and of what
  // is cut ever shorter, the shortest that still fails is found by halving.
  let left: readonly Operation[] = operations.filter(({ status }) => status !== 'fail');
  // Looks that found something else keep every write of the whole history in the game.
  const withoutMisses = left.filter(({ op, output }) => op !== 'cas' || output !== false);
  if (fails(withoutMisses)) left = withoutMisses;
  const ends = left.filter(isOk).map(({ returnNs }) => returnNs);
  left = shortest(ends.sort(ascending), (end) => until(left, end), fails) ?? left;
  const begins = left.filter(isOk).map(({ returnNs }) => returnNs);
  left = shortest(begins.sort(ascending).reverse(), (begin) => since(left, begin), fails) ?? left;
  for (const operation of left.filter(isOk)) {
    if (performance.now() > deadline) break;
    const without = left.map((one) => (one === operation ? unknown(one) : one));
    if (fails(without)) left = without;
  }
  return left.filter(isOk).sort((a, b) => a.callNs - b.callNs);
}

const isOk = ({ status }: Operation): boolean => status === 'ok';
const ascending = (a: number, b: number): number => a - b;

/** The same operation with nothing known of its outcome. */
function unknown(operation: Operation): Operation {
  const { output: _, ...rest } = operation;
  return { ...rest, status: 'info' };
}

/** As it was known at a moment. */
function until(operations: readonly Operation[], endNs: number): readonly Operation[] {
  return operations
    .filter(({ callNs }) => callNs <= endNs)
    .map((one) => (one.returnNs > endNs && isOk(one) ? unknown(one) : one));
}

function since(operations: readonly Operation[], beginNs: number): readonly Operation[] {
  return operations.map((one) => (one.returnNs < beginNs && isOk(one) ? unknown(one) : one));
}

/** By halving: of cuts from the shortest to the longest the first that fails; undefined if none does. */
function shortest(
  places: readonly number[],
  cut: (place: number) => readonly Operation[],
  fails: Fails,
): readonly Operation[] | undefined {
  let low = 0;
  let high = places.length - 1;
  let found: readonly Operation[] | undefined;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const candidate = cut(places[middle] ?? 0);
    if (fails(candidate)) {
      found = candidate;
      high = middle - 1;
    } else {
      low = middle + 1;
    }
  }
  return found;
}

/** Columns of a drawing between two moments: enough to see an overlap. */
const columnWidth = 3;
const columnsMax = 90;

/** One line for each operation: what it was, and a bar from its call to its return; not to scale. */
export function draw(operations: readonly Operation[]): readonly string[] {
  const moments = [...new Set(operations.flatMap((one) => [one.callNs, one.returnNs]))];
  moments.sort(ascending);
  const width = Math.max(1, Math.min(columnWidth, Math.floor(columnsMax / moments.length)));
  const column = new Map(moments.map((ns, n) => [ns, n * width]));
  const texts = operations.map(describeOperation);
  const longest = Math.max(0, ...texts.map((line) => line.length));
  return operations.map(({ callNs, returnNs }, n) => {
    const from = column.get(callNs) ?? 0;
    const to = Math.max(from + 1, column.get(returnNs) ?? 0);
    const bar = `${' '.repeat(from)}|${'-'.repeat(to - from - 1)}|`;
    const first = (callNs / 1e6).toFixed(1);
    return `  ${(texts[n] ?? '').padEnd(longest)}  ${bar}  from ${first} ms`;
  });
}
