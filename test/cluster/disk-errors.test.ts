import { expect } from 'chai';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { badDisk, steer, well, type Badness } from '../../jepsen/nemesis/disk.js';
import { bytes, expectEqualReplicas, text, withCluster } from './fixture.js';

const { EIO, ENOSPC } = constants.errno;
const errors: readonly (readonly [string, Badness])[] = [
  ['EIO of a write', { ...well, writeError: EIO, left: -1 }],
  ['EIO of one write', { ...well, writeError: EIO, left: 1 }],
  ['EIO of a sync', { ...well, syncError: EIO, left: -1 }],
  ['EIO of one sync', { ...well, syncError: EIO, left: 1 }],
  ['ENOSPC', { ...well, writeError: ENOSPC, left: -1 }],
];

function isRunning({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode === null && signalCode === null;
}

describe('a node whose disk fails', function () {
  this.timeout(180_000);

  it('R45 R46: stops at each kind of error, also a single one, and has everything acknowledged when it is back', async function () {
    const folder = mkdtempSync(join(tmpdir(), 'quorate-disk-'));
    try {
      // Made as the faults of jepsen/ are: without their compiler there is none.
      if ((await badDisk.probe({ folder })) !== undefined) this.skip();
      await withCluster({}, async (fixture) => {
        const { cluster, client } = fixture;
        const acknowledged = new Map<string, string>();
        const put = async (key: string, value: string): Promise<void> => {
          await client.put({ key: bytes(key), value: bytes(value) });
          acknowledged.set(key, value);
        };
        const { directory } = cluster.node(2);
        for (const [name, badness] of errors) {
          await cluster.kill(2);
          const node = cluster.startNode(2, {}, badDisk.environmentOf(folder, 2, `${directory}/`));
          await cluster.waitUntilReady(30_000);
          await put(`${name} before`, 'v');
          expect(isRunning(node), name).to.equal(true);
          steer(folder, 2, badness);
          const deadline = performance.now() + 60_000;
          for (let n = 0; isRunning(node); n++) {
            await put(`${name} ${n}`, 'v'.repeat(1000));
            expect(performance.now(), `node 2 goes on after ${name}`).to.be.below(deadline);
          }
        }
        await cluster.kill(2);
        cluster.startNode(2);
        await cluster.waitUntilReady(30_000);
        for (const [key, value] of acknowledged)
          expect(text((await client.get({ key: bytes(key) })).kv?.value), key).to.equal(value);
        await expectEqualReplicas(fixture);
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
