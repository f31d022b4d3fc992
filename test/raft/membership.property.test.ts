/** Changes of membership: what must hold for any of them, and their bytes. */
import { expect } from 'chai';
import fc from 'fast-check';
import { decodeMembership, encodeMembership, isJoint, membershipOf } from '../../raft/index.js';
import type { Membership, ReplicaId } from '../../raft/index.js';
import { checkMembershipForm, everyQuorum } from '../../raft/invariants.js';
import { enterChange, leaveJoint } from '../../raft/membership.js';
import { ids, members } from './lone-member.js';

const numbers = Array.from({ length: 7 }, (_, at) => at + 1);
const some = (minLength = 0): fc.Arbitrary<number[]> => fc.subarray(numbers, { minLength });

const change = fc.tuple(some(), some(), some()).map(([voters, learners, gone]) => ({
  addVoters: members(...voters),
  addLearners: members(...learners),
  remove: ids(...gone),
}));

const changes = fc.array(change, { minLength: 1, maxLength: 12 });

/** All that follow from a start by possible changes, each joint one followed by its leaving. */
function chain(
  start: Membership,
  wanted: readonly Parameters<typeof enterChange>[1][],
): Membership[] {
  const list = [start];
  for (const next of wanted) {
    const current = list.at(-1) ?? start;
    const entered = enterChange(current, next);
    if (entered === undefined) continue;
    list.push(entered);
    if (isJoint(entered)) list.push(leaveJoint(entered));
  }
  return list;
}

/** Every set of replicas that decides something, by trying all; bit n stands for replica n + 1. */
function quorums(membership: Membership): number[] {
  const found: number[] = [];
  for (let set = 0; set < 1 << numbers.length; set++) {
    const holds = (id: ReplicaId): boolean => ((set >> (id - 1)) & 1) === 1;
    if (everyQuorum(membership, holds)) found.push(set);
  }
  // Only the smallest ones matter: a larger one shares whatever a smaller one shares.
  return found.filter((set) => !found.some((other) => other < set && (other & set) === other));
}

describe('membership', () => {
  it('two consecutive configurations always share a member of any two quorums', () => {
    fc.assert(
      fc.property(some(1), changes, (voters, wanted) => {
        const list = chain(membershipOf(members(...voters)), wanted);
        for (let at = 1; at < list.length; at++) {
          const [before, after] = [list[at - 1], list[at]];
          if (before === undefined || after === undefined) continue;
          for (const one of quorums(before)) {
            for (const other of quorums(after)) {
              expect(one & other, `${one.toString(2)} and ${other.toString(2)}`).to.not.equal(0);
            }
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('every one that a change leads to is well-formed and has voters', () => {
    fc.assert(
      fc.property(some(1), changes, (voters, wanted) => {
        for (const one of chain(membershipOf(members(...voters)), wanted)) {
          checkMembershipForm(one);
          expect(one.incoming.length).to.be.above(0);
          expect(one.autoLeave).to.equal(isJoint(one));
        }
      }),
    );
  });

  it('a change that only touches learners needs no joint configuration, any other one does', () => {
    fc.assert(
      fc.property(some(1), change, (voters, wanted) => {
        const start = membershipOf(members(...voters));
        const entered = enterChange(start, wanted);
        if (entered === undefined) return;
        const same = String(entered.incoming) === String(start.incoming);
        expect(isJoint(entered)).to.equal(!same);
        if (!same) expect(entered.outgoing).to.deep.equal(start.incoming);
        expect(enterChange(entered, wanted) === undefined || same).to.equal(true);
      }),
    );
  });

  it('a change ends with those who were wanted: added ones are in, removed ones gone, the others stay', () => {
    fc.assert(
      fc.property(some(1), change, (voters, wanted) => {
        const start = membershipOf(members(...voters));
        const entered = enterChange(start, wanted);
        if (entered === undefined) return;
        const end = isJoint(entered) ? leaveJoint(entered) : entered;
        const added = new Set(wanted.addVoters.map(({ id }) => id));
        const stays = start.incoming.filter((id) => !wanted.remove.includes(id));
        expect(end.incoming).to.have.members([...stays, ...added]);
        expect(end.outgoing).to.deep.equal([]);
        expect(end.learners).to.have.members(wanted.addLearners.map(({ id }) => id));
        expect(end.members.map(({ id }) => id)).to.have.members([...end.incoming, ...end.learners]);
      }),
    );
  });

  it('comes back from its bytes as it was', () => {
    fc.assert(
      fc.property(some(1), changes, (voters, wanted) => {
        for (const one of chain(membershipOf(members(...voters)), wanted)) {
          expect(decodeMembership(encodeMembership(one))).to.deep.equal(one);
        }
      }),
    );
  });

  it('so does the one of a replica that waits for its first log', () => {
    const nobody = membershipOf([]);
    expect(decodeMembership(encodeMembership(nobody))).to.deep.equal(nobody);
  });

  it('any bytes are decoded into a well-formed membership or refused by a RangeError', () => {
    const start = encodeMembership(membershipOf(members(1, 2, 3), members(4)));
    const damage = fc.array(fc.tuple(fc.nat(start.length - 1), fc.nat(255)), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(damage, fc.nat(start.length), (bytes, length) => {
        const damaged = Uint8Array.from(start);
        for (const [at, value] of bytes) damaged[at] = value;
        for (const given of [damaged, damaged.subarray(0, length)]) {
          let decoded: Membership;
          try {
            decoded = decodeMembership(given);
          } catch (error) {
            expect(error).to.be.instanceOf(RangeError);
            continue;
          }
          checkMembershipForm(decoded);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('the first byte of its bytes is the version, and an unknown one is refused (D16)', () => {
    const bytes = encodeMembership(membershipOf(members(1)));
    expect(bytes[0]).to.equal(1);
    bytes[0] = 2;
    expect(() => decodeMembership(bytes)).to.throw(RangeError, 'version 2');
  });
});
