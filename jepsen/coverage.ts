/**
 * Was the run worth anything? One whose faults did nothing, or in which hardly an operation succeeded,
 * has shown nothing: it is rejected, whatever its checkers say.
 */
import type { FaultSpan, Operation } from './history.js';

export interface Coverage {
  /** Why the run is rejected; empty: it counts. */
  readonly problems: readonly string[];
  /** By nemesis: faults, those of them that had an effect, ok operations while one lasted. */
  readonly nemeses: ReadonlyMap<string, NemesisCoverage>;
}

export interface NemesisCoverage {
  readonly faults: number;
  readonly effective: number;
  readonly okOperations: number;
}

/** Operations that must have succeeded: in the whole run, and while any fault lasted. */
const okMin = 100;
const okDuringFaultsMin = 20;

/** `requested`: nemeses that could run here. */
export function coverageOf(options: {
  readonly operations: readonly Operation[];
  readonly spans: readonly FaultSpan[];
  readonly requested: readonly string[];
}): Coverage {
  const { operations, spans, requested } = options;
  const ok = operations.filter(({ status }) => status === 'ok');
  const nemeses = new Map(
    requested.map((name) => {
      const own = spans.filter(({ nemesis }) => nemesis === name);
      const okOperations = countDuring(ok, own);
      const effective = own.filter(({ hadEffect }) => hadEffect).length;
      return [name, { faults: own.length, effective, okOperations }];
    }),
  );
  const problems: string[] = [];
  for (const [name, { faults, effective }] of nemeses) {
    if (effective > 0) continue;
    problems.push(faults === 0 ? `${name} never happened` : `${name}: no fault had any effect`);
  }
  const during = countDuring(ok, spans);
  if (ok.length < okMin) problems.push(`${ok.length} operations succeeded, ${okMin} are wanted`);
  if (requested.length > 0 && during < okDuringFaultsMin)
    problems.push(`${during} operations succeeded during faults, ${okDuringFaultsMin} are wanted`);
  return { problems, nemeses };
}

function countDuring(operations: readonly Operation[], spans: readonly FaultSpan[]): number {
  return operations.filter(({ callNs, returnNs }) =>
    spans.some(({ fromNs, toNs }) => callNs >= fromNs && returnNs <= toNs),
  ).length;
}
