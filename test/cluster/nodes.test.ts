import { expect } from 'chai';
import { KvError, QuorateClient } from '../../src/client/index.js';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { bytes, text, withCluster } from './fixture.js';

/** Waits until the node at this address says which id it has. */
async function idOf(cluster: LocalCluster, address: string): Promise<number> {
  const client = new QuorateClient({ endpoints: [address] });
  let id = 0;
  try {
    await cluster.waitFor(`${address} serves`, 30_000, async () => {
      const reply = await client.status(address, { timeoutMs: 1000 }).catch(() => undefined);
      id = reply?.nodeId ?? 0;
      return id > 0 && (reply?.peers ?? []).every(({ connected }) => connected);
    });
    return id;
  } finally {
    client.close();
  }
}

describe('nodes of a running cluster', function () {
  this.timeout(120_000);

  it('D40: a new one joins with one command, keeps its id over restarts, and serves every key', () =>
    withCluster({ nodes: 3, shards: 4 }, async ({ cluster, client }) => {
      for (let n = 0; n < 50; n++) await client.put({ key: bytes(`k${n}`), value: bytes(`${n}`) });
      const added = await cluster.addNode({ labels: 'host=elsewhere', weight: '50' });
      expect(await idOf(cluster, added.clientAddress)).to.equal(4);
      const { nodes } = await client.topology();
      expect(nodes.map(({ nodeId, state }) => `${nodeId} ${state}`)).to.deep.equal([
        '1 up',
        '2 up',
        '3 up',
        '4 up',
      ]);
      expect(nodes[3]).to.include({ weight: 50, clientAddress: added.clientAddress });
      expect(nodes[3]?.labels).to.deep.equal(['host=elsewhere']);

      await cluster.kill(4);
      cluster.startNode(4, { labels: 'host=elsewhere' });
      expect(await idOf(cluster, added.clientAddress)).to.equal(4);
      expect((await client.topology()).nodes).to.have.length(4);
      const one = new QuorateClient({ endpoints: [added.clientAddress] });
      for (let n = 0; n < 50; n++) {
        expect(text((await one.get({ key: bytes(`k${n}`) })).kv?.value)).to.equal(`${n}`);
      }
      await one.increment({ key: bytes('counter'), delta: 3 });
      one.close();
    }));

  it('a node of another cluster is refused, and nothing is changed', () =>
    withCluster({ nodes: 3 }, async ({ cluster, client }) => {
      const before = await client.topology();
      const added = await cluster.addNode({ 'cluster-id': 'another' });
      const stopped = await cluster
        .waitFor('never', 20_000, () => Promise.resolve(false))
        .catch((error: unknown) => String(error));
      expect(stopped).to.match(/this is cluster 'local', not 'another'/);
      expect(stopped).to.match(/exit code 1/);
      await cluster.kill(added.node);
      expect(await client.topology()).to.deep.equal(before);
    }));

  it('changes that make no sense are refused with the reason, at any node, and change nothing', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const before = await client.topology();
      const refused: readonly (readonly [object, RegExp])[] = [
        [{ kind: 'setWeight', node: 2, weight: 0 }, /weight/],
        [{ kind: 'setWeight', node: 2, weight: -5 }, /weight/],
        [{ kind: 'drain', node: 9 }, /no node 9/],
        [{ kind: 'removeNode', node: 2, force: false }, /replica|drain/i],
        [{ kind: 'setSetting', name: 'speed', value: 9 }, /no setting 'speed'/],
        [{ kind: 'frobnicate' }, /malformed/],
      ];
      for (const endpoint of cluster.endpoints) {
        const one = new QuorateClient({ endpoints: [endpoint] });
        for (const [command, reason] of refused) {
          const error = await one.changeCluster(command).catch((thrown: unknown) => thrown);
          expect(error).to.be.instanceOf(KvError);
          expect(error).to.include({ code: 'KV_INVALID', outcome: 'notApplied' });
          expect(String(error)).to.match(reason);
        }
        one.close();
      }
      expect(await client.topology()).to.deep.equal(before);
      const { changed } = await client.changeCluster({ kind: 'setWeight', node: 2, weight: 70 });
      expect(changed).to.equal(true);
      expect((await client.topology()).nodes[1]?.weight).to.equal(70);
    }));
});

