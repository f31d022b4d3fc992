/**
 * `npm run bench -- --vs etcd`: this project and another store under the same load from the same tool, in
 * turns, each on fresh directories. What counts is the ratio within a turn: absolute figures are the
 * machine's. That each put took effect and each get brought its value is checked.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { printTable } from '../../src/cli/output.js';
import { makeCalls, type CallLoad } from './h2load.js';
import { median } from './median.js';
import { requirePrograms } from './packages.js';
import { cpuSeconds } from './process-figures.js';
import { generateLoad } from './load.js';
import { startEtcd } from './raced-etcd.js';
import { startLean, startQuorate } from './raced-quorate.js';
import type { RacedStore } from './raced-store.js';
import { warmUpSeconds } from './warm-up.js';

export interface RaceOptions {
  readonly turns: number;
  /** Share of the calls of each case: less is quicker and noisier. */
  readonly scale: number;
  readonly only: string | undefined;
}

export interface RaceCase {
  readonly name: string;
  readonly operation: 'put' | 'get';
  readonly connections: number;
  readonly streams: number;
  /** Bodies, each on a key of its own, sent by a process of its own. */
  readonly bodies: number;
  readonly calls: number;
  /** Times the other store's throughput; of one client its speed. */
  readonly bar: number;
}

export const raceCases: readonly RaceCase[] = [
  {
    name: 'put 1 x 1',
    operation: 'put',
    connections: 1,
    streams: 1,
    bodies: 1,
    calls: 6000,
    bar: 1.1,
  },
  {
    name: 'put 64 x 1',
    operation: 'put',
    connections: 64,
    streams: 1,
    bodies: 1,
    calls: 40_000,
    bar: 1.3,
  },
  {
    name: 'put 64 x 16',
    operation: 'put',
    connections: 64,
    streams: 16,
    bodies: 1,
    calls: 80_000,
    bar: 1.4,
  },
  {
    name: 'put 64 x 16, 8 keys',
    operation: 'put',
    connections: 64,
    streams: 16,
    bodies: 8,
    calls: 80_000,
    bar: 1.4,
  },
  {
    name: 'put 1000 x 1',
    operation: 'put',
    connections: 1000,
    streams: 1,
    bodies: 1,
    calls: 40_000,
    bar: 1.1,
  },
  {
    name: 'get 1 x 1',
    operation: 'get',
    connections: 1,
    streams: 1,
    bodies: 1,
    calls: 8000,
    bar: 1.1,
  },
  {
    name: 'get 64 x 1',
    operation: 'get',
    connections: 64,
    streams: 1,
    bodies: 1,
    calls: 60_000,
    bar: 1.3,
  },
  {
    name: 'get 64 x 16',
    operation: 'get',
    connections: 64,
    streams: 16,
    bodies: 1,
    calls: 100_000,
    bar: 1.4,
  },
];

const value = Buffer.alloc(256, 'v');
/** Of the calls of a case, made at once while warming up, on other keys. */
const warmUpShare = 1 / 8;

