/** `init`: the first topology of a cluster. It happens once; the same command again is no error. */
import { createHash } from 'node:crypto';
import { groupId, nodeId, replicaId, type NodeId } from '../../raft/index.js';
import { slotCount } from '../router/slot.js';
import type { CommandOf, Refusal } from './commands.js';
import { changed, isRefusal, refused, unchanged, type Effect } from './effect.js';
import { addressTaken, nodesMax, problemOfNode, sortedLabels } from './node-commands.js';
import { Placement } from './placement.js';
import { firstSettings } from './settings.js';
import type { ReplicaRecord, ShardRecord, Topology } from './topology.js';

export const shardCountMax = 1024;
export const replicationMax = 7;
/** Of the ids that come with `init`: half of all are left to be issued. */
const idMax = 0x7fff_ffff;

type Init = CommandOf<'init'>;

export function applyInit(topology: Topology, command: Init): Effect {
  const birth = digest(command);
  if (topology.version > 0) {
    return topology.birth === birth
      ? unchanged()
      : refused(
          'initTwice',
          `init twice: this is cluster '${topology.clusterId}' already, at version ` +
            `${topology.version}; change it with the other commands, or begin with empty data ` +
            'directories',
        );
  }
  const problem = problemOfInit(command);
  if (problem !== undefined) return problem;
  const nodes = withNodes(topology, command);
  if (isRefusal(nodes)) return nodes;
  const placement = Placement.of(nodes);
  if (command.replication > placement.hostCount)
    return notEnoughHosts(command.replication, placement.hostCount);
  return changed(withShards({ ...nodes, birth }, command, placement));
}

export function problemOfReplication(replication: number): Refusal | undefined {
  if (Number.isInteger(replication) && replication >= 1 && replication <= replicationMax)
    return undefined;
  return refused(
    'badReplication',
    `replication must be an integer from 1 to ${replicationMax}, got ${replication}`,
  );
}

export function notEnoughHosts(replication: number, hosts: number): Refusal {
  return refused(
    'notEnoughHosts',
    `${replication} replicas need as many hosts, and nodes of ${hosts} are up: add nodes on other ` +
      `hosts, or ask for ${hosts} replicas at most`,
  );
}

function problemOfInit({ clusterId, shards, replication }: Init): Refusal | undefined {
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(clusterId))
    return refused(
      'badClusterId',
      `cluster id must be 1 to 64 letters, digits, dots, dashes, got '${clusterId}'`,
    );
  if (!Number.isInteger(shards) || shards < 1 || shards > shardCountMax)
    return refused(
      'badShardCount',
      `shards must be an integer from 1 to ${shardCountMax}, got ${shards}`,
    );
  return problemOfReplication(replication);
}

function withNodes(topology: Topology, command: Init): Topology | Refusal {
  if (command.nodes.length > nodesMax)
    return refused(
      'tooManyNodes',
      `${command.nodes.length} nodes: a cluster has ${nodesMax} at most`,
    );
  let next = topology;
  for (const { id, labels, ...node } of command.nodes) {
    if (!isId(id)) return refused('badNode', `node id must be from 1 to ${idMax}, got ${id}`);
    if (next.nodes.some((each) => each.id === id))
      return refused('badNode', `node ${id} is given twice: give each node an id of its own`);
    const problem =
      problemOfNode({ ...node, labels }, { anonymous: true }) ??
      twiceTheDirectory(next, node.directoryId) ??
      addressTaken(next, node);
    if (problem !== undefined) return problem;
    const record = {
      ...node,
      id: nodeId(id),
      labels: sortedLabels(labels),
      state: 'up' as const,
      stateSinceMs: command.nowMs,
    };
    next = { ...next, nodes: [...next.nodes, record] };
  }
  const nodes = next.nodes.toSorted((a, b) => a.id - b.id);
  const metadata = firstMetadata({ ...next, nodes }, command);
  if (isRefusal(metadata)) return metadata;
  return {
    ...next,
    clusterId: command.clusterId,
    nodes,
    metadata,
    settings: firstSettings(),
    next: {
      ...next.next,
      node: (nodes.at(-1)?.id ?? 0) + 1,
      // The metadata group chose its first ids itself; everybody else's lie above them.
      replica: Math.max(...metadata.map(({ replica }) => replica)) + 1,
    },
  };
}

function twiceTheDirectory(topology: Topology, directoryId: string): Refusal | undefined {
  const twin = topology.nodes.find((node) => node.directoryId === directoryId);
  if (directoryId === '' || twin === undefined) return undefined;
  return refused(
    'badNode',
    `directory ${directoryId} is given twice, for node ${twin.id} too: ` +
      'give each node a data directory of its own, never a copy',
  );
}

function firstMetadata(
  topology: Topology,
  { metadata }: Init,
): readonly [ReplicaRecord, ...ReplicaRecord[]] | Refusal {
  const bad = (message: string): Refusal => refused('badMetadata', message);
  const replicas: ReplicaRecord[] = [];
  for (const { replica, node } of metadata) {
    if (!isId(replica)) return bad(`replica id must be from 1 to ${idMax}, got ${replica}`);
    if (!topology.nodes.some(({ id }) => id === node))
      return bad(`metadata replica ${replica} is on node ${node}, which is not among the nodes`);
    if (replicas.some((each) => each.replica === replica || each.node === node))
      return bad(`metadata replica ${replica} on node ${node}: replica and node occur twice`);
    replicas.push({ replica: replicaId(replica), node: nodeId(node) });
  }
  const [first, ...others] = replicas;
  if (first === undefined || replicas.length > replicationMax)
    return bad(`the metadata group needs 1 to ${replicationMax} replicas, got ${replicas.length}`);
  return [first, ...others];
}

/** Slots are divided evenly: shares differ by one at most. */
function withShards(topology: Topology, command: Init, placement: Placement): Topology {
  const { shards: count, replication } = command;
  let { replica } = topology.next;
  const issue = (node: NodeId): ReplicaRecord => ({ replica: replicaId(replica++), node });
  const shards = placement.placeShards(count, replication).map((nodes, at): ShardRecord => {
    const replicas = nodes.map(issue);
    const first = Math.floor((at * slotCount) / count);
    const last = Math.floor(((at + 1) * slotCount) / count) - 1;
    const birthSlots = [{ first, last }];
    return { id: groupId(at + 1), replicas, replication, founders: replicas, birthSlots };
  });
  const slots = shards.flatMap(({ id, birthSlots }) =>
    birthSlots.map((range) => ({ ...range, shard: id, epoch: 1 })),
  );
  return { ...topology, shards, slots, next: { ...topology.next, replica, shard: count + 1 } };
}

function isId(id: number): boolean {
  return Number.isInteger(id) && id >= 1 && id <= idMax;
}

/** Of all that an operator says, not of the time: whoever repeats it says it at another time. */
function digest({ clusterId, nodes, metadata, shards, replication }: Init): string {
  const said = [
    clusterId,
    nodes
      .toSorted((a, b) => a.id - b.id)
      .map((node) => [
        node.id,
        node.directoryId,
        node.peerAddress,
        node.clientAddress,
        Object.entries(sortedLabels(node.labels)),
        node.weight,
      ]),
    metadata.toSorted((a, b) => a.replica - b.replica).map(({ replica, node }) => [replica, node]),
    shards,
    replication,
  ];
  return createHash('sha256').update(JSON.stringify(said)).digest('hex').slice(0, 32);
}
