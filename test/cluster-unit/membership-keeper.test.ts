import { expect } from 'chai';
import fc from 'fast-check';
import {
  isJoint,
  isVoter,
  membershipOf,
  nodeId,
  noReplica,
  replicaId,
  type Member,
  type Membership,
  type NodeId,
  type ReplicaId,
} from '../../raft/index.js';
import { enterChange, leaveJoint } from '../../raft/membership.js';
import { nextStep, type MembershipStep } from '../../src/cluster/membership-keeper.js';

type Status = Parameters<typeof nextStep>[0];

const idMax = 8;

/** Replica n lives on node 10 + n, and so does replica 10 + n. */
function member(id: number): Member {
  return { id: replicaId(id), node: nodeId(10 + (id % 10)) };
}

interface Situation {
  readonly voters: readonly number[];
  readonly learners?: readonly number[];
  readonly leader?: number;
  readonly wanted: readonly number[];
  readonly down?: readonly number[];
  readonly issuedBelow?: number;
  /** Match index of those that are behind; the others are at 100. */
  readonly behind?: Readonly<Record<number, number>>;
  readonly status?: Partial<Status>;
}

function statusOf(membership: Membership, leader: ReplicaId, index = 90): Status {
  const progress = membership.members
    .filter(({ id }) => id !== leader)
    .map(({ id }) => ({
      id,
      match: 100,
      next: 101,
      state: 'replicate' as const,
      learner: membership.learners.includes(id),
      recentlyActive: true,
    }));
  return {
    id: leader,
    role: 'leader',
    commitIndex: 100,
    membership: { index, membership },
    transferTo: noReplica,
    progress,
  };
}

function stepIn(situation: Situation): MembershipStep | undefined {
  const { voters, learners = [], leader = voters[0] ?? 1, wanted, down = [] } = situation;
  const { behind = {}, issuedBelow = idMax + 11 } = situation;
  const status = statusOf(
    membershipOf(voters.map(member), learners.map(member)),
    replicaId(leader),
  );
  const progress = status.progress.map((peer) => ({
    ...peer,
    match: behind[peer.id] ?? peer.match,
  }));
  return nextStep(
    { ...status, progress, ...situation.status },
    {
      replicas: wanted.map(member).map(({ id, node }) => ({ replica: id, node })),
      issuedBelow,
      isConnected: (node: NodeId) => !down.some((id) => member(id).node === node),
    },
  );
}

function adds(...ids: readonly number[]): MembershipStep {
  const change = { basedOn: 90, addVoters: [], addLearners: ids.map(member), remove: [] };
  return { kind: 'change', change };
}

function removes(...ids: readonly number[]): MembershipStep {
  const change = { basedOn: 90, addVoters: [], addLearners: [], remove: ids.map(replicaId) };
  return { kind: 'change', change };
}

function handsOverTo(id: number): MembershipStep {
  return { kind: 'handOver', to: replicaId(id) };
}

const joint = enterChange(membershipOf([1, 2, 3].map(member)), {
  addVoters: [member(4)],
  addLearners: [],
  remove: [],
});

