/** The handle: options it refuses, the order of a driver's duties, and what it says of itself. */
import { expect } from 'chai';
import {
  RaftInvariantError,
  RawNode,
  membershipOf,
  newGroupState,
  noReplica,
  replicaId,
} from '../../raft/index.js';
import type { RaftOptions } from '../../raft/index.js';
import {
  LoneMember,
  append,
  entry,
  heartbeat,
  members,
  message,
  stateWith,
  usualOptions,
  voters,
} from './lone-member.js';

const payload = Uint8Array.of(7);

function leader(more: Partial<RaftOptions> = {}): LoneMember {
  const member = new LoneMember(more);
  member.lead([2, 3]);
  return member;
}

describe('raw node', () => {
  describe('construction', () => {
    const impossible: readonly (readonly [string, Partial<RaftOptions>])[] = [
      ['refuses heartbeats that are not more frequent than elections', { heartbeatTicks: 10 }],
      ['refuses no time between heartbeats', { heartbeatTicks: 0 }],
      [
        'R31: refuses a lease as long as an election timeout',
        { leaseTicks: 10, checkQuorum: true },
      ],
      ['refuses a lease without check-quorum', { leaseTicks: 6 }],
      ['refuses messages that hold nothing', { messageBytesMax: 0 }],
      ['refuses a window for no message', { inflightMessagesMax: 0 }],
      ['refuses no patience with its disk', { stalledTicksMax: 0 }],
    ];
    for (const [name, options] of impossible) {
      it(name, () => {
        expect(() => new LoneMember(options)).to.throw(RaftInvariantError);
      });
    }

    const damaged: readonly (readonly [string, Parameters<typeof stateWith>[1]])[] = [
      [
        'refuses a commit index beyond the log',
        { hardState: { term: 1, vote: noReplica, commit: 9 } },
      ],
      ['D13: refuses a state machine behind a compacted log', { firstIndex: 2, appliedIndex: 0 }],
      ['refuses a group without a membership', { memberships: [] }],
      ['refuses a log without terms', { termRuns: [] }],
    ];
    for (const [name, state] of damaged) {
      it(name, () => {
        expect(() => new LoneMember({}, stateWith([1, 1], state))).to.throw(RaftInvariantError);
      });
    }

    it('D15: keeps the log of a crash in mid install, and promises nothing in its term', () => {
      const state = stateWith([3, 3], { hardState: { term: 2, vote: replicaId(2), commit: 0 } });
      const { node } = new LoneMember({}, state);
      expect(node.status()).to.include({ term: 3, vote: noReplica, lastIndex: 2 });
    });

    it('a replica that knows nobody yet waits for its first append', () => {
      const member = new LoneMember({}, newGroupState(membershipOf([])));
      member.tick(100);
      expect(member.take()).to.deep.equal([]);
      member.step(message(2, 1, append([0, 0], [entry(1, 1)], 1)));
      expect(member.take('appendReply')[0]).to.include({ rejected: false, index: 1 });
    });
  });

  describe('a Ready', () => {
    it('is there only when there is something to do, and takes it away', () => {
      const node = new RawNode({ ...usualOptions, id: replicaId(1) }, stateWith([]));
      expect(node.hasReady()).to.equal(false);
      node.campaign();
      expect(node.hasReady()).to.equal(true);
      const { hardState } = node.ready();
      expect(hardState).to.include({ term: 1, vote: 1 });
      expect(node.hasReady(), 'the batch is out').to.equal(false);
    });

    it('holds one persist batch at a time; all else keeps flowing (thesis §10.2.1)', () => {
      const member = leader();
      member.holdsPersist = true;
      member.do((node) => node.propose(payload));
      const { batch } = member;
      expect(batch?.entries.map(({ index }) => index)).to.deep.equal([2]);
      member.take();
      member.do((node) => node.propose(payload));
      member.tick(2);
      expect(member.batch, 'still the first').to.equal(batch);
      expect(member.take('append').map(({ prevIndex }) => prevIndex)).to.deep.equal([2, 2]);
      member.persist();
      expect(member.batch?.entries.map(({ index }) => index)).to.deep.equal([3]);
    });

    it('gathers all proposals of a turn in one append, and one batch', () => {
      const member = leader();
      member.holdsPersist = true;
      member.do((node) => {
        for (let count = 0; count < 5; count++) node.propose(payload);
      });
      expect(member.take('append').map(({ entries }) => entries.length)).to.deep.equal([5, 5]);
      expect(member.batch?.entries).to.have.length(5);
    });

    it('has no write for a commit index alone', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1)])));
      member.holdsPersist = true;
      member.step(message(2, 1, heartbeat(1)));
      expect(member.node.commitIndex).to.equal(1);
      expect(member.batch).to.equal(undefined);
    });

    it('gives the state machine one portion at a time, however much is committed', () => {
      const member = leader();
      member.holdsApply = true;
      member.do((node) => node.propose(payload));
      member.acknowledge(2);
      member.do((node) => node.propose(payload));
      member.acknowledge(2);
      expect(member.applied.map(({ index }) => index)).to.deep.equal([1, 2]);
      member.do((node) => node.applied(2));
      expect(member.applied.map(({ index }) => index)).to.deep.equal([1, 2, 3]);
    });

    it('gives it portions of 64 KiB, so that none holds the event loop up for long', () => {
      const member = leader();
      member.holdsApply = true;
      for (let round = 0; round < 3; round++) {
        member.do((node) => {
          for (let n = 0; n < 30; n++) node.propose(Buffer.alloc(1000));
        });
        member.acknowledge(2);
      }
      const portions: number[] = [];
      for (let before = 0; member.applied.length > before;) {
        const portion = member.applied.slice(before);
        before = member.applied.length;
        portions.push(portion.reduce((sum, { data }) => sum + data.byteLength, 0));
        member.do((node) => node.applied(portion.at(-1)?.index ?? 0));
      }
      expect(portions.reduce((sum, each) => sum + each)).to.equal(90_000);
      expect(Math.max(...portions)).to.be.within(32 * 1024, 64 * 1024);
    });

    it('keeps a promise back while it is being written, also one that needs no write', () => {
      const member = new LoneMember();
      member.step(message(2, 1, append([0, 0], [entry(1, 1)])));
      member.take();
      member.holdsPersist = true;
      member.step(message(2, 1, append([1, 1], [entry(2, 1)])));
      member.step(message(2, 1, append([0, 0], [entry(1, 1)])));
      expect(member.take('appendReply')).to.deep.equal([]);
      member.persist();
      expect(member.take('appendReply').map(({ index }) => index)).to.deep.equal([2, 1]);
    });
  });

  describe('completions', () => {
    it('answer what is out, and nothing else', () => {
      const { node } = leader();
      expect(() => node.persisted(undefined)).to.throw(RaftInvariantError);
      expect(() => node.applied(2)).to.throw(RaftInvariantError);
      expect(() => node.compacted(3)).to.throw(RaftInvariantError);
      expect(() => node.elapse(-1)).to.throw(RaftInvariantError);
      expect(() => node.elapse(0.5)).to.throw(RaftInvariantError);
    });

    it('D12: entries to apply that are not on disk break an invariant', () => {
      const hardState = { term: 1, vote: noReplica, commit: 2 };
      const member = new LoneMember({}, stateWith([1, 1], { tail: [], hardState }));
      member.do(() => undefined);
      const [fetch] = member.fetches;
      if (fetch === undefined) throw new Error('not fetched');
      expect(() => member.node.entriesFetched(fetch, [])).to.throw(RaftInvariantError);
    });

    it('that come too late change nothing', () => {
      const member = leader();
      const { node } = member;
      const before = node.status();
      node.snapshotSent({ to: replicaId(2), index: 1, ok: false });
      node.entriesFetched({ purpose: 'send', to: replicaId(2), from: 1 }, []);
      node.unreachable(replicaId(9));
      const membership = { index: 0, membership: voters(1, 2, 3) };
      node.restored({ index: 5, term: 1, membership }, true);
      expect(node.status()).to.deep.equal(before);
    });
  });

  describe('what it says of itself', () => {
    it('only a leader offers snapshots, and only in its own term', () => {
      const membership = { index: 0, membership: voters(1, 2, 3) };
      const snapshot = { index: 1, term: 1, membership };
      const member = leader();
      expect(member.node.snapshotMessage(replicaId(2), snapshot)).to.include({ term: 1, to: 2 });
      member.step(message(2, 2, heartbeat()));
      expect(member.node.snapshotMessage(replicaId(3), snapshot)).to.equal(undefined);
    });

    it('whoever does not lead refuses changes and transfers, and names the leader', () => {
      const member = new LoneMember();
      member.step(message(2, 1, heartbeat()));
      const change = { basedOn: 0, addVoters: members(4), addLearners: [], remove: [] };
      expect(member.node.proposeMembership(change)).to.deep.equal({
        kind: 'notLeader',
        leader: 2,
      });
      expect(member.node.transferLeadership(replicaId(3))).to.equal(false);
      expect(member.node.leaseValid(1)).to.equal(false);
      expect(member.node.membershipAt(0)).to.deep.equal(member.node.membership);
    });

    it('a status is a copy: it does not change with the member', () => {
      const member = leader();
      const before = member.node.status();
      const { lastIndex, dropped } = structuredClone(before);
      member.do((node) => node.propose(payload));
      member.step(message(2, 1, heartbeat()));
      expect(member.node.status().dropped).to.not.deep.equal(dropped);
      expect(before).to.deep.include({ lastIndex, dropped });
    });
  });
});
