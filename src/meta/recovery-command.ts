/**
 * What a forced recovery (rule D07) means for the topology. The Raft group has its members already; the
 * record follows it, and the usual repair builds the others anew, under new ids, wherever there is
 * room. Whoever of the lost comes back finds that it has no place any more, and drops what it had.
 *
 * Open migrations of a shard that was recovered stay open: what is decided about each slot is in the
 * log of the source, as much of it as its survivor has, and its leader goes on from there. Slots whose
 * handover was recorded stay with the target in the map, whatever a recovered source has forgotten:
 * the higher epoch holds (rule D31). A recovered target may have lost what was copied to it; then the
 * source can hand nothing over, and fails the migration or is told to cancel it. The metadata group
 * itself, recovered, may have forgotten that slots moved: it names their old owner then, who knows better.
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
import { pinsMax } from './pins.js';
import {
  generationOf,
  presentReplicas,
  type ReplicaRecord,
  type ShardRecord,
  type Topology,
} from './topology.js';

/**
 * What the lost majority of the metadata group did alone is forgotten: versions it has told to nodes,
 * and ids it gave out, which must never be given out again (rule D01). More than it can have done.
 */
const forgottenMax = 1_000_000;
/** Of pins, whose ids are few: as many as there can be at one time. */
const pinsForgottenMax = pinsMax;

/** `written`: the version of the command (rule D16). */
export function applyRecoverGroup(
  topology: Topology,
  command: CommandOf<'recoverGroup'>,
  written: number,
): Effect {
  const { group, generation, members } = command;
  if (generation <= generationOf(topology, groupId(group))) return unchanged();
  if (!Number.isSafeInteger(generation))
    return refused('badGeneration', `a generation is an integer, got ${generation}`);
  const [leading] = members.map(({ node }) => presentNode(topology, node));
  if (leading !== undefined && isRefusal(leading)) return leading;
  // Nodes that only the lost majority of the metadata group knew have no place any more.
  const replicas = members
    .filter(({ node }) => !isRefusal(presentNode(topology, node)))
    .map(({ replica, node }) => ({ replica: replicaId(replica), node: nodeId(node) }));
  if (group === 0) {
    const { next, ...recovered } = recoverMetadata(topology, replicas, generation);
    // Before version 3 nobody knew of pins, and whoever has applied it so has left this as it was.
    const pin = written < 3 ? next.pin : next.pin + pinsForgottenMax;
    return changed({ ...recovered, next: { ...next, pin } });
  }
  const shard = presentShard(topology, group);
  if (isRefusal(shard)) return shard;
  const { next } = topology;
  const issued = Math.max(next.replica, ...replicas.map(({ replica }) => replica + 1));
  const known = { ...topology, next: { ...next, replica: issued } };
  const present = new Set(presentReplicas(topology, shard).map(({ replica }) => replica));
  // As the record has it: what is under way goes on.
  if (
    present.size === members.length &&
    members.every((each) => present.has(replicaId(each.replica)))
  )
    return changed(withShard(known, ofGeneration(shard, generation)));
  const ended = endReplacementOf(known, shard.id, {
    state: 'failed',
    progress: `shard ${group} was recovered by force`,
  });
  // One more while a replica was being replaced: the last of them is the one that may go.
  const stay = replicas.slice(0, shard.replication);
  return changed(withShard(ended, { ...ofGeneration(shard, generation), replicas: stay }));
}

/** There is one way to write it down: 0 is left out. */
function ofGeneration({ generation: _, ...shard }: ShardRecord, generation: number): ShardRecord {
  return generation === 0 ? shard : { ...shard, generation };
}

function recoverMetadata(
  topology: Topology,
  metadata: readonly ReplicaRecord[],
  generation: number,
): Topology {
  const { node, replica, shard, operation, migration, pin } = topology.next;
  // Two recoveries that do not know of one another give out ids of different ranges.
  const leap = forgottenMax + (generation % forgottenMax);
  return {
    ...topology,
    // Whatever an earlier recovery has told since: that of the later one is the newer topology.
    version: Math.max(topology.version + forgottenMax, generation),
    metadata,
    generation,
    // Their members may be others since, and only the lost knew: whoever leads one says it anew.
    shards: topology.shards.map((each) => ofGeneration(each, (each.generation ?? 0) - 1)),
    next: {
      node: node + leap,
      replica: replica + leap,
      shard: shard + leap,
      operation: operation + leap,
      migration: migration + leap,
      pin,
    },
  };
}
