/** `quorate bench`: the core workloads of YCSB against a running cluster, through the client. */
import { setMaxListeners } from 'node:events';
import { Command } from 'commander';
import { ReadLevel } from '../../../proto/messages.js';
import type { QuorateClient } from '../../client/index.js';
import {
  parseInteger,
  parseLevel,
  withClient,
  withClientFlags,
  type ClientFlags,
} from '../options.js';
import { ExitCode, formatCount, printJson, UsageError } from '../output.js';
import { Drive, type DriveFigures, type DriveOptions } from './driver.js';
import { Records, type Loaded } from './records.js';
import { phaseJson, printPhase, problems, type PhaseFigures } from './report.js';
import {
  Loading,
  Running,
  workloads,
  type Action,
  type ReadForm,
  type Subject,
  type Workload,
} from './workload.js';

const recordsDefault = 10_000;
const recordsMax = 100_000_000;
const secondsDefault = 10;
const valueBytesMax = 1024 * 1024;
const clientsMax = 10_000;
const rateMax = 1_000_000;
const progressMs = 1000;
const phaseNames = ['load', 'run', 'clean'] as const;
const distributions = ['zipfian', 'uniform', 'latest'] as const;

interface BenchFlags extends ClientFlags {
  readonly workload: string;
  readonly records?: string;
  readonly operations?: string;
  readonly time?: string;
  readonly clients: string;
  readonly valueBytes: string;
  readonly keys?: string;
  readonly level: string;
  readonly maxStaleness?: string;
  readonly rate?: string;
  readonly batching: boolean;
  readonly prefix: string;
  readonly phases: string;
  readonly clean?: boolean;
}

type Phase = (typeof phaseNames)[number];

interface BenchOptions {
  readonly workload: Workload;
  /** Undefined: as many as are loaded, or the default. */
  readonly records: number | undefined;
  readonly valueBytes: number;
  readonly reads: ReadForm;
  readonly prefix: string;
  readonly phases: ReadonlySet<Phase>;
  readonly drive: Omit<DriveOptions, 'stop'>;
}

export function benchCommand(): Command {
  return withClientFlags(
    new Command('bench').description('measure a running cluster with the workloads of YCSB'),
  )
    .option('-w, --workload <letter>', 'a, b, c, d, e or f', 'a')
    .option('--records <n>', `records (${recordsDefault}, or as many as are loaded)`)
    .option('--operations <n>', 'end after so many operations')
    .option('--time <seconds>', `end after so long (${secondsDefault} without --operations)`)
    .option('--clients <n>', 'operations at a time', '64')
    .option('--value-bytes <n>', 'of each record', '1000')
    .option('--keys <distribution>', 'zipfian, uniform or latest instead of what the workload has')
    .option('--level <level>', 'of reads: linearizable, lease, at-least or stale', 'linearizable')
    .option('--max-staleness <ms>', 'with at-least (else any age) and stale (else 5000)')
    .option('--rate <n>', 'open loop: so many operations are due each second, whatever they take')
    .option('--no-batching', 'each operation is a call of its own')
    .option('--prefix <text>', 'of the keys; nothing else may be there', 'bench/')
    .option('--phases <list>', 'of load, run and clean', 'load,run')
    .option('--clean', 'remove the records at the end')
    .action((flags: BenchFlags) => {
      const options = parseFlags(flags);
      const { batching } = flags;
      return withClient(flags, (client) => runBench(client, options, flags), { batching });
    });
}

function parseFlags(flags: BenchFlags): BenchOptions {
  const workload = workloads[flags.workload.toLowerCase()];
  if (workload === undefined)
    throw new UsageError(
      `--workload must be one of ${Object.keys(workloads).join(', ')}, got '${flags.workload}'`,
    );
  if (flags.prefix === '') throw new UsageError('--prefix must not be empty');
  const optional = (name: string, text: string | undefined, max: number): number | undefined =>
    text === undefined ? undefined : parseInteger(name, text, 1, max);
  const operations = optional('--operations', flags.operations, Number.MAX_SAFE_INTEGER);
  const level = parseLevel(flags.level);
  return {
    workload: { ...workload, keys: parseDistribution(flags.keys) ?? workload.keys },
    records: optional('--records', flags.records, recordsMax),
    valueBytes: parseInteger('--value-bytes', flags.valueBytes, 1, valueBytesMax),
    reads: {
      level,
      maxStalenessMs: optional('--max-staleness', flags.maxStaleness, Number.MAX_SAFE_INTEGER) ?? 0,
    },
    prefix: flags.prefix,
    phases: parsePhases(flags.phases, flags.clean ?? false),
    drive: {
      clients: parseInteger('--clients', flags.clients, 1, clientsMax),
      operations: operations ?? Infinity,
      seconds:
        optional('--time', flags.time, 86_400) ??
        (operations === undefined ? secondsDefault : Infinity),
      ratePerSecond: optional('--rate', flags.rate, rateMax) ?? 0,
      sessions: level === ReadLevel.AT_LEAST,
    },
  };
}

function parseDistribution(text: string | undefined): Workload['keys'] | undefined {
  if (text === undefined) return undefined;
  const found = distributions.find((name) => name === text);
  if (found !== undefined) return found;
  throw new UsageError(`--keys must be one of ${distributions.join(', ')}, got '${text}'`);
}

