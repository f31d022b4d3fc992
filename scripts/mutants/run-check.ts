/** Runs one check in a workplace, as a process of its own, until it fails or is through. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../project-root.js';
import type { Check, SimCheck, TestCheck } from './mutant.js';

/** What noticed the mutant, for the table; undefined: nothing did. */
export interface CheckResult {
  readonly caughtBy: string | undefined;
  /** Of a simulation: how many seeds it took. */
  readonly seeds: number | undefined;
  readonly ms: number;
}

/** A mutant may make a loop endless. A check that passes takes a small part of this. */
const checkMsMax = 180_000;
const testMsMax = 30_000;
const outputKept = 200_000;

interface Ended {
  readonly code: number | null;
  /** The end of what it printed. */
  readonly output: string;
  readonly timedOut: boolean;
}

export function runCheck(check: Check, folder: string): Promise<CheckResult> {
  return check.kind === 'sim' ? runSim(check, folder) : runTests(check, folder);
}

export function nameOf(check: Check): string {
  if (check.kind === 'sim') return `simulator, seeds ${check.seedFrom} to ${lastSeed(check)}`;
  return check.files.join(', ') + (check.titles === undefined ? '' : ` (${check.titles})`);
}

const lastSeed = ({ seedFrom, seeds }: SimCheck): number => seedFrom + seeds - 1;

async function runSim(check: SimCheck, folder: string): Promise<CheckResult> {
  const began = performance.now();
  const range = [
    '--kind',
    'core',
    '--seeds',
    String(check.seeds),
    '--seed-from',
    String(check.seedFrom),
  ];
  const ended = await runNode([join(folder, 'dist/scripts/sim.js'), ...range]);
  const ms = performance.now() - began;
  if (ended.code === 0) return { caughtBy: undefined, seeds: undefined, ms };
  const failed = /^seed (\d+) failed:/m.exec(ended.output)?.[1];
  if (failed === undefined)
    return { caughtBy: abnormalEnd('the simulator', ended), seeds: undefined, ms };
  const seeds = Number(failed) - check.seedFrom + 1;
  return { caughtBy: `simulator: seed ${failed}`, seeds, ms };
}

async function runTests(check: TestCheck, folder: string): Promise<CheckResult> {
  const began = performance.now();
  const report = join(folder, 'report.json');
  rmSync(report, { force: true });
  const files = check.files.map((file) => join(folder, 'dist/test', `${file}.test.js`));
  const missing = files.find((file) => !existsSync(file));
  if (missing !== undefined) throw new Error(`there is no ${missing}`);
  const ended = await runNode([
    ...['--unhandled-rejections=strict', join(projectRoot, 'node_modules/mocha/bin/mocha.js')],
    ...['--no-config', '--exit', '--bail', '--timeout', String(testMsMax)],
    ...['--reporter', 'json', '--reporter-option', `output=${report}`],
    ...(check.titles === undefined ? [] : ['--grep', check.titles]),
    ...files,
  ]);
  const ms = performance.now() - began;
  if (ended.code === 0) {
    if (passesOf(report) === 0) throw new Error(`no test has a title like ${nameOf(check)}`);
    return { caughtBy: undefined, seeds: undefined, ms };
  }
  const title = existsSync(report) ? firstFailure(report) : undefined;
  const caughtBy = title ?? abnormalEnd(check.files.join(', '), ended);
  return { caughtBy, seeds: undefined, ms };
}

interface MochaReport {
  readonly stats: { readonly passes: number };
  readonly failures: readonly { readonly fullTitle: string }[];
}

function readReport(path: string): MochaReport {
  return JSON.parse(readFileSync(path, 'utf8')) as MochaReport;
}

const passesOf = (path: string): number => readReport(path).stats.passes;

function firstFailure(path: string): string | undefined {
  return readReport(path).failures[0]?.fullTitle;
}

function abnormalEnd(what: string, { code, output, timedOut }: Ended): string {
  if (timedOut) return `${what}: did not end in ${checkMsMax / 1000} s`;
  const reason = output.split('\n').find((line) => /Error|never happened/.test(line));
  return `${what}: ended with exit code ${code}${reason === undefined ? '' : ` (${reason.trim()})`}`;
}

function runNode(args: readonly string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: projectRoot,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let timedOut = false;
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-outputKept);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, checkMsMax);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, output, timedOut });
    });
  });
}
