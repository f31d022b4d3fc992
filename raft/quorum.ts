/**
 * The deciding rules, pure: which index (or round) a majority has reached, and how a vote stands;
 * over one set of voters, and over a joint configuration, where both sets must agree (paper §6).
 *
 * All of Raft's safety rests on one property of these: any two quorums of a membership share a member,
 * and so do those of a joint one and of either of its sides. Whoever was told of a decision is then
 * heard in the next. `test/raft/membership.property.test.ts` tries it for all quorums.
 */
import type { Membership, ReplicaId } from './types.js';

/** `pending`: the answers still missing can turn it either way. */
export type VoteResult = 'won' | 'lost' | 'pending';

/** Preallocated: sorting a copy per acknowledgement was 7 times slower. */
const scratch: number[] = [];

/** The highest number that more than half of the voters have reached or passed. */
function majorityReached(voters: readonly ReplicaId[], reached: (id: ReplicaId) => number): number {
  const count = voters.length;
  // No voters, no restriction: the other half of a configuration that is not joint.
  if (count === 0) return Infinity;
  scratch.length = count;
  for (let n = 0; n < count; n++) {
    const id = voters[n];
    // Insertion sort, descending: groups have a handful of members.
    const value = id === undefined ? 0 : reached(id);
    let at = n;
    while (at > 0 && (scratch[at - 1] ?? 0) < value) {
      scratch[at] = scratch[at - 1] ?? 0;
      at--;
    }
    scratch[at] = value;
  }
  // The majority's smallest member: at position floor(count / 2) of the descending order.
  return scratch[count >> 1] ?? 0;
}

/**
 * The highest number that a majority of each active voter set has reached; 0 with no voters at all.
 * Indexes for the commit (paper, figure 2, leaders), round numbers for reads: both only rise, so who
 * has reached a number has reached all below it. Learners are in neither set.
 */
export function committedIndex(membership: Membership, reached: (id: ReplicaId) => number): number {
  const incoming = majorityReached(membership.incoming, reached);
  const outgoing = majorityReached(membership.outgoing, reached);
  const both = Math.min(incoming, outgoing);
  return both === Infinity ? 0 : both;
}

/** As soon as nothing that is missing can change it. */
function majorityVote(
  voters: readonly ReplicaId[],
  vote: (id: ReplicaId) => boolean | undefined,
): VoteResult {
  if (voters.length === 0) return 'won';
  let granted = 0;
  let missing = 0;
  for (const id of voters) {
    const answer = vote(id);
    if (answer === undefined) missing++;
    else if (answer) granted++;
  }
  const majority = (voters.length >> 1) + 1;
  if (granted >= majority) return 'won';
  return granted + missing >= majority ? 'pending' : 'lost';
}

/**
 * How a vote stands. `vote`: true granted, false refused, undefined no answer yet. Lost when one side
 * is lost: the other cannot outvote it (paper §6).
 */
export function voteResult(
  membership: Membership,
  vote: (id: ReplicaId) => boolean | undefined,
): VoteResult {
  const incoming = majorityVote(membership.incoming, vote);
  const outgoing = majorityVote(membership.outgoing, vote);
  if (incoming === 'lost' || outgoing === 'lost') return 'lost';
  return incoming === 'won' && outgoing === 'won' ? 'won' : 'pending';
}
