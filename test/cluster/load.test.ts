import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { LoadResult, LoadSpec } from '../../scripts/bench/load-generator.js';
import { withCluster } from './fixture.js';

const run = promisify(execFile);
const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const generator = join(import.meta.dirname, `../../scripts/bench/load-generator.${extension}`);

/** So many operations, however long they take. */
const operationsMax = 5000;
const base = { keys: 10_000, valueBytes: 256, operationsMax, seconds: 100 };
const loads: readonly (Omit<LoadSpec, 'endpoints'> & { readonly name: string })[] = [
  {
    ...base,
    name: 'puts in batches of 128',
    operation: 'put',
    connections: 4,
    streams: 8,
    batch: 128,
  },
  {
    ...base,
    name: 'gets in batches of 128',
    operation: 'get',
    connections: 4,
    streams: 8,
    batch: 128,
  },
  {
    ...base,
    name: 'single puts on 64 connections',
    operation: 'put',
    connections: 64,
    streams: 4,
    batch: 1,
  },
];

describe('a cluster under load', function () {
  this.timeout(400_000);

  // Node's HTTP/2 over streams in memory ended the process here: `src/api/socket-pair.ts`.
  it('answers everything and loses no node', () =>
    withCluster({}, async ({ cluster }) => {
      for (const { name, ...load } of loads) {
        const spec: LoadSpec = { ...load, endpoints: cluster.endpoints };
        const { stdout } = await run(
          process.execPath,
          [...process.execArgv, generator, JSON.stringify(spec)],
          { timeout: 120_000 },
        );
        const { errors, firstError, operations } = JSON.parse(stdout) as LoadResult;
        expect(firstError, name).to.equal('');
        expect(errors, name).to.equal(0);
        expect(operations, name).to.be.at.least(operationsMax);
      }
      cluster.assertRunning();
    }));
});
