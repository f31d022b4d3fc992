import { expect } from 'chai';
import { bytes, withCluster } from './fixture.js';
import { QuorateCommand } from './quorate-command.js';

interface Shown {
  readonly phases: readonly {
    readonly phase: string;
    readonly count: number;
    readonly operations: readonly {
      readonly operation: string;
      readonly count: number;
      readonly missing: number;
      readonly errors: number;
      readonly latency_us: { readonly p50: number; readonly p999: number; readonly max: number };
    }[];
    readonly failures: Readonly<Record<string, number>>;
  }[];
  readonly removed: number | null;
}

/** Numbered as documented; it ends with 0, and nothing failed. */
async function figures(command: QuorateCommand, line: string): Promise<Shown> {
  const { out } = await command.expect(`bench -o json --timeout 45000 ${line}`, 0, /"phases"/);
  const shown = JSON.parse(out) as Shown;
  for (const { failures } of shown.phases) expect(failures, line).to.deep.equal({});
  return shown;
}

describe('quorate bench', function () {
  this.timeout(180_000);

  it('loads, runs every workload, and cleans up: all records were there, all operations counted', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const command = new QuorateCommand(cluster.endpoints);
      await client.put({ key: bytes('theirs'), value: bytes('kept') });
      const first = await figures(
        command,
        '--records 300 --operations 100 --clients 8 --value-bytes 64',
      );
      expect(first.phases.map(({ phase, count }) => [phase, count])).to.deep.equal([
        ['load', 300],
        ['run', 100],
      ]);
      for (const [letter, kinds] of [
        ['b', ['read', 'update']],
        ['d', ['insert', 'read']],
        ['e', ['insert', 'scan']],
        ['f', ['read', 'read-modify-write']],
      ] as const) {
        const line = `-w ${letter} --phases run --operations 100 --clients 8 --value-bytes 64`;
        const [run] = (await figures(command, line)).phases;
        expect(run?.count, letter).to.equal(100);
        for (const { operation, missing, latency_us } of run?.operations ?? []) {
          expect(kinds, letter).to.include(operation);
          expect(missing, `${letter}: ${operation}`).to.equal(0);
          expect(latency_us.p50).to.be.within(1, latency_us.p999);
          expect(latency_us.p999).to.be.at.most(latency_us.max);
        }
      }
      const open =
        '--phases run --rate 400 --operations 100 --keys uniform --level at-least --no-batching';
      expect((await figures(command, `-w c ${open}`)).phases[0]?.count).to.equal(100);
      const last = await figures(command, '--phases clean');
      expect(last.removed).to.be.at.least(300);
      const left: string[] = [];
      for await (const { kvs = [] } of client.scan({ keysOnly: true }))
        left.push(...kvs.map(({ key }) => Buffer.from(key).toString()));
      expect(left).to.deep.equal(['theirs']);
    }));

  it('refuses what it cannot measure, names it, and writes nothing to what is not its own', () =>
    withCluster({ nodes: 1 }, async ({ cluster, client }) => {
      const command = new QuorateCommand(cluster.endpoints);
      await client.put({ key: bytes('theirs/a'), value: bytes('kept') });
      await client.put({ key: bytes('odd/.quorate-bench'), value: bytes('{"records": 5}') });
      const small = '--records 10 --operations 10';
      await command.expect(`bench --prefix theirs/ ${small}`, 1, /not of a benchmark.*--prefix/);
      await command.expect(`bench --prefix odd/ ${small}`, 1, /odd\/\.quorate-bench/);
      await command.expect('bench --phases run', 2, /0 records are loaded below 'bench\/'/);
      for (const [line, shown] of [
        ['-w g', /--workload must be one of a, b, c, d, e, f, got 'g'/],
        ['--phases run,walk', /--phases must be of load, run, clean, got 'run,walk'/],
      ] as const)
        await command.expect(`bench ${line}`, 2, shown);
      const left: string[] = [];
      for await (const { kvs = [] } of client.scan({ keysOnly: true }))
        left.push(...kvs.map(({ key }) => Buffer.from(key).toString()));
      expect(left.sort()).to.deep.equal(['odd/.quorate-bench', 'theirs/a']);
    }));

  it('ends at Ctrl-C with what was measured until then, and exit code 3', () =>
    withCluster({ nodes: 1 }, async ({ cluster }) => {
      const command = new QuorateCommand(cluster.endpoints);
      const line = ['bench', '--records', '50', '--time', '600', '--clients', '4', '--clean'];
      // A second Ctrl-C would end it at once.
      let pressed = false;
      const ended = await command.run(line, '', (out, child) => {
        if (pressed || !out.includes('load: 50 operations')) return;
        pressed = child.kill('SIGINT');
      });
      expect(ended.err).to.match(/interrupted: these are the figures until then/);
      expect(ended.out).to.match(/clean: \d+ records removed/);
      expect(ended.code, ended.err).to.equal(3);
    }));
});
