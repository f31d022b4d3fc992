/** `npm run jepsen`: options, one run, its report, and an exit code that says how it went. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import type { EffectsWanted } from './coverage.js';
import { nemeses } from './nemesis/all.js';
import { conclusionOf, writeReport } from './report/report.js';
import { execute, http2Kinds, type Outcome, type Plan } from './run.js';
import { rerunInside } from './sandbox.js';
import { workloads } from './workloads/all.js';

const exitCode = { passed: 0, anomaly: 1, usage: 2, undecided: 3, rejected: 4, broken: 5 } as const;

interface Flags {
  readonly nodes: number;
  readonly time: number;
  readonly shards: number;
  readonly replicas: number;
  readonly workload: string;
  readonly nemesis: readonly string[];
  readonly seed: number;
  readonly clients: number;
  readonly rate: number;
  readonly timeout: number;
  readonly leases?: boolean;
  readonly http2?: string;
  readonly gap: number;
  readonly effectsWanted?: EffectsWanted;
  readonly report?: string;
  readonly sandbox: boolean;
  readonly smoke?: boolean;
}

/** For CI, two to four minutes: faults of every kind that need no luck to do something. */
const smoke = {
  nodes: 3,
  shards: 2,
  replicas: 3,
  time: 120,
  workload: 'append',
  nemesis: ['kill', 'pause', 'partition', 'migrate', 'transfer', 'power', 'disk-error'],
  clients: 8,
  rate: 200,
  timeout: 5000,
  gap: 2,
  effectsWanted: { power: 5 },
} as const;

const integer =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isSafeInteger(value) && value >= min && value <= max)
      return value;
    throw new InvalidArgumentError(`must be an integer from ${min} to ${max}.`);
  };

const oneOf =
  (known: readonly string[]) =>
  (text: string): string => {
    if (known.includes(text)) return text;
    throw new InvalidArgumentError(`must be one of ${known.join(', ')}.`);
  };

function names(text: string): readonly string[] {
  if (text === 'none') return [];
  if (text === 'all') return [...nemeses.keys()];
  const known = oneOf([...nemeses.keys()]);
  return [...new Set(text.split(',').map((name) => known(name.trim())))];
}

function program(): Command {
  return new Command('jepsen')
    .description('Breaks a real cluster while clients work, and checks what they were told.')
    .option('--nodes <n>', 'processes', integer(1, 9), 5)
    .option('--time <seconds>', 'how long faults are made', integer(1, 86_400), 120)
    .option(
      '--workload <name>',
      [...workloads.keys()].join(', '),
      oneOf([...workloads.keys()]),
      'append',
    )
    .option('--nemesis <list>', `none, all, or some of ${[...nemeses.keys()].join(',')}`, names, [
      'partition',
      'kill',
    ])
    .option('--seed <n>', 'faults and operations follow from it', integer(0, 2 ** 32 - 1), 1)
    .option('--shards <n>', 'shards at the start', integer(1, 64), 4)
    .option('--replicas <n>', 'replicas of each shard', integer(1, 7), 3)
    .option('--clients <n>', 'clients, each with one operation at a time', integer(1, 200), 16)
    .option('--rate <n>', 'operations a second, all clients together', integer(1, 100_000), 500)
    .option('--timeout <ms>', 'of one operation', integer(100, 45_000), 3000)
    .option('--gap <n>', 'times the usual quiet between faults', integer(1, 100), 1)
    .option('--leases', 'leases on, and every other client reads on one')
    .option('--http2 <kind>', "the nodes' option: what speaks HTTP/2 to clients", oneOf(http2Kinds))
    .option(
      '--smoke',
      'for CI: two to four minutes, 3 nodes, every common fault, 5 power cuts; only --seed, --http2 and --report count',
    )
    .option('--no-sandbox', 'no namespaces: nodes on loopback, links through proxies')
    .option('--report <folder>', 'where the report goes (default: .build/jepsen/WORKLOAD-SEED)')
    .addHelpText(
      'after',
      '\nExit codes: 0 passed, 1 anomaly, 2 usage, 3 undecided, 4 rejected (a requested fault had no\n' +
        'effect, or too little succeeded meanwhile), 5 the run could not be made.\n' +
        'A fault that this machine cannot make is skipped, with the reason, and counted.',
    );
}

