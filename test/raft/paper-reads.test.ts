/** Reads, leases, transfer and snapshots: thesis §6.4, §3.10, paper §7, §8; rules D03, D08, D13, D15. */
import { expect } from 'chai';
import { RaftInvariantError, membershipOf, noReplica, replicaId } from '../../raft/index.js';
import type { Body } from './lone-member.js';
import {
  LoneMember,
  append,
  entry,
  heartbeat,
  members,
  message,
  preVote,
  stateWith,
  vote,
  voters,
} from './lone-member.js';

const payload = Uint8Array.of(7);

/** The round of the last heartbeat sent. */
function roundOf(member: LoneMember): number {
  return member.take('heartbeat').at(-1)?.round ?? 0;
}

const beat = (round: number): Body => ({ type: 'heartbeatReply', round });

function leader(more = {}): LoneMember {
  const member = new LoneMember(more);
  member.lead([2, 3]);
  return member;
}

describe('paper: reads', () => {
  describe('read index (thesis §6.4)', () => {
    it('R04: none is given before an entry of the own term is committed', () => {
      const member = new LoneMember();
      member.lead([2, 3], false);
      expect(member.do((node) => node.readIndex('a'))).to.deep.equal({
        kind: 'refused',
        reason: 'noQuorumYet',
      });
      member.answer(2, { type: 'readIndex', context: 'b' });
      expect(member.take('readIndexReply')[0]).to.include({ context: 'b', refused: true });
    });

    it('is confirmed by the answers of a majority to its round', () => {
      const member = leader();
      expect(member.do((node) => node.readIndex('a')).kind).to.equal('pending');
      expect(member.reads).to.deep.equal([]);
      member.answer(2, beat(roundOf(member)));
      expect(member.reads).to.deep.equal([{ context: 'a', index: 1 }]);
    });

    it('is not confirmed by answers to an older round, nor by ones to a round of the future', () => {
      const member = leader();
      member.tick(2);
      const older = roundOf(member);
      member.do((node) => node.readIndex('a'));
      const own = roundOf(member);
      for (const from of [2, 3]) member.answer(from, beat(older));
      for (const from of [2, 3]) member.answer(from, beat(own + 5));
      for (const from of [2, 3]) member.answer(from, beat(0));
      expect(member.reads).to.deep.equal([]);
      member.answer(3, beat(own));
      expect(member.reads).to.have.length(1);
    });

    it('is confirmed by a later round, when answers to its own were lost', () => {
      const member = leader();
      member.do((node) => node.readIndex('a'));
      member.tick(2);
      member.answer(2, beat(roundOf(member)));
      expect(member.reads).to.deep.equal([{ context: 'a', index: 1 }]);
    });

    it('all reads of one turn share a round', () => {
      const member = leader();
      member.do((node) => ['a', 'b', 'c'].map((context) => node.readIndex(context)));
      expect(member.take('heartbeat')).to.have.length(2);
    });

    it('R34: keeps the commit index of its round, however late that is confirmed', () => {
      const member = leader();
      member.do((node) => node.readIndex('a'));
      const round = roundOf(member);
      member.do((node) => node.propose(payload));
      member.acknowledge(2);
      expect(member.node.status().commitIndex).to.equal(2);
      member.answer(2, beat(round));
      expect(member.reads).to.deep.equal([{ context: 'a', index: 1 }]);
    });

    it('a single voter answers at once', () => {
      const member = new LoneMember({}, stateWith([], { membership: voters(1) }));
      member.lead([]);
      member.do((node) => node.readIndex('a'));
      expect(member.reads).to.deep.equal([{ context: 'a', index: 1 }]);
    });

    it('learners confirm nothing, and a joint configuration needs both majorities', () => {
      const joint = {
        ...membershipOf(members(1, 2, 3), members(6)),
        outgoing: voters(1, 4, 5).incoming,
        members: members(1, 2, 3, 4, 5, 6),
      };
      const member = new LoneMember({ promoteLagMax: -1 }, stateWith([], { membership: joint }));
      member.lead([2, 4]);
      member.do((node) => node.readIndex('a'));
      const round = roundOf(member);
      for (const from of [6, 2, 3]) member.answer(from, beat(round));
      expect(member.reads).to.deep.equal([]);
      member.answer(5, beat(round));
      expect(member.reads).to.have.length(1);
    });

    it('a deposed leader refuses the reads that wait', () => {
      const member = leader();
      member.do((node) => node.readIndex('a'));
      member.step(message(2, 9, heartbeat()));
      expect(member.reads).to.deep.equal([{ context: 'a', index: undefined }]);
    });
  });

  describe('read index asked by a follower', () => {
    const asking = (): LoneMember => {
      const member = new LoneMember();
      member.step(message(2, 1, heartbeat()));
      member.take();
      expect(member.do((node) => node.readIndex('a')).kind).to.equal('pending');
      return member;
    };

    it('goes to the leader, and its answer comes back under the same context', () => {
      const member = asking();
      expect(member.take('readIndex')[0]).to.include({ to: 2, context: 'a' });
      member.answer(2, { type: 'readIndexReply', context: 'a', index: 5, refused: false });
      expect(member.reads).to.deep.equal([{ context: 'a', index: 5 }]);
    });

    it('D08: an answer that comes twice, or to a context of nobody, releases nothing', () => {
      const member = asking();
      for (const context of ['a', 'a', 'x']) {
        member.answer(2, { type: 'readIndexReply', context, index: 5, refused: false });
      }
      expect(member.reads).to.have.length(1);
      expect(member.node.status().dropped).to.deep.equal({ unknownReadContext: 2 });
    });

    it('is lost, and says so, after an election timeout or with a change of leader', () => {
      const silent = asking();
      silent.tick(10);
      expect(silent.reads).to.deep.equal([{ context: 'a', index: undefined }]);
      const changed = asking();
      changed.step(message(3, 2, heartbeat()));
      expect(changed.reads).to.deep.equal([{ context: 'a', index: undefined }]);
    });

    it('is refused by one who does not lead', () => {
      const member = new LoneMember();
      member.step(message(2, 1, { type: 'readIndex', context: 'a' }));
      expect(member.take('readIndexReply')[0]).to.include({ refused: true, index: 0 });
    });
  });

  describe('lease (thesis §6.4.1)', () => {
    const leased = (): LoneMember => {
      const member = leader({ leaseTicks: 6, checkQuorum: true });
      member.tick(2);
      member.answer(2, beat(roundOf(member)));
      return member;
    };
    const isLeased = (member: LoneMember): boolean => member.node.leaseValid(1);

    it('R31: must end before an election timeout does', () => {
      expect(() => new LoneMember({ leaseTicks: 10, checkQuorum: true })).to.throw(
        RaftInvariantError,
      );
    });

    it('answers reads without a message, until it ends', () => {
      const member = leased();
      expect(member.do((node) => node.readIndex('a'))).to.deep.equal({
        kind: 'lease',
        index: 1,
        term: 1,
      });
      expect(member.take()).to.deep.equal([]);
      member.tick(5);
      expect(isLeased(member)).to.equal(true);
      member.tick(1);
      expect(isLeased(member)).to.equal(false);
      expect(member.do((node) => node.readIndex('b')).kind).to.equal('pending');
    });

    it('R32: is counted from the send of the round and not from its answer', () => {
      const member = leader({ leaseTicks: 6, checkQuorum: true });
      member.tick(2);
      const round = roundOf(member);
      member.tick(5);
      member.answer(2, beat(round));
      expect(isLeased(member)).to.equal(true);
      member.tick(1);
      expect(isLeased(member)).to.equal(false);
    });

    it('R30: ages while the process stands still, and belongs to its term alone', () => {
      const member = leased();
      expect(member.node.leaseValid(0)).to.equal(false);
      member.node.elapse(6);
      expect(isLeased(member)).to.equal(false);
    });

    it('D03: a stalled loop ends no promise that was given to a leader', () => {
      const member = new LoneMember({ preVote: true, checkQuorum: true });
      member.step(message(2, 1, heartbeat()));
      member.node.elapse(100);
      member.tick(9);
      member.take();
      member.step(message(3, 2, preVote([0, 0])));
      member.step(message(3, 2, vote([0, 0])));
      expect(member.take()).to.deep.equal([]);
      member.tick(1);
      member.step(message(3, 2, preVote([0, 0])));
      expect(member.take('preVoteReply')).to.have.length(1);
    });

    it('D03: nor the silence after a restart, nor the wait for a read', () => {
      const member = new LoneMember({ checkQuorum: true, silentTicks: 5 });
      member.node.elapse(100);
      member.step(message(3, 1, vote([0, 0])));
      expect(member.take()).to.deep.equal([]);
      member.step(message(2, 1, heartbeat()));
      member.do((node) => node.readIndex('a'));
      member.node.elapse(100);
      member.tick(1);
      expect(member.reads).to.deep.equal([]);
    });

    for (const held of ['disk', 'state machine'] as const) {
      it(`a stalled loop does not take its ${held} for hung`, () => {
        const member = leader({ stalledTicksMax: 40 });
        if (held === 'disk') member.holdsPersist = true;
        else member.holdsApply = true;
        member.do((node) => node.propose(Uint8Array.of(1)));
        member.acknowledge(2);
        member.acknowledge(3);
        member.node.elapse(1000);
        member.tick(39);
        expect(member.node.isLeader).to.equal(true);
        member.tick(2);
        expect(member.node.isLeader).to.equal(false);
      });
    }

    it('D03: TimeoutNow ends it for the term, also when the transfer fails', () => {
      const member = leased();
      expect(member.do((node) => node.transferLeadership(replicaId(2)))).to.equal(true);
      expect(member.take('timeoutNow')).to.have.length(1);
      expect(isLeased(member)).to.equal(false);
      member.tick(8);
      member.answer(2, beat(roundOf(member)));
      member.tick(4);
      member.answer(2, beat(roundOf(member)));
      expect(member.node.status()).to.include({ role: 'leader', transferTo: noReplica });
      expect(isLeased(member)).to.equal(false);
    });
  });

  describe('transfer of leadership (thesis §3.10)', () => {
    it('waits until the target has the whole log, and takes no proposals meanwhile', () => {
      const member = leader();
      member.do((node) => {
        node.propose(payload);
        node.transferLeadership(replicaId(3));
      });
      expect(member.take('timeoutNow')).to.deep.equal([]);
      const verdict = member.do((node) => node.propose(payload));
      expect(verdict).to.deep.equal({ kind: 'refused', reason: 'transferring' });
      member.acknowledge(3);
      expect(member.take('timeoutNow').map(({ to }) => to)).to.deep.equal([3]);
    });

    it('is given up after an election timeout, and can be tried again with the same target', () => {
      const member = leader();
      member.do((node) => node.transferLeadership(replicaId(3)));
      expect(member.take('timeoutNow')).to.have.length(1);
      member.tick(10);
      expect(member.node.status().transferTo).to.equal(noReplica);
      expect(member.do((node) => node.propose(payload)).kind).to.equal('appended');
      member.acknowledge(3);
      member.take();
      member.do((node) => node.transferLeadership(replicaId(3)));
      expect(member.take('timeoutNow')).to.have.length(1);
    });

    it('TimeoutNow makes a voter campaign at once, without a rehearsal', () => {
      const member = new LoneMember({ preVote: true, checkQuorum: true });
      member.step(message(2, 1, heartbeat()));
      member.take();
      member.answer(2, { type: 'timeoutNow', reserved: 0 });
      expect(member.node.status()).to.include({ role: 'candidate', term: 2 });
      expect(member.take('vote')[0]).to.include({ transfer: true });
    });

    it('TimeoutNow from anybody but the leader is ignored', () => {
      const member = new LoneMember();
      member.step(message(2, 1, heartbeat()));
      member.answer(3, { type: 'timeoutNow', reserved: 0 });
      expect(member.node.status().role).to.equal('follower');
    });
  });

  describe('snapshots (paper §7)', () => {
    const image = (index: number, term: number): Body => ({
      type: 'snapshot',
      snapshot: { index, term, membership: { index: 0, membership: voters(1, 2, 3) } },
    });

    it('a leader whose log no longer reaches back to a follower asks for one', () => {
      const member = leader();
      for (let count = 0; count < 3; count++) member.do((node) => node.propose(payload));
      member.acknowledge(2);
      member.do((node) => node.compacted(4));
      member.answer(3, {
        type: 'appendReply',
        index: 4,
        rejected: true,
        hintIndex: 1,
        hintTerm: 1,
      });
      expect(member.snapshotsWanted).to.deep.equal([3]);
      member.do((node) => node.snapshotSent({ to: replicaId(3), index: 4, ok: true }));
      member.acknowledge(3);
      expect(member.node.status().progress[1]).to.include({ state: 'replicate', match: 4 });
    });

    it('is restored, then the log begins behind it, then it is acknowledged (D15)', () => {
      const member = new LoneMember({}, stateWith([1]));
      member.step(message(2, 2, image(5, 2)));
      expect(member.restore).to.include({ index: 5, term: 2, from: 2 });
      member.take();
      member.holdsPersist = true;
      const { restore } = member;
      if (restore === undefined) throw new Error('nothing to restore');
      member.do((node) => node.restored(restore, true));
      expect(member.batch?.logReset).to.include({ index: 5, term: 2 });
      expect(member.take('appendReply')).to.deep.equal([]);
      member.persist();
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 5 });
      expect(member.node.status()).to.include({
        firstIndex: 6,
        lastIndex: 5,
        appliedIndex: 5,
        commitIndex: 5,
      });
    });

    it('of which the log has all is not restored: nothing acknowledged is thrown away', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1), entry(2, 1), entry(3, 1)])));
      member.take();
      member.step(message(2, 1, image(2, 1)));
      expect(member.restore).to.equal(undefined);
      expect(member.node.status()).to.include({ lastIndex: 3, commitIndex: 2, appliedIndex: 2 });
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 2 });
    });

    it('that mends a damaged member leaves the log behind it as it was (figure 13, step 6)', () => {
      const member = new LoneMember({}, stateWith([1, 1, 1, 1], { restoring: true }));
      member.step(message(2, 1, image(2, 1)));
      const { restore } = member;
      if (restore === undefined) throw new Error('nothing to restore');
      member.take();
      member.do((node) => node.restored(restore, true));
      const { firstIndex, lastIndex, appliedIndex } = member.node.status();
      expect([firstIndex, lastIndex, appliedIndex]).to.deep.equal([1, 4, 2]);
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 2 });
    });

    it('older than the commit index is answered with that', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1), entry(2, 1)], 2)));
      member.take();
      member.step(message(2, 1, image(1, 1)));
      expect(member.restore).to.equal(undefined);
      expect(member.take('appendReply')[0]).to.include({ index: 2 });
    });

    it('R10: a second one waits until the first has ended; nobody campaigns meanwhile', () => {
      const member = new LoneMember();
      member.step(message(2, 1, image(5, 1)));
      member.restore = undefined;
      member.step(message(2, 1, image(5, 1)));
      member.step(message(2, 1, image(7, 1)));
      expect(member.restore).to.equal(undefined);
      member.tick(100);
      expect(member.node.status()).to.include({ role: 'follower', term: 1, restoring: true });
    });

    it('D13, D15: a damaged member asks for one with every heartbeat, until it gets one', () => {
      const member = new LoneMember({}, stateWith([1, 1], { restoring: true }));
      member.step(message(2, 1, heartbeat()));
      expect(member.take('appendReply')[0]).to.include({ rejected: true, index: 0 });
      member.step(message(2, 1, image(2, 1)));
      expect(member.restore).to.include({ index: 2 });
      member.take();
      member.step(message(2, 1, heartbeat()));
      expect(member.take('appendReply'), 'one is on its way').to.deep.equal([]);
    });

    it('D13: a leader offers one to a member that asks, though its log has acknowledged all', () => {
      const member = leader();
      member.answer(3, {
        type: 'appendReply',
        index: 0,
        rejected: true,
        hintIndex: 0,
        hintTerm: 0,
      });
      expect(member.snapshotsWanted).to.deep.equal([3]);
    });
  });
});
