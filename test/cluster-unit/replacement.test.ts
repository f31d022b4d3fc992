import { expect } from 'chai';
import { noReplica, replicaId, type Message } from '../../raft/index.js';
import { shardId, withShardCluster, type ShardCluster, type ShardNode } from './shard-cluster.js';
import { tickMs } from '../group/cluster.js';

/** Looks at the topology come once a second: farewells take ten, and two more are enough. */
const farewellTicks = 1200;

async function leaderOf(cluster: ShardCluster): Promise<ShardNode> {
  await cluster.until('somebody leads', () => cluster.leader !== undefined);
  const { leader } = cluster;
  if (leader === undefined) throw new Error('nobody leads');
  return leader;
}

async function followerOf(cluster: ShardCluster): Promise<ShardNode> {
  const leader = await leaderOf(cluster);
  const follower = cluster.nodes.find((node) => node !== leader && node.shard !== undefined);
  if (follower === undefined) throw new Error('no follower');
  return follower;
}

/** Nothing of the replica is left on the node, and it is remembered that it was there. */
async function expectGone(cluster: ShardCluster, node: ShardNode, replica: number): Promise<void> {
  await cluster.until(`replica ${replica} is gone`, async () => {
    const { floor } = await node.recoverable();
    return node.shard === undefined && floor >= replica;
  });
  await cluster.until(
    'its range is empty',
    async () => (await node.pairsOf(replica)).length === 0,
    5,
  );
  expect(await node.recoverable()).to.deep.equal({ replica: undefined, floor: replica });
}

/** Whatever was acknowledged is there, on everybody alike, and nobody stopped. */
async function expectWhole(cluster: ShardCluster): Promise<void> {
  expect(await cluster.read()).to.deep.equal(cluster.written);
  const applied = (): Set<number | undefined> =>
    new Set(cluster.replicas.map(({ node }) => cluster.node(node).shard?.group.appliedIndex));
  await cluster.until('all have applied the same', () => applied().size === 1);
  const hashes = await Promise.all(
    cluster.replicas.map(async ({ node }) => (await cluster.node(node).shard?.group.hash())?.hash),
  );
  expect(new Set(hashes).size).to.equal(1);
  for (const { fatal } of cluster.nodes) expect(fatal).to.equal(undefined);
}

