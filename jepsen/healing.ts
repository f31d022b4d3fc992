/** After the last fault: everything must come back by itself, and all that was acknowledged be there. */
import { slotOf, type TopologyReply } from '../src/client/index.js';
import type { Cluster } from './cluster.js';
import type { Verdict } from './history.js';
import { run, within } from './shell.js';
import { bytes, type Actor, type Workload } from './workloads/workload.js';

/** From the healing of the last fault until leaders are there and every shard takes writes. */
const livenessMs = 60_000;
const migrationsMs = 90_000;
const readsAtOnce = 16;
const keysTriedMax = 20_000;

type Step = (problems: string[]) => Promise<number>;

/** Liveness, migrations, final reads, equal replicas: a verdict each. */
export async function comeBack(options: {
  readonly cluster: Cluster;
  readonly workload: Workload;
  readonly actors: readonly Actor[];
  readonly program: string;
  readonly violations: readonly string[];
}): Promise<readonly Verdict[]> {
  const { cluster, workload, actors, program, violations } = options;
  return [
    await judge('liveness', (problems) => liveness(cluster, problems)),
    await judge('operators', (problems) => operators(cluster, problems)),
    await judge('migrations', (problems) => migrations(cluster, problems)),
    await judge('final reads', (problems) => finalReads(workload, actors, problems)),
    await judge('replicas', (problems) => replicas(cluster, program, problems)),
    await judge('processes', (problems) => {
      problems.push(...violations);
      return processes(cluster, problems);
    }),
  ];
}

async function judge(checker: string, step: Step): Promise<Verdict> {
  const begunAt = performance.now();
  const details: string[] = [];
  const checked = await step(details).catch((error: unknown) => {
    details.push(String(error));
    return 0;
  });
  const ms = Math.round(performance.now() - begunAt);
  return { checker, valid: details.length === 0, checked, ms, details };
}

/** Every node answers, every group has a leader, every shard takes a write. */
async function liveness(cluster: Cluster, problems: string[]): Promise<number> {
  const deadline = performance.now() + livenessMs;
  const left = (): number => Math.max(1, deadline - performance.now());
  if (!(await within(livenessMs, () => cluster.isWhole(), 250))) {
    problems.push(`not whole within ${livenessMs} ms:\n${await cluster.describe()}`);
    return 0;
  }
  const topology = await cluster.admin.topology({ timeoutMs: Math.min(45_000, left()) });
  const keys = keyOfEachShard(topology);
  for (const [shard, key] of keys) {
    try {
      const timeoutMs = Math.min(45_000, left());
      await cluster.admin.put({ key: bytes(key), value: bytes('alive') }, { timeoutMs });
    } catch (error) {
      problems.push(`shard ${shard} takes no write: ${String(error)}`);
    }
  }
  return keys.size;
}

/** A key for each shard that has slots. */
function keyOfEachShard({ slots }: TopologyReply): ReadonlyMap<number, string> {
  const wanted = new Set(slots.map(({ shardId }) => shardId));
  const found = new Map<number, string>();
  for (let n = 0; n < keysTriedMax && found.size < wanted.size; n++) {
    const slot = slotOf(bytes(`alive-${n}`));
    const owner = slots.find(({ first, last }) => slot >= first && slot <= last)?.shardId;
    if (owner !== undefined && !found.has(owner)) found.set(owner, `alive-${n}`);
  }
  return found;
}

/** What operators have left half done while nobody heard them, they finish now. */
async function operators({ admin }: Cluster, problems: string[]): Promise<number> {
  const { nodes, migrations: all } = await admin.topology();
  const commands = [
    ...nodes
      .filter(({ state }) => state === 'draining')
      .map(({ nodeId }) => ({ kind: 'undrain', node: nodeId })),
    ...all
      .filter(({ state }) => state === 'paused')
      .map(({ migrationId: id }) => ({ kind: 'setMigration', id, action: 'resume', reason: '' })),
  ];
  for (const command of commands) {
    await admin.changeCluster(command, { timeoutMs: 45_000 }).catch((error: unknown) => {
      problems.push(`${JSON.stringify(command)}: ${String(error)}`);
    });
  }
  return commands.length;
}

/** None may be stuck: each has ended, whatever was broken while it ran. */
async function migrations(cluster: Cluster, problems: string[]): Promise<number> {
  let all: TopologyReply['migrations'] = [];
  const ended = await within(migrationsMs, async () => {
    all = (await cluster.admin.topology()).migrations;
    return all.every(({ endedMs }) => endedMs > 0);
  });
  if (ended) return all.length;
  const open = all.filter(({ endedMs }) => endedMs === 0);
  problems.push(`not ended within ${migrationsMs} ms: ${JSON.stringify(open)}`);
  return all.length;
}

async function finalReads(
  workload: Workload,
  actors: readonly Actor[],
  problems: string[],
): Promise<number> {
  const waiting = [...workload.keys];
  const read = async (actor: Actor): Promise<void> => {
    for (let key = waiting.shift(); key !== undefined; key = waiting.shift())
      if (!(await workload.readBack(actor, key))) problems.push(`${key} cannot be read`);
  };
  await Promise.all(actors.slice(0, readsAtOnce).map(read));
  return workload.keys.length;
}

/** `quorate cluster check`: the hashes of all replicas at one index. */
async function replicas(cluster: Cluster, program: string, problems: string[]): Promise<number> {
  const out = await run(
    process.execPath,
    [program, 'cluster', 'check', '-o', 'json', '-e', cluster.endpoints.join(',')],
    { timeoutMs: 120_000, codes: [0, 3] },
  );
  const check = JSON.parse(out) as { problems?: string[]; groups?: { replicas: unknown[] }[] };
  // Without a majority of the metadata group there is no check, only the reason.
  problems.push(...(check.problems ?? [`could not be compared: ${out.trim()}`]));
  return (check.groups ?? []).reduce((sum, group) => sum + group.replicas.length, 0);
}

function processes(cluster: Cluster, problems: string[]): Promise<number> {
  for (const { node, how } of cluster.unexpected)
    problems.push(`node ${node} ended by itself with ${how}: see its log`);
  return Promise.resolve(cluster.ids.length);
}
