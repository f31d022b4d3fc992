/** What each read level costs: the same gets, asked of the leader alone and of all three nodes in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ReadLevel } from '../../proto/messages.js';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { printTable } from '../../src/cli/output.js';
import { QuorateClient, SessionToken } from '../../src/client/index.js';
import { generateLoad } from './load.js';
import { median } from './median.js';
import { cpuSeconds } from './process-figures.js';

export interface ReadLevelOptions {
  readonly seconds: number;
  readonly turns: number;
}

const levels = [
  { name: 'linearizable', level: ReadLevel.LINEARIZABLE },
  { name: 'lease', level: ReadLevel.LEASE },
  { name: 'at least (with a token)', level: ReadLevel.AT_LEAST },
  { name: 'stale (5 s)', level: ReadLevel.STALE },
] as const;

interface Figure {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuUs: number;
}

const base = { connections: 64, streams: 1, batch: 1, keys: 100_000, valueBytes: 256 } as const;

/** Of a session that has written one key. */
async function tokenOf(endpoints: readonly string[]): Promise<string> {
  const client = new QuorateClient({ endpoints });
  const token = new SessionToken();
  try {
    await client.put({ key: Buffer.from('key-000000000000'), value: Buffer.alloc(256) }, { token });
    return token.toString();
  } finally {
    client.close();
  }
}

async function turn(
  cluster: LocalCluster,
  { endpoints, level, seconds }: { endpoints: readonly string[]; level: number; seconds: number },
): Promise<Figure> {
  const cpu = (): number =>
    cluster.nodes.reduce((sum, { node }) => sum + cpuSeconds(cluster.pid(node)), 0);
  const before = cpu();
  const token = level === ReadLevel.AT_LEAST ? { token: await tokenOf(endpoints) } : {};
  const spec = { ...base, ...token, endpoints, level, seconds, operationsMax: 0 };
  const {
    operations,
    seconds: took,
    p50Us,
    p99Us,
  } = await generateLoad({ ...spec, operation: 'get' });
  const cpuUs = ((cpu() - before) * 1e6) / Math.max(1, operations);
  return { perSecond: operations / took, p50Ms: p50Us / 1000, p99Ms: p99Us / 1000, cpuUs };
}

/** Prints its table itself. */
export async function measureReadLevels({ seconds, turns }: ReadLevelOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-levels-'));
  const flags = { 'log-level': 'warn', leases: 'true' };
  const cluster = await LocalCluster.start({ nodes: 3, directory, basePort: 0, flags });
  try {
    const leader = cluster.node((await cluster.leader(1)) ?? 1).clientAddress;
    const filling = { ...base, endpoints: [leader], streams: 16, seconds: 120 } as const;
    await generateLoad({ ...filling, operation: 'put', operationsMax: base.keys });
    const cases = levels.flatMap((level) => [
      { ...level, asked: 'the leader', endpoints: [leader], figures: new Array<Figure>() },
      {
        ...level,
        asked: 'all nodes in turn',
        endpoints: cluster.endpoints,
        figures: new Array<Figure>(),
      },
    ]);
    // In turns: what else the machine does meanwhile falls on all alike. The first one warms up.
    for (const each of cases) await turn(cluster, { ...each, seconds });
    for (let n = 0; n < turns; n++)
      for (const each of cases) each.figures.push(await turn(cluster, { ...each, seconds }));
    const rows = cases.map(({ name, asked, figures }) => {
      const of = (read: (figure: Figure) => number): number => median(figures.map(read));
      return [
        ...[name, asked, Math.round(of((f) => f.perSecond)).toLocaleString('en')],
        ...[of((f) => f.p50Ms).toFixed(1), of((f) => f.p99Ms).toFixed(1)],
        of((f) => f.cpuUs).toFixed(0),
      ];
    });
    printTable(['get 64 x 1', 'asked of', '/s', 'p50 ms', 'p99 ms', 'CPU us/op (3 nodes)'], rows);
  } finally {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}
