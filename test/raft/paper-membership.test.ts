/** Changes of membership: paper §6, thesis chapter 4, Ongaro's correction of 2015; rules D01, D06. */
import { expect } from 'chai';
import {
  RaftInvariantError,
  isJoint,
  isVoter,
  membershipOf,
  noReplica,
  replicaId,
} from '../../raft/index.js';
import type { MembershipChange, ProposeVerdict, RaftOptions } from '../../raft/index.js';
import {
  LoneMember,
  append,
  entry,
  ids,
  members,
  message,
  stateWith,
  voters,
} from './lone-member.js';

function change(member: LoneMember, wanted: Partial<MembershipChange>): ProposeVerdict {
  const basedOn = member.node.status().membership.index;
  const nothing = { basedOn, addVoters: [], addLearners: [], remove: [] };
  return member.do((node) => node.proposeMembership({ ...nothing, ...wanted }));
}

function reasonOf(verdict: ProposeVerdict): string {
  return verdict.kind === 'refused' ? verdict.reason : verdict.kind;
}

function leader(options: Partial<RaftOptions> = {}, others = [2, 3]): LoneMember {
  const member = new LoneMember(options, stateWith([], { membership: voters(1, ...others) }));
  member.lead(others);
  return member;
}

const inForce = (member: LoneMember): ReturnType<typeof voters> =>
  member.node.status().membership.membership;

