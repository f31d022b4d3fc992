/** The Admin service: what a node says of itself, and the little an operator can ask of it. */
import type {
  ChangeClusterReply,
  ChangeClusterRequest,
  GroupStatusMessage,
  InitClusterRequest,
  JoinRequest,
  ReplicaHashReply,
  ReplicaHashRequest,
  StatusReply,
  TopologyReply,
  TransferLeaderReply,
  TransferLeaderRequest,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import type { Topology } from '../meta/topology.js';
import type { AdminMethods } from './grpc-server.js';
import { invalid } from './convert.js';

/** A group as the admin calls see it. */
export interface AdminGroup {
  readonly id: number;
  readonly isLeader: boolean;
  status(): GroupStatusMessage;
  /** False when there is nobody to take over. */
  transferLeadership(toReplica: number): boolean;
  /** Over the applied state, at one applied index. */
  hash(): Promise<ReplicaHashReply>;
}

export interface AdminServiceOptions {
  readonly groups: () => readonly AdminGroup[];
  readonly topology: () => Topology;
  /** Rejects with KvError, KV_NOT_LEADER among them: only the metadata group's leader does it. */
  readonly initCluster: (request: InitClusterRequest, forwarded: boolean) => Promise<Topology>;
  readonly join: (
    request: JoinRequest,
    forwarded: boolean,
  ) => Promise<{ nodeId: number; topology: Topology }>;
  readonly changeCluster: (command: string, forwarded: boolean) => Promise<ChangeClusterReply>;
  /** Everything of the node's status but the groups. */
  readonly node: () => Omit<StatusReply, 'groups'>;
}

export function adminMethods(options: AdminServiceOptions): AdminMethods {
  const { groups, node } = options;
  const find = (id: number): AdminGroup => {
    const known = groups();
    const found = known.find((group) => group.id === id);
    if (found !== undefined) return found;
    throw invalid(
      `no group ${id} on this node: it has ${known.map((group) => group.id).join(', ')}`,
    );
  };
  const transfer = (request: TransferLeaderRequest): TransferLeaderReply => {
    const group = find(request.groupId);
    if (!group.isLeader) {
      const { leaderNode, leaderAddress } = group.status();
      throw new KvError(`this node does not lead group ${request.groupId}: ask its leader`, {
        code: 'KV_NOT_LEADER',
        outcome: 'notApplied',
        leaderNode,
        leaderAddress,
      });
    }
    if (!group.transferLeadership(request.toReplica ?? 0)) {
      throw new KvError(`group ${request.groupId} has no follower that could take over just now`, {
        code: 'KV_UNAVAILABLE',
        outcome: 'notApplied',
        retryAfterMs: 1000,
      });
    }
    return { leaderNode: group.status().leaderNode };
  };
  // The decoder of each method made its request of the very type that stands here.
  return {
    Status: () => Promise.resolve({ ...node(), groups: groups().map((group) => group.status()) }),
    InitCluster: async (request, forwarded) =>
      topologyReply(await options.initCluster(request as InitClusterRequest, forwarded)),
    Join: async (request, forwarded) => {
      const { nodeId, topology } = await options.join(request as JoinRequest, forwarded);
      return { nodeId, topology: topologyReply(topology) };
    },
    ChangeCluster: (request, forwarded) =>
      options.changeCluster((request as ChangeClusterRequest).command, forwarded),
    GetTopology: () => Promise.resolve(topologyReply(options.topology())),
    TransferLeader: async (request) => Promise.resolve(transfer(request as TransferLeaderRequest)),
    ReplicaHash: async (request) => find((request as ReplicaHashRequest).groupId).hash(),
  };
}

function topologyReply(topology: Topology): TopologyReply {
  const { clusterId, version, nodes, shards, slots } = topology;
  return {
    clusterId,
    version,
    nodes: nodes.map(({ id, peerAddress, clientAddress, labels, weight, state }) => ({
      nodeId: id,
      peerAddress,
      clientAddress,
      labels: Object.entries(labels).map(([name, value]) => `${name}=${value}`),
      weight,
      state,
    })),
    shards: shards.map(({ id, replicas, replication }) => ({
      shardId: id,
      replicas: replicas.map(({ replica }) => replica),
      nodes: replicas.map(({ node }) => node),
      replication,
    })),
    slots: slots.map(({ first, last, shard, epoch }) => ({ first, last, shardId: shard, epoch })),
    document: JSON.stringify(topology),
  };
}
