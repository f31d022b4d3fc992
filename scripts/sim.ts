/**
 * Runs seeds through a simulator: `npm run sim -- --kind node --seeds 1000 --seed-from 1`.
 *
 * Prints progress, seeds per minute, and how often each fault and each operation happened. A failing
 * seed is run again with its trace kept, and ends in one line that repeats it. Exit code 0 when all
 * seeds passed and, in a run of enough seeds, everything that can happen did at least once; else 1.
 */
import { fork } from 'node:child_process';
import { parseArgs } from 'node:util';
import { Coverage } from '../test/sim/coverage.js';
import { failureReport } from '../test/sim/failure-report.js';
import { simKinds, type SimKind, type SimResult } from '../test/sim/kinds.js';

interface SimArguments {
  readonly kind: SimKind;
  readonly seeds: number;
  readonly seedFrom: number;
  /** No seed is begun after so many; 0: there is no such end. */
  readonly minutes: number;
  readonly seconds: number;
  readonly workers: number;
  readonly failuresMax: number;
  readonly trace: boolean;
  /** Print the trace hash of each seed: two runs of a seed must have the same. */
  readonly hashes: boolean;
  /** Each seed runs in two processes, and must take the same course in both. */
  readonly twice: boolean;
}

const progressEveryMs = 5000;

const usage = `usage: npm run sim -- [--kind ${simKinds.map(({ name }) => name).join('|')}] [--seeds N] [--seed-from S] [--minutes M]
                     [--seconds S] [--workers 1] [--failures 1] [--trace] [--hashes] [--twice]`;

function readArguments(): SimArguments {
  const { values } = parseArgs({
    options: {
      kind: { type: 'string', default: 'core' },
      seeds: { type: 'string' },
      'seed-from': { type: 'string', default: '1' },
      minutes: { type: 'string', default: '0' },
      seconds: { type: 'string' },
      workers: { type: 'string', default: '1' },
      failures: { type: 'string', default: '1' },
      trace: { type: 'boolean', default: false },
      hashes: { type: 'boolean', default: false },
      twice: { type: 'boolean', default: false },
    },
  });
  const kind = simKinds.find(({ name }) => name === values.kind);
  if (kind === undefined)
    throw new RangeError(`--kind must be one of ${simKinds.map(({ name }) => name).join(', ')}`);
  const minutes = wholeNumber('--minutes', values.minutes, 0);
  const seeds = values.seeds ?? (minutes > 0 ? '1000000' : '1000');
  return {
    kind,
    minutes,
    seeds: wholeNumber('--seeds', seeds, 1),
    seedFrom: wholeNumber('--seed-from', values['seed-from'], 0),
    seconds: wholeNumber('--seconds', values.seconds ?? String(kind.seconds), 1),
    workers: values.twice ? 2 : wholeNumber('--workers', values.workers, 1),
    failuresMax: wholeNumber('--failures', values.failures, 1),
    trace: values.trace,
    hashes: values.hashes,
    twice: values.twice,
  };
}

function wholeNumber(name: string, text: string, min: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > 0xffff_ffff) {
    throw new RangeError(`${name} must be a whole number of at least ${min}, got ${text}`);
  }
  return value;
}

/** Collects results, and says how it goes. */
class Report {
  readonly coverage: Coverage<string>;
  readonly failures: SimResult[] = [];
  private done = 0;
  /** Run once so far, of those that run twice. */
  private readonly single = new Map<number, SimResult>();
  private readonly began = performance.now();
  private shownAt = this.began;
  private readonly args: SimArguments;

  constructor(args: SimArguments) {
    this.args = args;
    this.coverage = new Coverage(args.kind.covered);
  }

  add(told: SimResult): void {
    const result = this.args.twice ? this.compared(told) : told;
    if (result === undefined) return;
    this.done++;
    this.coverage.add(result.coverage);
    if (result.failure !== undefined) this.failures.push(result);
    if (this.args.hashes) console.log(`seed ${result.seed} ${result.hash}`);
    const now = performance.now();
    if (now - this.shownAt < progressEveryMs) return;
    this.shownAt = now;
    const of = this.args.minutes > 0 ? '' : ` of ${this.args.seeds}`;
    console.log(`${this.done}${of} seeds, ${this.seedsPerMinute} a minute`);
  }