/**
 * Nodes with a voter of the shard, as its leader says; none while that is about to change. In a joint
 * configuration those who leave still count: who kills another one then may stop the shard.
 */
async function votersOf(cluster: LocalCluster, shard: number): Promise<readonly number[]> {
  const leader = await cluster.leader(shard);
  const reply = leader === undefined ? undefined : await cluster.status(leader);
  const group = reply?.groups.find(({ groupId }) => groupId === shard);
  const { voters = [], voterReplicas = [], membershipCommitted = false } = group ?? {};
  if (!membershipCommitted || voterReplicas.length !== voters.length) return [];
  return [...voters].sort((a, b) => a - b);
}

describe('replicas of a running cluster', function () {
  this.timeout(120_000);

  it('move to another node under load: learner, snapshot, voter, and the old one is gone', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      for (let n = 0; n < 300; n++) {
        await client.put({ key: bytes(`k${n}`), value: Buffer.alloc(2000, n % 251) });
      }
      const added = await cluster.addNode();
      await idOf(cluster, added.clientAddress);
      await client.changeCluster({ kind: 'replaceReplica', shard: 1, from: 1, to: 4 });
      await cluster.waitFor('node 4 votes in shard 1 and node 1 does not', 60_000, async () => {
        await client.increment({ key: bytes('during'), delta: 1 });
        return (await votersOf(cluster, 1)).join() === '2,3,4';
      });
      await cluster.waitFor('node 1 has dropped its replica', 30_000, async () => {
        const reply = await cluster.status(1);
        return reply !== undefined && !reply.groups.some(({ groupId }) => groupId === 1);
      });
      expect(await votersOf(cluster, 2)).to.deep.equal([1, 2, 3]);
      await cluster.kill(2);
      for (let n = 0; n < 300; n++) {
        const { kv } = await client.get({ key: bytes(`k${n}`) });
        expect(kv?.value[0]).to.equal(n % 251);
      }
    }));

  it('of a drained node move away by themselves, and it can be removed then', () =>
    withCluster({ nodes: 3, shards: 3 }, async ({ cluster, client }) => {
      for (let n = 0; n < 100; n++) await client.put({ key: bytes(`k${n}`), value: bytes(`${n}`) });
      const added = await cluster.addNode();
      await idOf(cluster, added.clientAddress);
      await client.changeCluster({ kind: 'drain', node: 2 });
      await cluster.waitFor('node 2 has no replicas', 60_000, async () => {
        const { shards } = await client.topology();
        return shards.every(({ nodes }) => !nodes.includes(2) && nodes.length === 3);
      });
      for (const shard of [1, 2, 3]) {
        await cluster.waitFor(`shard ${shard} votes on 1, 3 and 4`, 30_000, async () => {
          return (await votersOf(cluster, shard)).join() === '1,3,4';
        });
      }
      for (let n = 0; n < 100; n++) {
        expect(text((await client.get({ key: bytes(`k${n}`) })).kv?.value)).to.equal(`${n}`);
      }
    }));

  it('of a node that stays away are built anew elsewhere, after the time that was set', () =>
    withCluster({ nodes: 3, shards: 3 }, async ({ cluster, client }) => {
      for (let n = 0; n < 100; n++) await client.put({ key: bytes(`k${n}`), value: bytes(`${n}`) });
      const added = await cluster.addNode();
      await idOf(cluster, added.clientAddress);
      for (const [name, value] of Object.entries({
        suspectAfterMs: 500,
        downAfterMs: 1000,
        replaceAfterMs: 2000,
      })) {
        await client.changeCluster({ kind: 'setSetting', name, value });
      }
      await cluster.kill(3);
      for (const shard of [1, 2, 3]) {
        await cluster.waitFor(`shard ${shard} votes on 1, 2 and 4`, 60_000, async () => {
          return (await votersOf(cluster, shard)).join() === '1,2,4';
        });
      }
      await cluster.kill(1);
      for (let n = 0; n < 100; n++) {
        expect(text((await client.get({ key: bytes(`k${n}`) })).kv?.value)).to.equal(`${n}`);
      }
    }));
});
