/**
 * Whatever arrives: lies, leftovers and garbage in any order never stop a member, and never make it
 * break an invariant of its own. fast-check prints seed and counterexample on failure.
 */
import fc from 'fast-check';
import { EntryKind, encodeMembership, membershipOf, noReplica } from '../../raft/index.js';
import type { Entry, Message } from '../../raft/index.js';
import { describeMessage } from '../../raft/describe.js';
import { checkMember } from '../../raft/invariants.js';
import { LoneMember, members, stateWith, voters } from './lone-member.js';

/** A message as it could come out of a decoder that checks nothing. */
const asMessage = (fields: object): Message => fields as Message;

const small = fc.nat(7);
const odd = fc.constantFrom(-1, 0.5, NaN, Infinity, 2 ** 53);
/** Mostly a number that makes sense, now and then one that does not. */
const number = fc.oneof({ weight: 60, arbitrary: small }, { weight: 1, arbitrary: odd });
const boolean = fc.boolean();
const context = fc.constantFrom('a', 'b', '', 'x'.repeat(300));

const payload = fc.oneof(
  fc.constant(new Uint8Array(0)),
  fc.uint8Array({ maxLength: 4 }),
  fc.constant(encodeMembership(membershipOf(members(1, 2, 4)))),
  fc.constant(encodeMembership(membershipOf(members(1, 2), members(3)))),
);

const kinds = Object.values(EntryKind);

/** Entries behind `prevIndex`; their terms rise, unless `broken` says otherwise. */
const content = fc
  .record({
    prevIndex: small,
    prevTerm: small,
    broken: fc.integer({ min: 0, max: 20 }),
    rises: fc.array(fc.record({ rise: fc.nat(2), kind: fc.constantFrom(...kinds), payload }), {
      maxLength: 4,
    }),
  })
  .map(({ prevIndex, prevTerm, broken, rises }) => {
    let term = Math.max(prevTerm, 1);
    const entries: Entry[] = rises.map(({ rise, kind, payload: bytes }, at) => {
      term += at === 0 || broken !== 1 ? rise : -1;
      return { index: prevIndex + 1 + at + (broken === 2 ? at : 0), term, kind, data: bytes };
    });
    return { prevIndex, prevTerm, entries };
  });

const snapshot = fc.record({ index: number, term: number, at: small }).map((image) => ({
  index: image.index,
  term: image.term,
  membership: { index: image.at, membership: voters(1, 2, 3) },
}));

const body: fc.Arbitrary<object> = fc.oneof(
  fc
    .record({ lastIndex: number, lastTerm: number, transfer: boolean })
    .chain((fields) =>
      fc.constantFrom('vote', 'preVote').map((type): object => ({ type, ...fields })),
    ),
  fc
    .tuple(fc.constantFrom('voteReply', 'preVoteReply'), boolean)
    .map(([type, granted]): object => ({ type, granted })),
  fc.tuple(content, number).map(([entries, commit]) => ({ type: 'append', commit, ...entries })),
  fc.record({
    type: fc.constant('appendReply'),
    index: number,
    rejected: boolean,
    hintIndex: number,
    hintTerm: number,
  }),
  fc.record({ type: fc.constant('heartbeat'), commit: number, round: number, quiet: boolean }),
  fc.record({ type: fc.constant('heartbeatReply'), round: number }),
  snapshot.map((image) => ({ type: 'snapshot', snapshot: image })),
  fc.constant({ type: 'timeoutNow', reserved: 0 }),
  fc.record({ type: fc.constant('readIndex'), context }),
  fc.record({ type: fc.constant('readIndexReply'), context, index: number, refused: boolean }),
  fc.constant({ type: 'unheard-of' }),
);

const message = fc
  .tuple(body, fc.record({ from: fc.integer({ min: 0, max: 4 }), to: fc.constant(1) }), number)
  .map(([fields, ends, term]) => asMessage({ ...fields, ...ends, term }));

type Act = (member: LoneMember) => void;

/** Leads from here on, unless its disk is held or it may not. */
function elect(member: LoneMember): void {
  member.do((node) => node.campaign());
  for (const from of [2, 3]) member.answer(from, { type: 'voteReply', granted: true });
}

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 12,
    arbitrary: message.map(
      (sent): Act =>
        (member) =>
          member.step(sent),
    ),
  },
  // In its own term, so that it is not only the term gate that is tried.
  {
    weight: 12,
    arbitrary: message.map((sent): Act => (member) => {
      member.step(asMessage({ ...sent, term: member.node.term }));
    }),
  },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 25 }).map((count): Act => tickBy(count)) },
  { weight: 2, arbitrary: fc.constant<Act>((member) => member.do((node) => node.campaign())) },
  { weight: 2, arbitrary: fc.constant<Act>(elect) },
  {
    weight: 2,
    arbitrary: fc.constant<Act>((member) =>
      member.do((node) => {
        node.propose(Uint8Array.of(1));
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constant<Act>((member) => {
      if (member.batch !== undefined) member.persist();
      member.holdsPersist = !member.holdsPersist;
    }),
  },
);

const tickBy =
  (count: number): Act =>
  (member) =>
    member.tick(count);

describe('remote input', () => {
  it('of any kind and in any order never throws, and leaves every invariant of a member whole', () => {
    const options = fc.record({ preVote: boolean, checkQuorum: boolean });
    fc.assert(
      fc.property(options, fc.array(act, { minLength: 5, maxLength: 60 }), (more, acts) => {
        const hardState = { term: 2, vote: noReplica, commit: 2 };
        const member = new LoneMember(more, stateWith([1, 1, 2], { hardState }));
        let before = member.node.status();
        for (const next of acts) {
          next(member);
          const now = member.node.status();
          checkMember(now, before);
          before = now;
        }
      }),
      { numRuns: 1500 },
    );
  });

  it('can be described in a log line, whatever it is', () => {
    fc.assert(
      fc.property(message, (sent) => {
        describeMessage(sent);
      }),
      { numRuns: 500 },
    );
  });
});