  /** Undefined for the first of the two results of a seed. */
  private compared(result: SimResult): SimResult | undefined {
    const other = this.single.get(result.seed);
    this.single.set(result.seed, result);
    if (other === undefined) return undefined;
    this.single.delete(result.seed);
    if (other.hash === result.hash) return result;
    const failure = `took different courses in two processes: ${other.hash}, ${result.hash}`;
    return { ...result, failure };
  }

  /** No other seed is to be begun. */
  get isOver(): boolean {
    const { failuresMax, minutes } = this.args;
    const isLate = minutes > 0 && performance.now() - this.began > minutes * 60_000;
    return this.failures.length >= failuresMax || isLate;
  }

  get seedsPerMinute(): number {
    return Math.round((this.done * 60_000) / (performance.now() - this.began));
  }

  /** Prints all of it; true if there is nothing to complain about. */
  async conclude(): Promise<boolean> {
    const { kind, seconds } = this.args;
    for (const what of kind.covered) {
      console.log(`${String(this.coverage.counts[what]).padStart(10)}  ${what}`);
    }
    for (const failure of this.failures) {
      console.log(`\n${(await failureReport(kind, failure, seconds)).join('\n')}\n`);
    }
    const never = this.coverage.missing.filter((what) => !kind.rare.includes(what));
    const missing = this.done >= kind.coverageSeedsMin ? never : [];
    for (const what of missing) console.log(`never happened: ${what}`);
    const failed = this.failures.length;
    console.log(
      `${this.done} seeds of ${seconds} virtual seconds, ${this.seedsPerMinute} a minute: ` +
        `${this.done - failed} passed, ${failed} failed`,
    );
    return failed === 0 && missing.length === 0;
  }
}

async function runTraced({ kind, seedFrom: seed, seconds }: SimArguments): Promise<boolean> {
  const print = (line: string): void => {
    console.log(line);
  };
  const result = await kind.run({ seed, seconds, traceLines: 1, print });
  console.log(result.failure ?? 'passed');
  console.log(`trace hash ${result.hash}`);
  return result.failure === undefined;
}

async function runHere(args: SimArguments, report: Report): Promise<void> {
  const { kind, seconds } = args;
  for (let seed = args.seedFrom; seed < args.seedFrom + args.seeds && !report.isOver; seed++)
    report.add(await kind.run({ seed, seconds, traceLines: 0 }));
}

/** Each process takes every `workers`-th seed, or every one, and sends its results back. */
async function runInWorkers(args: SimArguments, report: Report): Promise<void> {
  const workers = Array.from({ length: args.workers }, (_, share) =>
    fork(import.meta.filename, process.argv.slice(2), {
      execArgv: process.execArgv,
      env: { ...process.env, QUORATE_SIM_SHARE: String(share) },
    }),
  );
  const ended = workers.map(
    (worker) =>
      new Promise<void>((resolve, reject) => {
        worker.on('message', (result: SimResult) => {
          report.add(result);
          if (report.isOver) for (const one of workers) one.kill();
        });
        worker.on('exit', (code, signal) => {
          if (code === 0 || signal !== null) resolve();
          else reject(new Error(`a worker ended with exit code ${code}`));
        });
      }),
  );
  await Promise.all(ended);
}

async function runShare(args: SimArguments, share: number): Promise<void> {
  const { kind, seconds, seedFrom, seeds, workers, twice } = args;
  const [first, step] = twice ? [seedFrom, 1] : [seedFrom + share, workers];
  for (let seed = first; seed < seedFrom + seeds; seed += step) {
    process.send?.(await kind.run({ seed, seconds, traceLines: 0 }));
  }
}

async function main(): Promise<void> {
  const args = readArguments();
  const share = process.env['QUORATE_SIM_SHARE'];
  if (share !== undefined) {
    await runShare(args, Number(share));
    process.disconnect?.();
    return;
  }
  if (args.trace) {
    process.exitCode = (await runTraced(args)) ? 0 : 1;
    return;
  }
  const report = new Report(args);
  if (args.workers > 1) await runInWorkers(args, report);
  else await runHere(args, report);
  process.exitCode = (await report.conclude()) ? 0 : 1;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  console.error(usage);
  process.exitCode = 2;
});
