/**
 * Runs seeds through the simulator: `npm run sim -- --seeds 1000 --seed-from 1`.
 *
 * Prints progress, seeds per minute, and how often each fault happened. A failing seed is run again
 * with its trace kept, and ends in one line that repeats it. Exit code 0 when all seeds passed and,
 * in a run of `coverageSeedsMin` seeds and more, every fault happened at least once; else 1.
 */
import { fork } from 'node:child_process';
import { parseArgs } from 'node:util';
import { runCoreSim } from '../test/sim/core-sim.js';
import type { RunResult } from '../test/sim/core-sim.js';
import { Coverage, covered } from '../test/sim/coverage.js';
import { failureReport } from '../test/sim/failure-report.js';

interface SimArguments {
  readonly seeds: number;
  readonly seedFrom: number;
  readonly seconds: number;
  readonly workers: number;
  readonly failuresMax: number;
  readonly trace: boolean;
  /** Print the trace hash of each seed: two runs of a seed must have the same. */
  readonly hashes: boolean;
}

/** With fewer seeds some fault may well not have happened by chance. */
const coverageSeedsMin = 1000;
const progressEveryMs = 5000;

const usage = `usage: npm run sim -- [--kind core] [--seeds N] [--seed-from S] [--seconds 20]
                     [--workers 1] [--failures 1] [--trace] [--hashes]`;

function readArguments(): SimArguments {
  const { values } = parseArgs({
    options: {
      kind: { type: 'string', default: 'core' },
      seeds: { type: 'string', default: '1000' },
      'seed-from': { type: 'string', default: '1' },
      seconds: { type: 'string', default: '20' },
      workers: { type: 'string', default: '1' },
      failures: { type: 'string', default: '1' },
      trace: { type: 'boolean', default: false },
      hashes: { type: 'boolean', default: false },
    },
  });
  if (values.kind !== 'core') throw new RangeError(`--kind core is what there is`);
  return {
    seeds: wholeNumber('--seeds', values.seeds, 1),
    seedFrom: wholeNumber('--seed-from', values['seed-from'], 0),
    seconds: wholeNumber('--seconds', values.seconds, 1),
    workers: wholeNumber('--workers', values.workers, 1),
    failuresMax: wholeNumber('--failures', values.failures, 1),
    trace: values.trace,
    hashes: values.hashes,
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
  readonly coverage = new Coverage();
  readonly failures: RunResult[] = [];
  private done = 0;
  private readonly began = performance.now();
  private shownAt = this.began;
  private readonly of: number;

  constructor(of: number) {
    this.of = of;
  }

  add(result: RunResult): void {
    this.done++;
    this.coverage.add(result.coverage);
    if (result.failure !== undefined) this.failures.push(result);
    const now = performance.now();
    if (now - this.shownAt < progressEveryMs) return;
    this.shownAt = now;
    console.log(`${this.done} of ${this.of} seeds, ${this.seedsPerMinute} a minute`);
  }

  get seedsPerMinute(): number {
    return Math.round((this.done * 60_000) / (performance.now() - this.began));
  }

  /** Prints all of it; true if there is nothing to complain about. */
  conclude(args: SimArguments): boolean {
    for (const what of covered) {
      console.log(`${String(this.coverage.counts[what]).padStart(10)}  ${what}`);
    }
    for (const failure of this.failures) {
      console.log(`\n${failureReport(failure, args.seconds).join('\n')}\n`);
    }
    const missing = this.done >= coverageSeedsMin ? this.coverage.missing : [];
    for (const what of missing) console.log(`never happened: ${what}`);
    const failed = this.failures.length;
    console.log(
      `${this.done} seeds of ${args.seconds} virtual seconds, ${this.seedsPerMinute} a minute: ` +
        `${this.done - failed} passed, ${failed} failed`,
    );
    return failed === 0 && missing.length === 0;
  }
}

function runTraced(args: SimArguments): boolean {
  const { seedFrom: seed, seconds } = args;
  const print = (line: string): void => console.log(line);
  const result = runCoreSim({ seed, seconds, traceLines: 1, print });
  console.log(result.failure ?? 'passed');
  console.log(`trace hash ${result.hash}`);
  return result.failure === undefined;
}

function runHere(args: SimArguments, take: (result: RunResult) => boolean): void {
  for (let seed = args.seedFrom; seed < args.seedFrom + args.seeds; seed++) {
    if (!take(runCoreSim({ seed, seconds: args.seconds, traceLines: 0 }))) return;
  }
}

/** Each process takes every `workers`-th seed and sends its results back. */
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
        worker.on('message', (result: RunResult) => {
          report.add(result);
          if (report.failures.length >= args.failuresMax) for (const one of workers) one.kill();
        });
        worker.on('exit', (code, signal) => {
          if (code === 0 || signal !== null) resolve();
          else reject(new Error(`a worker ended with exit code ${code}`));
        });
      }),
  );
  await Promise.all(ended);
}

function runShare(args: SimArguments, share: number): void {
  for (let seed = args.seedFrom + share; seed < args.seedFrom + args.seeds; seed += args.workers) {
    process.send?.(runCoreSim({ seed, seconds: args.seconds, traceLines: 0 }));
  }
}

async function main(): Promise<void> {
  const args = readArguments();
  const share = process.env['QUORATE_SIM_SHARE'];
  if (share !== undefined) {
    runShare(args, Number(share));
    process.disconnect?.();
    return;
  }
  if (args.trace) {
    process.exitCode = runTraced(args) ? 0 : 1;
    return;
  }
  const report = new Report(args.seeds);
  if (args.workers > 1) {
    await runInWorkers(args, report);
  } else {
    runHere(args, (result) => {
      report.add(result);
      if (args.hashes) console.log(`seed ${result.seed} ${result.hash}`);
      return report.failures.length < args.failuresMax;
    });
  }
  process.exitCode = report.conclude(args) ? 0 : 1;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  console.error(usage);
  process.exitCode = 2;
});
