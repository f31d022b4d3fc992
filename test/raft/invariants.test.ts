/** Every invariant holds of a sound history, and each of them can fail. */
import { expect } from 'chai';
import { EntryKind, nodeId, replicaId } from '../../raft/index.js';
import type { Entry, Membership, Message, RaftStatus, ReplicaId, Term } from '../../raft/index.js';
import {
  GroupInvariants,
  InvariantViolation,
  checkMember,
  checkMembershipForm,
  checkMessage,
  checkPromise,
  checkRestart,
  everyQuorum,
} from '../../raft/invariants.js';
import type { DurableState, Invariant, LogTerms } from '../../raft/invariants.js';

const ids = (...numbers: number[]): ReplicaId[] => numbers.map((id) => replicaId(id));

function membership(
  changes: Partial<Record<'incoming' | 'outgoing' | 'learners', number[]>>,
): Membership {
  const { incoming = [1, 2, 3], outgoing = [], learners = [] } = changes;
  const all = [...new Set([...incoming, ...outgoing, ...learners])].sort((a, b) => a - b);
  return {
    incoming: ids(...incoming),
    outgoing: ids(...outgoing),
    learners: ids(...learners),
    learnersNext: [],
    autoLeave: false,
    members: all.map((id) => ({ id: replicaId(id), node: nodeId(id) })),
  };
}

const three = { index: 0, membership: membership({}) };

function status(changes: Partial<RaftStatus> = {}): RaftStatus {
  return {
    id: replicaId(1),
    role: 'follower',
    generation: 0,
    outdatedBy: 0,
    term: 3,
    vote: replicaId(2),
    leader: replicaId(2),
    firstIndex: 1,
    lastIndex: 9,
    persistedIndex: 8,
    commitIndex: 7,
    appliedIndex: 6,
    membership: three,
    transferTo: 0 as ReplicaId,
    restoring: false,
    quiet: false,
    progress: [],
    dropped: {},
    ...changes,
  };
}

const leading = { role: 'leader', vote: replicaId(1), leader: replicaId(1) } as const;

function progress(id: number, match: number, next = match + 1): RaftStatus['progress'][number] {
  const of = { id: replicaId(id), match, next };
  return { ...of, state: 'replicate', learner: false, recentlyActive: true };
}

/** A log given by the terms of its entries, from index 1. */
function log(...terms: Term[]): LogTerms {
  return { termAt: (index) => (index === 0 ? 0 : terms[index - 1]) };
}

function entry(index: number, term: number, text = ''): Entry {
  return { index, term, kind: EntryKind.command, data: new TextEncoder().encode(text) };
}

function violation(act: () => void): Invariant | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof InvariantViolation) return error.invariant;
    throw error;
  }
  return undefined;
}

