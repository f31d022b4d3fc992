/** Replicas of shards and of the metadata group: which there are to be. */
import { groupId, replicaId, type GroupId } from '../../raft/index.js';
import { notEnoughHosts, problemOfReplication, replicationMax } from './cluster-birth.js';
import type { CommandOf, Refusal } from './commands.js';
import {
  changed,
  companion,
  isRefusal,
  presentShard,
  receivingNode,
  refused,
  unchanged,
  withShard,
  type Effect,
} from './effect.js';
import { openOperation } from './operations.js';
import { Placement } from './placement.js';
import {
  nodeOf,
  replacementOf,
  type NodeRecord,
  type ReplicaRecord,
  type ShardRecord,
  type Topology,
} from './topology.js';

/** As many as there are slots: more could never all be given one. */
const shardsMax = 16_384;

export function applyAddReplica(topology: Topology, command: CommandOf<'addReplica'>): Effect {
  const shard = changeableShard(topology, command.shard);
  if (isRefusal(shard)) return shard;
  const present = shard.replicas.find(({ node }) => node === command.node);
  if (present !== undefined) return unchanged({ replica: present.replica });
  const node = receivingNode(topology, command.node);
  if (isRefusal(node)) return node;
  if (shard.replicas.length >= replicationMax)
    return refused(
      'tooManyReplicas',
      `shard ${shard.id} has ${shard.replicas.length} replicas, the most is ${replicationMax}: ` +
        'remove or replace one',
    );
  const shared = companion(topology, shard.replicas, node, `shard ${shard.id}`);
  if (shared !== undefined) return shared;
  const { replica, topology: next } = issueReplica(topology, node);
  const replicas = [...shard.replicas, replica];
  // More than it was to have: then that is what is wanted from now on.
  const replication = Math.max(shard.replication, replicas.length);
  return changed(withShard(next, { ...shard, replicas, replication }), {
    replica: replica.replica,
  });
}

/** Lowers what the shard is to have too: repair would build the replica anew otherwise. */
export function applyRemoveReplica(
  topology: Topology,
  command: CommandOf<'removeReplica'>,
): Effect {
  const shard = changeableShard(topology, command.shard);
  if (isRefusal(shard)) return shard;
  const leaving = replicaOn(shard, command.node);
  if (isRefusal(leaving)) return leaving;
  const replicas = shard.replicas.filter((each) => each !== leaving);
  if (replicas.length === 0)
    return refused(
      'lastReplica',
      `replica ${leaving.replica} on node ${leaving.node} is the last one of shard ${shard.id}: ` +
        'add a replica on another node first',
    );
  const risk = quorumAtRisk(topology, shard, replicas);
  if (risk !== undefined) return risk;
  const replication = Math.min(shard.replication, replicas.length);
  return changed(withShard(topology, { ...shard, replicas, replication }), {
    replica: leaving.replica,
  });
}

/** The new replica takes the old one's place in the list; both stay until the operation ends. */
export function applyReplaceReplica(
  topology: Topology,
  command: CommandOf<'replaceReplica'>,
): Effect {
  const repeated = runningLike(topology, command);
  if (repeated !== undefined) return repeated;
  const shard = changeableShard(topology, command.shard);
  if (isRefusal(shard)) return shard;
  const from = replicaOn(shard, command.from);
  if (isRefusal(from)) return from;
  const node = receivingNode(topology, command.to);
  if (isRefusal(node)) return node;
  const rest = shard.replicas.filter((each) => each !== from);
  const shared =
    from.node === node.id
      ? refused(
          'sharedHost',
          `node ${node.id} has the replica of shard ${shard.id} that is to be replaced: choose ` +
            'another node',
        )
      : companion(topology, rest, node, `shard ${shard.id}`);
  if (shared !== undefined) return shared;
  const { replica: to, topology: issued } = issueReplica(topology, node);
  const replicas = shard.replicas.map((each) => (each === from ? to : each));
  const { topology: opened, id } = openOperation(
    withShard(issued, { ...shard, replicas }),
    {
      kind: 'replaceReplica',
      what:
        `shard ${shard.id}: replica ${from.replica} on node ${from.node} -> ` +
        `replica ${to.replica} on node ${to.node}`,
      node: from.node,
      replacement: { shard: shard.id, from, to },
    },
    command.nowMs,
  );
  return changed(opened, { replica: to.replica, operation: id });
}

/** Leadership follows the order of replicas, whoever leads just now. */
export function applySetLeader(topology: Topology, command: CommandOf<'setLeader'>): Effect {
  const shard = presentShard(topology, command.shard);
  if (isRefusal(shard)) return shard;
  const first = replicaOn(shard, command.node);
  if (isRefusal(first)) return first;
  if (shard.replicas[0] === first) return unchanged();
  const replicas = [first, ...shard.replicas.filter((each) => each !== first)];
  return changed(withShard(topology, { ...shard, replicas }));
}