describe('paper: membership', () => {
  it('is in force when appended, before it is committed (thesis §4.1)', () => {
    const member = leader();
    expect(change(member, { remove: ids(3) }).kind).to.equal('appended');
    expect(inForce(member)).to.deep.include({ incoming: ids(1, 2), outgoing: ids(1, 2, 3) });
    expect(member.node.status().commitIndex).to.equal(1);
  });

  it('is out of force when truncated', () => {
    const member = leader();
    change(member, { remove: ids(3) });
    member.step(message(2, 2, append([1, 1], [entry(2, 2)])));
    expect(inForce(member)).to.deep.equal(voters(1, 2, 3));
  });

  it('a joint configuration commits with a majority of both sides, and with none of one alone', () => {
    const member = leader({}, [2, 3, 4, 5]);
    change(member, { remove: ids(4, 5) });
    member.acknowledge(2, 2);
    expect(member.node.status().commitIndex, 'incoming 1 2, outgoing 1 2 of 5').to.equal(1);
    member.acknowledge(4, 2);
    expect(member.node.status().commitIndex, 'outgoing 1 2 4').to.equal(2);
  });

  it('the leader leaves a joint configuration by itself once that is committed', () => {
    const member = leader();
    change(member, { remove: ids(3) });
    member.acknowledge(2, 2);
    expect(inForce(member)).to.deep.equal(voters(1, 2));
    expect(member.node.status().lastIndex).to.equal(3);
  });

  it('the leader does not leave it by a commit of what stands before it', () => {
    const member = leader();
    member.do((node) => node.propose(Uint8Array.of(1)));
    change(member, { remove: ids(3) });
    member.acknowledge(2, 2);
    expect(member.node.status()).to.include({ commitIndex: 2, lastIndex: 3 });
    expect(isJoint(inForce(member))).to.equal(true);
    member.acknowledge(2, 3);
    expect(inForce(member)).to.deep.equal(voters(1, 2));
  });

  it('a new leader leaves the joint configuration that it found', () => {
    const old = leader();
    change(old, { addVoters: members(4), remove: ids(3) });
    const [request] = old.take('append');
    const member = new LoneMember();
    member.step(message(2, 1, append([0, 0], [entry(1, 1), ...(request?.entries ?? [])])));
    expect(isJoint(inForce(member))).to.equal(true);
    member.do((node) => node.campaign());
    for (const from of [2, 4]) member.answer(from, { type: 'voteReply', granted: true });
    for (const from of [2, 4]) member.acknowledge(from, 3);
    expect(inForce(member)).to.deep.equal(voters(1, 2, 4));
  });

  it('an election in a joint configuration needs both majorities', () => {
    const joint = { ...voters(1, 2, 3), outgoing: ids(1, 4, 5), members: members(1, 2, 3, 4, 5) };
    const member = new LoneMember({}, stateWith([], { membership: joint }));
    member.do((node) => node.campaign());
    member.answer(2, { type: 'voteReply', granted: true });
    expect(member.node.isLeader, '1 2 of 1 2 3, 1 of 1 4 5').to.equal(false);
    member.answer(4, { type: 'voteReply', granted: true });
    expect(member.node.isLeader).to.equal(true);
  });

  it('R20: none is proposed before an entry of the own term is committed', () => {
    const member = new LoneMember();
    member.lead([2, 3], false);
    expect(reasonOf(change(member, { remove: ids(3) }))).to.equal('membershipPending');
    member.acknowledge(2);
    expect(reasonOf(change(member, { remove: ids(3) }))).to.equal('appended');
  });

  it('R21, R23: one at a time: none while another is not committed', () => {
    const member = leader();
    change(member, { remove: ids(3) });
    expect(reasonOf(change(member, { remove: ids(2) }))).to.equal('membershipPending');
    member.acknowledge(2, 2);
    expect(reasonOf(change(member, { remove: ids(2) })), 'leaving').to.equal('membershipPending');
    member.acknowledge(2, 3);
    expect(reasonOf(change(member, { remove: ids(2) }))).to.equal('appended');
  });

  it('D06: one that was computed from another membership is refused', () => {
    const member = leader();
    for (const basedOn of [1, 99]) {
      expect(reasonOf(change(member, { basedOn, remove: ids(3) }))).to.equal('staleMembership');
    }
    expect(member.node.status().lastIndex).to.equal(1);
  });

  const impossible: readonly (readonly [string, Partial<MembershipChange>])[] = [
    ['changes nothing', {}],
    ['removes everybody', { remove: ids(1, 2, 3) }],
    ['removes a stranger', { remove: ids(9) }],
    ['adds a voter that is one', { addVoters: members(2) }],
    ['adds a learner that votes', { addLearners: members(2) }],
    ['adds and removes the same', { addVoters: members(4), remove: ids(4) }],
    ['adds one as both', { addVoters: members(4), addLearners: members(4) }],
  ];
  for (const [name, wanted] of impossible) {
    it(`a change that ${name} is refused and leaves no trace`, () => {
      const member = leader();
      expect(reasonOf(change(member, wanted))).to.equal('invalidMembership');
      expect(member.node.status().lastIndex).to.equal(1);
    });
  }

  it('D01: a learner does not move to another node by becoming a voter', () => {
    const membership = membershipOf(members(1, 2), members(3));
    const member = new LoneMember({ promoteLagMax: -1 }, stateWith([], { membership }));
    member.lead([2]);
    const moved = members(9).map(({ node }) => ({ id: replicaId(3), node }));
    expect(reasonOf(change(member, { addVoters: moved }))).to.equal('invalidMembership');
    expect(reasonOf(change(member, { addVoters: members(3) }))).to.equal('appended');
  });

  it('a leader that is not in the new configuration leads until that is committed (§6)', () => {
    const member = leader();
    change(member, { remove: ids(1) });
    for (const from of [2, 3]) member.acknowledge(from, 2);
    expect(member.node.isLeader, 'leaving').to.equal(true);
    member.acknowledge(2, 3);
    expect(member.node.isLeader, 'its own copy does not count').to.equal(true);
    member.take();
    member.acknowledge(3, 3);
    expect(member.node.status()).to.include({ role: 'follower', leader: noReplica });
    expect(
      member.take('append').map(({ commit }) => commit),
      'it says so',
    ).to.deep.equal([3, 3]);
  });

  describe('learners (thesis §4.2.1)', () => {
    it('count for no commit and no vote', () => {
      const membership = membershipOf(members(1, 2, 3), members(4, 5));
      const member = new LoneMember({ promoteLagMax: -1 }, stateWith([], { membership }));
      member.do((node) => node.campaign());
      for (const from of [4, 5]) member.answer(from, { type: 'voteReply', granted: true });
      expect(member.node.isLeader).to.equal(false);
      member.answer(2, { type: 'voteReply', granted: true });
      for (const from of [4, 5]) member.acknowledge(from);
      expect(member.node.status().commitIndex).to.equal(0);
    });

    it('become voters by themselves once they have caught up', () => {
      const member = leader();
      change(member, { addLearners: members(4) });
      member.acknowledge(2);
      expect(isVoter(inForce(member), replicaId(4)), 'nothing acknowledged yet').to.equal(false);
      member.acknowledge(4);
      expect(isVoter(inForce(member), replicaId(4))).to.equal(true);
    });

    it('also when they caught up while the change that added them was still uncommitted', () => {
      const member = leader();
      change(member, { addLearners: members(4) });
      member.acknowledge(4);
      member.acknowledge(2);
      expect(isVoter(inForce(member), replicaId(4))).to.equal(false);
      // The group is quiet from here on: nothing new is acknowledged.
      member.tick(2);
      member.answer(4, { type: 'heartbeatReply', round: 1 });
      expect(isVoter(inForce(member), replicaId(4))).to.equal(true);
    });

    it('never become voters by themselves where that is switched off', () => {
      const member = leader({ promoteLagMax: -1 });
      change(member, { addLearners: members(4) });
      member.acknowledge(2);
      member.acknowledge(4);
      expect(isVoter(inForce(member), replicaId(4))).to.equal(false);
      expect(reasonOf(change(member, { addVoters: members(4) })), 'by hand').to.equal('appended');
    });

    it('are fed like followers, and their answers keep no leader in office', () => {
      const membership = membershipOf(members(1, 2, 3), members(4, 5));
      const options = { promoteLagMax: -1, checkQuorum: true };
      const member = new LoneMember(options, stateWith([], { membership }));
      member.lead([2, 3]);
      for (const from of [4, 5]) member.acknowledge(from, 1);
      member.take();
      member.do((node) => node.propose(Uint8Array.of(1)));
      expect(member.take('append').map(({ to }) => to)).to.include.members([4, 5]);
      for (let round = 1; round <= 10; round++) {
        member.tick(2);
        for (const from of [4, 5]) member.answer(from, { type: 'heartbeatReply', round: 1 });
      }
      expect(member.node.isLeader).to.equal(false);
    });

    it('stay learners while they are behind', () => {
      const member = leader({ promoteLagMax: 1 });
      change(member, { addLearners: members(4) });
      for (let count = 0; count < 4; count++) member.do((node) => node.propose(Uint8Array.of(1)));
      member.acknowledge(2);
      member.acknowledge(4, 2);
      member.acknowledge(4, 4);
      expect(isVoter(inForce(member), replicaId(4))).to.equal(false);
    });
  });

  it('stops a member whose disk reports more than it was given', () => {
    const member = leader();
    expect(() => member.node.applied(99)).to.throw(RaftInvariantError);
    expect(() => member.node.persisted({ term: 1, index: 99 })).to.throw(RaftInvariantError);
    expect(() => member.node.compacted(99)).to.throw(RaftInvariantError);
  });
});