function planOf(given: Flags): Plan {
  const flags = given.smoke === true ? { ...given, ...smoke } : given;
  const { nodes, time, workload, nemesis, seed, timeout, gap, leases = false, report } = flags;
  const { effectsWanted = {} } = flags;
  return {
    ...flags,
    replicas: Math.min(flags.replicas, nodes),
    durationMs: time * 1000,
    nemeses: nemesis,
    timeoutMs: timeout,
    gapFactor: gap,
    effectsWanted,
    leases,
    report: resolve(
      report ?? join('.build', 'jepsen', `${given.smoke === true ? 'smoke' : workload}-${seed}`),
    ),
    program: quorateProgram(),
  };
}

/** The compiled command, found by walking up from this file. */
function quorateProgram(): string {
  for (let folder = import.meta.dirname; dirname(folder) !== folder; folder = dirname(folder)) {
    const found = join(folder, 'dist', 'src', 'cli', 'quorate.js');
    if (existsSync(found)) return found;
  }
  throw new Error('dist/src/cli/quorate.js is missing: npm run build');
}

/** How the run went, in the word of the report. */
const codes: Readonly<Record<string, number>> = {
  valid: exitCode.passed,
  invalid: exitCode.anomaly,
  rejected: exitCode.rejected,
  undecided: exitCode.undecided,
};

/** Writes the report and prints its summary; the last line can be pasted. */
function tell(outcome: Outcome): number {
  const { plan, operations, spans, verdicts, coverage, skipped, network } = outcome;
  const rejected = coverage.problems;
  const skips = [...skipped].map(([name, reason]) => `${name} (${reason})`);
  const title =
    `jepsen: ${plan.workload}, ${plan.nodes} nodes (${network}), seed ${plan.seed}` +
    (plan.http2 === undefined ? '' : `, http2 ${plan.http2}`) +
    (skips.length === 0 ? '' : `, skipped: ${skips.join('; ')}`);
  const run = { title, command: commandOf(plan), operations, faults: spans, verdicts, rejected };
  console.log(`\n${writeReport(plan.report, run)}`);
  const conclusion = conclusionOf(run);
  const effective = spans.filter(({ hadEffect }) => hadEffect).length;
  const succeeded = operations.filter(({ status }) => status === 'ok').length;
  const anomalies = verdicts.filter(({ valid }) => valid === false).length;
  console.log(
    `${conclusion}: ${plan.workload} seed ${plan.seed}, ${operations.length} operations ` +
      `(${succeeded} ok), ${effective} of ${spans.length} faults had an effect, ` +
      `${skipped.size} skipped, ${anomalies} failed checks; report: ${plan.report}`,
  );
  return codes[conclusion] ?? exitCode.broken;
}

/** What repeats the run. */
function commandOf(plan: Plan): string {
  const door = plan.http2 === undefined ? [] : [`--http2 ${plan.http2}`];
  if (plan.effectsWanted === smoke.effectsWanted)
    return [`npm run jepsen -- --smoke --seed ${plan.seed}`, ...door].join(' ');
  const flags: Readonly<Record<string, string | number>> = {
    nodes: plan.nodes,
    time: plan.durationMs / 1000,
    workload: plan.workload,
    nemesis: plan.nemeses.join(',') || 'none',
    seed: plan.seed,
    shards: plan.shards,
    replicas: plan.replicas,
    clients: plan.clients,
    rate: plan.rate,
    timeout: plan.timeoutMs,
    gap: plan.gapFactor,
  };
  const words = Object.entries(flags).map(([name, value]) => `--${name} ${value}`);
  const leases = plan.leases ? ['--leases'] : [];
  return ['npm run jepsen --', ...words, ...leases, ...door].join(' ');
}

async function main(): Promise<number> {
  const command = program().exitOverride();
  let flags: Flags;
  try {
    flags = command.parse().opts<Flags>();
  } catch (error) {
    return error instanceof Error && 'exitCode' in error && error.exitCode === 0
      ? exitCode.passed
      : exitCode.usage;
  }
  const inside = flags.sandbox ? await rerunInside() : undefined;
  if (inside !== undefined) return inside;
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      console.log(`${signal}: healing and ending`);
      stopping.abort();
    });
  const say = (line: string): void => {
    console.log(line);
  };
  try {
    return tell(await execute(planOf(flags), say, stopping.signal));
  } catch (error) {
    console.error(error);
    return exitCode.broken;
  }
}

process.exitCode = await main();