export function applyCreateShard(topology: Topology, command: CommandOf<'createShard'>): Effect {
  const created = createShard(topology, command.replication);
  return isRefusal(created) ? created : changed(created.topology, { shard: created.id });
}

/** One more shard, without slots. */
export function createShard(
  topology: Topology,
  replication: number,
): { readonly topology: Topology; readonly id: GroupId } | Refusal {
  const problem = problemOfReplication(replication);
  if (problem !== undefined) return problem;
  if (topology.shards.length >= shardsMax)
    return refused(
      'tooManyShards',
      `a cluster has ${shardsMax} shards at most, one per slot, and this one has them`,
    );
  const placement = Placement.of(topology);
  if (replication > placement.hostCount) return notEnoughHosts(replication, placement.hostCount);
  let { replica } = topology.next;
  const replicas = placement
    .placeShard(replication)
    .map((node): ReplicaRecord => ({ replica: replicaId(replica++), node }));
  const id = groupId(topology.next.shard);
  const shard: ShardRecord = { id, replicas, replication, founders: replicas, birthSlots: [] };
  return {
    topology: {
      ...topology,
      shards: [...topology.shards, shard],
      next: { ...topology.next, replica, shard: id + 1 },
    },
    id,
  };
}

export function applySetMetadata(topology: Topology, command: CommandOf<'setMetadata'>): Effect {
  const { nodes } = command;
  const bad = (message: string): Refusal => refused('badMetadata', message);
  if (nodes.length < 1 || nodes.length > replicationMax)
    return bad(`the metadata group needs 1 to ${replicationMax} nodes, got ${nodes.length}`);
  if (new Set(nodes).size < nodes.length) return bad(`a node is listed twice: ${nodes.join(', ')}`);
  const kept = topology.metadata.filter(({ node }) => nodes.some((id) => id === node));
  if (kept.length === nodes.length && kept.length === topology.metadata.length) return unchanged();
  if (kept.length === 0)
    return bad('none of its nodes would stay, and with them its memory: replace some at a time');
  let next = topology;
  const metadata = [...kept];
  for (const id of nodes.filter((each) => !kept.some(({ node }) => node === each))) {
    const node = receivingNode(next, id);
    if (isRefusal(node)) return node;
    const shared = companion(next, metadata, node, 'the metadata group');
    if (shared !== undefined) return shared;
    const issued = issueReplica(next, node);
    metadata.push(issued.replica);
    next = issued.topology;
  }
  return changed({ ...next, metadata });
}

/** A shard whose replicas nobody is moving. */
function changeableShard(topology: Topology, id: number): ShardRecord | Refusal {
  const shard = presentShard(topology, id);
  if (isRefusal(shard)) return shard;
  const running = replacementOf(topology, shard.id);
  if (running === undefined) return shard;
  return refused(
    'operationRunning',
    `shard ${id} is replacing its replica on node ${running.from.node} by one on node ` +
      `${running.to.node}: wait until that ends, or cancel it`,
  );
}

function runningLike(
  topology: Topology,
  { shard, from, to }: CommandOf<'replaceReplica'>,
): Effect | undefined {
  for (const { id, state, replacement } of topology.operations) {
    if (state !== 'running' || replacement?.shard !== shard) continue;
    if (replacement.from.node === from && replacement.to.node === to)
      return unchanged({ replica: replacement.to.replica, operation: id });
  }
  return undefined;
}

function replicaOn(shard: ShardRecord, node: number): ReplicaRecord | Refusal {
  return (
    shard.replicas.find((replica) => replica.node === node) ??
    refused(
      'unknownReplica',
      `shard ${shard.id} has no replica on node ${node}: it has them on nodes ` +
        shard.replicas.map((replica) => replica.node).join(', '),
    )
  );
}

/** What is left must be able to decide, or the shard stands still. */
function quorumAtRisk(
  topology: Topology,
  shard: ShardRecord,
  left: readonly ReplicaRecord[],
): Refusal | undefined {
  const alive = left.filter(({ node }) => {
    const state = nodeOf(topology, node)?.state;
    return state === 'up' || state === 'draining';
  }).length;
  if (2 * alive > left.length) return undefined;
  return refused(
    'quorumAtRisk',
    `shard ${shard.id} would be left with ${left.length} replicas, ${alive} of them on nodes that ` +
      'are up, which is no majority: remove or replace a replica of a node that is down, or bring ' +
      'one back first',
  );
}

function issueReplica(
  topology: Topology,
  { id }: NodeRecord,
): { readonly replica: ReplicaRecord; readonly topology: Topology } {
  const replica = { replica: replicaId(topology.next.replica), node: id };
  const next = { ...topology.next, replica: replica.replica + 1 };
  return { replica, topology: { ...topology, next } };
}
