import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { keptSeeds } from '../kept-seeds.js';
import { nodeKind } from '../kinds.js';
import { runNodeSim } from './node-sim.js';

const run = promisify(execFile);

/** The command line of the simulator, compiled or not, as this file is. */
const command = join(
  import.meta.dirname,
  `../../../scripts/sim.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`,
);

/** Fixed, so that a run of the tests on one machine is one on every machine. */
const seeds = 36;
const { seconds } = nodeKind;

describe('simulation of whole nodes', () => {
  it(`keeps every promise through storms over shards, metadata and migrations, and heals: ${seeds} seeds`, async function () {
    this.timeout(300_000);
    const flags = ['--kind', 'node', '--seeds', String(seeds), '--workers', '2'];
    const { stdout } = await run(process.execPath, [...process.execArgv, command, ...flags]);
    expect(stdout).to.match(new RegExp(`: ${seeds} passed, 0 failed`));
    const counted = (what: string): number =>
      Number(new RegExp(`^ +(\\d+)  ${what}$`, 'm').exec(stdout)?.[1] ?? 0);
    // A run in which nothing happens proves nothing.
    const happened = ['write ok', 'read ok', 'restart', 'slot handed over', 'snapshot installed'];
    const later = [
      'batch',
      'asked a pin',
      'pin handed over',
      'damage found',
      'history linearizable',
    ];
    for (const what of [...happened, ...later]) expect(counted(what), what).to.be.greaterThan(0);
  });

  it('takes the same course for a seed in another process, 4 seeds (npm run sim -- --twice: more)', async function () {
    this.timeout(120_000);
    const flags = ['--kind', 'node', '--seeds', '4', '--twice', '--hashes'];
    const { stdout } = await run(process.execPath, [...process.execArgv, command, ...flags]);
    expect(stdout).to.match(/: 4 passed, 0 failed/);
    const hashes = stdout.split('\n').flatMap((line) => /^seed \d+ (\w+)$/.exec(line)?.[1] ?? []);
    expect(new Set(hashes).size).to.equal(4);
  });

  describe('a seed that once found something', () => {
    for (const { seed, found } of keptSeeds('node-seeds.txt')) {
      it(`${seed}: ${found}`, async function () {
        this.timeout(60_000);
        const { failure } = await runNodeSim({ seed, seconds, traceLines: 0 });
        expect(failure).to.equal(undefined);
      });
    }
  });
});
