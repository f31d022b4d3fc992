import { expect } from 'chai';
import type { HashAt, ReplicaHash } from '../../src/group/group.js';
import { propose, withCluster, type Cluster, type ClusterNode } from './cluster.js';

function found(at: HashAt): ReplicaHash {
  if (at.kind !== 'hash') throw new Error(`no hash: ${at.kind}`);
  return at.hash;
}

/** Asks for a hash in the middle of `texts`, all proposed in one turn, and gives its index. */
async function hashAmong(cluster: Cluster, texts: readonly string[]): Promise<number> {
  const leader = await cluster.leader();
  const at = texts.length / 2;
  const outcomes = [...texts.slice(0, at), 'hash', ...texts.slice(at)].map((text) =>
    propose(leader, text),
  );
  const ended = await Promise.all(outcomes.map((outcome) => cluster.outcome(outcome)));
  const hashed = ended[at];
  if (hashed?.kind !== 'applied') throw new Error(`the hash was ${hashed?.kind ?? 'lost'}`);
  await cluster.until('every replica has passed the index', () =>
    cluster.nodes.every(
      (node) => node.running === undefined || node.group().hashAt(hashed.index).kind !== 'pending',
    ),
  );
  return hashed.index;
}

const texts = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_, n) => `${name}${n}`);

/** Changes one value in the engine, below the state machine. */
async function damage(node: ClusterNode): Promise<void> {
  const { engine } = node;
  const view = engine.iterate({ ...node.ledger().range, pageBytesMax: 1 });
  const [pair] = await view.next();
  await view.close();
  if (pair === undefined) throw new Error('nothing to damage');
  const batch = engine.batch();
  batch.put(pair.key, Buffer.from('not what was written'));
  await engine.write(batch, { sync: false });
}

describe('hashes of replicas at an index that the log names', () => {
  it('are equal on every replica, and cover just what stands before, while writes go on', () =>
    withCluster({}, async (cluster) => {
      await cluster.writeMany('before', 20);
      const index = await hashAmong(cluster, texts('around', 10));
      const hashes = cluster.nodes.map((node) => found(node.group().hashAt(index)));
      expect(new Set(hashes.map(({ hash }) => hash))).to.have.property('size', 1);
      // 20 writes, 5 more, and the command that asked.
      expect(hashes.map(({ keys, pairs }) => [keys, pairs])).to.deep.equal(
        cluster.nodes.map(() => [26, 26]),
      );
      const now = await cluster.node(1).group().hash();
      expect(now.hash).to.not.equal(hashes[0]?.hash);
    }));

  it('differ on a replica whose engine was changed from below', () =>
    withCluster({}, async (cluster) => {
      await cluster.writeMany('before', 10);
      await cluster.converge();
      const [damaged, whole] = cluster.followers(await cluster.leader());
      if (damaged === undefined || whole === undefined) throw new Error('too few followers');
      await damage(damaged);
      const index = await hashAmong(cluster, texts('around', 4));
      const leader = await cluster.leader();
      const hashOf = (node: ClusterNode): string => found(node.group().hashAt(index)).hash;
      expect(hashOf(whole)).to.equal(hashOf(leader));
      expect(hashOf(damaged)).to.not.equal(hashOf(leader));
    }));

  it('are pending before the index, and missing after a restart', () =>
    withCluster({}, async (cluster) => {
      const index = await hashAmong(cluster, texts('a', 4));
      const node = cluster.followers(await cluster.leader())[0];
      if (node === undefined) throw new Error('no follower');
      expect(node.group().hashAt(index + 1000).kind).to.equal('pending');
      node.kill();
      await node.start();
      await cluster.converge();
      expect(node.group().hashAt(index).kind).to.equal('missing');
    }));

  it('of the newest indexes win over older ones that are still being computed', () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      // Several pages: none is hashed within the turn that begins it.
      await cluster.writeMany('big', 60, 20_000);
      const { index } = await cluster.outcome(lastOf(await cluster.leader(), 5));
      const group = cluster.node(1).group();
      await cluster.until('all have ended', () => group.hashAt(index).kind !== 'pending');
      const kinds = [4, 3, 2, 1, 0].map((back) => group.hashAt(index - back).kind);
      expect(kinds).to.deep.equal(['missing', 'missing', 'missing', 'hash', 'hash']);
    }));
});

/** Asks for so many hashes in one turn; the place of the last one. */
async function lastOf(leader: ClusterNode, count: number): Promise<{ readonly index: number }> {
  const asked = Array.from({ length: count }, () => propose(leader, 'hash'));
  const last = (await Promise.all(asked)).at(-1);
  if (last?.kind !== 'applied') throw new Error(`the last hash became ${last?.kind ?? 'nothing'}`);
  return last;
}
