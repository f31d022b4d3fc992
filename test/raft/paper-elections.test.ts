/** Elections: every rule of paper §5.1, §5.2, §5.4.1 and thesis §4.2.3, §9.6 at one member. */
import { expect } from 'chai';
import { noReplica } from '../../raft/index.js';
import type { HardState } from '../../raft/index.js';
import {
  LoneMember,
  append,
  heartbeat,
  ids,
  members,
  message,
  preVote,
  stateWith,
  vote,
  voters,
} from './lone-member.js';

const granted = { type: 'voteReply', granted: true } as const;

const inTerm = (term: number): HardState => ({ term, vote: noReplica, commit: 0 });

describe('paper: elections', () => {
  describe('terms (§5.1)', () => {
    for (const role of ['follower', 'candidate', 'leader'] as const) {
      it(`a ${role} that hears of a higher term enters it as a follower`, () => {
        const member = new LoneMember();
        if (role !== 'follower') member.do((node) => node.campaign());
        if (role === 'leader') member.answer(2, { type: 'voteReply', granted: true });
        expect(member.node.status().role).to.equal(role);
        member.step(message(2, 7, append([0, 0], [])));
        expect(member.node.status()).to.include({ role: 'follower', term: 7, leader: 2 });
      });
    }

    it('a request of an older term is rejected, and its sender told the term', () => {
      const member = new LoneMember({}, stateWith([3]));
      member.step(message(2, 2, append([0, 0], [])));
      member.step(message(2, 2, vote([9, 1])));
      for (const reply of member.take()) expect(reply.term).to.equal(3);
      expect(member.node.status()).to.include({ term: 3, vote: noReplica, leader: noReplica });
    });

    it('a new term begins without a vote', () => {
      const member = new LoneMember();
      member.step(message(2, 1, vote([0, 0])));
      expect(member.node.status().vote).to.equal(2);
      member.step(message(3, 2, heartbeat()));
      expect(member.node.status()).to.include({ term: 2, vote: noReplica });
    });
  });

  describe('who votes for whom (figure 2, RequestVote)', () => {
    const rows = [
      { name: 'an equal log', own: [1, 2], last: [2, 2], granted: true },
      { name: 'a longer log', own: [1, 2], last: [3, 2], granted: true },
      { name: 'a shorter log', own: [1, 2], last: [1, 2], granted: false },
      { name: 'a shorter log of a later term', own: [1, 2], last: [1, 3], granted: true },
      { name: 'a longer log of an earlier term', own: [1, 2], last: [9, 1], granted: false },
      { name: 'an empty log against an empty one', own: [], last: [0, 0], granted: true },
      { name: 'an empty log against entries', own: [1], last: [0, 0], granted: false },
    ] as const;
    for (const { name, own, last, granted } of rows) {
      it(`a vote is ${granted ? 'given to' : 'refused to'} ${name} (§5.4.1)`, () => {
        const member = new LoneMember({}, stateWith(own));
        member.step(message(2, 5, vote([last[0], last[1]])));
        expect(member.take('voteReply')).to.deep.equal([
          { type: 'voteReply', from: 1, to: 2, term: 5, granted },
        ]);
      });
    }

    it('one vote is given in a term, first come first served, and again to the same (§5.2)', () => {
      const member = new LoneMember();
      member.step(message(2, 1, vote([0, 0])));
      member.step(message(3, 1, vote([0, 0])));
      member.step(message(2, 1, vote([0, 0])));
      const granted = member.take('voteReply').map((reply) => [reply.to, reply.granted]);
      expect(granted).to.deep.equal([
        [2, true],
        [3, false],
        [2, true],
      ]);
    });

    it('a vote leaves only when term and vote are durable (figure 2, persistent state)', () => {
      const member = new LoneMember();
      member.holdsPersist = true;
      member.step(message(2, 1, vote([0, 0])));
      expect(member.take()).to.deep.equal([]);
      expect(member.batch?.hardState).to.deep.equal({ term: 1, vote: 2, commit: 0 });
      member.persist();
      expect(member.take('voteReply')).to.have.length(1);
    });

    it('giving a vote puts the own campaign off, refusing one does not (§5.2)', () => {
      const ticksToCampaign = (last: readonly [number, number]): number => {
        const member = new LoneMember({}, stateWith([1], { hardState: inTerm(2) }));
        member.tick(9);
        member.step(message(2, 2, vote(last)));
        let ticks = 0;
        for (; member.node.status().role === 'follower'; ticks++) member.tick();
        return ticks;
      };
      expect(ticksToCampaign([1, 1]) - ticksToCampaign([0, 0])).to.equal(9);
    });

    it('none is given in a term that has a leader already', () => {
      const member = new LoneMember();
      member.step(message(2, 1, heartbeat()));
      member.step(message(3, 1, vote([9, 1])));
      expect(member.take('voteReply')[0]).to.include({ granted: false });
      expect(member.node.status().vote).to.equal(noReplica);
    });

    it('a member that believes itself a learner votes all the same', () => {
      const member = new LoneMember({}, stateWith([], { membership: voters(2, 3) }));
      member.step(message(2, 1, vote([0, 0])));
      expect(member.take('voteReply')[0]).to.include({ granted: true });
    });
  });

  describe('campaigns (§5.2)', () => {
    it('a follower campaigns after a silence of one to two election timeouts, never before', () => {
      const waits = new Set<number>();
      for (let seed = 1; seed <= 60; seed++) {
        const member = new LoneMember({ seed });
        let ticks = 0;
        while (member.node.status().role === 'follower' && ticks < 100) {
          member.tick();
          ticks++;
        }
        waits.add(ticks);
      }
      expect(Math.min(...waits)).to.be.at.least(10);
      expect(Math.max(...waits)).to.be.below(20);
      expect(waits.size, 'different waits, so that votes do not split').to.be.above(5);
    });

    it('what a leader says puts the campaign off', () => {
      const member = new LoneMember();
      for (let round = 1; round <= 20; round++) {
        member.step(message(2, 1, heartbeat(0, round)));
        member.tick(9);
      }
      expect(member.node.status().role).to.equal('follower');
    });

    it('a candidate raises its term, votes for itself and asks every other voter', () => {
      const member = new LoneMember({}, stateWith([1, 1]));
      member.do((node) => node.campaign());
      expect(member.node.status()).to.include({ role: 'candidate', term: 2, vote: 1 });
      const asked = member.take('vote');
      expect(asked.map(({ to }) => to)).to.deep.equal([2, 3]);
      expect(asked[0]).to.include({ term: 2, lastIndex: 2, lastTerm: 1, transfer: false });
    });

    it('D02: a candidate asks for votes when its own term and vote are durable, not before', () => {
      const member = new LoneMember();
      member.holdsPersist = true;
      member.do((node) => node.campaign());
      expect(member.take()).to.deep.equal([]);
      member.persist();
      expect(member.take('vote')).to.have.length(2);
    });

    it('D02: its own vote counts when durable, not before', () => {
      const member = new LoneMember({}, stateWith([], { membership: voters(1) }));
      member.holdsPersist = true;
      member.do((node) => node.campaign());
      expect(member.node.status().role).to.equal('candidate');
      member.persist();
      expect(member.node.isLeader).to.equal(true);
    });

    it('D02: the vote of one other of three is no majority while the own is not durable', () => {
      const member = new LoneMember();
      member.holdsPersist = true;
      member.do((node) => node.campaign());
      member.answer(2, { type: 'voteReply', granted: true });
      expect(member.node.isLeader).to.equal(false);
      member.persist();
      expect(member.node.isLeader).to.equal(true);
    });

    const rows = [
      { size: 1, grants: [], refusals: [], role: 'leader' },
      { size: 3, grants: [2], refusals: [], role: 'leader' },
      { size: 3, grants: [], refusals: [2], role: 'candidate' },
      { size: 3, grants: [], refusals: [2, 3], role: 'follower' },
      { size: 4, grants: [2], refusals: [], role: 'candidate' },
      { size: 4, grants: [2], refusals: [3, 4], role: 'follower' },
      { size: 5, grants: [2, 3], refusals: [4, 5], role: 'leader' },
      { size: 5, grants: [2], refusals: [3, 4], role: 'candidate' },
      { size: 5, grants: [2], refusals: [3, 4, 5], role: 'follower' },
    ] as const;
    for (const { size, grants, refusals, role } of rows) {
      it(`of ${size}: granted by ${grants.length}, refused by ${refusals.length}: ${role}`, () => {
        const all = Array.from({ length: size }, (_, at) => at + 1);
        const member = new LoneMember({}, stateWith([], { membership: voters(...all) }));
        member.do((node) => node.campaign());
        for (const from of refusals) member.answer(from, { type: 'voteReply', granted: false });
        for (const from of grants) member.answer(from, { type: 'voteReply', granted: true });
        expect(member.node.status().role).to.equal(role);
      });
    }

    it('a vote that comes twice is one vote, and one of an older term is none', () => {
      const five = voters(1, 2, 3, 4, 5);
      const member = new LoneMember({}, stateWith([], { membership: five }));
      member.do((node) => node.campaign());
      for (let count = 0; count < 3; count++)
        member.answer(2, { type: 'voteReply', granted: true });
      expect(member.node.status().role).to.equal('candidate');
      member.tick(20);
      for (const from of [2, 3, 4]) member.step(message(from, 1, granted));
      expect(member.node.status()).to.include({ role: 'candidate', term: 2 });
      for (const from of [2, 3]) member.step(message(from, 2, granted));
      expect(member.node.isLeader).to.equal(true);
    });

    it('the first answer of a voter counts, a later one changes nothing', () => {
      const member = new LoneMember();
      member.do((node) => node.campaign());
      member.answer(2, { type: 'voteReply', granted: false });
      member.answer(2, granted);
      expect(member.node.isLeader).to.equal(false);
    });

    it('a candidate that hears the leader of its term follows it', () => {
      const member = new LoneMember();
      member.do((node) => node.campaign());
      member.answer(2, heartbeat());
      expect(member.node.status()).to.include({ role: 'follower', term: 1, leader: 2 });
    });

    it('a candidate without a decision begins another term', () => {
      const member = new LoneMember();
      member.do((node) => node.campaign());
      member.tick(20);
      expect(member.node.status()).to.include({ role: 'candidate', term: 2 });
    });

    it('a member that is being installed, or has lost its state, does not campaign (D15)', () => {
      const member = new LoneMember({}, stateWith([1], { restoring: true }));
      member.do((node) => node.campaign());
      member.tick(100);
      expect(member.node.status()).to.include({ role: 'follower', term: 1, restoring: true });
    });

    it('a learner and a stranger never campaign', () => {
      const member = new LoneMember({}, stateWith([], { membership: voters(2, 3) }));
      member.do((node) => node.campaign());
      member.tick(100);
      expect(member.take()).to.deep.equal([]);
      expect(member.node.status()).to.include({ role: 'follower', term: 0 });
    });

    it('a leader asserts itself at once, and then with every heartbeat', () => {
      const member = new LoneMember();
      member.do((node) => node.campaign());
      member.take();
      member.answer(2, { type: 'voteReply', granted: true });
      expect(member.take('append').map(({ to }) => to)).to.deep.equal([2, 3]);
      member.tick(2);
      expect(member.take('heartbeat').map(({ to }) => to)).to.deep.equal([2, 3]);
    });
  });

  describe('pre-vote (thesis §9.6)', () => {
    it('asks in the next term and changes nothing', () => {
      const member = new LoneMember({ preVote: true }, stateWith([1]));
      member.tick(20);
      expect(member.node.status()).to.include({ role: 'preCandidate', term: 1, vote: noReplica });
      expect(member.take('preVote')[0]).to.include({ term: 2, lastIndex: 1, lastTerm: 1 });
    });

    it('votes make no candidate of one who rehearses, nor pre-votes a leader of a candidate', () => {
      const member = new LoneMember({ preVote: true });
      member.tick(20);
      for (const from of [2, 3]) member.step(message(from, 0, granted));
      expect(member.node.status().role).to.equal('preCandidate');
      const candidate = new LoneMember({ preVote: true });
      candidate.do((node) => node.campaign());
      for (const from of [2, 3])
        candidate.step(message(from, 2, { type: 'preVoteReply', granted: true }));
      expect(candidate.node.status()).to.include({ role: 'candidate', term: 1 });
    });

    it('a rehearsal that is refused by a majority costs nobody a term', () => {
      const member = new LoneMember({ preVote: true });
      member.tick(20);
      for (const from of [2, 3]) member.answer(from, { type: 'preVoteReply', granted: false });
      expect(member.node.status()).to.include({ role: 'follower', term: 0, vote: noReplica });
    });

    it('an answer to an earlier rehearsal, in another term, counts for nothing', () => {
      const member = new LoneMember({ preVote: true }, stateWith([], { hardState: inTerm(3) }));
      member.tick(20);
      member.step(message(2, 5, { type: 'preVoteReply', granted: true }));
      expect(member.node.status()).to.include({ role: 'preCandidate', term: 3 });
    });

    it('a majority of pre-votes begins the true campaign', () => {
      const member = new LoneMember({ preVote: true });
      member.tick(20);
      member.step(message(2, 1, { type: 'preVoteReply', granted: true }));
      expect(member.node.status()).to.include({ role: 'candidate', term: 1, vote: 1 });
    });

    it('is granted without a change of term or vote, to as many as ask', () => {
      const member = new LoneMember({ preVote: true });
      member.step(message(2, 1, preVote([0, 0])));
      member.step(message(3, 1, preVote([0, 0])));
      expect(member.take('preVoteReply').map(({ granted, term }) => [granted, term])).to.deep.equal(
        [
          [true, 1],
          [true, 1],
        ],
      );
      expect(member.node.status()).to.include({ term: 0, vote: noReplica });
    });

    it('is refused in our own term, from which one that is behind learns it', () => {
      const member = new LoneMember({ preVote: true }, stateWith([4, 4]));
      member.step(message(2, 2, preVote([1, 1])));
      expect(member.take('preVoteReply')[0]).to.include({ granted: false, term: 4 });
      const behind = new LoneMember({ preVote: true });
      behind.tick(20);
      behind.step(message(2, 4, { type: 'preVoteReply', granted: false }));
      expect(behind.node.status()).to.include({ role: 'follower', term: 4 });
    });
  });

  describe('members that hear a leader (thesis §4.2.3)', () => {
    const hearing = (more = {}): LoneMember => {
      const member = new LoneMember({ checkQuorum: true, preVote: true, ...more });
      member.step(message(2, 1, heartbeat()));
      member.take();
      return member;
    };

    it('R22: ignore votes and pre-votes of whatever term for an election timeout', () => {
      const member = hearing();
      member.tick(9);
      member.step(message(3, 9, vote([9, 8])));
      member.step(message(3, 9, preVote([9, 8])));
      expect(member.take()).to.deep.equal([]);
      expect(member.node.term).to.equal(1);
      member.tick(1);
      member.step(message(3, 9, vote([9, 8])));
      expect(member.take('voteReply')[0]).to.include({ granted: true });
    });

    it('vote at once when the leader itself asked for the campaign (thesis §3.10)', () => {
      const member = hearing();
      member.step(message(3, 2, vote([0, 0], true)));
      expect(member.take('voteReply')[0]).to.include({ granted: true });
    });

    it('D03: keep to it also when they learn of a higher term from somebody else', () => {
      const member = hearing();
      // An answer to an old rehearsal comes late and names a higher term.
      member.step(message(3, 5, { type: 'preVoteReply', granted: false }));
      expect(member.node.status()).to.include({ term: 5, leader: noReplica });
      member.step(message(3, 5, vote([9, 4])));
      member.step(message(3, 6, vote([9, 4])));
      expect(member.take('voteReply').filter(({ granted }) => granted)).to.deep.equal([]);
      member.tick(10);
      member.step(message(3, 6, vote([9, 4])));
      expect(member.take('voteReply').filter(({ granted }) => granted)).to.have.length(1);
    });

    it('D03: a restarted one grants nothing for silentTicks, then votes again', () => {
      const member = new LoneMember({ silentTicks: 10 });
      for (const body of [vote([9, 1]), preVote([9, 1])]) member.step(message(3, 2, body));
      member.tick(9);
      member.step(message(3, 2, vote([9, 1])));
      const granted = (): unknown[] =>
        member.take().filter((reply) => 'granted' in reply && reply.granted);
      expect(granted()).to.deep.equal([]);
      member.tick(1);
      member.step(message(3, 2, vote([9, 1])));
      expect(granted()).to.have.length(1);
    });
  });

  describe('check-quorum (thesis §6.2)', () => {
    it('R08: a leader that hears no majority steps down within two election timeouts', () => {
      const member = new LoneMember({ checkQuorum: true });
      member.lead([2, 3]);
      member.tick(20);
      expect(member.node.status()).to.include({ role: 'follower', leader: noReplica });
    });

    for (const [side, heard] of [
      ['incoming', [2]],
      ['outgoing', [4]],
    ] as const) {
      it(`in a joint configuration the ${side} majority alone does not keep it (§6)`, () => {
        const membership = {
          ...voters(1, 2, 3),
          outgoing: ids(1, 4, 5),
          members: members(1, 2, 3, 4, 5),
        };
        const member = new LoneMember({ checkQuorum: true }, stateWith([], { membership }));
        member.lead([2, 3, 4, 5]);
        for (let round = 1; round <= 10; round++) {
          member.tick(2);
          for (const from of heard) member.answer(from, { type: 'heartbeatReply', round: 1 });
        }
        expect(member.node.isLeader).to.equal(false);
      });
    }

    it('a leader that hears one of two stays', () => {
      const member = new LoneMember({ checkQuorum: true });
      member.lead([2, 3]);
      for (let round = 1; round <= 30; round++) {
        member.tick(2);
        member.answer(2, { type: 'heartbeatReply', round: 1 });
      }
      expect(member.node.isLeader).to.equal(true);
    });
  });

  describe('D01: identity', () => {
    it('messages for another replica are dropped, whatever their term', () => {
      const member = new LoneMember();
      member.step({ ...message(2, 9, heartbeat()), to: ids(7)[0] ?? noReplica });
      expect(member.node.status()).to.deep.include({ term: 0, dropped: { otherReplica: 1 } });
    });

    it('votes and acknowledgements of strangers count for nothing', () => {
      const member = new LoneMember();
      member.do((node) => node.campaign());
      for (const from of [8, 9]) member.answer(from, { type: 'voteReply', granted: true });
      expect(member.node.isLeader).to.equal(false);
      member.answer(2, { type: 'voteReply', granted: true });
      for (const from of [8, 9]) member.acknowledge(from);
      expect(member.node.status().commitIndex).to.equal(0);
    });
  });
});