describe('the replacement of a replica', () => {
  it('leaves nobody waiting for one that was removed while its node was away', () =>
    withShardCluster({}, async (cluster) => {
      const [from, to] = [await followerOf(cluster), cluster.spare];
      from.kill();
      const replica = cluster.replace(from, to);
      await cluster.until('the members are those of the topology', () => cluster.isAsWanted);
      cluster.end('done');
      await from.start();
      // It is there, and hears nobody: another node has to be asked.
      expect(from.shard?.group.replica).to.equal(replica.old);
      expect(from.running?.shards.answering(shardId)).to.equal(undefined);
      expect(to.running?.shards.answering(shardId)?.group.replica).to.equal(replica.new);
      await expectGone(cluster, from, replica.old);
    }));

  it('goes from learner over snapshot to voter, and the old replica leaves nothing behind', () =>
    withShardCluster({}, async (cluster) => {
      await cluster.write(60);
      const [from, to] = [await followerOf(cluster), cluster.spare];
      const replica = cluster.replace(from, to);
      let wasLearner = false;
      await cluster.until('the members are those of the topology', () => {
        const status = cluster.leader?.shard?.group.status();
        const { learners = [], incoming = [] } = status?.membership.membership ?? {};
        wasLearner ||= learners.includes(replicaId(replica.new));
        // D06: whoever is replaced counts until its successor does.
        if (!incoming.includes(replicaId(replica.new)))
          expect(incoming).to.include(replicaId(replica.old));
        return cluster.isAsWanted;
      });
      expect(wasLearner).to.equal(true);
      expect(to.shard?.group.figures()['snapshotsInstalled']).to.equal(1);
      await cluster.write(5);
      // The operation is not over yet: it could still be cancelled.
      await cluster.tick(farewellTicks);
      expect(from.shard?.group.replica).to.equal(replica.old);
      cluster.end('done');
      await expectGone(cluster, from, replica.old);
      await expectWhole(cluster);
    }));

  it('of the leader itself: it hands over first, and the next one goes on', () =>
    withShardCluster({}, async (cluster) => {
      await cluster.write(20);
      const [from, to] = [await leaderOf(cluster), cluster.spare];
      const replica = cluster.replace(from, to);
      let terms = 0;
      await cluster.until('the members are those of the topology', () => {
        terms = Math.max(terms, cluster.leader?.shard?.group.term ?? 0);
        return cluster.isAsWanted;
      });
      expect(cluster.leader).to.not.equal(from);
      cluster.end('done');
      await expectGone(cluster, from, replica.old);
      await cluster.write(3);
      await expectWhole(cluster);
    }));

  it('D01: no late message, no old topology and no restart brings the old replica back', () =>
    withShardCluster({}, async (cluster) => {
      const [from, to] = [await followerOf(cluster), cluster.spare];
      const before = cluster.topology;
      const replica = cluster.replace(from, to);
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      cluster.end('done');
      await expectGone(cluster, from, replica.old);
      const expectNothing = async (): Promise<void> => {
        const { running } = await leaderOf(cluster);
        const message: Message = {
          type: 'append',
          from: cluster.replicas[0]?.replica ?? replicaId(1),
          to: replicaId(replica.old),
          term: 1e6,
          prevIndex: 0,
          prevTerm: 0,
          commit: 0,
          entries: [],
        };
        running?.transport.send(from.id, { group: shardId, generation: 0, message });
        await cluster.tick(120);
        expect(from.running?.host.statistics()).to.include({ groups: 0, unknownGroup: 1 });
        expect((await from.pairsOf(replica.old)).length).to.equal(0);
        expect(from.fatal).to.equal(undefined);
      };
      await expectNothing();
      // Its copy of the topology is from before the replacement: it names the replica that it had.
      from.kill();
      await from.start(before);
      await expectNothing();
    }));

  it('D06: a replica that is named no more stays while it hears a leader: its successor may never vote', () =>
    withShardCluster({}, async (cluster) => {
      const [from, to] = [await followerOf(cluster), cluster.spare];
      to.kill();
      const replica = cluster.replace(from, to);
      cluster.end('done');
      await cluster.tick(Math.ceil(20_000 / tickMs));
      expect(from.shard?.group.replica, 'it still votes').to.equal(replica.old);
      await to.start();
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      await expectGone(cluster, from, replica.old);
    }));

  it('D01: a node that lost its replica of a shard is given another one under another id', () =>
    withShardCluster({}, async (cluster) => {
      const [from, to] = [await followerOf(cluster), cluster.spare];
      const first = cluster.replace(from, to);
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      cluster.end('done');
      // Not yet gone when the next one is asked for.
      const second = cluster.replace(to, from);
      await cluster.until('the members are as wanted again', () => cluster.isAsWanted);
      cluster.end('done');
      await expectGone(cluster, to, first.new);
      expect(from.shard?.group.replica).to.equal(second.new);
      expect(await from.recoverable()).to.deep.equal({ replica: second.new, floor: first.old });
      expect((await from.pairsOf(first.old)).length).to.equal(0);
      await expectWhole(cluster);
    }));

  it('D01: killed between the floor and the clear, a node clears the rest when it starts', () =>
    withShardCluster({}, async (cluster) => {
      const [from, to] = [await followerOf(cluster), cluster.spare];
      const replica = cluster.replace(from, to);
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      from.engine.clear = () => {
        from.kill();
        return new Promise(() => undefined);
      };
      cluster.end('done');
      await cluster.until('it was killed', () => from.running === undefined);
      expect(await from.recoverable()).to.deep.equal({ replica: undefined, floor: replica.old });
      expect((await from.pairsOf(replica.old)).length).to.be.greaterThan(0);
      await from.start();
      expect((await from.pairsOf(replica.old)).length).to.equal(0);
      await expectWhole(cluster);
    }));

  it('a topology older than a replica takes nothing from it', () =>
    withShardCluster({}, async (cluster) => {
      const [from, to] = [await followerOf(cluster), cluster.spare];
      const before = cluster.topology;
      const replica = cluster.replace(from, to);
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      for (const node of cluster.nodes) {
        node.kill();
        await node.start(before);
      }
      // A leader stays anyway.
      await cluster.until('another one leads', () => {
        if (cluster.leader === to) to.shard?.group.transferLeadership(noReplica);
        return cluster.leader !== undefined && cluster.leader !== to;
      });
      await cluster.tick(farewellTicks);
      expect(to.shard?.group.replica).to.equal(replica.new);
      const { incoming = [] } = cluster.leader?.shard?.group.status().membership.membership ?? {};
      expect(incoming).to.include(replicaId(replica.new));
      await expectWhole(cluster);
    }));

  it('cancelled in time, it leaves everything as it was and the new replica is dropped', () =>
    withShardCluster({}, async (cluster) => {
      await cluster.write(20);
      const [from, to] = [await followerOf(cluster), cluster.spare];
      const keeps = from.shard?.group.replica;
      cluster.network.setNode(to.id, false);
      const replica = cluster.replace(from, to);
      await cluster.tick(300);
      cluster.end('cancelled');
      await cluster.until('the members are those of before', () => cluster.isAsWanted);
      await expectGone(cluster, to, replica.new);
      cluster.network.setNode(to.id, true);
      expect(from.shard?.group.replica).to.equal(keeps);
      await expectWhole(cluster);
    }));

  for (const quietTicks of [0, 50]) {
    it(`R22: a replica that was away when it was removed disturbs nobody (${quietTicks ? 'quiet' : 'never quiet'})`, () =>
      withShardCluster({ quietTicks }, async (cluster) => {
        const [from, to] = [await followerOf(cluster), cluster.spare];
        from.kill();
        const replica = cluster.replace(from, to);
        await cluster.until('the members are as wanted', () => cluster.isAsWanted);
        cluster.end('done');
        // The replica named first takes the lead when it can: that is over by then.
        await cluster.tick(400);
        const { leader } = cluster;
        const term = leader?.shard?.group.term;
        await from.start();
        await cluster.tick(200);
        await expectGone(cluster, from, replica.old);
        expect(cluster.leader).to.equal(leader);
        expect(cluster.leader?.shard?.group.term).to.equal(term);
        await expectWhole(cluster);
      }));
  }

  it('D23: a scan under way when the replica goes is refused, and never passes for the whole', () =>
    withShardCluster({}, async (cluster) => {
      await cluster.write(5);
      const [from, to] = [await followerOf(cluster), cluster.spare];
      let isFresh = false;
      from.shard?.group.readIndex({ lease: false }, ({ kind }) => {
        isFresh = kind === 'ready';
      });
      await cluster.until('it serves reads', () => isFresh);
      cluster.replace(from, to);
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      const answer = scanAfterClear(from);
      cluster.end('done');
      await cluster.until('it is gone', () => from.shard === undefined);
      await cluster.tick(5);
      expect(await answer).to.equal('KV_UNAVAILABLE');
    }));

  for (const victim of ['the leader', 'the new replica', 'the old replica', 'all'] as const) {
    it(`is done in the end with kill -9 of ${victim} at any moment of it`, () => killing(victim));
  }
});

