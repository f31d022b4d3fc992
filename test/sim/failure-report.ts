/** What a person is told of a seed that failed: how it came to it, and how to see it again. */
import { runCoreSim, type RunResult } from './core-sim.js';

const traceLinesOnFailure = 60;
export const usualSeconds = 20;

/** Runs a failing seed again to show how it came to it; the same seed takes the same course. */
export function failureReport(failed: RunResult, seconds: number): readonly string[] {
  const again = runCoreSim({ seed: failed.seed, seconds, traceLines: traceLinesOnFailure });
  const course =
    again.hash === failed.hash ? [] : ['the second run took another course: not determined'];
  return [
    `seed ${failed.seed} failed:`,
    ...again.lines,
    failed.failure ?? 'passed',
    ...course,
    replayLine(failed.seed, seconds),
  ];
}

function replayLine(seed: number, seconds: number): string {
  const time = seconds === usualSeconds ? '' : ` --seconds ${seconds}`;
  return `npm run sim -- --kind core --seed-from ${seed} --seeds 1 --trace${time}`;
}
