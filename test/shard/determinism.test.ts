import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { MemoryEngine, RocksEngine } from '../../storage/index.js';
import type { CommandResult } from '../../src/shard/command.js';
import { plain } from './model.js';
import { encode, Player } from './player.js';
import { steps, type TimedStep } from './random-commands.js';
import { Replica } from './replica.js';

/** The log that a leader makes of these steps. */
async function logOf(run: readonly TimedStep[]): Promise<readonly Uint8Array[]> {
  const leader = Replica.fresh();
  const player = new Player(leader);
  const log: Uint8Array[] = [];
  for (const step of run) {
    const command = encode(await player.play(step));
    log.push(command);
    await leader.apply([command]);
  }
  return log;
}

async function applySplit(
  replica: Replica,
  log: readonly Uint8Array[],
  sizes: readonly number[],
): Promise<readonly CommandResult[]> {
  const results: CommandResult[] = [];
  for (let at = 0, n = 0; at < log.length; n++) {
    const size = sizes[n % sizes.length] ?? 1;
    results.push(...(await replica.apply(log.slice(at, at + size))));
    at += size;
  }
  return results;
}

interface Case {
  readonly run: readonly TimedStep[];
  readonly sizes: readonly number[];
  readonly otherSizes: readonly number[];
  readonly cut: number;
}

const anyCase: fc.Arbitrary<Case> = fc.record({
  run: steps(60),
  sizes: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
  otherSizes: fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 3 }),
  cut: fc.nat(60),
});

describe('state machine of a shard on every replica', () => {
  let directory = '';
  let rocks: RocksEngine | undefined;
  let replicas = 1;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'quorate-determinism-'));
    rocks = await RocksEngine.open({ directory, memoryBytesMax: 16 * 1024 * 1024 });
  });
  after(async () => {
    await rocks?.close();
    await rm(directory, { recursive: true, force: true });
  });

  it('R41: leaves the same bytes and results, however its entries are batched', () =>
    fc.assert(
      fc.asyncProperty(anyCase, async ({ run, sizes, otherSizes }) => {
        const log = await logOf(run);
        const [one, other] = [Replica.fresh(), Replica.fresh()];
        const results = await applySplit(one, log, sizes);
        const otherResults = await applySplit(other, log, otherSizes);
        expect(plain(otherResults)).to.deep.equal(plain(results));
        expect(await other.hash()).to.deep.equal(await one.hash());
      }),
      { numRuns: 60 },
    ));

  it('R41, R42: leaves the same bytes in memory, in RocksDB, and when it begins with a snapshot', () =>
    fc.assert(
      fc.asyncProperty(anyCase, async ({ run, sizes, otherSizes, cut }) => {
        if (rocks === undefined) throw new Error('no engine');
        const log = await logOf(run);
        const one = Replica.fresh();
        await applySplit(one, log.slice(0, cut), sizes);
        const fromMemory = await one.copyTo(rocks, ++replicas);
        const results = await applySplit(one, log.slice(cut), sizes);
        const onDisk = Replica.fresh(rocks, ++replicas);
        await applySplit(onDisk, log.slice(0, cut), otherSizes);
        const fromDisk = await onDisk.copyTo(new MemoryEngine(), 1);
        await applySplit(onDisk, log.slice(cut), otherSizes);
        for (const copy of [fromMemory, fromDisk]) {
          const copied = await applySplit(copy, log.slice(cut), otherSizes);
          expect(plain(copied)).to.deep.equal(plain(results));
        }
        const expected = await one.hash();
        for (const replica of [onDisk, fromMemory, fromDisk]) {
          expect(await replica.hash()).to.deep.equal(expected);
          expect(replica.machine.keys).to.equal(one.machine.keys);
          expect(replica.machine.logTimeMs).to.equal(one.machine.logTimeMs);
        }
      }),
      { numRuns: 12 },
    ));

  it('R41: goes on in the same way after it was loaded again from its engine', () =>
    fc.assert(
      fc.asyncProperty(anyCase, async ({ run, sizes, cut }) => {
        const log = await logOf(run);
        const [steady, restarted] = [Replica.fresh(), Replica.fresh()];
        await applySplit(steady, log, sizes);
        await applySplit(restarted, log.slice(0, cut), sizes);
        const again = await Replica.load(restarted.engine);
        await applySplit(again, log.slice(cut), sizes);
        expect(await again.hash()).to.deep.equal(await steady.hash());
      }),
      { numRuns: 20 },
    ));
});
