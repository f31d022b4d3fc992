/** What one command does to the topology, before versions are counted. */
import type { Issued, Refusal, RefusalReason } from './commands.js';
import {
  nodeOf,
  shardRecordOf,
  type NodeRecord,
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
