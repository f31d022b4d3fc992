/**
 * On which nodes the metadata group is to be: on 3 as soon as there are nodes of 3 hosts, on 5 with 5,
 * on 3 again when one of 5 is lost and there is nobody in its place, and not on those that are lost or
 * drained. Pure.
 */
import type { NodeId } from '../../raft/index.js';
import { runningDrain } from '../meta/operations.js';
import { hostOf, nodeOf, type NodeRecord, type Topology } from '../meta/topology.js';

/**
 * Beyond five another replica costs more time than it brings safety, and one more than an odd number
 * lets no more of them fail.
 */
const sizes = [5, 3];

export interface MetadataSurroundings {
  readonly topology: Topology;
  readonly isConnected: (node: NodeId) => boolean;
  /** Down for so long, or drained, that its replica is to be elsewhere. */
  readonly isLeaving: (node: NodeRecord) => boolean;
  /** Its replica is a voter; one that leaves before it became one goes first, nobody else could. */
  readonly isVoter: (node: NodeId) => boolean;
}

/**
 * The nodes that setMetadata is to name; undefined when the group is where it should be, or nothing can
 * be done about that now. Those that leave are replaced one after the other, because with each there is
 * one voter more for a while. So all those who stay must be there.
 */
export function nextMetadata(surroundings: MetadataSurroundings): readonly NodeId[] | undefined {
  const { topology, isConnected, isLeaving, isVoter } = surroundings;
  const present = topology.metadata.flatMap(({ node }) => nodeOf(topology, node) ?? []);
  const stay = present.filter((node) => !isLeaving(node));
  if (!stay.every(({ id }) => isConnected(id))) return undefined;
  const leaving = present.filter(isLeaving);
  const gone = leaving.find(({ id }) => !isVoter(id)) ?? leaving[0];
  const preferred = gone === undefined ? undefined : runningDrain(topology, gone.id)?.to;
  const others = newHosts(surroundings, stay, preferred);
  const [substitute] = others;
  const size = sizes.find((each) => each <= stay.length + others.length) ?? 0;
  if (gone !== undefined && substitute !== undefined)
    return present.map((node) => (node === gone ? substitute : node).id);
  if (gone !== undefined) return size === 0 ? undefined : stay.slice(0, size).map(({ id }) => id);
  const more = others.slice(0, Math.max(0, size - stay.length));
  return more.length === 0 ? undefined : [...stay, ...more].map(({ id }) => id);
}

/** One node of each host where none of those is: the preferred one first, then those with more weight. */
function newHosts(
  { topology, isConnected }: MetadataSurroundings,
  stay: readonly NodeRecord[],
  preferred: NodeId | undefined,
): readonly NodeRecord[] {
  const taken = new Set(stay.map(hostOf));
  const candidates = topology.nodes
    .filter(({ id, state }) => state === 'up' && isConnected(id))
    .toSorted((a, b) => b.weight - a.weight || a.id - b.id)
    .toSorted((a, b) => Number(b.id === preferred) - Number(a.id === preferred));
  return candidates.filter((node) => {
    const isNew = !taken.has(hostOf(node));
    taken.add(hostOf(node));
    return isNew;
  });
}
