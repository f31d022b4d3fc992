/**
 * Brings the Raft membership of a shard to what the topology says: looked at again and again by
 * whoever leads, one step at a time, so that a leader that is lost in between is no special case.
 *
 *   add what is missing, as learners -> (the core promotes them) -> remove what is not named
 *
 * Nobody leaves before everybody named is a voter: a replica that is being replaced counts until its
 * successor does. But a node has one replica of a group at a time: where an old one is in the place of
 * one that is named, it goes first, or the other would never come.
 */
import {
  isJoint,
  noReplica,
  type Member,
  type Membership,
  type MembershipChange,
  type NodeId,
  type RaftStatus,
  type ReplicaId,
} from '../../raft/index.js';
import type { ReplicaRecord } from '../meta/topology.js';

export interface WantedMembers {
  /** Of the shard's record. */
  readonly replicas: readonly ReplicaRecord[];
  /** `next.replica` of the same topology: ids from here on are of a later one. */
  readonly issuedBelow: number;
  readonly isConnected: (node: NodeId) => boolean;
}

export type MembershipStep =
  | { readonly kind: 'change'; readonly change: MembershipChange }
  /** The leader is to leave: another one goes on from here. */
  | { readonly kind: 'handOver'; readonly to: ReplicaId };

type Staying = Pick<WantedMembers, 'replicas' | 'isConnected'>;

type LeaderStatus = Pick<
  RaftStatus,
  'id' | 'role' | 'commitIndex' | 'membership' | 'transferTo' | 'progress'
>;

/** The voters are those named and nobody else: there is no next step, whatever else is so. Cheap. */
export function isSettled(membership: Membership, replicas: readonly ReplicaRecord[]): boolean {
  return (
    !isJoint(membership) &&
    membership.members.length === replicas.length &&
    replicas.every(({ replica }) => membership.incoming.includes(replica))
  );
}

/** Undefined when there is nothing to do, or nothing that can be done just now. */
export function nextStep(status: LeaderStatus, wanted: WantedMembers): MembershipStep | undefined {
  if (!mayChange(status) || isOutdated(status, wanted)) return undefined;
  const { index: basedOn, membership } = status.membership;
  const unchanged = { basedOn, addVoters: [], addLearners: [], remove: [] };
  const present = new Set(membership.members.map(({ id }) => id));
  const inTheWay = membership.members.filter((member) => isInTheWay(member, wanted));
  if (inTheWay.length > 0) {
    const stay = membership.members.filter(
      (member) => membership.incoming.includes(member.id) && !inTheWay.includes(member),
    );
    return removal(
      status,
      inTheWay.map(({ id }) => id),
      stay.map(({ id, node }) => ({ replica: id, node })),
      wanted,
    );
  }
  const missing = wanted.replicas.filter(({ replica }) => !present.has(replica));
  if (missing.length > 0) {
    const addLearners = missing.map(({ replica, node }) => ({ id: replica, node }));
    return { kind: 'change', change: { ...unchanged, addLearners } };
  }
  if (!wanted.replicas.every(({ replica }) => membership.incoming.includes(replica)))
    return undefined;
  const named = new Set(wanted.replicas.map(({ replica }) => replica));
  const remove = [...present].filter((id) => !named.has(id));
  return remove.length === 0 ? undefined : removal(status, remove, wanted.replicas, wanted);
}

/** An old replica where another one is to be. */
function isInTheWay({ id, node }: Member, { replicas }: WantedMembers): boolean {
  const inPlace = replicas.find((each) => each.node === node);
  return inPlace !== undefined && inPlace.replica !== id;
}

/** `stay`: the voters afterwards. */
function removal(
  status: LeaderStatus,
  remove: readonly ReplicaId[],
  stay: readonly ReplicaRecord[],
  { isConnected }: WantedMembers,
): MembershipStep | undefined {
  const staying = { replicas: stay, isConnected };
  if (!majorityIsLive(status, staying)) return undefined;
  if (remove.includes(status.id)) return handOver(status, staying);
  const basedOn = status.membership.index;
  return { kind: 'change', change: { basedOn, addVoters: [], addLearners: [], remove } };
}

function mayChange({ role, transferTo, membership, commitIndex }: LeaderStatus): boolean {
  return (
    role === 'leader' &&
    transferTo === noReplica &&
    !isJoint(membership.membership) &&
    membership.index <= commitIndex
  );
}

/** A member has an id that the topology does not know yet: it would undo what a later one asked for. */
function isOutdated(
  { membership }: LeaderStatus,
  { replicas, issuedBelow }: WantedMembers,
): boolean {
  return replicas.length === 0 || membership.membership.members.some(({ id }) => id >= issuedBelow);
}

/** Those who stay can decide: otherwise a removal would never commit, and cost the group its quorum. */
function majorityIsLive({ id }: LeaderStatus, { replicas, isConnected }: Staying): boolean {
  const live = replicas.filter(({ replica, node }) => replica === id || isConnected(node));
  return live.length > replicas.length / 2;
}

/**
 * To the one that has most, and by equal logs to the first one named. It must have all that is
 * committed: no proposals are taken while the next leader catches up.
 */
function handOver(
  { progress, commitIndex }: LeaderStatus,
  { replicas, isConnected }: Staying,
): MembershipStep | undefined {
  let best: { readonly to: ReplicaId; readonly match: number } | undefined;
  for (const { replica, node } of replicas) {
    const peer = progress.find(({ id }) => id === replica);
    if (peer === undefined || peer.match < commitIndex || !isConnected(node)) continue;
    if (best === undefined || peer.match > best.match) best = { to: replica, match: peer.match };
  }
  return best === undefined ? undefined : { kind: 'handOver', to: best.to };
}