describe('invariants of one member', () => {
  it('hold of a follower, a candidate and a leader at work', () => {
    checkMember(status(), undefined);
    checkMember(status({ commitIndex: 8, appliedIndex: 7, lastIndex: 10 }), status());
    const candidate = {
      role: 'candidate',
      term: 4,
      vote: replicaId(1),
      leader: 0 as ReplicaId,
    } as const;
    checkMember(status(candidate), status());
    const leader = { ...leading, progress: [progress(1, 8), progress(2, 9), progress(3, 0, 4)] };
    checkMember(status(leader), status(leader));
  });

  it('allow a restoring member to stand below its log', () => {
    const damaged = { firstIndex: 5, appliedIndex: 2, restoring: true };
    checkMember(status(damaged), undefined);
    expect(
      violation(() => checkMember(status({ ...damaged, restoring: false }), undefined)),
    ).to.equal('index order');
  });

  const wrongAlone: readonly (readonly [string, Invariant, Partial<RaftStatus>])[] = [
    ['applied above commit', 'index order', { appliedIndex: 8, persistedIndex: 9 }],
    ['commit above last', 'index order', { commitIndex: 10 }],
    ['D12: applied above persisted', 'index order', { persistedIndex: 5 }],
    ['persisted above last', 'index order', { persistedIndex: 10 }],
    ['applied below the log', 'index order', { firstIndex: 8 }],
    ['a leader that names another one', 'role', { ...leading, leader: replicaId(2) }],
    ['a leader that voted for another one', 'role', { ...leading, vote: replicaId(2) }],
    [
      'a candidate that voted for another one',
      'role',
      { role: 'candidate', leader: 0 as ReplicaId },
    ],
    ['a follower that follows itself', 'role', { leader: replicaId(1) }],
    ['a follower with progress', 'role', { progress: [progress(2, 3)] }],
    ['match above last', 'progress', { ...leading, progress: [progress(2, 10)] }],
    ['next not above match', 'progress', { ...leading, progress: [progress(2, 5, 5)] }],
    [
      'D02 own entry counted before its sync',
      'progress',
      { ...leading, progress: [progress(1, 9)] },
    ],
  ];
  for (const [name, invariant, changes] of wrongAlone) {
    it(`refuse ${name}`, () => {
      expect(violation(() => checkMember(status(changes), undefined))).to.equal(invariant);
    });
  }

  const wrongAfter: readonly (readonly [
    string,
    Invariant,
    Partial<RaftStatus>,
    Partial<RaftStatus>,
  ])[] = [
    ['a term that falls', 'monotonic state', { term: 4 }, {}],
    ['a second vote in a term', 'monotonic state', { vote: replicaId(3) }, {}],
    ['a commit index that falls', 'monotonic state', { commitIndex: 8 }, {}],
    ['an applied index that falls', 'monotonic state', { appliedIndex: 7 }, {}],
    ['a first index that falls', 'monotonic state', { firstIndex: 3 }, {}],
    ['a leader that cuts its log', 'leader append-only', { ...leading, lastIndex: 10 }, leading],
    [
      'a match index that falls',
      'progress',
      { ...leading, progress: [progress(1, 5), progress(2, 7), progress(3, 6)] },
      { ...leading, progress: [progress(1, 5), progress(2, 6), progress(3, 6)] },
    ],
    [
      'R23 a change on top of an uncommitted one',
      'one pending membership',
      { ...leading, membership: { index: 8, membership: membership({}) } },
      { ...leading, membership: { index: 9, membership: membership({}) } },
    ],
  ];
  for (const [name, invariant, before, now] of wrongAfter) {
    it(`refuse ${name}`, () => {
      expect(violation(() => checkMember(status(now), status(before)))).to.equal(invariant);
    });
  }

  it('allow a new vote in a new term, a cut log of a follower, a change on top of a committed one', () => {
    checkMember(status({ term: 4, vote: replicaId(3) }), status());
    checkMember(status({ lastIndex: 8 }), status());
    const older = { ...leading, membership: { index: 7, membership: membership({}) } };
    const newer = { ...leading, membership: { index: 9, membership: membership({}) } };
    checkMember(status(newer), status(older));
  });

  it('refuse a membership with somebody twice, unsorted, or unnamed', () => {
    checkMembershipForm(membership({ incoming: [1, 2], outgoing: [1, 3], learners: [4] }));
    const wrong = [
      membership({ incoming: [2, 1] }),
      membership({ incoming: [1, 1, 2] }),
      membership({ incoming: [1, 2], learners: [2] }),
      membership({ incoming: [1, 2], outgoing: [3], learners: [3] }),
      membership({ incoming: [], outgoing: [1, 2, 3] }),
      { ...membership({}), members: membership({ incoming: [1, 2] }).members },
      { ...membership({}), learnersNext: ids(1) },
    ];
    for (const form of wrong) {
      expect(violation(() => checkMembershipForm(form))).to.equal('membership form');
    }
  });

  it('refuse a restart that forgot its term, its vote, its commit or its applied index', () => {
    const durable = { hardState: { term: 3, vote: replicaId(2), commit: 7 }, appliedIndex: 6 };
    checkRestart(status(), durable);
    checkRestart(status({ term: 4, vote: 0 as ReplicaId }), durable);
    const forgotten = [
      { term: 2 },
      { vote: 0 as ReplicaId },
      { commitIndex: 6 },
      { appliedIndex: 5 },
    ];
    for (const changes of forgotten) {
      const restart = (): void => checkRestart(status(changes), durable);
      expect(violation(restart)).to.equal('monotonic state');
    }
  });
});

