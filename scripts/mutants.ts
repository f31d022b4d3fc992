/**
 * Puts known bugs into the product, one at a time, and expects the checks to notice each:
 *
 *   npm run mutants                      all of them; writes docs/mutants.md
 *   npm run mutants -- --slice 2/5       every fifth, from the second on
 *   npm run mutants -- --slice rota/5    the share that this commit's number chooses: five commits see all
 *   npm run mutants -- --only NAME       one, with all its checks; or a section: raft, storage, service
 *
 * Exit code 0 when all of them are caught (of a slice: nine of ten), and each check that caught one
 * passes without it.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { allMutants } from './mutants/all-mutants.js';
import { mutantsPage } from './mutants/mutants-page.js';
import type { Check, Mutant } from './mutants/mutant.js';
import { nameOf, runCheck, type CheckResult } from './mutants/run-check.js';
import { Workplace } from './mutants/workplace.js';
import { projectRoot } from './project-root.js';

/** Of a slice; all of them in the whole. */
const sliceShareMin = 0.9;

export interface MutantResult {
  readonly mutant: Mutant;
  /** In the order of the mutant's checks, up to the last one that was run. */
  readonly results: readonly CheckResult[];
}

interface Plan {
  readonly mutants: readonly Mutant[];
  /** All checks of a mutant are run, also behind the one that has caught it. */
  readonly allChecks: boolean;
  readonly workers: number;
  readonly isWhole: boolean;
}

function readPlan(): Plan {
  const { values } = parseArgs({
    options: {
      slice: { type: 'string' },
      only: { type: 'string' },
      workers: { type: 'string', default: '2' },
    },
  });
  const workers = Number(values.workers);
  if (!Number.isInteger(workers) || workers < 1) throw new RangeError('--workers: a count');
  const { only, slice } = values;
  if (only !== undefined) {
    const mutants = allMutants.filter(({ name, section }) => name === only || section === only);
    if (mutants.length === 0) throw new RangeError(`there is no mutant or section ${only}`);
    return { mutants, allChecks: mutants.length === 1, workers, isWhole: false };
  }
  if (slice === undefined) return { mutants: allMutants, allChecks: true, workers, isWhole: true };
  const { share, of } = readSlice(slice);
  const mutants = allMutants.filter((_, n) => n % of === share);
  return { mutants, allChecks: false, workers, isWhole: false };
}

function readSlice(text: string): { readonly share: number; readonly of: number } {
  const [, which = '', count = ''] = /^(rota|\d+)\/(\d+)$/.exec(text) ?? [];
  const of = Number(count);
  const share = which === 'rota' ? commitNumber() % of : Number(which) - 1;
  if (!(share >= 0 && share < of)) throw new RangeError('--slice: 1/5 to 5/5, or rota/5');
  return { share, of };
}

/** 0 where there is no history to count. */
function commitNumber(): number {
  try {
    const count = execFileSync('git', ['rev-list', '--count', 'HEAD'], { cwd: projectRoot });
    return Number(count.toString());
  } catch {
    return 0;
  }
}

async function runMutant(mutant: Mutant, place: Workplace, plan: Plan): Promise<MutantResult> {
  if (mutant.equivalent !== undefined) return { mutant, results: [] };
  const results = await place.with(mutant, async () => {
    const done: CheckResult[] = [];
    for (const check of mutant.checks) {
      done.push(await runCheck(check, place.folder));
      if (!plan.allChecks && done.some(isCatch)) break;
    }
    return done;
  });
  return { mutant, results };
}

const isCatch = ({ caughtBy }: CheckResult): boolean => caughtBy !== undefined;
const isCaught = ({ results }: MutantResult): boolean => results.some(isCatch);

/** Each worker has a workplace of its own, and takes what comes next. */
async function inWorkers<T, R>(
  items: readonly T[],
  places: readonly Workplace[],
  work: (item: T, place: Workplace) => Promise<R>,
): Promise<readonly R[]> {
  const results = new Map<number, R>();
  let next = 0;
  await Promise.all(
    places.map(async (place) => {
      for (let n = next++; n < items.length; n = next++) {
        const item = items[n];
        if (item !== undefined) results.set(n, await work(item, place));
      }
    }),
  );
  return [...results].sort(([a], [b]) => a - b).map(([, result]) => result);
}

/** The checks that have caught something, as far as they were run: they must pass without it. */
function provingChecks(results: readonly MutantResult[]): readonly Check[] {
  const proving = new Map<string, Check>();
  for (const { mutant, results: done } of results) {
    for (const [n, { caughtBy, seeds }] of done.entries()) {
      const check = mutant.checks[n];
      if (caughtBy === undefined || check === undefined) continue;
      const one = check.kind === 'sim' ? { ...check, seeds: seeds ?? check.seeds } : check;
      const other = proving.get(keyOf(one));
      if (other?.kind === 'sim' && one.kind === 'sim' && other.seeds >= one.seeds) continue;
      proving.set(keyOf(one), one);
    }
  }
  return [...proving.values()];
}

/** Simulations from one seed on: the longest of them says it for all. */
const keyOf = (check: Check): string =>
  check.kind === 'sim' ? `sim ${check.seedFrom}` : nameOf(check);

function print({ mutant, results }: MutantResult): void {
  const { section, name, equivalent } = mutant;
  const head = `${section.padEnd(8)} ${name}`;
  if (equivalent !== undefined) console.log(`equal    ${head}`);
  else if (results.some(isCatch)) console.log(`caught   ${head}`);
  else console.log(`SURVIVED ${head}`);
  for (const { caughtBy, ms } of results)
    console.log(`           ${(ms / 1000).toFixed(1)} s  ${caughtBy ?? '-'}`);
}

async function main(): Promise<void> {
  const plan = readPlan();
  const count = Math.min(plan.workers, plan.mutants.length);
  const places = Array.from({ length: count }, (_, n) => new Workplace(n));
  try {
    const results = await inWorkers(plan.mutants, places, async (mutant, place) => {
      const result = await runMutant(mutant, place, plan);
      print(result);
      return result;
    });
    const wrong = (
      await inWorkers(provingChecks(results), places, async (check, place) => {
        const { caughtBy } = await runCheck(check, place.folder);
        return caughtBy === undefined ? [] : [`${nameOf(check)} fails by itself: ${caughtBy}`];
      })
    ).flat();
    conclude(plan, results, wrong);
  } finally {
    for (const place of places) place.remove();
  }
}

function conclude(plan: Plan, results: readonly MutantResult[], wrong: readonly string[]): void {
  const judged = results.filter(({ mutant }) => mutant.equivalent === undefined);
  const survivors = judged.filter((result) => !isCaught(result));
  for (const line of wrong) console.error(line);
  for (const { mutant } of survivors) console.error(`survived: ${mutant.name}: ${mutant.breaks}`);
  if (plan.isWhole && wrong.length === 0)
    writeFileSync(join(projectRoot, 'docs/mutants.md'), mutantsPage(results));
  const caught = judged.length - survivors.length;
  const shareMin = plan.isWhole || plan.mutants.length === 1 ? 1 : sliceShareMin;
  const isGood = wrong.length === 0 && caught >= shareMin * judged.length;
  const bar = `the bar is ${Math.ceil(shareMin * judged.length)}`;
  console.log(
    `mutants: ${caught} of ${judged.length} caught, ${bar}; ` +
      `${results.length - judged.length} equivalent: ${isGood ? 'ok' : 'FAILED'}`,
  );
  process.exitCode = isGood ? 0 : 1;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
});
