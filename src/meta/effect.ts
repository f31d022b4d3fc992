/** What one command does to the topology, before versions are counted. */
import type { Issued, Refusal, RefusalReason } from './commands.js';
import {
  hostOf,
  nodeOf,
  shardRecordOf,
  type NodeRecord,
  type ReplicaRecord,
  type ShardRecord,
  type Topology,
} from './topology.js';

export type Effect =
  | { readonly kind: 'changed'; readonly topology: Topology; readonly issued: Issued }
  | { readonly kind: 'unchanged'; readonly issued: Issued }
  | Refusal;

export function changed(topology: Topology, issued: Issued = {}): Effect {
  return { kind: 'changed', topology, issued };
}

export function unchanged(issued: Issued = {}): Effect {
  return { kind: 'unchanged', issued };
}

export function refused(reason: RefusalReason, message: string): Refusal {
  return { kind: 'refused', reason, message };
}

export function isRefusal(value: object): value is Refusal {
  return 'kind' in value && value.kind === 'refused';
}

/** A node that is there and not removed. */
export function presentNode(topology: Topology, id: number): NodeRecord | Refusal {
  const node = nodeOf(topology, id);
  if (node === undefined)
    return refused(
      'unknownNode',
      `there is no node ${id} in cluster '${topology.clusterId}': list the nodes to find its id`,
    );
  if (node.state === 'removed')
    return refused(
      'nodeRemoved',
      `node ${id} was removed and its id is not used again: ` +
        'clear its data directory and let it join as a new node',
    );
  return node;
}

/** A node that may be given replicas. */
export function receivingNode(topology: Topology, id: number): NodeRecord | Refusal {
  const node = presentNode(topology, id);
  if (isRefusal(node) || node.state === 'up') return node;
  return refused(
    'nodeNotUp',
    `node ${id} is ${node.state} and gets no replicas: choose a node that is up, or ` +
      (node.state === 'draining' ? 'undrain it first' : 'bring it back first'),
  );
}

/** Never two replicas where one failure takes both. */
export function companion(
  topology: Topology,
  replicas: readonly ReplicaRecord[],
  node: NodeRecord,
  what: string,
): Refusal | undefined {
  const host = hostOf(node);
  for (const { node: id } of replicas) {
    const other = nodeOf(topology, id);
    if (other === undefined || hostOf(other) !== host) continue;
    if (other.id === node.id)
      return refused(
        'sharedHost',
        `node ${node.id} has a replica of ${what} already: choose a node that has none`,
      );
    return refused(
      'sharedHost',
      `node ${node.id} is on the ${host} as node ${other.id}, which has a replica of ${what} ` +
        'already: choose a node of another host',
    );
  }
  return undefined;
}

export function presentShard(topology: Topology, id: number): ShardRecord | Refusal {
  return (
    shardRecordOf(topology, id) ??
    refused(
      'unknownShard',
      `there is no shard ${id} in cluster '${topology.clusterId}': list the shards to find its id`,
    )
  );
}

export function withNode(topology: Topology, node: NodeRecord): Topology {
  return {
    ...topology,
    nodes: topology.nodes.map((each) => (each.id === node.id ? node : each)),
  };
}

export function withShard(topology: Topology, shard: ShardRecord): Topology {
  return {
    ...topology,
    shards: topology.shards.map((each) => (each.id === shard.id ? shard : each)),
  };
}
