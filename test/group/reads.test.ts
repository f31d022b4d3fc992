import { expect } from 'chai';
import { propose, readIndex, withCluster, type Cluster, type ClusterNode } from './cluster.js';

/** Reads through a node as a service would: ask, look, check again. */
async function read(
  cluster: Cluster,
  node: ClusterNode,
  lease = false,
): Promise<readonly string[] | string> {
  const outcome = await cluster.outcome(readIndex(node, { lease }));
  if (outcome.kind === 'notReady') return outcome.reason;
  const texts = await node.ledger().texts();
  return outcome.stillValid() ? texts : 'lease ran out';
}

describe('reads', () => {
  it('see every write acknowledged before, at the leader and at every follower', () =>
    withCluster({}, async (cluster) => {
      for (let i = 0; i < 5; i++) {
        await cluster.write(`w${i}`);
        for (const node of cluster.nodes) {
          expect(await read(cluster, node)).to.have.lengthOf(i + 1);
        }
      }
    }));

  it('of one turn share one round', () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      await cluster.write('x');
      const before = leader.group().figures()['readRounds'] ?? NaN;
      const outcomes = await Promise.all(
        Array.from({ length: 50 }, () => cluster.outcome(readIndex(leader))),
      );
      expect(outcomes.every(({ kind }) => kind === 'ready')).to.equal(true);
      expect(leader.group().figures()['readRounds']).to.equal(before + 1);
    }));

  it('R04: a new leader answers no read before an entry of its own term is committed', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('acknowledged');
      const old = await cluster.leader();
      old.kill();
      // Elected, but its no-op reaches nobody.
      cluster.network.filter = (_from, _to, { message }) =>
        message.type === 'append' && message.entries.length > 0 ? 'lose' : 'pass';
      const leader = await cluster.leader();
      const outcome = readIndex(leader);
      let answered = false;
      void outcome.then(() => (answered = true));
      await cluster.tick(5);
      expect(answered).to.equal(false);
      cluster.network.filter = () => 'pass';
      expect((await cluster.outcome(outcome)).kind).to.equal('ready');
      expect(await leader.ledger().texts()).to.deep.equal(['acknowledged']);
    }));

  it('R13: a node that restarted answers nothing before it has applied what was committed', () =>
    withCluster({ limits: { durableMarkBytes: 1e9 } }, async (cluster) => {
      const texts = await cluster.writeMany('w', 20);
      const [node] = cluster.followers(await cluster.leader());
      if (node === undefined) throw new Error('no follower');
      node.cutPower(cluster.random);
      await node.start();
      const seen = await read(cluster, node);
      expect(seen).to.deep.equal(texts);
    }));

  it('R13: wait until this replica has applied what they must see', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('one');
      const [follower] = cluster.followers(await cluster.leader());
      if (follower === undefined) throw new Error('no follower');
      let release: () => void = () => undefined;
      const slow = new Promise<void>((resolve) => (release = resolve));
      follower.ledger().onApply = () => slow;
      await cluster.write('two');
      const outcome = readIndex(follower);
      let ended = false;
      void outcome.then(() => (ended = true));
      await cluster.tick(5);
      expect(ended).to.equal(false);
      release();
      expect((await cluster.outcome(outcome)).kind).to.equal('ready');
      expect(await follower.ledger().texts()).to.deep.equal(['one', 'two']);
    }));

  it('a leader that is cut off answers no read and says that it has no quorum', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('x');
      const old = await cluster.leader();
      cluster.network.setNode(old.id, false);
      expect(await read(cluster, old)).to.equal('noQuorum');
    }));

  it('D08, R30: what a lost round is asked again has another context; late answers change nothing', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('x');
      const leader = await cluster.leader();
      const [follower] = cluster.followers(leader);
      if (follower === undefined) throw new Error('no follower');
      const contexts: string[] = [];
      cluster.network.filter = (from, _to, { message }) => {
        if (message.type !== 'readIndex' || from !== follower.id) return 'pass';
        contexts.push(message.context);
        return contexts.length < 3 ? 'lose' : 'pass';
      };
      for (let i = 0; i < 3; i++) await cluster.outcome(readIndex(follower));
      expect(contexts.length).to.be.greaterThan(2);
      expect(new Set(contexts).size).to.equal(contexts.length);
    }));

  it('D08: contexts of a restarted node were never used before', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('x');
      const contexts: string[] = [];
      cluster.network.filter = (_from, _to, { message }) => {
        if (message.type === 'readIndex') contexts.push(message.context);
        return 'pass';
      };
      for (let restart = 0; restart < 3; restart++) {
        const [follower] = cluster.followers(await cluster.leader());
        if (follower === undefined) throw new Error('no follower');
        expect((await cluster.outcome(readIndex(follower))).kind).to.equal('ready');
        follower.kill();
        await follower.start();
      }
      expect(contexts.length).to.be.greaterThan(2);
      expect(new Set(contexts).size).to.equal(contexts.length);
    }));

  it('R34: a read begun before a transfer sees what the next leader acknowledged meanwhile', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('one');
      const old = await cluster.leader();
      const [heir] = cluster.followers(old);
      if (heir === undefined) throw new Error('no follower');
      old.group().transferLeadership(heir.group().replica);
      const early = readIndex(old);
      await cluster.until('the heir leads', () => heir.group().isLeader);
      const written = await cluster.outcome(propose(heir, 'two'));
      expect(written.kind).to.equal('applied');
      const late = readIndex(old);
      const outcome = await cluster.outcome(early);
      expect(outcome.kind).to.be.oneOf(['ready', 'notReady']);
      expect((await cluster.outcome(late)).kind).to.equal('ready');
      expect(await old.ledger().texts()).to.deep.equal(['one', 'two']);
    }));

  it('fail at once when the node closes, each exactly once', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('x');
      const leader = await cluster.leader();
      cluster.network.setNode(leader.id, false);
      const outcomes = Array.from({ length: 5 }, () => readIndex(leader));
      await cluster.tick();
      leader.kill();
      const ended = await Promise.all(outcomes.map((outcome) => cluster.outcome(outcome)));
      expect(ended.map(({ kind }) => kind)).to.deep.equal(Array(5).fill('notReady'));
    }));

  describe('with a lease', () => {
    const leased = { raft: { leaseTicks: 7 } };

    it('ask nobody while the lease holds', () =>
      withCluster(leased, async (cluster) => {
        await cluster.write('x');
        const leader = await cluster.leader();
        await cluster.tick(6);
        const rounds = leader.group().figures()['readRounds'];
        expect(await read(cluster, leader, true)).to.deep.equal(['x']);
        expect(leader.group().figures()['readRounds']).to.equal(rounds);
      }));

    it('R30 lease-paused-leader: a pause between check and answer makes the answer invalid', () =>
      withCluster(leased, async (cluster) => {
        await cluster.write('x');
        const leader = await cluster.leader();
        await cluster.tick(6);
        const outcome = await cluster.outcome(readIndex(leader, { lease: true }));
        if (outcome.kind !== 'ready') throw new Error(outcome.kind);
        expect(outcome.stillValid()).to.equal(true);
        // The event loop stands still: time has passed and no tick has fired yet.
        cluster.clock.jump(0);
        const stood = cluster.clock.monotonicMs();
        cluster.clock.stall(100);
        expect(cluster.clock.monotonicMs()).to.equal(stood + 100);
        expect(outcome.stillValid()).to.equal(false);
      }));

    it('R30: a leader that wakes from a long pause asks anew and finds the newer write', () =>
      withCluster(leased, async (cluster) => {
        await cluster.write('old');
        const old = await cluster.leader();
        await cluster.tick(6);
        // Paused: hears and sends nothing, while the others go on.
        cluster.network.setNode(old.id, false);
        await cluster.until('another leader', () =>
          cluster.nodes.some(
            (node) => node !== old && node.group().isLeader && node.group().term > old.group().term,
          ),
        );
        const next = cluster.nodes.find((node) => node !== old && node.group().isLeader);
        if (next === undefined) throw new Error('nobody leads');
        expect((await cluster.outcome(propose(next, 'new'))).kind).to.equal('applied');
        cluster.network.setNode(old.id, true);
        expect(await read(cluster, old, true)).to.deep.equal(['old', 'new']);
      }));

    it('R31: a leader that is cut off reads by its lease only until another one can have written', () =>
      withCluster(leased, async (cluster) => {
        await cluster.write('old');
        const old = await cluster.leader();
        await cluster.tick(6);
        cluster.network.setNode(old.id, false);
        let written = false;
        let byLease = 0;
        for (let tick = 0; tick < 60 && !written; tick++) {
          // What the lease does not cover waits for a quorum that it does not get.
          let texts: readonly string[] | undefined;
          const outcome = readIndex(old, { lease: true });
          void outcome.then(async (ready) => {
            const seen = await old.ledger().texts();
            if (ready.kind === 'ready' && ready.stillValid()) texts = seen;
          });
          await cluster.clock.settle();
          if (texts !== undefined) byLease++;
          const next = cluster.nodes.find((node) => node !== old && node.group().isLeader);
          if (next !== undefined) {
            expect(texts, 'somebody else leads').to.equal(undefined);
            written = (await cluster.outcome(propose(next, 'new'))).kind === 'applied';
          }
          await cluster.tick();
        }
        expect(byLease, 'while it held').to.be.greaterThan(0);
        expect(written).to.equal(true);
        expect(await read(cluster, old, true), 'alone').to.equal('noQuorum');
        cluster.network.setNode(old.id, true);
        expect(await read(cluster, old, true)).to.deep.equal(['old', 'new']);
      }));

    it('on a follower ask the leader, and are as fresh', () =>
      withCluster(leased, async (cluster) => {
        const texts: string[] = [];
        for (let n = 0; n < 5; n++) {
          texts.push(`w${n}`);
          await cluster.write(`w${n}`);
          for (const follower of cluster.followers(await cluster.leader()))
            expect(await read(cluster, follower, true)).to.deep.equal(texts);
        }
      }));
  });
});
