import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { expect } from 'chai';
import { bytes, withCluster, type Fixture } from './fixture.js';

const main = join(import.meta.dirname, `../../src/cli/quorate${extname(import.meta.filename)}`);

interface Ended {
  readonly code: number | null;
  readonly output: string;
}

/** Runs `quorate server` to its end; one that does not end is killed, and has no exit code. */
async function server(flags: Readonly<Record<string, string>>): Promise<Ended> {
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  const child = spawn(process.execPath, [...process.execArgv, main, 'server', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (piece: Buffer) => (output += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (output += piece.toString()));
  const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
  await once(child, 'close');
  clearTimeout(timer);
  return { code: child.exitCode, output };
}

async function withJoining(
  run: (
    fixture: Fixture & {
      readonly fresh: string;
      /** As a node that would be taken, but for what is changed. */
      readonly join: (changed: Readonly<Record<string, string>>) => Promise<Ended>;
    },
  ) => Promise<void>,
): Promise<void> {
  await withCluster({ nodes: 1 }, async (fixture) => {
    const folder = mkdtempSync(join(tmpdir(), 'quorate-test-'));
    const fresh = join(folder, 'new');
    const before = await fixture.client.topology();
    try {
      const flags = {
        'cluster-id': 'local',
        join: fixture.cluster.endpoints.join(','),
        'data-directory': fresh,
        'client-address': '127.0.0.1:18990',
        'peer-address': '127.0.0.1:18991',
        'http-address': '127.0.0.1:18992',
      };
      await run({ ...fixture, fresh, join: (changed) => server({ ...flags, ...changed }) });
      expect(await fixture.client.topology(), 'nothing was changed').to.deep.equal(before);
      await fixture.client.put({ key: bytes('still'), value: bytes('serving') });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

describe('a node that must not join', function () {
  this.timeout(180_000);

  it('D40: is refused a taken address, with whose it is, and leaves its directory as it was', () =>
    withJoining(async ({ cluster, join: start, fresh }) => {
      const { clientAddress, peerAddress } = cluster.node(1);
      for (const taken of [{ 'client-address': clientAddress }, { 'peer-address': peerAddress }]) {
        const { code, output } = await start(taken);
        expect(output).to.contain(`${Object.values(taken)[0]} is the address of node 1`);
        expect(output).to.contain('give the new node another one');
        expect(code, output).to.equal(1);
        expect(readdirSync(fresh)).to.deep.equal([]);
      }
    }));

  it('D40: is refused a wrong cluster id, and can be started with the right one afterwards', () =>
    withJoining(async ({ join: start, fresh }) => {
      const { code, output } = await start({ 'cluster-id': 'another' });
      expect(output).to.contain("this is cluster 'local', not 'another'");
      expect(output).to.contain('correct --join or --cluster-id').and.not.contain('"stack"');
      expect(code, output).to.equal(1);
      expect(existsSync(join(fresh, 'identity.json')), 'it is bound to nobody').to.equal(false);
    }));

  it('R24: is refused a directory that belongs to a node of another cluster, and leaves it alone', () =>
    withJoining(async ({ cluster, join: start, fresh }) => {
      cpSync(cluster.node(1).directory, fresh, { recursive: true });
      const identity = readFileSync(join(fresh, 'identity.json'), 'utf8');
      const foreign = await start({ 'cluster-id': 'another' });
      expect(foreign.output).to.contain(
        `data directory ${fresh} belongs to node 1 of cluster 'local'`,
      );
      expect(foreign.output).to.contain('--data-directory');
      expect(foreign.code, foreign.output).to.equal(1);
      expect(readFileSync(join(fresh, 'identity.json'), 'utf8')).to.equal(identity);
    }));

  it('R24: is refused the id and the address of a node that runs, whatever its directory', () =>
    withJoining(async ({ cluster, fresh }) => {
      const first = cluster.nodes
        .map((n) => `${n.node}=${n.peerAddress}/${n.clientAddress}`)
        .join();
      const { code, output } = await server({
        'cluster-id': 'local',
        'node-id': '1',
        'initial-cluster': first,
        'data-directory': fresh,
        'client-address': cluster.node(1).clientAddress,
        'peer-address': cluster.node(1).peerAddress,
      });
      expect(output).to.contain(`peer address ${cluster.node(1).peerAddress} is in use`);
      expect(code, output).to.equal(1);
    }));
});
