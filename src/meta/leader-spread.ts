/**
 * Who of its replicas is to lead each shard, so that each node leads its share by weight. Taking the
 * one that leads least, shard by shard, ends two to five apart: the last shards may have no replica
 * where leaders are wanting. So leads are passed on along chains, a -> b -> c, where b takes one from a
 * and gives one to c, as long as that evens them out. Pure; the order of the input decides ties.
 */
import type { NodeId } from '../../raft/index.js';

interface Node {
  readonly id: NodeId;
  readonly weight: number;
  leads: number;
}

/** One chain: a shard that goes from its leader to the next node, and so on. */
type Chain = readonly { readonly shard: number; readonly to: Node }[];

/**
 * The same lists, each with its leader first; the first of a list leads it so far. Ends because each
 * chain lowers the sum of leads squared by weight.
 */
export function spreadLeaders(
  shards: readonly (readonly NodeId[])[],
  weights: ReadonlyMap<NodeId, number>,
): readonly (readonly NodeId[])[] {
  const nodes = new Map([...weights].map(([id, weight]) => [id, { id, weight, leads: 0 }]));
  const leaders = shards.map(([first]) => (first === undefined ? undefined : nodes.get(first)));
  for (const leader of leaders) if (leader !== undefined) leader.leads++;
  for (
    let chain = findChain(shards, leaders, nodes);
    chain.length > 0;
    chain = findChain(shards, leaders, nodes)
  ) {
    for (const { shard, to } of chain) {
      const before = leaders[shard];
      if (before !== undefined) before.leads--;
      to.leads++;
      leaders[shard] = to;
    }
  }
  return shards.map((replicas, at) => {
    const leader = leaders[at]?.id;
    return leader === undefined ? replicas : [leader, ...replicas.filter((id) => id !== leader)];
  });
}

/** From whoever leads most for its weight; empty when nothing evens out any more. */
function findChain(
  shards: readonly (readonly NodeId[])[],
  leaders: readonly (Node | undefined)[],
  nodes: ReadonlyMap<NodeId, Node>,
): Chain {
  const steps = stepsFrom(shards, leaders, nodes);
  const sources = [...nodes.values()].toSorted((a, b) => gain(b, -0.5) - gain(a, -0.5));
  for (const source of sources) {
    const chain = chainFrom(source, steps);
    if (chain.length > 0) return chain;
  }
  return [];
}

/** By leader: for each node that could lead one of its shards instead, one such shard. */
function stepsFrom(
  shards: readonly (readonly NodeId[])[],
  leaders: readonly (Node | undefined)[],
  nodes: ReadonlyMap<NodeId, Node>,
): ReadonlyMap<Node, ReadonlyMap<Node, number>> {
  const steps = new Map<Node, Map<Node, number>>();
  shards.forEach((replicas, shard) => {
    const leader = leaders[shard];
    if (leader === undefined) return;
    const others = steps.get(leader) ?? new Map<Node, number>();
    steps.set(leader, others);
    for (const id of replicas) {
      const other = nodes.get(id);
      if (other !== undefined && other !== leader && !others.has(other)) others.set(other, shard);
    }
  });
  return steps;
}

/** Breadth first: a shortest chain to whoever leads least for its weight among all it reaches. */
function chainFrom(source: Node, steps: ReadonlyMap<Node, ReadonlyMap<Node, number>>): Chain {
  const chains = new Map<Node, Chain>([[source, []]]);
  let target = source;
  for (const [from, chain] of chains) {
    for (const [to, shard] of steps.get(from) ?? []) {
      if (chains.has(to)) continue;
      chains.set(to, [...chain, { shard, to }]);
      if (target === source || gain(to, 0.5) < gain(target, 0.5)) target = to;
    }
  }
  const evensOut = target !== source && gain(target, 0.5) < gain(source, -0.5);
  return evensOut ? (chains.get(target) ?? []) : [];
}

function gain({ leads, weight }: Node, step: number): number {
  return (leads + step) / weight;
}
