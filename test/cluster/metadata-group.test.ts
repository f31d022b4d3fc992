import { rmSync } from 'node:fs';
import { expect } from 'chai';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';
import { bytes, text, withCluster } from './fixture.js';

const quickRepair = { suspectAfterMs: 500, downAfterMs: 1000, replaceAfterMs: 2000 };

/** Nodes with a voter of the metadata group, as its leader says; none while that is changing. */
async function metadataVoters(cluster: LocalCluster): Promise<readonly number[]> {
  for (const { node } of cluster.nodes) {
    const reply = cluster.pid(node) === undefined ? undefined : await cluster.status(node);
    const group = reply?.groups.find(({ kind, role }) => kind === 'metadata' && role === 'leader');
    if (group === undefined) continue;
    const { voters, voterReplicas, learnerReplicas, membershipCommitted } = group;
    const isSettled = voterReplicas.length === voters.length && learnerReplicas.length === 0;
    if (membershipCommitted && isSettled) return [...voters].sort((a, b) => a - b);
  }
  return [];
}

function waitForVoters(cluster: LocalCluster, nodes: string): Promise<void> {
  return cluster.waitFor(`the metadata group votes on nodes ${nodes}`, 60_000, async () => {
    return (await metadataVoters(cluster)).join() === nodes;
  });
}

async function join(cluster: LocalCluster, client: QuorateClient, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const { clientAddress } = await cluster.addNode();
    await cluster.waitFor(`${clientAddress} has joined`, 30_000, async () => {
      const { nodes } = await client.topology();
      return nodes.some((node) => node.clientAddress === clientAddress);
    });
  }
}

async function repairQuickly(client: QuorateClient): Promise<void> {
  for (const [name, value] of Object.entries(quickRepair))
    await client.changeCluster({ kind: 'setSetting', name, value });
}

describe('the metadata group of a running cluster', function () {
  this.timeout(180_000);

  it('D40: grows from 1 to 3 to 5 by itself as nodes join, and survives the loss of its first', () =>
    withCluster({ nodes: 1 }, async ({ cluster, client }) => {
      await join(cluster, client, 2);
      await waitForVoters(cluster, '1,2,3');
      await join(cluster, client, 2);
      await waitForVoters(cluster, '1,2,3,4,5');
      await client.changeCluster({ kind: 'replaceReplica', shard: 1, from: 1, to: 4 });
      await cluster.waitFor('shard 1 has left node 1', 60_000, async () => {
        const reply = await cluster.status(1);
        return reply?.groups.some(({ groupId }) => groupId === 1) === false;
      });
      await cluster.kill(1);
      const others = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      await others.changeCluster({ kind: 'setWeight', node: 2, weight: 50 });
      await others.put({ key: bytes('k'), value: bytes('v') });
      const { nodes } = await others.topology();
      expect(nodes.find(({ nodeId }) => nodeId === 2)?.weight).to.equal(50);
      others.close();
    }));

  it('replaces a node that stays away, and lets it back in as an ordinary one', () =>
    withCluster({ nodes: 3 }, async ({ cluster, client }) => {
      await join(cluster, client, 1);
      await repairQuickly(client);
      await cluster.kill(2);
      await waitForVoters(cluster, '1,3,4');
      cluster.startNode(2);
      await cluster.waitFor('node 2 has dropped its old replica', 60_000, async () => {
        const reply = await cluster.status(2);
        return reply?.groups.some(({ kind }) => kind === 'metadata') === false;
      });
      await client.changeCluster({ kind: 'setWeight', node: 3, weight: 50 });
      const one = new QuorateClient({ endpoints: [cluster.node(2).clientAddress] });
      await cluster.waitFor('node 2 hears of changes', 30_000, async () => {
        const { nodes } = await one.topology();
        return nodes.find(({ nodeId }) => nodeId === 3)?.weight === 50;
      });
      one.close();
    }));

  it('leaves a drained node, which can be removed then', () =>
    withCluster({ nodes: 3 }, async ({ cluster, client }) => {
      await join(cluster, client, 1);
      await client.put({ key: bytes('k'), value: bytes('v') });
      await client.changeCluster({ kind: 'drain', node: 1 });
      await waitForVoters(cluster, '2,3,4');
      await cluster.waitFor('the drain is done', 60_000, async () => {
        const changed = await client
          .changeCluster({ kind: 'removeNode', node: 1, force: false })
          .catch(() => undefined);
        return changed !== undefined;
      });
      await cluster.kill(1);
      expect(text((await client.get({ key: bytes('k') })).kv?.value)).to.equal('v');
    }));

  it('is asked by a first node that has no replica of it any more, once its copy of the topology is lost', () =>
    withCluster({ nodes: 3 }, async ({ cluster, client }) => {
      await join(cluster, client, 1);
      await client.put({ key: bytes('k'), value: bytes('v') });
      await client.changeCluster({ kind: 'drain', node: 1 });
      await cluster.waitFor('node 1 has no replicas', 60_000, async () => {
        return (await cluster.status(1))?.groups.length === 0;
      });
      for (const { node } of cluster.nodes) await cluster.kill(node);
      cluster.startNode(1);
      const one = new QuorateClient({ endpoints: [cluster.node(1).clientAddress] });
      await cluster.waitFor('node 1 has read its own copy', 30_000, async () => {
        const found = await one.topology({ timeoutMs: 2000 }).catch(() => undefined);
        return (found?.version ?? 0) > 0;
      });
      await cluster.kill(1);
      for (const node of [2, 3, 4]) cluster.startNode(node);
      rmSync(`${cluster.node(1).directory}/topology.json`);
      cluster.startNode(1);
      await cluster.waitFor('node 1 finds the key', 30_000, async () => {
        const found = await one.get({ key: bytes('k') }).catch(() => undefined);
        return text(found?.kv?.value) === 'v';
      });
      one.close();
    }));
});
