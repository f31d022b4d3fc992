/** One run: a cluster, clients, faults; then everything heals, and what happened is judged. */
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Clients } from './clients.js';
import { Cluster } from './cluster.js';
import { coverageOf, type Coverage, type EffectsWanted } from './coverage.js';
import { comeBack } from './healing.js';
import type { FaultSpan, Operation, Verdict } from './history.js';
import { LoopbackNetwork } from './loopback.js';
import { NamespaceNetwork } from './namespaces.js';
import { nemeses as allNemeses } from './nemesis/all.js';
import type { Field, Nemesis, Surroundings } from './nemesis/nemesis.js';
import type { Network } from './network.js';
import { Random } from './random.js';
import { Recorder } from './recorder.js';
import { sandbox } from './sandbox.js';
import { Schedule } from './schedule.js';
import { sleep } from './shell.js';
import { judge } from './judging.js';
import { Volumes } from './volumes.js';
import { workloads } from './workloads/all.js';
import type { Workload } from './workloads/workload.js';

export interface Plan {
  readonly nodes: number;
  readonly shards: number;
  readonly replicas: number;
  readonly durationMs: number;
  readonly workload: string;
  readonly nemeses: readonly string[];
  readonly seed: number;
  readonly clients: number;
  readonly rate: number;
  readonly timeoutMs: number;
  readonly leases: boolean;
  /** The nodes' option of that name, if they shall not have their default. */
  readonly http2?: string;
  /** The quiet between faults is so many times as long as usual. */
  readonly gapFactor: number;
  readonly effectsWanted: EffectsWanted;
  /** Made if missing: history, logs, verdicts. */
  readonly report: string;
  /** The compiled `quorate` program. */
  readonly program: string;
}

export interface Outcome {
  readonly plan: Plan;
  readonly network: Network['kind'];
  readonly operations: readonly Operation[];
  readonly spans: readonly FaultSpan[];
  readonly verdicts: readonly Verdict[];
  readonly coverage: Coverage;
  /** Requested faults that this machine cannot make, with the reason. */
  readonly skipped: ReadonlyMap<string, string>;
}

/** Keys in use at one time. */
const keysInUse = 8;
/** Clients go on for so long after the last fault has healed. */
const calmMs = 2000;

/** Small logs: snapshots and new segments all the time. */
const nodeFlags = {
  'log-kept-mib': '1',
  'segment-mib': '1',
  'engine-memory-mib': '32',
  'disk-reserve-mib': '16',
};

/** What the option `http2` of a node may be. */
export const http2Kinds: readonly string[] = ['node', 'lean'];

/** Ends early, but whole, when `signal` says so. Rejects when the run could not be made. */
export async function execute(
  plan: Plan,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'quorate-jepsen-'));
  mkdirSync(plan.report, { recursive: true });
  const nodes = Array.from({ length: plan.nodes }, (_, n) => n + 1);
  const network = await openNetwork(nodes, say);
  const volumes = plan.nemeses.includes('power')
    ? await Volumes.open(folder, nodes)
    : 'no power cuts are wanted';
  const surroundings = { network, volumes };
  const { able, skipped } = await probe(plan, { ...surroundings, folder }, say);
  const directoryOf = (node: number): string =>
    typeof volumes === 'string' ? join(folder, `node-${node}`) : volumes.directoryOf(node);
  const cluster = new Cluster({
    ...plan,
    network,
    logs: plan.report,
    directoryOf,
    flags: { ...nodeFlags, leases: String(plan.leases), ...http2FlagOf(plan) },
    environmentOf: (node) => environmentOf(able, folder, node, directoryOf(node)),
  });
  const killAll = (): void => {
    cluster.killAll();
  };
  process.on('exit', killAll);
  try {
    await cluster.start();
    say(`${plan.nodes} nodes serve (${network.kind})`);
    const workload = workloadOf(plan);
    const keys = (): readonly string[] => workload.keys.slice(-keysInUse);
    const taken = new Set<number>();
    const field: Field = { ...surroundings, cluster, nodes, taken, keys, folder, violations: [] };
    const played = await play({ plan, field, workload, able, say, signal });
    if (played.verdicts.some(({ valid }) => valid === false)) await keepData(plan, field);
    return { plan, network: network.kind, skipped, ...played };
  } finally {
    await cluster.stop();
    await network.close();
    if (typeof volumes !== 'string') await volumes.close(nodes);
    process.off('exit', killAll);
    rmSync(folder, { recursive: true, force: true });
  }
}

