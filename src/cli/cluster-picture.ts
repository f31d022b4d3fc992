/**
 * The cluster as the metadata group wants it, beside what every node says of itself: what the commands
 * for operators show, and what is not well.
 */
import type {
  GroupStatusMessage,
  NodeInfo,
  ShardInfo,
  StatusReply,
  TopologyReply,
} from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import { KvError } from '../errors.js';
import { Unhealthy } from './output.js';

/** Group id of the metadata group; shards have the ids from 1 on. */
export const metadataGroup = 0;

/** A node is asked for its status this long, ms. */
const statusMs = 3000;

export interface NodePicture {
  readonly node: NodeInfo;
  /** Undefined: it did not answer, `error` says why. */
  readonly reply: StatusReply | undefined;
  readonly error: string;
}

export interface GroupPicture {
  readonly id: number;
  /** 'shard 3', 'metadata'. */
  readonly name: string;
  /** Nodes that are to have a replica, and how many it is to have. */
  readonly nodes: readonly number[];
  readonly replication: number;
  /** The node that leads, and what it says; undefined when nobody says that it does. */
  readonly leader: { readonly node: number; readonly status: GroupStatusMessage } | undefined;
  /** Replicas by node, of the nodes that answered. */
  readonly replicas: ReadonlyMap<number, GroupStatusMessage>;
  /** Nodes whose replica votes and is whole. */
  readonly present: readonly number[];
  /** Why it is not well, for people; empty when it is. */
  readonly problem: string;
}

export interface Picture {
  readonly topology: TopologyReply;
  /** Not the removed ones. */
  readonly nodes: readonly NodePicture[];
  /** The metadata group first. */
  readonly groups: readonly GroupPicture[];
  /** Everything that is not well, a sentence each. */
  readonly problems: readonly string[];
}

/** The topology of a cluster that there is; rejects with Unhealthy when there is none yet. */
export async function topologyOf(client: QuorateClient): Promise<TopologyReply> {
  const topology = await client.topology();
  if (topology.version > 0) return topology;
  throw new Unhealthy(
    'there is no cluster yet: quorate cluster init --shards N --replicas N makes one of these nodes',
  );
}

/** Asks every node once; rejects when no topology can be had. */
export async function takePicture(client: QuorateClient): Promise<Picture> {
  const topology = await topologyOf(client);
  const present = topology.nodes.filter(({ state }) => state !== 'removed');
  const nodes = await Promise.all(present.map((node) => askNode(client, node)));
  const groups = [
    groupPicture(
      {
        shardId: metadataGroup,
        nodes: topology.metadataNodes,
        replication: topology.metadataNodes.length,
      },
      nodes,
    ),
    ...topology.shards.map((shard) => groupPicture(shard, nodes)),
  ];
  const problems = [
    ...nodes.map(problemOfNode),
    ...groups.map(({ name, problem }) => (problem === '' ? '' : `${name}: ${problem}`)),
  ].filter((problem) => problem !== '');
  return { topology, nodes, groups, problems };
}

async function askNode(client: QuorateClient, node: NodeInfo): Promise<NodePicture> {
  try {
    const reply = await client.status(node.clientAddress, { timeoutMs: statusMs });
    if (reply.nodeId === node.nodeId) return { node, reply, error: '' };
    return { node, reply: undefined, error: `node ${reply.nodeId} answers at its address` };
  } catch (error) {
    const why = error instanceof KvError ? error.code : String(error);
    return { node, reply: undefined, error: `does not answer at ${node.clientAddress} (${why})` };
  }
}

function problemOfNode({ node, reply, error }: NodePicture): string {
  const name = `node ${node.nodeId}`;
  if (reply === undefined) return `${name} ${error}`;
  if (reply.diskFull) return `${name}: disk nearly full, writes are refused`;
  return node.state === 'suspect' || node.state === 'down' ? `${name} is ${node.state}` : '';
}

function groupPicture(
  shard: Pick<ShardInfo, 'shardId' | 'nodes' | 'replication'>,
  nodes: readonly NodePicture[],
): GroupPicture {
  const { shardId: id, nodes: wanted, replication } = shard;
  const replicas = new Map<number, GroupStatusMessage>();
  const silent = new Set<number>();
  for (const { node, reply } of nodes) {
    if (reply === undefined) silent.add(node.nodeId);
    const found = reply?.groups.find(({ groupId }) => groupId === id);
    if (found !== undefined) replicas.set(node.nodeId, found);
  }
  const leader = leaderAmong(replicas);
  const present = (leader?.status.voters ?? [])
    .filter((node) => replicas.get(node)?.restoring === false)
    .sort((a, b) => a - b);
  return {
    id,
    name: id === metadataGroup ? 'metadata' : `shard ${id}`,
    nodes: wanted,
    replication,
    leader,
    replicas,
    present,
    problem: problemOfGroup({ wanted, replication, leader, present, replicas, silent }),
  };
}

/** Of two that both say so, the one that was elected later. */
function leaderAmong(replicas: ReadonlyMap<number, GroupStatusMessage>): GroupPicture['leader'] {
  let leader: GroupPicture['leader'];
  for (const [node, status] of replicas) {
    if (status.role === 'leader' && status.term > (leader?.status.term ?? -1))
      leader = { node, status };
  }
  return leader;
}

function problemOfGroup({
  wanted,
  replication,
  leader,
  present,
  replicas,
  silent,
}: Pick<GroupPicture, 'replication' | 'leader' | 'present' | 'replicas'> & {
  readonly wanted: readonly number[];
  readonly silent: ReadonlySet<number>;
}): string {
  if (leader === undefined) return 'no leader that could be reached';
  if (present.length >= replication) return '';
  const lacking = wanted
    .filter((node) => !present.includes(node))
    .map((node) => {
      const state = silent.has(node)
        ? 'does not answer'
        : stateOf(replicas.get(node), leader.status);
      return `node ${node} ${state}`;
    });
  const few = wanted.length < replication ? [`only ${wanted.length} placed`] : [];
  return `${present.length} of ${replication} replicas: ${[...few, ...lacking].join(', ')}`;
}

function stateOf(replica: GroupStatusMessage | undefined, leader: GroupStatusMessage): string {
  if (replica === undefined) return 'has none yet';
  if (replica.restoring) return 'is being rebuilt from a snapshot';
  return leader.learners.length > 0 ? 'is catching up' : 'does not vote yet';
}

/** Slots as people write them: '0-4095 8192'. */
export function slotsOf({ slots }: TopologyReply, shard: number): string {
  return slots
    .filter(({ shardId }) => shardId === shard)
    .map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`))
    .join(' ');
}

/** Throws with the ids that there are. */
export function nodeIn({ topology }: Pick<Picture, 'topology'>, id: number): NodeInfo {
  const found = topology.nodes.find(({ nodeId }) => nodeId === id);
  if (found !== undefined) return found;
  throw new Error(
    `there is no node ${id} in cluster '${topology.clusterId}': it has nodes ` +
      topology.nodes.map(({ nodeId }) => nodeId).join(', '),
  );
}

/** Throws with the ids that there are. */
export function shardIn({ topology }: Pick<Picture, 'topology'>, id: number): ShardInfo {
  const found = topology.shards.find(({ shardId }) => shardId === id);
  if (found !== undefined) return found;
  const last = topology.shards.at(-1)?.shardId ?? 0;
  throw new Error(
    `there is no shard ${id} in cluster '${topology.clusterId}': it has ${topology.shards.length}, ` +
      `the last one is ${last} (quorate shard list)`,
  );
}
