/** Sixteen shards against one: the same load on all three nodes, whose leaders then share the work. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { printTable } from '../../src/cli/output.js';
import { generateLoad } from './load.js';
import { median } from './median.js';
import { warmUpSeconds } from './warm-up.js';

export interface ShardCountOptions {
  readonly seconds: number;
  readonly turns: number;
}

const counts = [1, 16] as const;
const base = { connections: 64, streams: 16, batch: 1, keys: 100_000, valueBytes: 256 } as const;
const operations = ['put', 'get'] as const;

/** Operations a second of puts, then of gets of what they wrote. */
async function turn(shards: number, seconds: number): Promise<readonly number[]> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-shards-'));
  const flags = { 'log-level': 'warn' };
  const cluster = await LocalCluster.start({ nodes: 3, shards, directory, basePort: 0, flags });
  try {
    const rates: number[] = [];
    for (const operation of operations) {
      const spec = { ...base, operation, endpoints: cluster.endpoints, operationsMax: 0 };
      await generateLoad({ ...spec, seconds: warmUpSeconds });
      const result = await generateLoad({ ...spec, seconds });
      rates.push(result.operations / result.seconds);
    }
    return rates;
  } finally {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Prints its table itself. */
export async function measureShardCounts({ seconds, turns }: ShardCountOptions): Promise<void> {
  const rates = counts.map((): (readonly number[])[] => []);
  for (let n = 0; n < turns; n++)
    for (const [at, count] of counts.entries()) rates[at]?.push(await turn(count, seconds));
  const rows = operations.map((operation, at) => {
    const [one = Number.NaN, many = Number.NaN] = rates.map((all) =>
      median(all.map((each) => each[at] ?? Number.NaN)),
    );
    const shown = [one, many].map((rate) => Math.round(rate).toLocaleString('en'));
    return [`${operation} 64 x 16, all nodes`, ...shown, (many / one).toFixed(2)];
  });
  printTable(['case', ...counts.map((count) => `${count} shards /s`), 'ratio'], rows);
}