function http2FlagOf({ http2 }: Plan): Readonly<Record<string, string>> {
  return http2 === undefined ? {} : { http2 };
}

/** Of a failed run the data is worth as much as the logs. */
async function keepData({ report }: Plan, { cluster, nodes }: Field): Promise<void> {
  await cluster.stop();
  for (const node of nodes)
    cpSync(cluster.directoryOf(node), join(report, 'data', `node-${node}`), { recursive: true });
}

/** What all of these faults need; libraries that are preloaded come together. */
function environmentOf(
  able: readonly Nemesis[],
  folder: string,
  node: number,
  data: string,
): Readonly<Record<string, string>> {
  const each = able.map((nemesis) => nemesis.environmentOf?.(folder, node, data) ?? {});
  const preloaded = new Set(each.flatMap(({ LD_PRELOAD }) => LD_PRELOAD ?? []));
  const joined = preloaded.size > 0 ? { LD_PRELOAD: [...preloaded].join(':') } : {};
  return Object.assign({}, ...each, joined) as Readonly<Record<string, string>>;
}

function workloadOf({ workload, seed }: Plan): Workload {
  const make = workloads.get(workload);
  if (make === undefined) throw new RangeError(`there is no workload '${workload}'`);
  return make(new Random(String(seed)).split('keys'), keysInUse);
}

async function openNetwork(
  nodes: readonly number[],
  say: (line: string) => void,
): Promise<Network> {
  if (sandbox() !== 'none') {
    try {
      return await NamespaceNetwork.open(nodes);
    } catch (error) {
      say(`no network namespaces (${String(error)}): loopback instead`);
    }
  }
  return LoopbackNetwork.open(nodes);
}

/** Which of the requested faults can be made here. */
async function probe(
  plan: Plan,
  surroundings: Surroundings & { readonly folder: string },
  say: (line: string) => void,
): Promise<{ able: readonly Nemesis[]; skipped: ReadonlyMap<string, string> }> {
  const able: Nemesis[] = [];
  const skipped = new Map<string, string>();
  for (const name of plan.nemeses) {
    const nemesis = allNemeses.get(name);
    if (nemesis === undefined) throw new RangeError(`there is no nemesis '${name}'`);
    const reason = await nemesis.probe(surroundings);
    if (reason === undefined) able.push(nemesis);
    else {
      skipped.set(name, reason);
      say(`skipped: ${name}: ${reason}`);
    }
  }
  return { able, skipped };
}

async function play(options: {
  readonly plan: Plan;
  readonly field: Field;
  readonly workload: Workload;
  readonly able: readonly Nemesis[];
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<Pick<Outcome, 'operations' | 'spans' | 'verdicts' | 'coverage'>> {
  const { plan, field, workload, able, say, signal } = options;
  const { cluster } = field;
  const random = new Random(String(plan.seed));
  const recorder = new Recorder(join(plan.report, 'history.jsonl'));
  const clients = new Clients({
    ...plan,
    endpoints: cluster.endpoints,
    random,
    recorder,
    workload,
  });
  const schedule = new Schedule({
    field,
    nemeses: able,
    random: random.split('faults'),
    durationMs: plan.durationMs,
    gapFactor: plan.gapFactor,
    effectsWanted: plan.effectsWanted,
    nowNs: () => recorder.nowNs(),
    say: (line) => {
      say(`${seconds(recorder.nowNs())} ${line}`);
    },
  });
  const stop = (): void => {
    schedule.stop();
  };
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  const calm = new AbortController();
  try {
    const faults = schedule.run().finally(async () => {
      await sleep(calmMs);
      calm.abort();
    });
    const working = clients.run(calm.signal).finally(stop);
    const ends = await Promise.allSettled([faults, working]);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    say(`${seconds(recorder.nowNs())} all faults healed, ${recorder.operations.length} operations`);
    const { program } = plan;
    const healed = await comeBack({ ...field, workload, actors: clients.actors, program });
    const { spans } = schedule;
    const { operations } = recorder;
    const verdicts = [...judge(plan.workload, operations), ...healed];
    const requested = able.map(({ name }) => name);
    const coverage = coverageOf({ ...plan, operations, spans, requested });
    return { operations, spans, verdicts, coverage };
  } finally {
    signal.removeEventListener('abort', stop);
    clients.close();
    await recorder.close();
  }
}

function seconds(ns: number): string {
  return `${(ns / 1e9).toFixed(1).padStart(6)} s`;
}
