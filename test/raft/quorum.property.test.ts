/** The deciding rules against counting. fast-check prints seed and counterexample on failure. */
import { expect } from 'chai';
import fc from 'fast-check';
import { committedIndex, membershipOf, voteResult } from '../../raft/index.js';
import type { Membership, ReplicaId } from '../../raft/index.js';
import { ids, members } from './lone-member.js';

const numbers = Array.from({ length: 9 }, (_, at) => at + 1);
const someIds = (minLength: number): fc.Arbitrary<number[]> => fc.subarray(numbers, { minLength });

const memberships: fc.Arbitrary<Membership> = fc
  .tuple(someIds(1), fc.oneof(fc.constant<number[]>([]), someIds(1)))
  .map(([incoming, outgoing]) => ({
    ...membershipOf(members(...incoming)),
    outgoing: ids(...outgoing),
    members: members(...numbers.filter((id) => incoming.includes(id) || outgoing.includes(id))),
  }));

/** More than half of one side, by counting. */
function isMajority(side: readonly ReplicaId[], holds: (id: ReplicaId) => boolean): boolean {
  return side.filter(holds).length * 2 > side.length;
}

function isQuorum(membership: Membership, holds: (id: ReplicaId) => boolean): boolean {
  const sides = [membership.incoming, membership.outgoing].filter((side) => side.length > 0);
  return sides.every((side) => isMajority(side, holds));
}

describe('quorum', () => {
  it('the committed index is the highest that a quorum has, for any match indexes', () => {
    const matches = fc.array(fc.nat(6), { minLength: 10, maxLength: 10 });
    fc.assert(
      fc.property(memberships, matches, (membership, match) => {
        const matchOf = (id: ReplicaId): number => match[id] ?? 0;
        const candidates = [0, 1, 2, 3, 4, 5, 6];
        const held = candidates.filter((index) =>
          isQuorum(membership, (id) => matchOf(id) >= index),
        );
        expect(committedIndex(membership, matchOf)).to.equal(Math.max(...held));
      }),
      { numRuns: 2000 },
    );
  });

  it('a vote is won when a quorum granted it, lost when none can any more', () => {
    const answers = fc.array(fc.constantFrom(true, false, undefined), {
      minLength: 10,
      maxLength: 10,
    });
    fc.assert(
      fc.property(memberships, answers, (membership, answer) => {
        const answerOf = (id: ReplicaId): boolean | undefined => answer[id];
        const won = isQuorum(membership, (id) => answerOf(id) === true);
        const winnable = isQuorum(membership, (id) => answerOf(id) !== false);
        const expected = won ? 'won' : winnable ? 'pending' : 'lost';
        expect(voteResult(membership, answerOf)).to.equal(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it('nobody commits nothing', () => {
    expect(committedIndex(membershipOf([]), () => 9)).to.equal(0);
  });
});
