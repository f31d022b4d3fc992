import { expect } from 'chai';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';

describe('the making of a cluster', function () {
  this.timeout(120_000);

  it('D40: may be asked of a node that does not lead, when no topology names the others yet', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'quorate-test-'));
    const cluster = await LocalCluster.prepare({ nodes: 3, directory, basePort: 0 });
    try {
      for (const { node } of cluster.nodes) cluster.startNode(node);
      let follower = 0;
      await cluster.waitFor('a node that follows another one', 60_000, async () => {
        for (const { node } of cluster.nodes) {
          const reply = await cluster.status(node);
          const { leaderNode = 0 } = reply?.groups.find(({ kind }) => kind === 'metadata') ?? {};
          if (leaderNode > 0 && leaderNode !== node) follower = node;
        }
        return follower > 0;
      });
      const endpoints = [cluster.node(follower).clientAddress];
      const client = new QuorateClient({ endpoints, timeoutMs: 40_000 });
      const { version } = await client.initCluster({ shards: 2, replicas: 3 });
      expect(version).to.be.greaterThan(0);
      client.close();
    } finally {
      await cluster.stop();
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
