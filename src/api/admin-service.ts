/** The Admin service: what a node says of itself, and the little an operator can ask of it. */
import type {
  ChangeClusterReply,
  ChangeClusterRequest,
  GetTopologyRequest,
  InitClusterRequest,
  JoinRequest,
  MigrationInfo,
  PinInfo,
  PlanRebalanceReply,
  PlanRebalanceRequest,
  ReplicaHashRequest,
  SlotSpanMessage,
  ShardFiguresRequest,
  StatusReply,
  StepMigrationRequest,
  TakeHashRequest,
  TopologyReply,
  TransferLeaderRequest,
} from '../../proto/messages.js';
import { openMax as migrationsOpenMax } from '../meta/migration-commands.js';
import { openMigrations } from '../meta/migrations.js';
import { keyOfPin } from '../meta/pins.js';
import { planRebalance, problemOfRebalance } from '../meta/rebalance.js';
import { describeSettings, settingOf } from '../meta/settings.js';
import { slotOf } from '../router/slot.js';
import { countSlots, type SlotSpan } from '../router/slot-spans.js';
import { invalid } from './convert.js';
import type { MigrationRecord, PinRecord, Topology } from '../meta/topology.js';
import type { AdminGroup, GroupDoor } from './group-door.js';
import type { AdminMethods } from './grpc-server.js';

export interface AdminServiceOptions {
  readonly groups: () => readonly AdminGroup[];
  readonly door: GroupDoor;
  readonly topology: () => Topology;
  /** Rejects with KvError, KV_NOT_LEADER among them: only the metadata group's leader does it. */
  readonly initCluster: (request: InitClusterRequest, forwarded: boolean) => Promise<Topology>;
  readonly join: (
    request: JoinRequest,
    forwarded: boolean,
  ) => Promise<{ nodeId: number; topology: Topology }>;
  readonly changeCluster: (
    request: ChangeClusterRequest,
    forwarded: boolean,
  ) => Promise<ChangeClusterReply>;
  /** Everything of the node's status but the groups. */
  readonly node: () => Omit<StatusReply, 'groups'>;
}

export function adminMethods(options: AdminServiceOptions): AdminMethods {
  const { groups, node, door } = options;
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
      options.changeCluster(request as ChangeClusterRequest, forwarded),
    GetTopology: (request) => {
      const { knownVersion = 0 } = request as GetTopologyRequest;
      const topology = options.topology();
      const isKnown = knownVersion > 0 && knownVersion === topology.version;
      return Promise.resolve(isKnown ? knownReply(topology) : topologyReply(topology));
    },
    PlanRebalance: (request) =>
      new Promise((resolve) => {
        resolve(rebalanceReply(options.topology(), request as PlanRebalanceRequest));
      }),
    TransferLeader: (request, forwarded) =>
      door.transferLeader(request as TransferLeaderRequest, forwarded),
    TakeHash: (request, forwarded) => door.takeHash(request as TakeHashRequest, forwarded),
    ShardFigures: (request, forwarded) =>
      door.shardFigures(request as ShardFiguresRequest, forwarded),
    StepMigration: (request, forwarded) =>
      door.stepMigration(request as StepMigrationRequest, forwarded),
    ReplicaHash: (request) => door.replicaHash(request as ReplicaHashRequest),
  };
}

/** Throws KvError for options that make no sense. */
function rebalanceReply(
  topology: Topology,
  { weights, thresholdPercent }: PlanRebalanceRequest,
): PlanRebalanceReply {
  if (topology.version === 0)
    throw invalid('there is no cluster yet: begin with `quorate cluster init`');
  const options = {
    weights: new Map(weights.map(({ shardId, weight }) => [shardId, weight])),
    thresholdPercent,
  };
  const problem = problemOfRebalance(topology, options);
  if (problem !== undefined) throw invalid(problem);
  const { moves, shares } = planRebalance(topology, options);
  const shown = moves.slice(0, migrationsOpenMax - openMigrations(topology).length);
  return {
    version: topology.version,
    moves: shown.map(({ slots, source, target }) => ({
      slots: slots.map(plainSpan),
      source,
      target,
    })),
    shares: shares.map(({ shard, ...share }) => ({ shardId: shard, ...share })),
    leftOff: moves.length - shown.length,
  };
}

function plainSpan({ first, last }: SlotSpan): SlotSpanMessage {
  return { first, last };
}

function knownReply({ clusterId, version }: Topology): TopologyReply {
  const nothing = {
    nodes: [],
    shards: [],
    slots: [],
    metadataNodes: [],
    operations: [],
    settings: [],
    migrations: [],
    pins: [],
  };
  return { clusterId, version, ...nothing, document: '' };
}

/** A topology as it is told to others. */
export function topologyReply(topology: Topology): TopologyReply {
  const { operations, settings } = topology;
  return {
    ...routingReply(topology),
    document: JSON.stringify(topology),
    operations: operations.map(({ id, kind, what, state, progress, sinceMs, node }) => ({
      operationId: id,
      kind,
      what,
      state,
      progress,
      sinceMs,
      node: node ?? 0,
    })),
    settings: describeSettings(settings).map(({ since: _, ...setting }) => setting),
    migrations: topology.migrations.map((each) => migrationInfo(topology, each)),
  };
}

/** What clients find their way by. */
export function routingReply(topology: Topology): TopologyReply {
  const { clusterId, version, nodes, shards, slots, metadata } = topology;
  return {
    clusterId,
    version,
    nodes: nodes.map(({ id, peerAddress, clientAddress, labels, weight, state, stateSinceMs }) => ({
      nodeId: id,
      peerAddress,
      clientAddress,
      labels: Object.entries(labels).map(([name, value]) => `${name}=${value}`),
      weight,
      state,
      stateSinceMs,
    })),
    shards: shards.map(({ id, replicas, replication }) => ({
      shardId: id,
      replicas: replicas.map(({ replica }) => replica),
      nodes: replicas.map(({ node }) => node),
      replication,
    })),
    slots: slots.map(({ first, last, shard, epoch }) => ({ first, last, shardId: shard, epoch })),
    metadataNodes: metadata.map(({ node }) => node),
    document: '',
    operations: [],
    settings: [],
    migrations: [],
    pins: topology.pins.map(pinInfo),
  };
}

function pinInfo(pin: PinRecord): PinInfo {
  const { slot, isPrefix: prefix, shard: shardId, epoch, state, target, sinceMs } = pin;
  const key = keyOfPin(pin);
  return { slot, key, prefix, hashSlot: slotOf(key), shardId, epoch, state, target, sinceMs };
}

function migrationInfo(topology: Topology, migration: MigrationRecord): MigrationInfo {
  const { id, source, target, slots, state, hasRun, bytesPerSecond, reason } = migration;
  const { moved, keys, bytes, freezeMsMax, sinceMs, endedMs } = migration;
  return {
    migrationId: id,
    source,
    target,
    slots: slots.map(plainSpan),
    slotCount: countSlots(slots),
    state,
    hasRun,
    bytesPerSecond,
    bytesPerSecondNow:
      bytesPerSecond === 0
        ? settingOf(topology.settings, 'migrationBytesPerSecond')
        : bytesPerSecond,
    reason,
    moved,
    keys,
    bytes,
    freezeMsMax,
    sinceMs,
    endedMs,
  };
}
