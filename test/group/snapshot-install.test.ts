import { expect } from 'chai';
import { groupId, replicaId } from '../../raft/index.js';
import { readAppliedMark, readRestoringMark, replicaPrefix } from '../../storage/index.js';
import { SnapshotInterrupted } from '../../src/transport/transport.js';
import {
  propose,
  readIndex,
  tickMs,
  withCluster,
  type Cluster,
  type ClusterNode,
} from './cluster.js';

const compacting = { limits: { durableMarkBytes: 2048, logKeptBytes: 2048 } };

/** A follower that missed more than its leader's log still has. */
async function laggard(cluster: Cluster): Promise<{ node: ClusterNode; texts: string[] }> {
  const texts = await cluster.writeMany('early-', 5);
  const [node] = cluster.followers(await cluster.leader());
  if (node === undefined) throw new Error('no follower');
  cluster.network.setNode(node.id, false);
  texts.push(...(await cluster.writeMany('missed-', 60, 400)));
  const leader = await cluster.leader();
  expect(leader.group().status().firstIndex).to.be.greaterThan(node.group().status().lastIndex + 1);
  return { node, texts };
}

async function expectRebuilt(
  cluster: Cluster,
  node: ClusterNode,
  texts: readonly string[],
): Promise<void> {
  await cluster.converge();
  expect(await node.ledger().texts()).to.deep.equal(texts);
  expect(node.ledger().length).to.equal(texts.length);
  const leader = await cluster.leader();
  const { hash } = await leader.group().hash();
  expect((await node.group().hash()).hash).to.equal(hash);
}