const table: readonly (readonly [string, Situation, MembershipStep | undefined])[] = [
  ['everything is as wanted: nothing', { voters: [1, 2, 3], wanted: [1, 2, 3] }, undefined],
  ['one is missing: added as a learner', { voters: [1, 2, 3], wanted: [1, 2, 4] }, adds(4)],
  ['two are missing: added in one change', { voters: [1, 2], wanted: [3, 1, 4] }, adds(3, 4)],
  [
    'D06: an old replica is in the place of one that is named: it goes first',
    { voters: [1, 2, 3], learners: [13], wanted: [1, 2, 13] },
    removes(3),
  ],
  [
    'D06: two are in the way: both go, before others are added',
    { voters: [1, 2, 3, 4, 5], wanted: [3, 4, 5, 11, 12], leader: 3 },
    removes(1, 2),
  ],
  [
    'D06: the leader itself is in the way: another one goes on',
    { voters: [1, 2, 3], learners: [11], wanted: [2, 3, 11], behind: { 11: 0 } },
    handsOverTo(2),
  ],
  [
    'D06: one is in the way, and without it there is no majority: nothing',
    { voters: [1, 2, 3], learners: [13], wanted: [1, 2, 13], down: [2] },
    undefined,
  ],
  [
    'D06: a learner has not caught up: nobody is removed yet',
    { voters: [1, 2, 3], learners: [4], wanted: [1, 2, 4] },
    undefined,
  ],
  [
    'the learner is a voter now: who is not named leaves',
    { voters: [1, 2, 3, 4], wanted: [1, 2, 4] },
    removes(3),
  ],
  [
    'several are not named, learners too: all leave in one change',
    { voters: [1, 2, 3, 4], learners: [5], wanted: [1, 4] },
    removes(2, 3, 5),
  ],
  [
    'the leader is not named: it hands over to the first one named of equal logs',
    { voters: [1, 2, 3, 4], wanted: [3, 2, 4] },
    handsOverTo(3),
  ],
  [
    'the leader is not named: nobody is asked who is away, or behind what is committed',
    { voters: [1, 2, 3, 4, 5], wanted: [3, 2, 4, 5], down: [3], behind: { 2: 99 } },
    handsOverTo(4),
  ],
  [
    'those who would stay have no live majority: nobody leaves',
    { voters: [1, 2, 3, 4], wanted: [1, 2, 4], down: [2, 4] },
    undefined,
  ],
  [
    'one who stays is away, and two of three are there: who is away and not named leaves',
    { voters: [1, 2, 3, 4], wanted: [1, 2, 4], down: [2, 3] },
    removes(3),
  ],
  [
    'D06: a member has an id that this topology does not know: an old topology undoes nothing',
    { voters: [1, 2, 4], wanted: [1, 2, 3], issuedBelow: 4 },
    undefined,
  ],
  ['nobody is named: nothing is removed', { voters: [1, 2, 3], wanted: [] }, undefined],
  [
    'a follower does nothing',
    { voters: [1, 2, 3], wanted: [1, 2, 4], status: { role: 'follower' } },
    undefined,
  ],
  [
    'leadership is being handed over: nothing meanwhile',
    { voters: [1, 2, 3], wanted: [1, 2, 4], status: { transferTo: replicaId(2) } },
    undefined,
  ],
  [
    'the last change is not committed: nothing meanwhile',
    { voters: [1, 2, 3], wanted: [1, 2, 4], status: { commitIndex: 89 } },
    undefined,
  ],
  [
    'the membership is joint: the core leaves it by itself',
    {
      voters: [1, 2, 3],
      wanted: [1, 2, 4],
      status: { membership: { index: 90, membership: joint ?? membershipOf([]) } },
    },
    undefined,
  ],
];

/** What the core and the network make of the steps; `choose` picks among what may happen. */
class Model {
  membership: Membership;
  leader: ReplicaId;
  index = 1;

  constructor(membership: Membership, leader: ReplicaId) {
    this.membership = membership;
    this.leader = leader;
  }

  take(step: MembershipStep): void {
    if (step.kind === 'handOver') {
      expect(this.membership.incoming).to.include(step.to);
      this.leader = step.to;
      return;
    }
    expect(step.change.basedOn).to.equal(this.index);
    const next = enterChange(this.membership, step.change);
    if (next === undefined) throw new Error('the core refuses the change');
    this.follow(next);
  }

  /** A learner caught up, and became a voter. */
  promote(): boolean {
    const [first] = this.membership.learners;
    const caughtUp = this.membership.members.find(({ id }) => id === first);
    if (caughtUp === undefined) return false;
    const change = { addVoters: [caughtUp], addLearners: [], remove: [] };
    this.follow(enterChange(this.membership, change) ?? this.membership);
    return true;
  }

  private follow(next: Membership): void {
    this.membership = isJoint(next) ? leaveJoint(next) : next;
    this.index++;
    if (!isVoter(this.membership, this.leader)) throw new Error('the leader removed itself');
  }
}

const ids = fc.uniqueArray(fc.integer({ min: 1, max: idMax }), { minLength: 1, maxLength: idMax });

describe('the members of a shard', () => {
  for (const [title, situation, expected] of table) {
    it(title, () => {
      expect(stepIn(situation)).to.deep.equal(expected);
    });
  }

  it('D06: from any members to any wanted ones in few steps, none removed too early', () => {
    fc.assert(
      fc.property(ids, ids, ids, fc.nat(), (voters, learners, wanted, seed) => {
        const learning = learners.filter((id) => !voters.includes(id));
        const leader = replicaId(voters[seed % voters.length] ?? 1);
        const model = new Model(membershipOf(voters.map(member), learning.map(member)), leader);
        const replicas = wanted.map(member).map(({ id, node }) => ({ replica: id, node }));
        const surroundings = { replicas, issuedBelow: idMax + 1, isConnected: () => true };
        let steps = 0;
        for (;;) {
          const { membership } = model;
          const status = statusOf(membership, model.leader, model.index);
          const step = nextStep(status, surroundings);
          if (step === undefined && !model.promote()) break;
          if (step !== undefined) model.take(step);
          if (step?.kind === 'change' && step.change.remove.length > 0) {
            for (const { replica } of replicas)
              expect(membership.incoming, 'voters before a removal').to.include(replica);
          }
          // One to add, one for each learner to become a voter, one to hand over, one to remove.
          expect(++steps).to.be.at.most(3 + 2 * idMax);
        }
        const named = [...wanted].sort((a, b) => a - b);
        expect(model.membership.incoming).to.deep.equal(named);
        expect(model.membership.members.map(({ id }) => id)).to.deep.equal(named);
      }),
    );
  });
});