export interface Result {
  readonly perSecond: number;
  readonly cpuUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Of batches on Pipeline streams, as the client of this project sends them. */
const batchBars = { put: 3, get: 5 };
const batchSeconds = 8;

/** Sixteen bytes each, in slots of their own. */
const keysOf = (name: 'race' | 'warm', count: number): string[] =>
  Array.from({ length: count }, (_, n) => `${name}-key-${String(n).padStart(7, '0')}`);

async function drive(store: RacedStore, one: RaceCase, directory: string): Promise<Result> {
  const { operation, bodies, calls } = one;
  const isPut = operation === 'put';
  const keys = keysOf('race', bodies);
  await warmUp(store, one, directory);
  const load = await loadOn(keys, store, one, directory);
  const cpu = (): number => store.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const [appliedBefore, cpuBefore] = [await store.putsApplied(keys), cpu()];
  const { seconds, p50Us, p99Us, replyBytes } = await makeCalls({ ...load, calls });
  const cpuUs = ((cpu() - cpuBefore) * 1e6) / calls;
  const applied = (await store.putsApplied(keys)) - appliedBefore;
  if (applied !== (isPut ? calls : 0))
    throw new Error(`${store.name}: ${calls} calls answered, ${applied} puts applied`);
  if (!isPut && replyBytes < calls * value.byteLength)
    throw new Error(`${store.name}: ${calls} gets brought ${replyBytes} bytes: values are missing`);
  return { perSecond: calls / seconds, cpuUs, p50Us, p99Us };
}

/** The keys exist when this is done. */
async function loadOn(
  keys: readonly string[],
  store: RacedStore,
  { operation, connections, streams }: RaceCase,
  directory: string,
): Promise<Omit<CallLoad, 'calls'>> {
  for (const key of keys) await store.put(key, value);
  const isPut = operation === 'put';
  return {
    addresses: store.addresses.slice(0, 1),
    path: isPut ? store.putPath : store.getPath,
    bodies: keys.map((key) => (isPut ? store.putBody(key, value) : store.getBody(key))),
    connections,
    streams,
    directory,
  };
}

async function warmUp(store: RacedStore, one: RaceCase, directory: string): Promise<void> {
  const load = await loadOn(keysOf('warm', one.bodies), store, one, directory);
  const share = Math.ceil((one.calls * warmUpShare) / one.bodies) * one.bodies;
  const calls = Math.max(one.connections, share);
  const end = performance.now() + warmUpSeconds * 1000;
  while (performance.now() < end) await makeCalls({ ...load, calls });
}

export function turnOf(
  start: (directory: string) => Promise<RacedStore>,
  one: RaceCase,
): Promise<Result> {
  return inDirectory(async (directory) => {
    const store = await start(directory);
    try {
      return await drive(store, one, directory);
    } finally {
      await store.stop();
    }
  });
}

async function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-race-'));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function rowOf(
  { name, bar }: Pick<RaceCase, 'name' | 'bar'>,
  ours: readonly Result[],
  theirs: readonly Result[],
): string[] {
  const ratios = ours.map(({ perSecond }, n) => perSecond / (theirs[n]?.perSecond ?? Number.NaN));
  const ratio = median(ratios);
  const rate = (all: readonly Result[]): string =>
    Math.round(median(all.map(({ perSecond }) => perSecond))).toLocaleString('en');
  const ms = (all: readonly Result[], of: 'p50Us' | 'p99Us'): string =>
    shownFigure(median(all.map((each) => each[of])) / 1000, 2);
  const cpu = (all: readonly Result[]): string =>
    shownFigure(median(all.map(({ cpuUs }) => cpuUs)), 0);
  return [
    name,
    rate(theirs),
    rate(ours),
    `${ratio.toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    `${bar.toFixed(1)} ${ratio >= bar ? 'met' : 'missed'}`,
    `${ms(theirs, 'p50Us')}, ${ms(ours, 'p50Us')}`,
    `${ms(theirs, 'p99Us')}, ${ms(ours, 'p99Us')}`,
    `${cpu(theirs)}, ${cpu(ours)}`,
  ];
}

/** Batches against the best figure of the other store, whose protocol has none for single keys. */
async function batches(
  operation: 'put' | 'get',
  turns: number,
  best: number,
  scale: number,
): Promise<string[]> {
  const results: Result[] = [];
  for (let turn = 0; turn < turns; turn++)
    results.push(await inDirectory((directory) => batchTurn(directory, operation, scale)));
  const theirs = results.map(() => ({ perSecond: best, cpuUs: NaN, p50Us: NaN, p99Us: NaN }));
  const bar = batchBars[operation];
  return rowOf({ name: `Pipeline ${operation}, 128 a batch; etcd's best`, bar }, results, theirs);
}

async function batchTurn(
  directory: string,
  operation: 'put' | 'get',
  scale: number,
): Promise<Result> {
  const store = await startQuorate(directory);
  const spec = {
    endpoints: store.addresses.slice(0, 1),
    ...{ connections: 4, streams: 8, batch: 128, keys: 100_000, valueBytes: value.byteLength },
  };
  try {
    await generateLoad({ ...spec, operation: 'put', seconds: 60, operationsMax: spec.keys });
    await generateLoad({ ...spec, operation, seconds: warmUpSeconds, operationsMax: 0 });
    const cpu = (): number => store.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    const before = cpu();
    const seconds = batchSeconds * Math.max(0.2, scale);
    const result = await generateLoad({ ...spec, operation, seconds, operationsMax: 0 });
    const cpuUs = ((cpu() - before) * 1e6) / result.operations;
    return { ...result, perSecond: result.operations / result.seconds, cpuUs };
  } finally {
    await store.stop();
  }
}

const rateOf = ({ perSecond }: Result): number => perSecond;

function shown(row: string[]): string[] {
  process.stderr.write(`${row.slice(0, 5).join(' | ')}\n`);
  return row;
}

export const shownFigure = (figure: number, digits: number): string =>
  Number.isNaN(figure) ? '-' : figure.toFixed(digits);

/** A multiple of what the case needs. */
export function scaledCalls({ bodies, connections, calls }: RaceCase, scale: number): number {
  const unit = bodies * connections;
  return Math.max(1, Math.round((calls * scale) / unit)) * unit;
}

export async function raceEtcd({ turns, scale, only }: RaceOptions): Promise<void> {
  requirePrograms({ etcd: 'etcd-server', h2load: 'nghttp2-client' });
  const rows: string[][] = [];
  const best = { put: 0, get: 0 };
  for (const each of raceCases.filter(({ name }) => only === undefined || name.includes(only))) {
    const calls = scaledCalls(each, scale);
    const [theirs, ours, lean]: [Result[], Result[], Result[]] = [[], [], []];
    for (let turn = 0; turn < turns; turn++) {
      theirs.push(await turnOf(startEtcd, { ...each, calls }));
      ours.push(await turnOf(startQuorate, { ...each, calls }));
      lean.push(await turnOf(startLean, { ...each, calls }));
    }
    best[each.operation] = Math.max(best[each.operation], median(theirs.map(rateOf)));
    rows.push(shown(rowOf(each, ours, theirs)));
    rows.push(shown(rowOf({ ...each, name: `${each.name}, --http2 lean` }, lean, theirs)));
  }
  for (const operation of ['put', 'get'] as const)
    if (best[operation] > 0)
      rows.push(shown(await batches(operation, turns, best[operation], scale)));
  printTable(
    [
      'case',
      'etcd /s',
      'Quorate /s',
      'ratio (spread)',
      'bar',
      'p50 ms: etcd, Quorate',
      'p99 ms',
      'CPU us/op (3 nodes)',
    ],
    rows,
  );
}
