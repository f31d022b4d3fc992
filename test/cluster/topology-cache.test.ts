import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { QuorateClient } from '../../src/client/index.js';
import { withCluster } from './fixture.js';

describe('a node that cannot write the topology into its data directory', function () {
  this.timeout(120_000);

  it('R45: goes on with the newest one, and says what failed: nothing is acknowledged by that file', () =>
    withCluster({}, async ({ cluster, client }) => {
      const { node, clientAddress, directory, logFile } = cluster.node(2);
      // In the place of the file that is written beside the old one.
      mkdirSync(join(directory, 'topology.json.new'));
      await client.changeCluster({ kind: 'setWeight', node: 1, weight: 50 });
      const there = new QuorateClient({ endpoints: [clientAddress] });
      try {
        await cluster.waitFor(`node ${node} knows of the change`, 30_000, async () => {
          cluster.assertRunning();
          const { nodes } = await there.topology();
          return nodes.find(({ nodeId }) => nodeId === 1)?.weight === 50;
        });
      } finally {
        there.close();
      }
      await cluster.waitFor('it says so', 30_000, () =>
        Promise.resolve(readFileSync(logFile, 'utf8').includes('cannot keep the topology')),
      );
      cluster.assertRunning();
    }));
});