describe('invariants of a message', () => {
  const limits = { messageBytesMax: 10, entryBytesMax: 100 };
  const head = { from: replicaId(1), to: replicaId(2), term: 3 };
  const append = (entries: Entry[]): Message => {
    return { type: 'append', ...head, prevIndex: 4, prevTerm: 2, commit: 4, entries };
  };

  it('hold of an append within its limit, and of one large entry alone', () => {
    checkMessage(append([entry(5, 2, 'abcd'), entry(6, 3, 'efgh')]), limits);
    checkMessage(append([entry(5, 3, 'more than ten bytes')]), limits);
  });

  it('refuse an append that is too large, has a gap, or runs against the terms', () => {
    const refused = (entries: Entry[]): Invariant | undefined =>
      violation(() => checkMessage(append(entries), limits));
    expect(refused([entry(5, 3, 'abcdef'), entry(6, 3, 'ghijkl')])).to.equal('bounded message');
    expect(refused([entry(6, 3)])).to.equal('message form');
    expect(refused([entry(5, 3), entry(6, 2)])).to.equal('message form');
    expect(refused([entry(5, 4)])).to.equal('message form');
    expect(refused([entry(5, 1)])).to.equal('message form');
  });

  it('refuse a message to oneself', () => {
    const message: Message = {
      type: 'heartbeat',
      ...head,
      to: head.from,
      commit: 0,
      round: 1,
      quiet: false,
    };
    expect(violation(() => checkMessage(message, limits))).to.equal('message form');
  });
});

describe('promises', () => {
  const durable = (term: number, vote: number, lastIndex: number): DurableState => ({
    hardState: { term, vote: vote as ReplicaId, commit: 0 },
    lastIndex,
    termAt: () => term,
  });
  const head = { from: replicaId(1), to: replicaId(2), term: 3 };
  const granted: Message = { type: 'voteReply', ...head, granted: true };
  const asked: Message = { type: 'vote', ...head, lastIndex: 4, lastTerm: 2, transfer: false };
  const acknowledged: Message = {
    type: 'appendReply',
    ...head,
    index: 5,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
  };
  const broken = (message: Message, disk: DurableState): Invariant | undefined =>
    violation(() => checkPromise(message, disk));

  it('R01 unsynced-vote: a vote may leave only when it is durable', () => {
    expect(broken(granted, durable(3, 2, 9))).to.equal(undefined);
    expect(broken(granted, durable(3, 0, 9))).to.equal('durable promise');
    expect(broken(granted, durable(2, 2, 9))).to.equal('durable promise');
    expect(broken({ ...granted, granted: false }, durable(2, 0, 9))).to.equal(undefined);
  });

  it('D02: votes may be asked for only when the own one is durable', () => {
    expect(broken(asked, durable(3, 1, 9))).to.equal(undefined);
    expect(broken(asked, durable(2, 1, 9))).to.equal('durable promise');
    expect(broken(asked, durable(3, 0, 9))).to.equal('durable promise');
  });

  it('R02 ack-before-fsync: an entry may be acknowledged only when it is durable', () => {
    expect(broken(acknowledged, durable(3, 0, 5))).to.equal(undefined);
    expect(broken(acknowledged, durable(3, 0, 4))).to.equal('durable promise');
    expect(broken(acknowledged, durable(2, 0, 5))).to.equal('durable promise');
    expect(broken({ ...acknowledged, rejected: true }, durable(3, 0, 4))).to.equal(undefined);
  });

  it('a promise of a term that is durably over binds nobody', () => {
    expect(broken(granted, durable(4, 0, 0))).to.equal(undefined);
    expect(broken(acknowledged, durable(4, 0, 0))).to.equal(undefined);
  });
});

