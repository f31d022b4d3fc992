/** What was measured, for people and for programs. */
import type { Histogram } from 'hdr-histogram-js';
import { formatCount, printTable } from '../output.js';
import type { DriveFigures, KindFigures } from './driver.js';
import type { Kind } from './workload.js';

export interface PhaseFigures extends DriveFigures {
  readonly phase: 'load' | 'run';
}

const quantiles = [50, 95, 99, 99.9] as const;
const head = ['operation', 'count', '/s', 'p50 ms', 'p95 ms', 'p99 ms', 'p99.9 ms', 'max ms'];

const ms = (us: number): string => (us / 1000).toFixed(us < 100_000 ? 2 : 0);

function latencies(histogram: Histogram): readonly number[] {
  // Of nothing the histogram would tell its bounds.
  if (histogram.totalCount === 0) return [];
  const max = histogram.maxValue;
  // A percentile is the upper bound of its bucket.
  return [...quantiles.map((at) => Math.min(max, histogram.getValueAtPercentile(at))), max];
}

function rate(count: number, seconds: number): number {
  return seconds > 0 ? Math.round((count / seconds) * 10) / 10 : 0;
}

/** In the same order every time. */
function byName(kinds: DriveFigures['kinds']): [Kind, KindFigures][] {
  return [...kinds].sort(([a], [b]) => (a < b ? -1 : 1));
}

function succeeded({ kinds }: DriveFigures): number {
  return [...kinds.values()].reduce((sum, { latencyUs }) => sum + latencyUs.totalCount, 0);
}

export function problems({ kinds }: DriveFigures): { errors: number; missing: number } {
  let [errors, missing] = [0, 0];
  for (const each of kinds.values()) {
    errors += each.errors;
    missing += each.missing;
  }
  return { errors, missing };
}

export function printPhase(figures: PhaseFigures): void {
  const { phase, kinds, seconds, failures, lateUs, notBegun } = figures;
  const count = succeeded(figures);
  console.log(
    `${phase}: ${formatCount(count)} operations in ${seconds.toFixed(1)} s, ` +
      `${formatCount(Math.round(rate(count, seconds)))} a second`,
  );
  const rows = byName(kinds).map(([kind, { latencyUs, errors, missing }]) => {
    const shown = latencies(latencyUs).map(ms);
    const { totalCount } = latencyUs;
    return [
      ...[kind, formatCount(totalCount), formatCount(Math.round(rate(totalCount, seconds)))],
      ...head.slice(3).map((_, at) => shown[at] ?? '-'),
      ...[formatCount(errors), formatCount(missing)],
    ];
  });
  printTable([...head, 'errors', 'missing'], rows);
  if (lateUs.totalCount > 0) {
    const [p50 = 0, , p99 = 0] = latencies(lateUs);
    console.log(`begun after they were due: p50 ${ms(p50)} ms, p99 ${ms(p99)} ms`);
  }
  if (notBegun > 0)
    console.log(`the rate was not reached: ${formatCount(notBegun)} that were due were not begun`);
  for (const [code, failure] of failures)
    console.log(`${code}: ${formatCount(failure.count)}, the first: ${failure.message}`);
}

/** Latencies in microseconds. */
export function phaseJson(figures: PhaseFigures): Record<string, unknown> {
  const { phase, kinds, seconds, failures, lateUs, notBegun, interrupted } = figures;
  const count = succeeded(figures);
  return {
    ...{ phase, seconds, count, per_second: rate(count, seconds), interrupted },
    ...{ not_begun: notBegun, late_us: quantilesJson(lateUs) },
    operations: byName(kinds).map(([kind, { latencyUs, errors, missing }]) => ({
      ...{ operation: kind, count: latencyUs.totalCount },
      ...{ per_second: rate(latencyUs.totalCount, seconds), errors, missing },
      latency_us: quantilesJson(latencyUs),
    })),
    failures: Object.fromEntries(Array.from(failures, ([code, each]) => [code, each.count])),
  };
}

/** Null when nothing was counted. */
function quantilesJson(histogram: Histogram): Record<string, number> | null {
  const [p50, p95, p99, p999, max] = latencies(histogram);
  if (max === undefined) return null;
  return { p50: p50 ?? 0, p95: p95 ?? 0, p99: p99 ?? 0, p999: p999 ?? 0, max };
}
