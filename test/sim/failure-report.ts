/** What a person is told of a seed that failed: how it came to it, and how to see it again. */
import type { SimKind, SimResult } from './kinds.js';

const traceLinesOnFailure = 60;

/** Runs a failing seed again to show how it came to it; the same seed takes the same course. */
export async function failureReport(
  kind: SimKind,
  failed: SimResult,
  seconds: number,
): Promise<readonly string[]> {
  const { seed } = failed;
  const again = await kind.run({ seed, seconds, traceLines: traceLinesOnFailure });
  const course =
    again.hash === failed.hash ? [] : ['the second run took another course: not determined'];
  return [
    `seed ${seed} failed:`,
    ...again.lines,
    failed.failure ?? 'passed',
    ...course,
    replayLine(kind, seed, seconds),
  ];
}

function replayLine(kind: SimKind, seed: number, seconds: number): string {
  const time = seconds === kind.seconds ? '' : ` --seconds ${seconds}`;
  return `npm run sim -- --kind ${kind.name} --seed-from ${seed} --seeds 1 --trace${time}`;
}
