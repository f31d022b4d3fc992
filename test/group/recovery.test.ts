import { expect } from 'chai';
import { groupId, replicaId } from '../../raft/index.js';
import { putAppliedMark, readAppliedMark, replicaPrefix } from '../../storage/index.js';
import { randomFrom } from '../storage/raft-log/simulated-disk.js';
import { propose, readIndex, withCluster, type Cluster, type ClusterNode } from './cluster.js';

const prefixOf = (node: ClusterNode): Uint8Array => replicaPrefix(groupId(1), replicaId(node.id));

async function firstFollower(cluster: Cluster): Promise<ClusterNode> {
  const [follower] = cluster.followers(await cluster.leader());
  if (follower === undefined) throw new Error('no follower');
  return follower;
}

/** Every replica holds `texts`, in this order, each once. */
async function expectEverywhere(cluster: Cluster, texts: readonly string[]): Promise<void> {
  await cluster.converge();
  for (const node of cluster.nodes) {
    expect(await node.ledger().texts(), `node ${node.id}`).to.deep.equal(texts);
  }
}

describe('recovery of a replica', () => {
  it('R40: data and applied index are always found together, whatever a power cut keeps', () =>
    withCluster({}, async (cluster) => {
      const texts: string[] = [];
      for (let round = 0; round < 20; round++) {
        texts.push(...(await cluster.writeMany(`${round}-`, 7, 200)));
        const node = cluster.node((round % 3) + 1);
        node.cutPower(cluster.random);
        const { index } = await readAppliedMark(node.engine, prefixOf(node));
        await node.start();
        // One entry of each term is the leader's no-op: never more commands than entries.
        expect(node.ledger().length).to.be.at.most(index);
        await cluster.converge();
      }
      await expectEverywhere(cluster, texts);
    }));

  it('R02: all nodes lose power at once, again and again, and nothing acknowledged is lost', () =>
    withCluster({}, async (cluster) => {
      const acknowledged: string[] = [];
      for (let round = 0; round < 15; round++) {
        acknowledged.push(...(await cluster.writeMany(`${round}-`, 5, 300)));
        const leader = await cluster.leader();
        // Some more are under way when the power goes.
        for (let i = 0; i < 5; i++) {
          const text = `${round}-open-${i}`;
          leader.group().propose(Buffer.from(text), ({ kind }) => {
            if (kind === 'applied') acknowledged.push(text);
          });
        }
        if (round % 2 === 0) await cluster.clock.settle();
        for (const node of cluster.nodes) node.cutPower(cluster.random);
        for (const node of cluster.nodes) await node.start();
        await cluster.write(`${round}-again`);
        acknowledged.push(`${round}-again`);
      }
      await cluster.converge();
      const texts = await cluster.node(1).ledger().texts();
      expect(new Set(texts).size).to.equal(texts.length);
      expect(texts).to.include.members(acknowledged);
      await expectEverywhere(cluster, texts);
    }));

  it('D12: an engine that has applied what its own log had not yet synced starts and catches up', () =>
    withCluster({}, async (cluster) => {
      await cluster.writeMany('before-', 3);
      const leader = await cluster.leader();
      // The leader's disk is slow: the followers commit without it.
      let release: () => void = () => undefined;
      const slow = new Promise<void>((resolve) => (release = resolve));
      leader.disk.hook = ({ kind }) => (kind === 'write' ? slow : undefined);
      const outcome = propose(leader, 'ahead');
      await cluster.tick(3);
      // Applying is bounded by what is durable here, also when others have committed more.
      const { commitIndex, appliedIndex } = leader.group().status();
      expect(appliedIndex).to.be.at.most(commitIndex);
      expect(await leader.ledger().texts()).to.have.lengthOf(3);
      leader.cutPower(cluster.random);
      release();
      await leader.start();
      await cluster.outcome(outcome);
      await cluster.write('after');
      const texts = await leader.ledger().texts();
      expect(texts.filter((text) => text === 'ahead')).to.have.lengthOf(1);
      await expectEverywhere(cluster, texts);
    }));

  it('D12: refuses to start when the engine has applied an entry that the log never had', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('x');
      const node = await firstFollower(cluster);
      node.kill();
      const batch = node.engine.batch();
      putAppliedMark(batch, prefixOf(node), { term: 99, index: 99 });
      await node.engine.write(batch, { sync: true });
      const error = await node.start().then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).to.have.property('name', 'ReplicaDamaged');
      expect(String(error)).to.match(
        /applied entry 99 of term 99.*Remove this node's data directory/,
      );
    }));

  it('D13: an engine that lost data behind the compacted log serves nothing and is rebuilt', () =>
    withCluster({}, async (cluster) => {
      const texts = await cluster.writeMany('w', 120, 500);
      const node = await firstFollower(cluster);
      await cluster.converge();
      expect(node.group().status().firstIndex).to.be.greaterThan(1);
      node.kill();
      // Somebody restored an old copy of the engine's files, or they were damaged: they begin empty.
      const range = { start: new Uint8Array([0]), end: new Uint8Array([255]) };
      await node.engine.clear(range);
      await node.start();
      cluster.network.setNode(node.id, false);
      expect(node.group().status().restoring).to.equal(true);
      const read = readIndex(node);
      await cluster.tick(60);
      expect(node.group().isLeader).to.equal(false);
      expect(await cluster.outcome(read)).to.deep.equal({ kind: 'notReady', reason: 'restoring' });
      cluster.network.setNode(node.id, true);
      await cluster.until('it was rebuilt', () => !node.group().status().restoring);
      await expectEverywhere(cluster, texts);
    }));

  it('D13: the compaction never passes what is durable in the engine', () =>
    withCluster({ limits: { durableMarkBytes: 4096, logKeptBytes: 0 } }, async (cluster) => {
      for (let round = 0; round < 12; round++) {
        await cluster.writeMany(`${round}-`, 20, 400);
        for (const node of cluster.nodes) {
          const { firstIndex } = node.group().status();
          node.cutPower(cluster.random);
          const { index } = await readAppliedMark(node.engine, prefixOf(node));
          expect(index).to.be.at.least(firstIndex - 1);
          await node.start();
        }
        await cluster.leader();
      }
      await cluster.converge();
      expect(cluster.node(1).ledger().length).to.equal(240);
    }));

  it('D14: the applied index is made durable once in a few KiB, not with every batch', () =>
    withCluster({ limits: { durableMarkBytes: 8 * 1024 } }, async (cluster) => {
      await cluster.writeMany('w', 203, 400);
      await cluster.converge();
      const node = cluster.node(1);
      // Unsynced changes gather, and stay below what one mark covers.
      expect(node.engine.unsyncedLength).to.be.greaterThan(0);
      node.cutPower(() => 0);
      const { index } = await readAppliedMark(node.engine, prefixOf(node));
      expect(index).to.be.greaterThan(150);
    }));

  it('R45 fsyncgate: one failed sync stops the node, and what it wrote counts only after it is back', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('sound');
      const leader = await cluster.leader();
      leader.disk.hook = ({ kind }) => {
        if (kind === 'write') throw Object.assign(new Error('EIO: simulated'), { code: 'EIO' });
      };
      const outcome = await cluster.outcome(propose(leader, 'lost'));
      expect(outcome.kind).to.equal('unknown');
      expect(leader.fatal?.message).to.match(/EIO/);
      leader.disk.cutPower(cluster.random);
      await leader.start();
      await cluster.write('again');
      const texts = await leader.ledger().texts();
      expect(texts[0]).to.equal('sound');
      expect(texts[texts.length - 1]).to.equal('again');
      await expectEverywhere(cluster, texts);
    }));

  it('R45: a failed write of the state engine stops the node before anything is answered', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('sound');
      const leader = await cluster.leader();
      leader.engine.failNextWrite(new Error('no space left on device'));
      const outcome = await cluster.outcome(propose(leader, 'x'));
      expect(outcome.kind).to.equal('unknown');
      expect(leader.fatal?.message).to.match(/no space left/);
    }));

  it('D03: a restarted replica grants no vote for one election timeout', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('x');
      const leader = await cluster.leader();
      const [voter, other] = cluster.followers(leader);
      if (voter === undefined || other === undefined) throw new Error('no followers');
      leader.kill();
      // Just before the other one campaigns: by itself the voter remembers no leader at all.
      await cluster.tick(9);
      voter.kill();
      await voter.start();
      let ticks = 0;
      let grantedAt: number | undefined;
      cluster.network.filter = (from, _to, { message }) => {
        if (from === voter.id && 'granted' in message && message.granted) grantedAt ??= ticks;
        return 'pass';
      };
      for (; ticks < 200 && !voter.group().isLeader && !other.group().isLeader; ticks++) {
        await cluster.tick();
      }
      expect(ticks, 'nobody was elected').to.be.below(200);
      expect(grantedAt ?? 10).to.be.at.least(9);
    }));

  it('keeps what was written by kill -9 of every node in turn, under load, for 300 writes', () =>
    withCluster({ seed: 7 }, async (cluster) => {
      const random = randomFrom(7);
      const texts: string[] = [];
      for (let round = 0; round < 30; round++) {
        texts.push(...(await cluster.writeMany(`${round}-`, 10, 100)));
        const node = cluster.node((random() % 3) + 1);
        node.kill();
        await cluster.tick(random() % 40);
        await node.start();
      }
      await expectEverywhere(cluster, texts);
    }));
});
