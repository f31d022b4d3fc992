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

/** By nemesis: so many of its faults must have had an effect; 1 of one that is not named. */
export type EffectsWanted = Readonly<Record<string, number>>;

/** Nemeses of which too few faults had an effect. */
export function lackingOf(
  names: readonly string[],
  spans: readonly Pick<FaultSpan, 'nemesis' | 'hadEffect'>[],
  wanted: EffectsWanted,
): readonly string[] {
  return names.filter((name) => {
    const own = spans.filter(({ nemesis, hadEffect }) => nemesis === name && hadEffect);
    return own.length < (wanted[name] ?? 1);
  });
}

/** Operations that must have succeeded: in the whole run, and while any fault lasted. */
const okMin = 100;
const okDuringFaultsMin = 20;

/** `requested`: nemeses that could run here. */
export function coverageOf(options: {
  readonly operations: readonly Operation[];
  readonly spans: readonly FaultSpan[];
  readonly requested: readonly string[];
  readonly effectsWanted: EffectsWanted;
}): Coverage {
  const { operations, spans, requested, effectsWanted } = options;
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
  for (const name of lackingOf(requested, spans, effectsWanted)) {
    const { faults = 0, effective = 0 } = nemeses.get(name) ?? {};
    const few = `${name}: ${effective} of ${faults} faults had an effect, ${effectsWanted[name] ?? 1} are wanted`;
    problems.push(faults === 0 ? `${name} never happened` : few);
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