function parsePhases(text: string, clean: boolean): ReadonlySet<Phase> {
  const phases = text.split(',').map((part) => {
    const found = phaseNames.find((name) => name === part.trim());
    if (found !== undefined) return found;
    throw new UsageError(`--phases must be of ${phaseNames.join(', ')}, got '${text}'`);
  });
  return new Set<Phase>(clean ? [...phases, 'clean'] : phases);
}

/** One run of the command. */
async function runBench(
  client: QuorateClient,
  options: BenchOptions,
  flags: ClientFlags,
): Promise<void> {
  const stop = new AbortController();
  // Each client that waits for its operation to be due listens.
  setMaxListeners(0, stop.signal);
  // Once: whoever presses Ctrl-C again does not want to wait for what is in flight.
  process.once('SIGINT', () => {
    process.stderr.write('\nending; Ctrl-C again to end at once\n');
    stop.abort();
  });
  const records = new Records(client, options.prefix);
  const bench = new Bench(client, records, options, stop.signal);
  const measured = await bench.measure((figures) => {
    if (flags.output === 'table') printPhase(figures);
  });
  const removed = options.phases.has('clean') ? await records.remove() : undefined;
  if (flags.output === 'json')
    printJson({ phases: measured.map(phaseJson), removed: removed ?? null });
  else if (removed !== undefined) console.log(`clean: ${formatCount(removed)} records removed`);
  for (const text of complaints(measured, options, stop.signal)) {
    console.error(text);
    process.exitCode = ExitCode.unhealthy;
  }
}

function complaints(
  measured: readonly PhaseFigures[],
  { reads }: BenchOptions,
  stop: AbortSignal,
): readonly string[] {
  const isCurrent = reads.level === ReadLevel.LINEARIZABLE || reads.level === ReadLevel.LEASE;
  const found = measured.map(problems);
  const errors = found.reduce((sum, each) => sum + each.errors, 0);
  const missing = found.reduce((sum, each) => sum + each.missing, 0);
  return [
    ...(stop.aborted ? ['interrupted: these are the figures until then'] : []),
    ...(errors > 0 ? [`${formatCount(errors)} operations failed`] : []),
    ...(missing > 0 && isCurrent
      ? [`${formatCount(missing)} operations found no record where one had been acknowledged`]
      : []),
  ];
}

class Bench {
  private readonly client: QuorateClient;
  private readonly records: Records;
  private readonly options: BenchOptions;
  private readonly stop: AbortSignal;

  constructor(client: QuorateClient, records: Records, options: BenchOptions, stop: AbortSignal) {
    this.client = client;
    this.records = records;
    this.options = options;
    this.stop = stop;
  }

  /** What a phase has measured is shown as soon as it has ended. */
  async measure(onPhase: (figures: PhaseFigures) => void): Promise<readonly PhaseFigures[]> {
    const { phases, valueBytes } = this.options;
    let loaded: Loaded = (await this.records.loaded()) ?? { records: 0, valueBytes };
    const measured: PhaseFigures[] = [];
    const show = (figures: PhaseFigures): void => {
      measured.push(figures);
      onPhase(figures);
    };
    if (phases.has('load')) {
      const count = this.options.records ?? recordsDefault;
      const figures = await this.load(count, loaded);
      show(figures);
      if (figures.interrupted || problems(figures).errors > 0) return measured;
      loaded = { records: Math.max(count, loaded.records), valueBytes };
      await this.records.mark(loaded);
    }
    if (phases.has('run') && !this.stop.aborted) show(await this.run(loaded));
    return measured;
  }

  private async load(count: number, loaded: Loaded): Promise<PhaseFigures> {
    // Before the first record: whatever happens, the next run knows whose they are.
    await this.records.mark(loaded);
    const loading = new Loading(this.subject(this.options.valueBytes));
    const { drive } = this.options;
    const whole = { operations: count, seconds: Infinity, ratePerSecond: 0 };
    const figures = await this.drive(() => loading.next(), { ...drive, ...whole });
    return { phase: 'load', ...figures };
  }

  private async run(loaded: Loaded): Promise<PhaseFigures> {
    const { records = loaded.records, workload, reads, drive } = this.options;
    if (records > loaded.records || records === 0)
      throw new UsageError(
        `${loaded.records} records are loaded below '${this.options.prefix}'` +
          `${records > 0 ? `, not ${records}` : ''}: load them first (--phases load,run)`,
      );
    const subject = this.subject(this.options.valueBytes);
    const running = new Running(subject, { workload, records, reads });
    return { phase: 'run', ...(await this.drive(() => running.next(), drive)) };
  }

  private subject(valueBytes: number): Subject {
    const { client, records } = this;
    return { client, keyOf: records.keyOf, prefix: records.prefix, valueBytes };
  }

  private async drive(
    next: () => Action,
    options: Omit<DriveOptions, 'stop'>,
  ): Promise<DriveFigures> {
    const drive = new Drive(next, { ...options, stop: this.stop });
    const timer = process.stderr.isTTY
      ? setInterval(
          () => process.stderr.write(`\r${formatCount(drive.ended)} operations `),
          progressMs,
        )
      : undefined;
    try {
      return await drive.run();
    } finally {
      clearInterval(timer);
      if (timer !== undefined) process.stderr.write('\r');
    }
  }
}