describe('snapshot install', () => {
  it('brings a follower back that the log cannot bring back, and it goes on from there', () =>
    withCluster(compacting, async (cluster) => {
      const { node, texts } = await laggard(cluster);
      cluster.network.setNode(node.id, true);
      await expectRebuilt(cluster, node, texts);
      expect(node.group().figures()['snapshotsInstalled']).to.equal(1);
      texts.push(...(await cluster.writeMany('later-', 3)));
      await expectRebuilt(cluster, node, texts);
    }));

  it('R42: no entry inside the snapshot is applied again, also after a restart', () =>
    withCluster(compacting, async (cluster) => {
      const { node, texts } = await laggard(cluster);
      cluster.network.setNode(node.id, true);
      await cluster.converge();
      for (let restart = 0; restart < 3; restart++) {
        node.cutPower(cluster.random);
        await node.start();
        texts.push(...(await cluster.writeMany(`r${restart}-`, 2)));
        await expectRebuilt(cluster, node, texts);
      }
    }));

  it('R10 two-snapshots-quickly: a second one right after the first does no harm', () =>
    withCluster(compacting, async (cluster) => {
      const { node, texts } = await laggard(cluster);
      for (let again = 0; again < 4; again++) {
        cluster.network.setNode(node.id, true);
        await cluster.until('one more snapshot came', () => {
          const installed = node.group().figures()['snapshotsInstalled'] ?? 0;
          return installed > again;
        });
        cluster.network.setNode(node.id, false);
        texts.push(...(await cluster.writeMany(`more-${again}-`, 30, 400)));
      }
      cluster.network.setNode(node.id, true);
      await expectRebuilt(cluster, node, texts);
      expect(node.fatal).to.equal(undefined);
    }));

  it('D15: half installed, the replica serves nothing and does not campaign, and asks again', () =>
    withCluster(compacting, async (cluster) => {
      const { node, texts } = await laggard(cluster);
      let breaks = 2;
      cluster.network.onChunk = async (chunk) => {
        if (breaks-- > 0) {
          cluster.network.setNode(node.id, false);
        }
        return Promise.resolve(chunk);
      };
      cluster.network.setNode(node.id, true);
      await cluster.until('the transfer broke', () => breaks < 2 && !isWhole(node));
      const read = readIndex(node);
      await cluster.tick(60);
      expect(node.group().isLeader).to.equal(false);
      expect((await cluster.outcome(read)).kind).to.equal('notReady');
      breaks = 0;
      cluster.network.setNode(node.id, true);
      await cluster.until('it was installed', () => isWhole(node));
      await expectRebuilt(cluster, node, texts);
    }));

  it('D15: half installed and started again, it serves nothing and does not campaign', () =>
    withCluster(compacting, async (cluster) => {
      const { node, texts } = await laggard(cluster);
      cluster.network.onChunk = async () => {
        node.cutPower(cluster.random);
        return Promise.reject(new SnapshotInterrupted('the power went'));
      };
      cluster.network.setNode(node.id, true);
      await cluster.until('the power went', () => node.running === undefined);
      cluster.network.setNode(node.id, false);
      await node.start();
      expect(node.group().status().restoring).to.equal(true);
      const read = readIndex(node);
      await cluster.tick(60);
      expect(node.group().status().role).to.equal('follower');
      expect(await cluster.outcome(read)).to.deep.equal({ kind: 'notReady', reason: 'restoring' });
      cluster.network.onChunk = (chunk) => Promise.resolve(chunk);
      cluster.network.setNode(node.id, true);
      await cluster.until('it was installed', () => isWhole(node));
      await expectRebuilt(cluster, node, texts);
    }));

  it('D15: a batch that is being applied when it comes does not land on the new state', () =>
    withCluster(compacting, async (cluster) => {
      const texts = await cluster.writeMany('early-', 5);
      const [node] = cluster.followers(await cluster.leader());
      if (node === undefined) throw new Error('no follower');
      let release: () => void = () => undefined;
      const slow = new Promise<void>((resolve) => (release = resolve));
      node.ledger().onApply = () => slow;
      texts.push(...(await cluster.writeMany('applying-', 1)));
      await cluster.tick(3);
      cluster.network.setNode(node.id, false);
      texts.push(...(await cluster.writeMany('missed-', 60, 400)));
      cluster.network.setNode(node.id, true);
      await cluster.until('a snapshot is offered', () => {
        const sent = cluster.nodes.map((each) => each.group().figures()['snapshotsSent'] ?? 0);
        return sent.some((count) => count > 0);
      });
      await cluster.tick(3);
      release();
      await expectRebuilt(cluster, node, texts);
    }));

  it('R42: what a snapshot holds and the index it is sent with belong together', async () => {
    // Offered at different moments of the leader's writing.
    for (let moment = 0; moment < 8; moment++) {
      await withCluster(compacting, async (cluster) => {
        const { node, texts } = await laggard(cluster);
        const leader = await cluster.leader();
        const { engine } = leader;
        const write = engine.write.bind(engine);
        // Slow to say that it has written: in between, the data are ahead of the applied index.
        engine.write = async (batch, options) => {
          await write(batch, options);
          await turns(5);
        };
        const outcomes: Promise<{ readonly kind: string }>[] = [];
        for (let i = 0; i < 60; i++) {
          if (i === moment) cluster.network.setNode(node.id, true);
          outcomes.push(propose(leader, `during-${i}`));
          cluster.clock.jump(tickMs);
          await turns(1);
        }
        for (const [i, outcome] of outcomes.entries()) {
          expect((await cluster.outcome(outcome)).kind).to.equal('applied');
          texts.push(`during-${i}`);
        }
        await expectRebuilt(cluster, node, texts);
        expect(node.group().figures()['snapshotsInstalled']).to.be.at.least(1);
      });
    }
  });

  it('a chunk damaged on its way is noticed, and another snapshot repairs the replica', () =>
    withCluster(compacting, async (cluster) => {
      const { node, texts } = await laggard(cluster);
      let damaged = 0;
      cluster.network.onChunk = (chunk) => {
        if (damaged++ > 0) return Promise.resolve(chunk);
        const copy = Uint8Array.from(chunk);
        copy[copy.length >> 1] = (copy[copy.length >> 1] ?? 0) ^ 1;
        return Promise.resolve(copy);
      };
      cluster.network.setNode(node.id, true);
      await expectRebuilt(cluster, node, texts);
      expect(damaged).to.be.greaterThan(1);
    }));

  it('D04: proposals that wait when a snapshot is installed over them are unknown', () =>
    withCluster(compacting, async (cluster) => {
      await cluster.write('x');
      const old = await cluster.leader();
      cluster.network.setNode(old.id, false);
      const outcome = propose(old, 'open');
      await cluster.until('another leader', () =>
        cluster.nodes.some((node) => node !== old && node.group().isLeader),
      );
      const next = cluster.nodes.find((node) => node !== old && node.group().isLeader);
      if (next === undefined) throw new Error('nobody leads');
      for (let i = 0; i < 60; i++) {
        await cluster.outcome(propose(next, `missed-${i}`.padEnd(400, '.')));
      }
      cluster.network.setNode(old.id, true);
      expect(await cluster.outcome(outcome)).to.deep.equal({
        kind: 'unknown',
        reason: 'snapshotInstalled',
      });
      await cluster.converge();
      expect(await old.ledger().texts()).to.not.include('open');
    }));

  it('D15: a power cut at any step of the install leaves a replica that recovers', async function () {
    this.timeout(60_000);
    const reached = new Set<string>();
    for (let step = 1; step <= 40; step++) {
      await withCluster({ ...compacting, seed: step }, async (cluster) => {
        const { node, texts } = await laggard(cluster);
        const where = await cutPowerAtStep(cluster, node, step);
        reached.add(where);
        await node.start();
        texts.push(...(await cluster.writeMany('later-', 2)));
        await expectRebuilt(cluster, node, texts);
      });
    }
    // The cuts met each phase: before the mark, with the mark, installed but not reset, and after.
    expect([...reached].sort()).to.deep.equal(['after', 'before', 'installed', 'marked']);
  });
});

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((done) => setImmediate(done));
}

function isWhole(node: ClusterNode): boolean {
  return !node.group().status().restoring;
}

/** Cuts the power of a node at its `step`-th write of engine or log after the snapshot begins. */
async function cutPowerAtStep(
  cluster: Cluster,
  node: ClusterNode,
  step: number,
): Promise<'before' | 'marked' | 'installed' | 'after'> {
  let left = step;
  const count = (): boolean => --left === 0 && node.running !== undefined;
  const cut = (): void => {
    node.cutPower(cluster.random);
  };
  const { engine } = node;
  const write = engine.write.bind(engine);
  engine.write = async (batch, options) => {
    // Even steps: the batch is written before the power goes.
    if (count()) {
      if (step % 2 === 0) await write(batch, options);
      cut();
      return new Promise(() => undefined);
    }
    return write(batch, options);
  };
  node.disk.hook = ({ kind }) => {
    if (kind === 'write' && count()) cut();
  };
  cluster.network.setNode(node.id, true);
  for (let ticks = 0; ticks < 200 && node.running !== undefined; ticks++) {
    await cluster.tick();
  }
  if (node.running !== undefined) cut();
  const prefix = replicaPrefix(groupId(1), replicaId(node.id));
  if ((await readRestoringMark(node.engine, prefix)) !== undefined) return 'marked';
  const { index } = await readAppliedMark(node.engine, prefix);
  const { lastIndex } = await node.recoverableLog();
  if (index > lastIndex) return 'installed';
  return index < 10 ? 'before' : 'after';
}
