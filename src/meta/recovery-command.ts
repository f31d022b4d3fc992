/**
 * What a forced recovery (rule D07) means for the topology. The Raft group has one member already; the
 * record follows it, and the usual repair builds the others anew, under new ids, wherever there is
 * room. Whoever of the lost comes back finds that it has no place any more, and drops what it had.
 */
import { groupId, nodeId, replicaId } from '../../raft/index.js';
import type { CommandOf } from './commands.js';
import {
  changed,
  isRefusal,
  presentNode,
  presentShard,
  refused,
  unchanged,
  withShard,
} from './effect.js';
import type { Effect } from './effect.js';
import { endReplacementOf } from './operations.js';
import { generationOf, type ReplicaRecord, type Topology } from './topology.js';

/**
 * What the lost majority of the metadata group did alone is forgotten: versions it has told to nodes,
 * and ids it gave out, which must never be given out again (rule D01). More than it can have done.
 */
const forgottenMax = 1_000_000;

export function applyRecoverGroup(topology: Topology, command: CommandOf<'recoverGroup'>): Effect {
  const { group, generation, replica, node } = command;
  if (generation <= generationOf(topology, groupId(group))) return unchanged();
  if (!Number.isSafeInteger(generation))
    return refused('badGeneration', `a generation is an integer, got ${generation}`);
  const host = presentNode(topology, node);
  if (isRefusal(host)) return host;
  const survivor: ReplicaRecord = { replica: replicaId(replica), node: nodeId(node) };
  if (group === 0) return changed(recoverMetadata(topology, survivor, generation));
  const shard = presentShard(topology, group);
  if (isRefusal(shard)) return shard;
  const { next } = topology;
  const issued = { ...topology, next: { ...next, replica: Math.max(next.replica, replica + 1) } };
  const ended = endReplacementOf(issued, shard.id);
  return changed(withShard(ended, { ...shard, replicas: [survivor], generation }));
}

function recoverMetadata(
  topology: Topology,
  survivor: ReplicaRecord,
  generation: number,
): Topology {
  const { node, replica, shard, operation } = topology.next;
  return {
    ...topology,
    version: topology.version + forgottenMax,
    metadata: [survivor],
    generation,
    next: {
      node: node + forgottenMax,
      replica: replica + forgottenMax,
      shard: shard + forgottenMax,
      operation: operation + forgottenMax,
    },
  };
}
