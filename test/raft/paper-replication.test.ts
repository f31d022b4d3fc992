/** Replication and commitment: paper §5.3, §5.4.2, figure 2 AppendEntries; thesis §10.2.1. */
import { expect } from 'chai';
import {
  EntryKind,
  RaftInvariantError,
  encodeMembership,
  noReplica,
  replicaId,
} from '../../raft/index.js';
import type { Entry } from '../../raft/index.js';
import { LoneMember, append, entry, heartbeat, message, stateWith, voters } from './lone-member.js';

const payload = Uint8Array.of(7);

/** The terms of the log from index 1. */
function termsOf(member: LoneMember): number[] {
  const { lastIndex } = member.node.status();
  return Array.from({ length: lastIndex }, (_, at) => member.node.termAt(at + 1) ?? -1);
}

describe('paper: replication', () => {
  describe('a follower (figure 2, AppendEntries)', () => {
    it('refuses entries behind a place that it does not have, and says where its log ends', () => {
      const member = new LoneMember({}, stateWith([1, 1]));
      member.step(message(2, 1, append([5, 1], [entry(6, 1)])));
      expect(member.take('appendReply')[0]).to.include({
        rejected: true,
        index: 5,
        hintIndex: 2,
        hintTerm: 1,
      });
      expect(termsOf(member)).to.deep.equal([1, 1]);
    });

    // The logs (a) to (f) of figure 7, and one that is equal; the leader of term 8 has 10 entries.
    const leaderTerms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    const figure7: readonly (readonly [string, readonly number[]])[] = [
      ['(a) lacks one', [1, 1, 1, 4, 4, 5, 5, 6, 6]],
      ['(b) lacks many', [1, 1, 1, 4]],
      ['(c) has one more', [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]],
      ['(d) has a later term', [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]],
      ['(e) stopped in term 4', [1, 1, 1, 4, 4, 4, 4]],
      ['(f) led terms 2 and 3', [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]],
    ];
    for (const [name, own] of figure7) {
      it(`figure 7 ${name}: ends with the leader's log, a term of conflicts at a time`, () => {
        const follower = new LoneMember({}, stateWith(own, { membership: voters(1, 2, 3) }));
        const leader = new LoneMember(
          {},
          stateWith(leaderTerms, { hardState: { term: 7, vote: noReplica, commit: 0 } }),
        );
        leader.do((node) => node.campaign());
        leader.answer(2, { type: 'voteReply', granted: true });
        let trips = 0;
        for (let sent = leader.take('append'); sent.length > 0; sent = leader.take('append')) {
          const to2 = sent.filter(({ to }) => to === 2);
          for (const request of to2)
            follower.step({ ...request, from: replicaId(2), to: replicaId(1) });
          for (const reply of follower.take('appendReply')) {
            trips++;
            leader.step({ ...reply, from: replicaId(2), to: replicaId(1) });
          }
        }
        expect(termsOf(follower).slice(0, 10)).to.deep.equal(leaderTerms);
        expect(termsOf(follower)).to.have.length(11);
        expect(trips, 'one refusal a term, an answer, and the news of the commit').to.be.below(7);
      });
    }

    it('R06: an older, shorter append and an empty one remove nothing', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1), entry(2, 1), entry(3, 1)])));
      member.step(message(2, 1, append([0, 0], [entry(1, 1)])));
      member.step(message(2, 1, append([1, 1], [])));
      expect(termsOf(member)).to.deep.equal([1, 1, 1]);
    });

    it('acknowledges what the append covered, not what its own log holds', () => {
      const member = new LoneMember({}, stateWith([1, 1, 1]));
      member.step(message(2, 2, append([1, 1], [])));
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 1 });
    });

    it('R07: commits no further than the append has proved equal', () => {
      const member = new LoneMember({}, stateWith([1, 1, 1]));
      member.step(message(2, 2, append([1, 1], [], 3)));
      expect(member.node.status().commitIndex).to.equal(1);
      member.step(message(2, 2, append([1, 1], [entry(2, 2)], 9)));
      expect(member.node.status().commitIndex).to.equal(2);
    });

    it('never lowers its commit index', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1), entry(2, 1)], 2)));
      member.step(message(2, 1, append([2, 1], [], 1)));
      member.step(message(2, 1, heartbeat(0)));
      expect(member.node.status().commitIndex).to.equal(2);
    });

    it('takes no commit index from a heartbeat beyond its own log', () => {
      const member = new LoneMember({}, stateWith([1]));
      member.step(message(2, 1, heartbeat(9)));
      expect(member.node.status()).to.deep.include({
        commitIndex: 0,
        dropped: { commitBeyondLog: 1 },
      });
    });

    it('R05: answers an append below its commit index with that index', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1), entry(2, 1)], 2)));
      member.take();
      member.step(message(2, 1, append([0, 0], [entry(1, 1)], 0)));
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 2 });
    });

    it('R02: acknowledges when the entries are durable, and not before', () => {
      const member = new LoneMember();
      member.holdsPersist = true;
      member.step(message(2, 1, append([0, 0], [entry(1, 1)])));
      expect(member.take('appendReply')).to.deep.equal([]);
      member.persist();
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 1 });
    });

    it('D12: applies what is committed only when its own disk has it', () => {
      const member = new LoneMember();
      member.holdsPersist = true;
      member.step(message(2, 1, append([0, 0], [entry(1, 1)], 1)));
      expect(member.node.status().commitIndex).to.equal(1);
      expect(member.applied).to.deep.equal([]);
      member.persist();
      expect(member.applied.map(({ index }) => index)).to.deep.equal([1]);
    });

    it('writes no commit index ahead of the entries of the same batch (torn writes)', () => {
      const member = new LoneMember();
      member.holdsPersist = true;
      member.step(message(2, 1, append([0, 0], [entry(1, 1)], 1)));
      expect(member.batch?.hardState?.commit).to.equal(0);
    });

    it('does not take an entry for durable that was truncated and came back (ABA)', () => {
      const member = new LoneMember({}, stateWith([1]));
      member.holdsPersist = true;
      member.step(message(2, 2, append([1, 1], [entry(2, 2), entry(3, 2)])));
      member.step(message(3, 3, append([1, 1], [entry(2, 3)])));
      member.step(message(2, 4, append([1, 1], [entry(2, 2), entry(3, 2)])));
      member.persist();
      expect(member.node.status()).to.include({ lastIndex: 3, persistedIndex: 1 });
      member.persist();
      expect(member.node.status().persistedIndex).to.equal(3);
    });
  });

  describe('a leader (§5.3)', () => {
    it('appends a no-op of its term on election (§8)', () => {
      const member = new LoneMember({}, stateWith([1]));
      member.do((node) => node.campaign());
      member.answer(2, { type: 'voteReply', granted: true });
      const [first] = member.take('append');
      expect(first).to.include({ prevIndex: 1, prevTerm: 1 });
      expect(first?.entries).to.deep.equal([
        { index: 2, term: 2, kind: EntryKind.noop, data: new Uint8Array() },
      ]);
    });

    it('sends before its own disk is done (thesis §10.2.1), and counts itself only after', () => {
      const member = new LoneMember();
      member.lead([2, 3]);
      member.holdsPersist = true;
      member.do((node) => node.propose(payload));
      expect(member.take('append')).to.have.length(2);
      member.acknowledge(2);
      expect(member.node.status().commitIndex).to.equal(1);
      member.persist();
      expect(member.node.status().commitIndex).to.equal(2);
    });

    it('commits on the disks of others while its own still works, and applies nothing yet', () => {
      const member = new LoneMember();
      member.lead([2, 3]);
      member.holdsPersist = true;
      member.do((node) => node.propose(payload));
      for (const from of [2, 3]) member.acknowledge(from);
      expect(member.node.status()).to.include({
        commitIndex: 2,
        persistedIndex: 1,
        appliedIndex: 1,
      });
    });

    it('R03, figure 8: commits no entry of an older term by counting', () => {
      const member = new LoneMember({}, stateWith([1, 2]));
      member.do((node) => node.campaign());
      member.answer(2, { type: 'voteReply', granted: true });
      member.acknowledge(2, 2);
      expect(member.node.status().commitIndex, 'index 2 is on a majority').to.equal(0);
      member.acknowledge(2, 3);
      expect(member.node.status().commitIndex, 'the no-op of its own term').to.equal(3);
    });

    it('tells the followers what is committed', () => {
      const member = new LoneMember();
      member.lead([2, 3]);
      member.do((node) => node.propose(payload));
      member.take();
      member.acknowledge(2);
      expect(member.take('append').map(({ commit }) => commit)).to.deep.equal([2, 2]);
    });

    it('tells a follower no commit index in a heartbeat beyond what it is known to have', () => {
      const member = new LoneMember();
      member.lead([2, 3]);
      member.do((node) => node.propose(payload));
      member.acknowledge(2);
      member.take();
      member.tick(2);
      expect(member.take('heartbeat').map(({ to, commit }) => [to, commit])).to.deep.equal([
        [2, 2],
        [3, 1],
      ]);
    });

    it('says news of the commit index once, not again beside entries that carry it', () => {
      const member = new LoneMember();
      member.lead([2, 3]);
      member.do((node) => node.propose(payload));
      member.take();
      member.do((node) => {
        node.step(
          message(2, 1, {
            type: 'appendReply',
            index: 2,
            rejected: false,
            hintIndex: 0,
            hintTerm: 0,
          }),
        );
        node.propose(payload);
      });
      expect(member.take('append').map(({ to, commit }) => [to, commit])).to.deep.equal([
        [2, 2],
        [3, 2],
      ]);
    });

    it('never counts an acknowledgement beyond its own log', () => {
      const member = new LoneMember();
      member.lead([2, 3]);
      member.acknowledge(2, 99);
      expect(member.node.status().commitIndex).to.equal(1);
    });

    it('pipelines: the next append does not wait for the answer to the last (thesis §10.2.1)', () => {
      const member = new LoneMember({ inflightMessagesMax: 2 });
      member.lead([2, 3]);
      for (let count = 0; count < 4; count++) member.do((node) => node.propose(payload));
      const to2 = member.take('append').filter(({ to }) => to === 2);
      expect(
        to2.map(({ prevIndex }) => prevIndex),
        'as far as the window goes',
      ).to.deep.equal([1, 2]);
      member.acknowledge(2, 2);
      const next = member
        .take('append')
        .filter(({ to, entries }) => to === 2 && entries.length > 0);
      expect(next.map(({ prevIndex }) => prevIndex)).to.deep.equal([3]);
    });

    it('probes an unknown follower with one append at a time', () => {
      const member = new LoneMember();
      member.lead([2], false);
      for (let count = 0; count < 3; count++) member.do((node) => node.propose(payload));
      expect(member.take('append')).to.deep.equal([]);
    });

    it('uses fetched entries only if they are those of its log', () => {
      const state = stateWith([1, 1, 1], { tail: [] });
      const member = new LoneMember({}, state);
      member.do((node) => node.campaign());
      member.answer(2, { type: 'voteReply', granted: true });
      member.answer(2, {
        type: 'appendReply',
        index: 3,
        rejected: true,
        hintIndex: 0,
        hintTerm: 0,
      });
      const [fetch] = member.fetches;
      expect(fetch).to.include({ purpose: 'send', to: 2, from: 1, last: 3 });
      member.take();
      if (fetch === undefined) throw new Error('not fetched');
      const foreign: Entry[] = [entry(1, 1), { ...entry(2, 1), term: 2 }];
      member.do((node) => node.entriesFetched(fetch, foreign));
      expect(member.take('append')).to.deep.equal([]);
      const again = member.fetches.at(-1);
      if (again === undefined) throw new Error('not fetched again');
      member.do((node) => node.entriesFetched(again, [entry(1, 1)]));
      expect(member.take('append')[0]).to.include({ prevIndex: 0 });
    });

    it('bounds what is uncommitted, but lets one entry pass alone', () => {
      const member = new LoneMember({ uncommittedBytesMax: 100 });
      member.lead([2, 3]);
      const propose = (): string => {
        const verdict = member.do((node) => node.propose(new Uint8Array(90)));
        return verdict.kind === 'refused' ? verdict.reason : verdict.kind;
      };
      expect([propose(), propose()]).to.deep.equal(['appended', 'overloaded']);
      member.acknowledge(2);
      expect(propose()).to.equal('appended');
    });

    it('refuses what is too large, and whoever does not lead refuses all', () => {
      const member = new LoneMember();
      expect(member.do((node) => node.propose(payload)).kind).to.equal('notLeader');
      member.lead([2, 3]);
      const verdict = member.do((node) => node.propose(new Uint8Array(1025)));
      expect(verdict).to.deep.equal({ kind: 'refused', reason: 'tooLarge' });
    });

    for (const hung of ['disk', 'state machine'] as const) {
      it(`steps down when its own ${hung} hangs, and does not campaign meanwhile`, () => {
        const member = new LoneMember({ stalledTicksMax: 20 });
        member.lead([2, 3]);
        if (hung === 'disk') member.holdsPersist = true;
        else member.holdsApply = true;
        member.do((node) => node.propose(payload));
        member.acknowledge(2);
        member.acknowledge(3);
        member.tick(19);
        expect(member.node.isLeader).to.equal(true);
        member.tick(100);
        expect(member.node.status()).to.include({ role: 'follower', term: 1 });
      });
    }
  });

  describe('restart', () => {
    it('keeps term, vote, log and what was applied', () => {
      const membership = voters(1, 2, 3);
      const hardState = { term: 4, vote: replicaId(2), commit: 1 };
      const member = new LoneMember(
        {},
        stateWith([1, 2], { membership, hardState, appliedIndex: 2 }),
      );
      expect(member.node.status()).to.include({
        role: 'follower',
        term: 4,
        vote: 2,
        lastIndex: 2,
        commitIndex: 2,
        appliedIndex: 2,
      });
    });

    it('D12: applies again what the state machine lost, from the disk if need be', () => {
      const hardState = { term: 1, vote: noReplica, commit: 3 };
      const state = stateWith([1, 1, 1], { tail: [], hardState, appliedIndex: 1 });
      const member = new LoneMember({}, state);
      member.do(() => undefined);
      expect(member.fetches[0]).to.include({ purpose: 'apply', from: 2, last: 3 });
      member.do((node) =>
        node.entriesFetched({ purpose: 'apply', to: noReplica, from: 2 }, [
          entry(2, 1),
          entry(3, 1),
        ]),
      );
      expect(member.applied.map(({ index }) => index)).to.deep.equal([2, 3]);
    });

    it('D15: a log that is ahead of the hard state brings its term with it', () => {
      const hardState = { term: 1, vote: replicaId(1), commit: 0 };
      const member = new LoneMember({}, stateWith([1, 3], { hardState }));
      expect(member.node.status()).to.include({ term: 3, vote: 0 });
    });

    it('D13: a state machine behind its log is not taken for whole', () => {
      const base = {
        firstIndex: 5,
        lastIndex: 4,
        tail: [],
        termRuns: [{ from: 4, term: 1 }],
        hardState: { term: 1, vote: noReplica, commit: 4 },
      };
      expect(() => new LoneMember({}, stateWith([], { ...base, appliedIndex: 2 }))).to.throw(
        RaftInvariantError,
        'D13',
      );
      const restoring = new LoneMember({}, stateWith([], { ...base, restoring: true }));
      restoring.tick(100);
      expect(restoring.node.status().role, 'does not campaign').to.equal('follower');
    });
  });

  describe('input that no honest member sends', () => {
    const flawed = (body: object): unknown => ({ from: 2, to: 1, term: 1, ...body });
    const rows: readonly (readonly [string, unknown])[] = [
      ['an unknown type', flawed({ type: 'gossip' })],
      ['a broken term', flawed({ type: 'heartbeat', term: 1.5, commit: 0, round: 1 })],
      ['a sender 0', flawed({ type: 'heartbeat', from: 0, commit: 0, round: 1 })],
      [
        'a request from ourselves',
        flawed({ type: 'vote', from: 1, lastIndex: 0, lastTerm: 0, transfer: false }),
      ],
      ['a gap', flawed(append([0, 0], [entry(2, 1)]))],
      ['a term of the future', flawed(append([0, 0], [entry(1, 2)]))],
      ['terms that fall', flawed({ ...append([1, 1], [entry(2, 0)]) })],
      ['index 0 with a term', flawed(append([0, 1], []))],
      ['an unknown kind', flawed(append([0, 0], [{ ...entry(1, 1), kind: 9 as never }]))],
      [
        'entries that are none',
        flawed({ type: 'append', prevIndex: 0, prevTerm: 0, commit: 0, entries: 'x' }),
      ],
      [
        'an unknown membership',
        flawed(append([0, 0], [{ ...entry(1, 1), kind: EntryKind.membership }])),
      ],
      [
        'a membership without members',
        flawed(
          append(
            [0, 0],
            [{ ...entry(1, 1), kind: EntryKind.membership, data: encodeMembership(voters()) }],
          ),
        ),
      ],
      [
        'a snapshot of the future',
        flawed({
          type: 'snapshot',
          snapshot: { index: 3, term: 9, membership: { index: 0, membership: voters(1) } },
        }),
      ],
      ['an empty context', flawed({ type: 'readIndex', context: '' })],
    ];
    for (const [name, input] of rows) {
      it(`${name}: dropped, counted, and nothing changes`, () => {
        const member = new LoneMember();
        const before = member.node.status();
        member.step(input as Parameters<LoneMember['step']>[0]);
        const { dropped, ...after } = member.node.status();
        expect(dropped).to.deep.equal({ malformed: 1 });
        expect({ ...after, dropped: {} }).to.deep.equal(before);
        expect(member.take()).to.deep.equal([]);
      });
    }
  });
});
