/**
 * Who is in the group, and how that changes: always through a joint configuration (paper §6, thesis
 * §4.3), one way for every change. A change is computed from the membership in force, goes into the
 * log as an entry, and is in force from the moment it is appended.
 *
 *   plain C  --enterChange-->  joint (C-new incoming, C outgoing)  --leaveJoint-->  plain C-new
 *
 * Members learn of it one after the other, so for a while some count by C, some by the joint one. Both
 * need a majority of C: they cannot decide twice. The same holds for the second step and C-new. From C
 * to C-new directly there may be two majorities with nobody in common (paper, figure 10).
 *
 * Everything here is a pure function of its arguments: all members must come to the same membership.
 */
import { assert } from './assert.js';
import { nodeId, replicaId, type Member, type Membership, type ReplicaId } from './types.js';

/** Of the bytes (rule D16): an unknown one is refused, and never guessed at. */
const version = 1;

const byId = (a: ReplicaId, b: ReplicaId): number => a - b;

function sorted(ids: Iterable<ReplicaId>): readonly ReplicaId[] {
  return [...new Set(ids)].sort(byId);
}

/** One node for each replica named, whichever list names it; `places` may hold more. */
function build(fields: Omit<Membership, 'members'>, places: Iterable<Member>): Membership {
  const { incoming, outgoing, learners, learnersNext } = fields;
  const wanted = sorted([...incoming, ...outgoing, ...learners, ...learnersNext]);
  const nodes = new Map([...places].map((member) => [member.id, member.node]));
  const members = wanted.map((id) => {
    const node = nodes.get(id);
    assert(node !== undefined, () => `membership: replica ${id} has no node`);
    return { id, node };
  });
  return { ...fields, members };
}

/** A membership that is not joint. Members in any order, no replica twice. */
export function membershipOf(
  voters: readonly Member[],
  learners: readonly Member[] = [],
): Membership {
  return build(
    {
      incoming: sorted(voters.map((member) => member.id)),
      outgoing: [],
      learners: sorted(learners.map((member) => member.id)),
      learnersNext: [],
      autoLeave: false,
    },
    [...voters, ...learners],
  );
}

/** In the middle of a change: both sides must agree to everything. */
export function isJoint(membership: Membership): boolean {
  return membership.outgoing.length > 0;
}

/** Counted in some quorum: in a joint configuration also those who are about to leave. */
export function isVoter(membership: Membership, id: ReplicaId): boolean {
  return membership.incoming.includes(id) || membership.outgoing.includes(id);
}

/** Voter or learner, coming or going. Strangers are not answered (rule D01). */
export function isMember(membership: Membership, id: ReplicaId): boolean {
  return membership.members.some((member) => member.id === id);
}

/** What is wanted; whoever is named nowhere stays what it is. */
export interface Change {
  readonly addVoters: readonly Member[];
  readonly addLearners: readonly Member[];
  readonly remove: readonly ReplicaId[];
}

/**
 * The joint configuration that begins a change, or the plain one when no voter is touched;
 * undefined when the change is impossible (joint already, unknown replica, nobody left, nothing to
 * do). A learner named in `addVoters` is promoted.
 */
export function enterChange(membership: Membership, change: Change): Membership | undefined {
  if (isJoint(membership)) return undefined;
  const { addVoters, addLearners, remove } = change;
  const known = (id: ReplicaId): boolean => isMember(membership, id);
  // A replica never moves: on another node it is another replica (rule D01).
  const moves = ({ id, node }: Member): boolean =>
    membership.members.some((member) => member.id === id && member.node !== node);
  if (addVoters.some(moves)) return undefined;
  if (!remove.every(known) || addLearners.some(({ id }) => known(id))) return undefined;
  const removed = new Set(remove);
  const promoted = new Set(addVoters.map(({ id }) => id));
  if ([...promoted].some((id) => removed.has(id) || membership.incoming.includes(id)))
    return undefined;
  if (addLearners.some(({ id }) => promoted.has(id))) return undefined;
  const incoming = sorted([...membership.incoming.filter((id) => !removed.has(id)), ...promoted]);
  const learners = sorted([
    ...membership.learners.filter((id) => !removed.has(id) && !promoted.has(id)),
    ...addLearners.map(({ id }) => id),
  ]);
  // A group of nobody could never decide to be anything else again.
  if (incoming.length === 0) return undefined;
  const places = [...membership.members, ...addVoters, ...addLearners];
  const sameVoters =
    incoming.length === membership.incoming.length &&
    incoming.every((id) => membership.incoming.includes(id));
  if (sameVoters && learners.length === membership.learners.length && addLearners.length === 0) {
    return undefined;
  }
  // Learners are in no quorum: adding or removing them changes no majority and needs no joint step.
  const outgoing = sameVoters ? [] : membership.incoming;
  return build({ incoming, outgoing, learners, learnersNext: [], autoLeave: !sameVoters }, places);
}

