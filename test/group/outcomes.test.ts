import { expect } from 'chai';
import type { ProposeOutcome } from '../../src/group/group.js';
import { propose, withCluster, type Cluster, type ClusterNode } from './cluster.js';
import type { LedgerResult } from './ledger.js';

type Outcome = ProposeOutcome<LedgerResult>;

/** All replicas that run hold these texts, in this order. */
async function expectTexts(cluster: Cluster, texts: readonly string[]): Promise<void> {
  await cluster.converge();
  for (const node of cluster.nodes) {
    if (node.running !== undefined) expect(await node.ledger().texts()).to.deep.equal(texts);
  }
}

/** Cuts the leader off after it took proposals that reached nobody; the others elect another. */
async function strandedProposals(
  cluster: Cluster,
  count: number,
): Promise<{ old: ClusterNode; outcomes: readonly Promise<Outcome>[] }> {
  const old = await cluster.leader();
  cluster.network.setNode(old.id, false);
  const outcomes = Array.from({ length: count }, (_, i) => propose(old, `stranded ${i}`));
  await cluster.until('another leader', () =>
    cluster.nodes.some(
      (node) => node !== old && node.group().isLeader && node.group().term > old.group().term,
    ),
  );
  return { old, outcomes };
}

describe('outcomes of proposals', () => {
  it('answers what was applied with the result and the place of its own entry', () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      const outcomes = await Promise.all(
        ['a', 'b', 'c'].map((text) => cluster.outcome(propose(leader, text))),
      );
      const results = outcomes.map((outcome) =>
        outcome.kind === 'applied' ? outcome.result : outcome,
      );
      expect(results).to.deep.equal([
        { number: 1, text: 'a' },
        { number: 2, text: 'b' },
        { number: 3, text: 'c' },
      ]);
      await expectTexts(cluster, ['a', 'b', 'c']);
    }));

  it('D04: a proposal that a follower is given was surely not applied', () =>
    withCluster({}, async (cluster) => {
      const [follower] = cluster.followers(await cluster.leader());
      if (follower === undefined) throw new Error('no follower');
      expect(await cluster.outcome(propose(follower, 'x'))).to.deep.equal({
        kind: 'notApplied',
        reason: 'notLeader',
      });
    }));

  it('D04, R52: a leader that loses its office without news calls the outcome unknown', () =>
    withCluster({}, async (cluster) => {
      const { outcomes } = await strandedProposals(cluster, 1);
      const [outcome] = await Promise.all(outcomes.map((each) => cluster.outcome(each)));
      expect(outcome).to.deep.equal({
        kind: 'unknown',
        reason: 'steppedDown',
      });
    }));

  it('D04, R51: an entry of another term committed at its index makes it surely not applied', () =>
    withCluster({}, async (cluster) => {
      const { old, outcomes } = await strandedProposals(cluster, 3);
      // The new leader's no-op, and then its writes, take the places of the stranded entries.
      cluster.network.setNode(old.id, true);
      await cluster.writeMany('later-', 3);
      for (const outcome of outcomes) {
        expect(await cluster.outcome(outcome)).to.deep.equal({
          kind: 'notApplied',
          reason: 'overwritten',
        });
      }
      await expectTexts(cluster, ['later-0', 'later-1', 'later-2']);
    }));

  it('D04: an entry that the next leader commits after all is answered as applied', () =>
    withCluster({}, async (cluster) => {
      const old = await cluster.leader();
      // The entry gets out, but no answer comes back.
      cluster.network.filter = (_from, to) => (to === old.id ? 'lose' : 'pass');
      const outcome = propose(old, 'carried over');
      await cluster.until('the leader stepped down', () => !old.group().isLeader);
      cluster.network.filter = () => 'pass';
      expect((await cluster.outcome(outcome)).kind).to.equal('applied');
      await expectTexts(cluster, ['carried over']);
    }));

  it('D04: a kill of the node ends every waiter as unknown', () =>
    withCluster({}, async (cluster) => {
      const { old, outcomes } = await strandedProposals(cluster, 3);
      old.kill();
      const ended = await Promise.all(outcomes.map((each) => cluster.outcome(each)));
      expect(ended.map(({ kind }) => kind)).to.deep.equal(['unknown', 'unknown', 'unknown']);
    }));

  it('D04: what is proposed at the end of a turn is answered, also when the node closes in that turn or before', () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      const group = leader.group();
      const late = (): Promise<string> =>
        new Promise((resolve) => {
          group.atEndOfTurn(() => {
            group.propose(Buffer.from('late'), ({ kind }) => {
              resolve(kind);
            });
          });
        });
      const within = late();
      leader.kill();
      expect(await Promise.all([within, late()])).to.deep.equal(['notApplied', 'notApplied']);
    }));

  it('R02: acknowledges a write only when the disks of a quorum have it', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('before');
      const leader = await cluster.leader();
      const release: (() => void)[] = [];
      for (const follower of cluster.followers(leader)) {
        const slow = new Promise<void>((resolve) => release.push(resolve));
        follower.disk.hook = ({ kind }) => (kind === 'write' ? slow : undefined);
      }
      const outcome = propose(leader, 'on one disk');
      let ended = false;
      void outcome.then(() => (ended = true));
      await cluster.tick(5);
      expect(ended).to.equal(false);
      release[0]?.();
      expect((await cluster.outcome(outcome)).kind).to.equal('applied');
    }));

  it('calls back exactly once for each proposal, and never before propose returns', () =>
    withCluster({}, async (cluster) => {
      const calls = new Map<string, number>();
      let inside = false;
      const proposeCounted = (node: ClusterNode, text: string): void => {
        calls.set(text, 0);
        inside = true;
        node.group().propose(Buffer.from(text), () => {
          expect(inside, `${text} was answered inside propose`).to.equal(false);
          calls.set(text, (calls.get(text) ?? 0) + 1);
        });
        inside = false;
      };
      for (let round = 0; round < 6; round++) {
        const leader = await cluster.leader();
        cluster.nodes.forEach((node) => {
          for (let i = 0; i < 5; i++) proposeCounted(node, `${round}/${node.id}/${i}`);
        });
        await cluster.tick(round % 3);
        cluster.network.setNode(leader.id, false);
        for (let i = 0; i < 5; i++) proposeCounted(leader, `${round}/cut/${i}`);
        await cluster.tick(30);
        cluster.network.setNode(leader.id, true);
        await cluster.tick(round % 2 === 0 ? 1 : 40);
      }
      await cluster.converge();
      await cluster.until('all are answered', () => [...calls.values()].every((n) => n > 0));
      await cluster.tick(100);
      expect([...calls].filter(([, count]) => count !== 1)).to.deep.equal([]);
    }));

  it('R12: a command is applied once by every replica, whatever happens on its way', () =>
    withCluster({ nodes: 5 }, async (cluster) => {
      const acknowledged: string[] = [];
      const proposed: string[] = [];
      let lost = 0;
      cluster.network.filter = () => (cluster.random() % 10 === 0 ? 'lose' : 'pass');
      for (let round = 0; round < 25; round++) {
        const leader = await cluster.leader();
        for (let i = 0; i < 8; i++) {
          const text = `${round}-${i}`;
          proposed.push(text);
          leader.group().propose(Buffer.from(text), ({ kind }) => {
            if (kind === 'applied') acknowledged.push(text);
            else lost++;
          });
        }
        await cluster.tick(2);
        if (round % 5 === 4)
          cluster
            .node((cluster.random() % 5) + 1)
            .group()
            .transferLeadership(leader.group().replica);
      }
      cluster.network.filter = () => 'pass';
      await cluster.until('all are answered', () => acknowledged.length + lost === proposed.length);
      await cluster.converge();
      const texts = await (await cluster.leader()).ledger().texts();
      expect(new Set(texts).size).to.equal(texts.length);
      expect(texts).to.include.members(acknowledged);
      expect(acknowledged.length).to.be.greaterThan(150);
      await expectTexts(cluster, texts);
    }));

  it('R14: a full queue, an oversized entry and a leader without followers are answers, not failures', () =>
    withCluster({ limits: { proposalsMax: 4 } }, async (cluster) => {
      const leader = await cluster.leader();
      const reasons = async (texts: readonly string[]): Promise<readonly string[]> => {
        const outcomes = await Promise.all(
          texts.map((text) => cluster.outcome(propose(leader, text))),
        );
        return outcomes.map((outcome) =>
          outcome.kind === 'notApplied' ? outcome.reason : outcome.kind,
        );
      };
      expect(await reasons(['1', '2', '3', '4', '5'])).to.deep.equal([
        'applied',
        'applied',
        'applied',
        'applied',
        'overloaded',
      ]);
      expect(await reasons(['x'.repeat(300 * 1024)])).to.deep.equal(['tooLarge']);
      expect(await reasons(['after'])).to.deep.equal(['applied']);
      expect(leader.fatal).to.equal(undefined);
    }));

  it('a machine that throws stops its node, and only that one, and nothing is acknowledged', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('sound');
      const leader = await cluster.leader();
      leader.ledger().onApply = () => Promise.reject(new Error('a bug in apply'));
      const outcome = await cluster.outcome(propose(leader, 'poison'));
      expect(outcome.kind).to.equal('unknown');
      expect(leader.fatal?.message).to.equal('a bug in apply');
      const others = cluster.nodes.filter((node) => node !== leader);
      expect(others.map(({ fatal }) => fatal)).to.deep.equal([undefined, undefined]);
      await cluster.until('another leader', () => others.some((node) => node.group().isLeader));
    }));

  it('a leader whose disk hangs hands its office over, and the write that hung is applied once', () =>
    withCluster({}, async (cluster) => {
      await cluster.write('before');
      const old = await cluster.leader();
      let release: () => void = () => undefined;
      const hung = new Promise<void>((resolve) => (release = resolve));
      old.disk.hook = ({ kind }) => (kind === 'write' ? hung : undefined);
      const outcome = propose(old, 'hung');
      await cluster.until('somebody else leads', () =>
        cluster.nodes.some((node) => node !== old && node.group().isLeader),
      );
      old.disk.hook = () => undefined;
      release();
      await cluster.write('after');
      expect((await cluster.outcome(outcome)).kind).to.be.oneOf(['applied', 'unknown']);
      await expectTexts(cluster, ['before', 'hung', 'after']);
    }));
});
