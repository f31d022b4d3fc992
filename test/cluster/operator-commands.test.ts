import { expect } from 'chai';
import { join } from 'node:path';
import { groupId, replicaId } from '../../raft/index.js';
import { machineRange, replicaPrefix, RocksEngine } from '../../storage/index.js';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { bytes, followerOf, withCluster, type Fixture } from './fixture.js';
import { QuorateCommand } from './quorate-command.js';

/** Writes until it is stopped; resolves with how many were acknowledged. */
function writing({ client }: Fixture): () => Promise<number> {
  let [stopped, written] = [false, 0];
  const done = (async (): Promise<void> => {
    for (; !stopped; written++)
      await client.put({ key: bytes(`load-${written % 500}`), value: Buffer.alloc(200, written) });
  })();
  return async () => {
    stopped = true;
    await done;
    return written;
  };
}

/** Changes one value of a shard in the engine of a node that is stopped, below the state machine. */
async function damage(cluster: LocalCluster, node: number, replica: number): Promise<void> {
  const engine = await RocksEngine.open({
    directory: join(cluster.node(node).directory, 'state'),
    memoryBytesMax: 16 * 1024 * 1024,
  });
  const range = machineRange(replicaPrefix(groupId(1), replicaId(replica)));
  const view = engine.iterate({ ...range, pageBytesMax: 1024 * 1024 });
  const pairs = await view.next();
  await view.close();
  // A user's value ends with its bytes: the longest one is no bookkeeping.
  const victim = pairs.reduce((a, b) => (b.value.byteLength > a.value.byteLength ? b : a));
  const value = Buffer.from(victim.value);
  value[value.byteLength - 1] = (value[value.byteLength - 1] ?? 0) ^ 1;
  const batch = engine.batch();
  batch.put(victim.key, value);
  await engine.write(batch, { sync: true });
  await engine.close();
}

describe('the commands of operators', function () {
  this.timeout(120_000);

  it('show the cluster, its nodes, shards and slots as tables and as JSON', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      const quorate = new QuorateCommand(cluster.endpoints);
      await Promise.all([
        quorate.expect('cluster status', 0, /3 of 3 nodes answer, 2 of 2 shards whole; healthy/),
        quorate.expect('cluster version', 0, /cluster 'local', map version 1\s/),
        quorate.expect('cluster settings', 0, /repairsMax +2 +0 +64 +2 /),
        quorate.expect('node list', 0, /3 +up .* yes/),
      ]);
      await Promise.all([
        quorate.expect(
          'node show 2',
          0,
          /connected +to all other nodes[^]*shard 1 +\d+ +(leader|follower)/,
        ),
        quorate.expect('shard list', 0, /1 +0-8191 +node \d +.* 3 of 3/),
        quorate.expect('shard show 2', 0, /slots 8192-16383[^]*all replicas are there/),
        quorate.expect('slot map', 0, /0-8191 +8192 +1 +1 +node \d/),
      ]);
      await Promise.all([
        quorate.expect('slot show --key a', 0, /^slot 15495: shard 2 at epoch 1, on nodes /),
        quorate.expect('slot show 0', 0, /^slot 0: shard 1 /),
        quorate.expect(
          'node add --host 10.0.0.9 --labels host=d',
          0,
          /^npx quorate server --cluster-id local --join \S+,\S+,\S+ .* --labels host=d\n$/,
        ),
      ]);
      const status = await quorate.json('cluster status');
      expect(status).to.deep.include({ clusterId: 'local', mapVersion: 1, healthy: true });
      expect(await quorate.json('slot map')).to.have.nested.property('ranges[0].first', 0);
    }));

  it('check: compares all replicas at one index under load, and names one that was changed from below', () =>
    withCluster({ nodes: 3 }, async (fixture) => {
      const { cluster } = fixture;
      const stop = writing(fixture);
      const quorate = new QuorateCommand(cluster.endpoints);
      const line = /^ok: 1 shard, 3 replicas, [\d,]+ keys, hash [0-9a-f]{16} at map version 1\n$/;
      const [one] = await Promise.all([
        quorate.expect('cluster check', 0, line),
        quorate.expect('cluster check', 0, line),
      ]);
      expect(one.err).to.equal('');
      expect(await stop()).to.be.above(0);
      const node = await followerOf(cluster);
      const replica =
        (await cluster.status(node))?.groups.find(({ groupId: id }) => id === 1)?.replicaId ?? 0;
      await cluster.terminate(node);
      const away = await quorate.expect('cluster status', 3, /2 of 3 nodes answer.*not healthy/);
      expect(away.out).to.contain(`node ${node} does not answer`);
      await quorate.expect(
        'cluster check --within 20',
        3,
        new RegExp(`on node ${node} was not compared[^]*incomplete: 1 shard, 2 of 3 replicas`),
      );
      await damage(cluster, node, replica);
      cluster.startNode(node);
      await cluster.waitUntilReady(30_000);
      const { out } = await quorate.expect('cluster check', 3, /DIFFERENT: shard 1 at index \d+/);
      expect(out).to.match(/shard 1 DIFFERS at index \d+: .*node 1 .*node 2 .*node 3 /);
    }));

  it('change who leads and who has replicas, and warn before copies are given up', () =>
    withCluster({ nodes: 3 }, async (fixture) => {
      const { cluster, client } = fixture;
      const quorate = new QuorateCommand(cluster.endpoints);
      const heir = await followerOf(cluster);
      await quorate.expect(
        `shard transfer-leader 1 --to ${heir}`,
        0,
        /^ok, node \d leads shard 1\n$/,
      );
      expect(await cluster.leader(1)).to.equal(heir);
      expect((await client.topology()).shards[0]?.nodes[0]).to.equal(heir);
      const { out } = await quorate.expect('shard transfer-leader 1', 0, /^ok, node \d leads/);
      expect(out).to.not.contain(`node ${heir} `);
      await quorate.expect('shard create --replicas 2', 0, /^ok, map version \d+, shard 2\n$/);
      await cluster.waitFor('shard 2 has its leader', 20_000, async () => {
        return (await cluster.leader(2)) !== undefined;
      });
      const { shards } = await client.topology();
      const free = [1, 2, 3].find((node) => shards[1]?.nodes.includes(node) === false) ?? 0;
      await quorate.expect(`shard add-replica 2 --node ${free}`, 0, /^ok, .*replica \d+\n$/);
      await quorate.expect(`shard remove-replica 2 --node ${free}`, 0, /^ok, .*replica \d+\n$/);
      const { err } = await quorate.expect('node remove 3 --force', 0, /^ok, map version/m);
      expect(err).to.match(
        /warning: copies on node 3 are given up: the metadata group, shard 1 \(2 left\)/,
      );
      expect((await client.topology()).nodes[2]?.state).to.equal('removed');
    }));
});

