import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';
import { bytes, text, withCluster } from './fixture.js';

const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const quorate = join(import.meta.dirname, `../../src/cli/quorate.${extension}`);

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function recover(...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, quorate, 'recover', ...args], {
      env: { ...process.env, NO_COLOR: '1' },
    });
    let [out, err] = ['', ''];
    child.stdout.on('data', (piece: Buffer) => (out += piece.toString()));
    child.stderr.on('data', (piece: Buffer) => (err += piece.toString()));
    child.on('error', reject);
    child.on('close', (code) => {
      resolve({ code, out, err });
    });
  });
}

async function expectRecover(
  args: readonly string[],
  code: number,
  shown: RegExp,
): Promise<string> {
  const ended = await recover(...args);
  expect(`${ended.out}${ended.err}`, args.join(' ')).to.match(shown);
  expect(ended.code, args.join(' ')).to.equal(code);
  return ended.out;
}

/** Every group, 0 to `last`, has three voters, as its leader says. */
async function isWhole(cluster: LocalCluster, last: number): Promise<boolean> {
  for (let id = 0; id <= last; id++) {
    const leader = await cluster.leader(id);
    const reply = leader === undefined ? undefined : await cluster.status(leader);
    const group = reply?.groups.find(({ groupId }) => groupId === id);
    if (group?.voters.length !== 3 || group.learners.length > 0) return false;
  }
  return true;
}

describe('a cluster that lost its majority', function () {
  this.timeout(180_000);

  it('D07: goes on with one survivor; the old majority, back with its disks, neither serves nor wins', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client, directory }) => {
      const keys = Array.from({ length: 40 }, (_, n) => `k${n}`);
      for (const key of keys) await client.put({ key: bytes(key), value: bytes('old') });
      const [one, two, three] = cluster.nodes;
      if (one === undefined || two === undefined || three === undefined) throw new Error('3 nodes');
      const at = ['--data-directory', one.directory];
      await expectRecover(['list', ...at], 1, /is in use by another process/);
      await cluster.kill(1);
      // What only the majority has: it is acknowledged, and will be gone.
      for (const key of keys) await client.put({ key: bytes(`lost-${key}`), value: bytes('x') });
      await cluster.kill(2);
      await cluster.kill(3);
      for (const node of [two, three]) renameSync(node.directory, `${node.directory}.lost`);

      const listing = join(directory, 'listing.json');
      const plan = join(directory, 'plan.json');
      writeFileSync(listing, await expectRecover(['list', ...at, '-o', 'json'], 0, /"replicas"/));
      const planned = await recover('plan', listing);
      expect(planned.err).to.match(
        /metadata goes on with replica 1 of node 1 .* generation \d{15,}, with/,
      );
      writeFileSync(plan, planned.out);
      const apply = ['apply', ...at, '--plan', plan];
      await expectRecover(apply, 2, /acknowledged may be gone[^]*--yes/);
      await expectRecover([...apply, '--dry-run'], 0, /would be: recovers: shard 2/);
      await expectRecover([...apply, '--yes'], 0, /recovers: metadata[^]*recovers: shard 1/);
      await expectRecover([...apply, '--yes'], 0, /done before: metadata/);

      cluster.startNode(1);
      const survivor = new QuorateClient({ endpoints: [one.clientAddress], timeoutMs: 20_000 });
      for (const key of keys) {
        expect(text((await survivor.get({ key: bytes(key) })).kv?.value)).to.equal('old');
        expect((await survivor.get({ key: bytes(`lost-${key}`) })).found).to.equal(false);
        await survivor.put({ key: bytes(key), value: bytes('new') });
      }
      await cluster.waitFor('the topology knows of the recovery', 20_000, async () => {
        const { shards } = await survivor.topology();
        return shards.every(({ nodes }) => nodes.join() === '1');
      });

      for (const node of [two, three]) renameSync(`${node.directory}.lost`, node.directory);
      cluster.startNode(2);
      cluster.startNode(3);
      // They are rebuilt under new ids, with what the survivor has.
      await cluster.waitFor('three voters of each group', 60_000, () => isWhole(cluster, 2));
      for (const { clientAddress, node } of cluster.nodes) {
        const reader = new QuorateClient({ endpoints: [clientAddress], timeoutMs: 20_000 });
        for (const key of keys) {
          expect(text((await reader.get({ key: bytes(key) })).kv?.value), `${node}`).to.equal(
            'new',
          );
          expect((await reader.get({ key: bytes(`lost-${key}`) })).found).to.equal(false);
        }
        reader.close();
      }
      for (const id of [2, 3]) {
        const reply = await cluster.status(id);
        for (const { replicaId } of reply?.groups ?? [])
          expect(replicaId).to.be.greaterThan(1_000_000);
      }
      survivor.close();
    }));
});