describe('invariants of a group', () => {
  const everywhere = (): boolean => true;
  const nowhere = (): boolean => false;
  const leader = (id: number, changes: Partial<RaftStatus> = {}): RaftStatus =>
    status({
      role: 'leader',
      id: replicaId(id),
      vote: replicaId(id),
      leader: replicaId(id),
      ...changes,
    });
  const commit = (
    group: GroupInvariants,
    by: RaftStatus,
    terms: LogTerms,
    durable: (id: ReplicaId) => boolean = everywhere,
  ): void => group.commitAdvanced(by, terms, by.membership.membership, durable);

  it('election safety: refuse two leaders in a term', () => {
    const group = new GroupInvariants();
    group.leads(leader(1), log());
    group.leads(leader(1), log());
    group.leads(leader(2, { term: 4 }), log());
    expect(violation(() => group.leads(leader(2), log()))).to.equal('election safety');
  });

  it('log matching: refuse another entry, or another past, for the same index and term', () => {
    const group = new GroupInvariants();
    group.appended(entry(5, 3, 'x'), 2);
    group.appended(entry(5, 3, 'x'), 2);
    group.appended(entry(5, 4, 'y'), 3);
    expect(violation(() => group.appended(entry(5, 3, 'z'), 2))).to.equal('log matching');
    expect(violation(() => group.appended(entry(5, 3, 'x'), 1))).to.equal('log matching');
  });

  it('leader completeness: refuse a leader without what an earlier term committed', () => {
    const group = new GroupInvariants();
    commit(group, leader(1, { commitIndex: 2 }), log(3, 3));
    group.leads(leader(2, { term: 5 }), log(3, 3, 5));
    const late = (): void => group.leads(leader(3, { term: 6 }), log(3));
    expect(violation(late)).to.equal('leader completeness');
    const other = (): void => group.leads(leader(3, { term: 7 }), log(3, 4));
    expect(violation(other)).to.equal('leader completeness');
  });

  it('leader completeness asks a leader only for entries of earlier terms, and not below its log', () => {
    const group = new GroupInvariants();
    commit(group, leader(1, { term: 5, commitIndex: 2 }), log(3, 5));
    group.leads(leader(2, { term: 4 }), log(3, 4));
    group.leads(leader(3, { term: 6, firstIndex: 4 }), log());
  });

  it('durable quorum: refuse a commit that a majority of either side does not have', () => {
    const joint = membership({ incoming: [1, 2, 3], outgoing: [3, 4, 5] });
    const by = leader(1, { commitIndex: 1, membership: { index: 0, membership: joint } });
    const has =
      (...having: number[]) =>
      (id: ReplicaId): boolean =>
        having.includes(id);
    const attempt = (durable: (id: ReplicaId) => boolean): Invariant | undefined =>
      violation(() => commit(new GroupInvariants(), by, log(3), durable));
    expect(attempt(has(1, 2, 3, 4))).to.equal(undefined);
    expect(attempt(has(1, 2, 3))).to.equal('durable quorum');
    expect(attempt(has(3, 4, 5))).to.equal('durable quorum');
    expect(attempt(nowhere)).to.equal('durable quorum');
  });

  it('R07 commit-past-verified: refuse a commit that no leader made, or of another entry', () => {
    const group = new GroupInvariants();
    commit(group, leader(1, { commitIndex: 2 }), log(3, 3));
    group.appliedBy(replicaId(1), entry(1, 3));
    group.appliedBy(replicaId(1), entry(2, 3));
    commit(group, status({ commitIndex: 2 }), log(3, 3));
    const beyond = (): void => commit(group, status({ commitIndex: 3 }), log(3, 3, 3));
    expect(violation(beyond)).to.equal('commit known to a leader');
    const another = (): void => commit(group, status({ commitIndex: 2 }), log(3, 2));
    expect(violation(another)).to.equal('state machine safety');
    const none = (): void => commit(group, status({ commitIndex: 2 }), log(3));
    expect(violation(none)).to.equal('index order');
  });

  it('state machine safety: refuse another entry at an applied index, or one never committed', () => {
    const group = new GroupInvariants();
    commit(group, leader(1, { commitIndex: 1 }), log(3));
    group.appliedBy(replicaId(1), entry(1, 3, 'x'));
    group.appliedBy(replicaId(2), entry(1, 3, 'x'));
    const apply = (one: Entry): Invariant | undefined =>
      violation(() => group.appliedBy(replicaId(3), one));
    expect(apply(entry(1, 3, 'y'))).to.equal('state machine safety');
    expect(apply(entry(1, 2, 'x'))).to.equal('state machine safety');
    expect(apply(entry(2, 3, 'z'))).to.equal('commit known to a leader');
    expect(group.appliedAt(1)).to.deep.equal(entry(1, 3, 'x'));
    expect(group.applied).to.have.length(1);
  });

  it('a quorum is a majority of each side, and of nobody it is everything', () => {
    const of = (form: Membership, ...having: number[]): boolean =>
      everyQuorum(form, (id) => having.includes(id));
    expect(of(membership({ incoming: [1, 2] }), 1)).to.equal(false);
    expect(of(membership({ incoming: [1, 2, 3] }), 1, 3)).to.equal(true);
    expect(of(membership({ incoming: [1, 2, 3, 4] }), 1, 2)).to.equal(false);
    expect(of(membership({ incoming: [1], outgoing: [2, 3] }), 1, 2)).to.equal(false);
    expect(of(membership({ incoming: [1], learners: [2] }), 2)).to.equal(false);
  });
});
