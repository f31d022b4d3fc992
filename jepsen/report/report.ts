/** The folder that a run leaves behind: history, faults, verdicts, picture, and a summary to read. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  writeHistory,
  type FaultSpan,
  type Operation,
  type OperationStatus,
  type Verdict,
} from '../history.js';
import { plotSvg } from './plot.js';

export interface RunReport {
  readonly title: string;
  /** What repeats the run, to be pasted. */
  readonly command: string;
  readonly operations: readonly Operation[];
  readonly faults: readonly FaultSpan[];
  readonly verdicts: readonly Verdict[];
  /** Why the run proves nothing, if so: a fault without effect, too few operations. */
  readonly rejected: readonly string[];
}

/** Writes history.jsonl, faults.json, verdicts.json, plot.svg and summary.txt; returns the summary. */
export function writeReport(folder: string, run: RunReport): string {
  mkdirSync(folder, { recursive: true });
  const summary = summaryOf(run);
  writeHistory(join(folder, 'history.jsonl'), run.operations);
  writeFileSync(join(folder, 'faults.json'), `${JSON.stringify(run.faults, null, 1)}\n`);
  writeFileSync(join(folder, 'verdicts.json'), `${JSON.stringify(run.verdicts, null, 1)}\n`);
  writeFileSync(join(folder, 'plot.svg'), plotSvg(run));
  writeFileSync(join(folder, 'summary.txt'), summary);
  return summary;
}

/** `undecided` is not a pass, and a rejected run is none either. */
export function summaryOf(run: RunReport): string {
  const { title, command, operations, faults, verdicts, rejected } = run;
  const lines = [title, '', ...countLines(operations), ...faultLines(faults), ''];
  for (const { checker, valid, checked, ms, details } of verdicts) {
    const word = valid === 'unknown' ? 'undecided' : valid ? 'valid' : 'INVALID';
    lines.push(`${word.padEnd(10)} ${checker}: ${checked} operations in ${ms} ms`);
    lines.push(...details.map((line) => `    ${line}`));
  }
  lines.push(...rejected.map((reason) => `rejected   ${reason}`));
  lines.push('', conclusionOf(run), `again: ${command}`, '');
  return lines.join('\n');
}

/** One word for a run: `invalid` before `rejected` before `undecided` before `valid`. */
export function conclusionOf({ verdicts, rejected }: RunReport): string {
  if (verdicts.some(({ valid }) => valid === false)) return 'invalid';
  if (rejected.length > 0) return 'rejected';
  if (verdicts.some(({ valid }) => valid === 'unknown')) return 'undecided';
  return 'valid';
}

function countLines(operations: readonly Operation[]): string[] {
  const counts: Record<OperationStatus, number> = { ok: 0, fail: 0, info: 0 };
  let endNs = 0;
  const tookMs: number[] = [];
  for (const { status, callNs, returnNs } of operations) {
    counts[status]++;
    endNs = Math.max(endNs, returnNs);
    if (status === 'ok') tookMs.push((returnNs - callNs) / 1e6);
  }
  tookMs.sort((a, b) => a - b);
  const quantile = (share: number): string =>
    (tookMs[Math.min(tookMs.length - 1, Math.floor(share * tookMs.length))] ?? 0).toFixed(1);
  const seconds = Math.max(1e-9, endNs / 1e9);
  return [
    `${operations.length} operations in ${seconds.toFixed(1)} s ` +
      `(${Math.round(operations.length / seconds)} a second): ` +
      `${counts.ok} ok, ${counts.fail} failed, ${counts.info} unknown`,
    `ok ones took ${quantile(0.5)} ms (p50), ${quantile(0.99)} ms (p99), ${quantile(1)} ms (max)`,
  ];
}

function faultLines(faults: readonly FaultSpan[]): string[] {
  const byNemesis = new Map<string, { count: number; effective: number }>();
  for (const { nemesis, hadEffect } of faults) {
    const seen = byNemesis.get(nemesis) ?? { count: 0, effective: 0 };
    byNemesis.set(nemesis, {
      count: seen.count + 1,
      effective: seen.effective + (hadEffect ? 1 : 0),
    });
  }
  return [...byNemesis].map(
    ([nemesis, { count, effective }]) => `${nemesis}: ${count} faults, ${effective} had an effect`,
  );
}
