import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { runCoreSim } from './core-sim.js';
import { keptSeeds } from './kept-seeds.js';

const run = promisify(execFile);

/** The command line of the simulator, compiled or not, as this file is. */
const command = join(
  import.meta.dirname,
  `../../scripts/sim.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`,
);

function simulate(...flags: readonly string[]): Promise<{ stdout: string }> {
  return run(process.execPath, [...process.execArgv, command, ...flags]);
}

describe('simulation of one group', () => {
  it('keeps every invariant through 2,000 storms and heals, and meets every kind of fault', async function () {
    this.timeout(300_000);
    const { stdout } = await simulate('--seeds', '2000', '--workers', '2');
    expect(stdout).to.match(/2000 seeds of 20 virtual seconds.*: 2000 passed, 0 failed/);
    expect(stdout).to.not.include('never happened');
  });

  it('takes the same course for each of 100 seeds in another process', async function () {
    this.timeout(120_000);
    const here = Array.from({ length: 100 }, (_, seed) => hashOf(seed));
    const { stdout } = await simulate('--seeds', '100', '--seed-from', '0', '--hashes');
    const there = stdout.split('\n').flatMap((line) => /^seed (\d+) (\w+)$/.exec(line)?.[2] ?? []);
    expect(there).to.deep.equal(here);
    expect(new Set(here).size).to.equal(100);
  });

  describe('a seed that once found something', () => {
    for (const { seed, found } of keptSeeds('seeds.txt')) {
      it(`${seed}: ${found}`, () => {
        expect(runCoreSim({ seed, seconds: 20, traceLines: 0 }).failure).to.equal(undefined);
      });
    }
  });

  it('refuses arguments that mean nothing, with the reason and the usage', async () => {
    const error = await simulate('--seeds', '1', '--seconds', '0').then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(String(error)).to.match(/--seconds must be a whole number of at least 1, got 0/);
    expect(String(error)).to.match(/usage: npm run sim/);
  });
});

function hashOf(seed: number): string {
  return runCoreSim({ seed, seconds: 20, traceLines: 0 }).hash;
}
