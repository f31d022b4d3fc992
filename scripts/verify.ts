/**
 * `npm run verify`: everything that proves the program, a line for each part when it ends. A part that
 * fails shows the end of what it printed. The last line is `N passed, N failed`.
 *
 * The parts with real processes come one after the other. What knows no clock but its own runs beside
 * them, on what they leave of the cores.
 */
import { spawn } from 'node:child_process';
import { Command, InvalidArgumentError } from 'commander';
import { projectRoot } from './project-root.js';

interface Part {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  /** With the lowest priority, beside the others. */
  readonly beside?: true;
}

const besideOthers = ['nice', '-n', '19'] as const;

const parts: readonly Part[] = [
  // What `npm test` does, but for the build: nobody may write what the others are reading.
  { name: 'check', command: ['npm', 'run', '--silent', 'check'] },
  { name: 'tests', command: ['npx', 'mocha'] },
  {
    name: 'simulation',
    command: ['node', 'dist/scripts/sim.js', '--seeds', '5000', '--workers', '2'],
    beside: true,
  },
  {
    name: 'nodes',
    command: ['node', 'dist/scripts/sim.js', '--kind', 'node', '--seeds', '1500', '--workers', '2'],
    beside: true,
  },
  {
    name: 'determinism',
    command: ['node', 'dist/scripts/sim.js', '--kind', 'node', '--seeds', '100', '--twice'],
    beside: true,
  },
  // Not beside the others: its checks have limits of time, and one that starves would pass for caught.
  { name: 'mutants', command: ['node', 'dist/scripts/mutants.js', '--slice', 'rota/8'] },
  { name: 'jepsen', command: ['node', 'dist/jepsen/jepsen.js', '--smoke'] },
];

/** Of the output of a part that failed. */
const tailLines = 60;

interface Count {
  readonly passed: number;
  readonly failed: number;
}

/** A part that counts nothing itself counts as one. */
async function runPart({ name, command, beside }: Part): Promise<Count> {
  const begunAt = performance.now();
  const { code, output } = await run(beside ? [...besideOthers, ...command] : command);
  const lines = output.trimEnd().split('\n');
  const counted = /^(\d+) passed, (\d+) failed/.exec(lines.at(-1) ?? '');
  const own = { passed: Number(counted?.[1] ?? code === 0), failed: Number(counted?.[2] ?? 0) };
  // A part that ends badly has failed, whatever it counted.
  const count = code === 0 ? own : { ...own, failed: Math.max(1, own.failed) };
  const seconds = Math.round((performance.now() - begunAt) / 1000);
  if (code !== 0) console.log(lines.slice(-tailLines).join('\n'));
  const word = code === 0 ? 'ok' : 'FAILED';
  console.log(`${word.padEnd(6)} ${name}, ${seconds} s: ${lines.at(-1) ?? ''}`);
  return count;
}

function run([program, ...args]: Part['command']): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: projectRoot, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (piece: Buffer) => (output += piece.toString()));
    child.on('error', reject);
    child.on('close', (code) => {
      resolve({ code: code ?? 1, output });
    });
  });
}

function chosen(names: string): readonly Part[] {
  return names.split(',').map((name) => {
    const part = parts.find((each) => each.name === name);
    if (part !== undefined) return part;
    throw new InvalidArgumentError(`must be some of ${parts.map((each) => each.name).join(',')}.`);
  });
}

const { only = parts } = new Command('verify')
  .description('Runs everything that proves the program.')
  .option('--only <parts>', parts.map(({ name }) => name).join(','), chosen)
  .parse()
  .opts<{ only?: readonly Part[] }>();

let [passed, failed] = [0, 0];
async function runAll(some: readonly Part[]): Promise<void> {
  for (const part of some) {
    const count = await runPart(part);
    passed += count.passed;
    failed += count.failed;
  }
}

await Promise.all([
  runAll(only.filter(({ beside }) => beside)),
  runAll(only.filter(({ beside }) => !beside)),
]);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