/** The configuration after a joint one: the outgoing voters have no more say. */
export function leaveJoint(membership: Membership): Membership {
  assert(isJoint(membership), () => 'only a joint configuration can be left');
  const learners = sorted([...membership.learners, ...membership.learnersNext]);
  return build(
    { incoming: membership.incoming, outgoing: [], learners, learnersNext: [], autoLeave: false },
    membership.members,
  );
}

/**
 * Layout: version u8 = 1, flags u8 (1 = autoLeave), then four lists of replica ids (incoming,
 * outgoing, learners, learnersNext) and the list of (replica, node), each as count u16 and u32s,
 * all big-endian.
 */
export function encodeMembership(membership: Membership): Uint8Array {
  const { incoming, outgoing, learners, learnersNext, members } = membership;
  const lists = [incoming, outgoing, learners, learnersNext];
  const count = lists.reduce((sum, list) => sum + list.length, 0) + 2 * members.length;
  const bytes = new Uint8Array(2 + 5 * 2 + 4 * count);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, version);
  view.setUint8(1, membership.autoLeave ? 1 : 0);
  let at = 2;
  const put32 = (value: number): void => {
    view.setUint32(at, value);
    at += 4;
  };
  const putCount = (length: number): void => {
    view.setUint16(at, length);
    at += 2;
  };
  for (const list of lists) {
    putCount(list.length);
    for (const id of list) put32(id);
  }
  putCount(members.length);
  for (const { id, node } of members) {
    put32(id);
    put32(node);
  }
  return bytes;
}

/** Throws RangeError on malformed bytes and unknown versions, naming what is wrong. */
export function decodeMembership(bytes: Uint8Array): Membership {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint8(0) !== version) throw new RangeError(`membership version ${view.getUint8(0)}`);
  const flags = view.getUint8(1);
  if (flags > 1) throw new RangeError(`membership flags ${flags}`);
  let at = 2;
  const take32 = (): number => ((at += 4), view.getUint32(at - 4));
  const takeCount = (): number => ((at += 2), view.getUint16(at - 2));
  const takeIds = (): readonly ReplicaId[] => {
    const ids = Array.from({ length: takeCount() }, () => replicaId(take32()));
    if (ids.some((id, n) => n > 0 && id <= (ids[n - 1] ?? 0))) {
      throw new RangeError('membership lists ascend without duplicates');
    }
    return ids;
  };
  const [incoming, outgoing, learners, learnersNext] = [takeIds(), takeIds(), takeIds(), takeIds()];
  const members = Array.from({ length: takeCount() }, () => ({
    id: replicaId(take32()),
    node: nodeId(take32()),
  }));
  if (at !== bytes.byteLength) throw new RangeError('membership has trailing bytes');
  const named = sorted([...incoming, ...outgoing, ...learners, ...learnersNext]);
  if (named.length !== members.length || named.some((id, n) => members[n]?.id !== id)) {
    throw new RangeError('membership names a replica without a node, or a node without a replica');
  }
  if (learners.some((id) => incoming.includes(id) || outgoing.includes(id))) {
    throw new RangeError('membership has a voter that is a learner');
  }
  if (learnersNext.some((id) => incoming.includes(id) || !outgoing.includes(id))) {
    throw new RangeError('membership has a learner to be that does not leave the voters');
  }
  // Nobody at all is well-formed: so begins a replica that waits for its first log or snapshot.
  if (incoming.length === 0 && members.length > 0) throw new RangeError('membership has no voters');
  return { incoming, outgoing, learners, learnersNext, autoLeave: flags === 1, members };
}