/** Begins a scan whose look at the engine comes after the next clear; what becomes of it. */
function scanAfterClear({ engine, shard }: ShardNode): Promise<string> {
  let cleared: () => void = () => undefined;
  const gone = new Promise<void>((resolve) => (cleared = resolve));
  const clear = engine.clear.bind(engine);
  engine.clear = async (range) => {
    await clear(range);
    cleared();
  };
  const iterate = engine.iterate.bind(engine);
  engine.iterate = (options) => ({
    next: async () => {
      await gone;
      const iterator = iterate(options);
      const page = await iterator.next();
      await iterator.close();
      return page;
    },
    close: () => Promise.resolve(),
  });
  return new Promise((resolve) => {
    shard?.shard.scan(
      {
        prefix: new Uint8Array(),
        slot: undefined,
        cursor: undefined,
        afterKey: undefined,
        bytesMax: 1e6,
        lengthMax: 1000,
        keysOnly: false,
        level: { kind: 'stale', maxStalenessMs: Infinity },
      },
      { deadlineMs: Infinity, mayHaveApplied: false },
      (error, page) => {
        resolve(error?.code ?? `${page?.kvs.length ?? 0} pairs`);
      },
    );
  });
}

type Victim = 'the leader' | 'the new replica' | 'the old replica' | 'all';

/** Kills at moments that a replacement has: learner, snapshot, promotion, removal, farewell. */
async function killing(victim: Victim): Promise<void> {
  for (let moment = 0; moment < 6; moment++) {
    await withShardCluster({ seed: moment + 1 }, async (cluster) => {
      await cluster.write(20);
      const [from, to] = [await (moment % 2 ? leaderOf : followerOf)(cluster), cluster.spare];
      const replica = cluster.replace(from, to);
      const chosen = async (): Promise<readonly ShardNode[]> => {
        if (victim === 'all') return cluster.nodes;
        if (victim === 'the leader') return [await leaderOf(cluster)];
        return [victim === 'the new replica' ? to : from];
      };
      for (let kills = 0; kills < 3; kills++) {
        await cluster.tick(1 + (cluster.random() % (kills === 0 ? 120 : 60)));
        const victims = await chosen();
        for (const node of victims) node.kill();
        await cluster.tick(cluster.random() % 40);
        for (const node of victims) await node.start();
        await cluster.write(2);
      }
      await cluster.until('the members are as wanted', () => cluster.isAsWanted);
      cluster.end('done');
      if (victim === 'all') for (const node of cluster.nodes) node.kill();
      if (victim === 'all') for (const node of cluster.nodes) await node.start();
      await expectGone(cluster, from, replica.old);
      await expectWhole(cluster);
    });
  }
}