describe('the replacement of a node by another', function () {
  this.timeout(120_000);

  it('brings all its replicas there, that of the metadata group too, and lets it be removed', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      await cluster.addNode();
      const quorate = new QuorateCommand(cluster.endpoints);
      await cluster.waitFor('node 4 has joined and is heard', 30_000, async () => {
        const peers = (await cluster.status(4))?.peers ?? [];
        return peers.length === 3 && peers.every(({ connected }) => connected);
      });
      await quorate.expect('node replace 2 4 --wait', 0, /done: no replicas are left on it/);
      const { shards, metadataNodes } = await client.topology();
      for (const nodes of [metadataNodes, ...shards.map((shard) => shard.nodes)])
        expect([...nodes].sort()).to.deep.equal([1, 3, 4]);
      await quorate.expect('node remove 2', 0, /^ok, map version/);
      await quorate.expect('cluster check', 0, /^ok: 2 shards, 6 replicas, 1 key, /);
    }));
});

describe('bad input at the command line of operators', function () {
  this.timeout(120_000);

  it('is refused with the thing, the limit and the remedy, and nothing is changed', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const quorate = new QuorateCommand(cluster.endpoints);
      const before = await client.topology();
      const taken = cluster.node(2).clientAddress;
      const [, port = ''] = taken.split(':');
      const again = JSON.stringify({
        kind: 'addNode',
        directoryId: 'f'.repeat(32),
        peerAddress: cluster.node(2).peerAddress,
        clientAddress: taken,
        labels: {},
        weight: 100,
      });
      const rows: readonly (readonly [line: string, code: number, shown: RegExp])[] = [
        ['cluster init --shards 5', 1, /init twice: this is cluster 'local'/],
        ['cluster init --shards 0', 2, /--shards must be an integer from 1 to 1024, got '0'/],
        ['cluster settings speed 9', 1, /no setting 'speed': use one of suspectAfterMs/],
        ['cluster settings repairsMax 65', 1, /repairsMax must be an integer from 0 to 64, got 65/],
        [
          `cluster change '{"kind":"drain","node":1}' --if-version 999`,
          1,
          /999 .* is at 1: the number/,
        ],
        [`cluster change '{"kind":"drain","node":1}' --if-version -1`, 2, /--if-version/],
        [`cluster change '${again}'`, 1, /is the address of node 2/],
        ['cluster check --within 0', 2, /--within must be an integer from 1 to 3600/],
        ['node show 9', 1, /no node 9 in cluster 'local': it has nodes 1, 2, 3/],
        ['node drain 9', 1, /no node 9 in cluster 'local'/],
        ['node replace 1 1', 1, /node 1 cannot replace itself/],
        ['node replace 1 2', 1, /node 2 has a replica of shard 1 already/],
        ['node remove 2', 1, /still has replicas of metadata, shard 1, shard 2: drain it/],
        ['node weight 2 0', 1, /weight must be an integer from 1 to 1000 .*got 0/],
        ['node weight 2 1000000', 1, /got 1000000/],
        ['node weight 2 heavy', 2, /weight must be a number, got 'heavy'/],
        ['node label 2 nonsense', 2, /a label is name=value .*got 'nonsense'/],
        [`node add --port ${port}`, 2, new RegExp(`${taken} is the address of node 2`)],
        ['shard show 9', 1, /no shard 9 in cluster 'local': it has 2/],
        ['shard create --replicas 4', 1, /4 replicas need as many hosts, and nodes of 3 are up/],
        ['shard add-replica 9 --node 1', 1, /no shard 9/],
        ['shard remove-replica 1 --node 9', 1, /no replica on node 9: it has them on nodes/],
        ['shard transfer-leader 1 --to 9', 1, /no replica on node 9/],
        ['slot show 16384', 1, /there is no pin 16384: quorate slot map/],
        ['slot show 65534', 2, /slot must be/],
      ];
      // A few at a time: each is a process.
      const waiting = [...rows];
      const work = async (): Promise<void> => {
        for (let row = waiting.shift(); row !== undefined; row = waiting.shift())
          await quorate.expect(...row);
      };
      await Promise.all([work(), work(), work()]);
      expect(await client.topology()).to.deep.equal(before);
      expect(await quorate.json('node remove 9')).to.have.nested.property(
        'error.code',
        'KV_INVALID',
      );
    }));
});
