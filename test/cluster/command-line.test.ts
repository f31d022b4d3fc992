import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withCluster, type Fixture } from './fixture.js';
import { QuorateCommand, type Ended } from './quorate-command.js';

/** With the addresses of this cluster. */
function commandLine({
  cluster,
}: Fixture): (args: readonly string[], input?: string) => Promise<Ended> {
  const command = new QuorateCommand(cluster.endpoints);
  return (args, input) => command.run(args, input);
}

describe('the command line', function () {
  this.timeout(120_000);

  it('reads and writes: every kv command, its answer and its exit code', () =>
    withCluster({}, async (fixture) => {
      const run = commandLine(fixture);
      const expectRun = async (
        args: readonly string[],
        code: number,
        shown: RegExp,
        input?: string,
      ): Promise<void> => {
        const ended = await run(args, input);
        expect(`${ended.out}${ended.err}`, args.join(' ')).to.match(shown);
        expect(ended.code, args.join(' ')).to.equal(code);
      };
      await expectRun(['kv', 'put', 'a{x}', '1'], 0, /^ok, revision \d+\n$/);
      await expectRun(['kv', 'get', 'a{x}'], 0, /^1\n$/);
      await expectRun(['kv', 'get', 'nobody'], 1, /^no such key: nobody\n$/);
      await expectRun(['kv', 'put', 'a{x}', '2', '--if-absent'], 1, /^not applied: .*revision/);
      await expectRun(['kv', 'put', 'a{x}', '2', '--previous'], 0, /previous: 1 \(revision \d+\)/);
      await expectRun(['kv', 'cas', 'a{x}', '2', '3'], 0, /^ok, revision/);
      await expectRun(['kv', 'cas', 'a{x}', '2', '4'], 1, /^not applied: the key holds 3/);
      await expectRun(['kv', 'incr', 'n{x}', '41'], 0, /^41\n$/);
      await expectRun(['kv', 'incr', 'n{x}'], 0, /^42\n$/);
      await expectRun(['kv', 'incr', 'a{x}', 'ten'], 2, /delta/);
      const transaction = JSON.stringify({
        compare: [{ key: 'a{x}', value: '3' }],
        then: [{ put: { key: 'b{x}', value: 'new' } }, { increment: { key: 'n{x}' } }],
      });
      await expectRun(['kv', 'txn', transaction], 0, /"succeeded":true/);
      await expectRun(
        ['kv', 'txn', '-'],
        1,
        /"succeeded":false/,
        transaction.replace('"3"', '"9"'),
      );
      await expectRun(['kv', 'txn', '{'], 2, /the transaction is not JSON/);
      await expectRun(['kv', 'scan', '--prefix', 'b'], 0, /b\{x\}\s+\d+\s+new\s+1 key/);
      await expectRun(['kv', 'del', 'b{x}'], 0, /^ok, revision/);
      await expectRun(['kv', 'del', 'b{x}'], 0, /^ok, there was no such key/);
      await expectRun(['kv', 'put', '', 'x'], 1, /key/i);
      await expectRun(['kv', 'get', 'n{x}', '-o', 'json'], 0, /^\{"key":"n\{x\}","value":"43"/);
      await expectRun(['kv', 'frobnicate'], 2, /unknown command 'frobnicate'/);
      await expectRun(['status'], 0, /leader/);
    }));

  it('shell: runs the lines of a script one after the other, and a wrong one does not end it', () =>
    withCluster({ nodes: 1 }, async (fixture) => {
      const { out, err, code } = await commandLine(fixture)(
        ['kv', 'shell'],
        "put k 'two words'\nget k\nget\nincr n 5\nget n\nexit\nput never x\n",
      );
      expect(out).to.match(/ok, revision \d+\ntwo words\n5\n5\n$/);
      expect(err).to.match(/missing required argument 'key'/);
      expect(code).to.equal(0);
    }));

  it('load and dump: what goes in comes out, and both go on where they were interrupted', () =>
    withCluster({ nodes: 1 }, async (fixture) => {
      const run = commandLine(fixture);
      const at = (name: string): string => join(fixture.directory, name);
      const lines = Array.from({ length: 500 }, (_, i) =>
        JSON.stringify({ key: `key-${i}`, value: `value ${i} äöü` }),
      );
      writeFileSync(at('in.jsonl'), `${lines.join('\n')}\n`);
      expect(await run(['kv', 'load', at('in.jsonl')])).to.include({
        code: 0,
        out: '500 records loaded\n',
      });
      const dumped = await run(['kv', 'dump', at('out.jsonl')]);
      expect(dumped).to.include({ code: 0 });
      const whole = readFileSync(at('out.jsonl'), 'utf8');
      expect(whole.trim().split('\n').sort()).to.deep.equal([...lines].sort());

      writeFileSync(at('cut.jsonl'), whole.slice(0, whole.length / 2));
      expect(await run(['kv', 'dump', at('cut.jsonl'), '--resume'])).to.include({ code: 0 });
      expect(readFileSync(at('cut.jsonl'), 'utf8')).to.equal(whole);

      const broken = [...lines.slice(0, 250), 'not JSON', ...lines.slice(250)].join('\n');
      const failed = await run(['kv', 'load'], broken);
      expect(failed.code).to.equal(2);
      expect(failed.err).to.match(/line 251 is not JSON: not JSON/);
      expect(failed.err).to.match(/200 records were loaded; go on with: --after 'key-199'/);
      const resumed = await run(['kv', 'load', at('in.jsonl'), '--after', 'key-399']);
      expect(resumed.out).to.equal('100 records loaded\n');
    }));

  it('says what is wrong when nobody answers, and who was asked', async () => {
    const child = await new QuorateCommand(['127.0.0.1:1']).run([
      'kv',
      'get',
      'x',
      '--timeout',
      '500',
    ]);
    expect(child.code).to.equal(1);
    expect(child.err).to.match(/127\.0\.0\.1:1/);
  });
});
