/**
 * The cluster as its metadata group knows it: a plain, frozen value with a version. Everybody else
 * holds a copy that may be old; nothing is decided by a copy.
 */
import {
  groupId,
  type Generation,
  type GroupId,
  type NodeId,
  type ReplicaId,
} from '../../raft/index.js';
import type { SlotMap, SlotRange } from './slot-map.js';
import { slotCount, type Slot } from '../router/slot.js';
import type { SlotSpan } from '../router/slot-spans.js';

/** `suspect` and `down`: its connections are gone, for short or long. `draining`: its replicas leave. */
export type NodeState = 'up' | 'suspect' | 'down' | 'draining' | 'removed';

export interface NodeRecord {
  readonly id: NodeId;
  /**
   * Of its data directory, 32 hexadecimal digits: who joins with the same one is the same node. Empty
   * for one of the first nodes that has not said its own yet.
   */
  readonly directoryId: string;
  /** host:port for other nodes, and for clients. */
  readonly peerAddress: string;
  readonly clientAddress: string;
  /** Failure domains and whatever else an operator writes down; `host` is never shared by replicas. */
  readonly labels: Readonly<Record<string, string>>;
  /** Share of replicas and leaders it is to have, 1 to 1000; 100 is usual. */
  readonly weight: number;
  readonly state: NodeState;
  /** Milliseconds since 1970 of the last change of `state`, by the metadata leader's log time. */
  readonly stateSinceMs: number;
}

export interface ReplicaRecord {
  /** Issued once, for ever (rule D01). */
  readonly replica: ReplicaId;
  readonly node: NodeId;
}

export interface ShardRecord {
  readonly id: GroupId;
  /** Whom the shard is to consist of; its leader brings the Raft membership there. */
  readonly replicas: readonly ReplicaRecord[];
  /** How many replicas it is to have; `replicas` may be fewer for want of nodes. */
  readonly replication: number;
  /**
   * The voters it began with: its Raft log begins with this membership on each of them, and on nobody
   * else.
   */
  readonly founders: readonly ReplicaRecord[];
  /** Slots it is given at its birth, at epoch 1; none for a shard that is to be filled by migrations. */
  readonly birthSlots: readonly SlotSpan[];
  /**
   * Of the Raft group; absent until it is recovered by force for the first time (rule D07). A lower one
   * than the group has: `replicas` may be out of date, and its leader is to say who its members are.
   */
  readonly generation?: Generation;
}

export interface Replacement {
  readonly shard: GroupId;
  /** Until the operation is done it stays a member of the Raft group. */
  readonly from: ReplicaRecord;
  /** In `replicas` of its shard from the moment the operation is opened. */
  readonly to: ReplicaRecord;
}

/** One thing that an operator or the cluster itself has begun, and how far it is. */
export interface OperationRecord {
  readonly id: number;
  readonly kind: 'replaceReplica' | 'drainNode' | 'removeNode' | 'mergeShard' | 'splitShard';
  /** For people: "shard 3: replica 12 on node 2 -> replica 31 on node 5". */
  readonly what: string;
  /** The node that replicas leave; absent where slots move and no replicas. */
  readonly node?: NodeId;
  /** Of `drainNode`: where they are to go, as far as that node can take them. Absent: anywhere. */
  readonly to?: NodeId;
  /** Of `replaceReplica` only: ended as failed or cancelled, `from` takes its place again. */
  readonly replacement?: Replacement;
  /** Of `mergeShard` and `splitShard`: the shard that slots leave, and the migrations that take them. */
  readonly shard?: GroupId;
  readonly migrations?: readonly number[];
  readonly state: 'running' | 'done' | 'failed' | 'cancelled';
  readonly progress: string;
  readonly sinceMs: number;
}

/** What the states mean and how they follow one another: migrations.ts. */
export type MigrationState =
  'queued' | 'running' | 'paused' | 'cancelling' | 'failing' | 'done' | 'cancelled' | 'failed';

/**
 * Slots that change from one shard to another, each by itself. The decision about each slot is in the
 * log of the source, whose leader drives the migration; here is what is wanted, and what it has said.
 * Which slots have moved already is seen in the map: those that the target has.
 */
export interface MigrationRecord {
  /** Issued once, for ever, and a later one is greater: the slots' data has it at the target (rule D25). */
  readonly id: number;
  readonly source: GroupId;
  readonly target: GroupId;
  /** Ascending, not touching. While it is open, each of them belongs to the source or the target. */
  readonly slots: readonly SlotSpan[];
  readonly state: MigrationState;
  /** The source has heard of it: it ends only when the source says that nothing is left of it. */
  readonly hasRun: boolean;
  /** The most that is copied; 0: the setting `migrationBytesPerSecond` holds. */
  readonly bytesPerSecond: number;
  /** Why it was paused, cancelled or failed, for people. */
  readonly reason: string;
  /** Slots that were handed over, the keys and bytes that went with them, the longest freeze in ms. */
  readonly moved: number;
  readonly keys: number;
  readonly bytes: number;
  readonly freezeMsMax: number;
  /** Milliseconds since 1970 of its start and its end; 0 while it is open. */
  readonly sinceMs: number;
  readonly endedMs: number;
}

/** A key, or all keys with a prefix, that are a slot of their own. The states: pins.ts. */
export interface PinRecord {
  /** From 16384 up. Issued once, for ever (rule D25). */
  readonly slot: Slot;
  /** Base64. */
  readonly key: string;
  readonly isPrefix: boolean;
  readonly state: 'pinning' | 'pinned' | 'unpinning';
  /** Who has it, and the epoch of that; until it is there the shard of its hash slot, and 0. */
  readonly shard: number;
  readonly epoch: number;
  /** Where it was asked to be. */
  readonly target: number;
  /** The number of its birth, among those of migrations: the first instance of its data. */
  readonly migration: number;
  /** Milliseconds since 1970 of the last change of `state`. */
  readonly sinceMs: number;
}

export interface Topology {
  readonly clusterId: string;
  /** Digest of the `init` that made the cluster, so that a repetition of it is recognised. */
  readonly birth: string;
  /** Rises with every change. 0: there is no cluster yet (`cluster init` has not been called). */
  readonly version: number;
  readonly nodes: readonly NodeRecord[];
  /** Whom the metadata group itself is to consist of. */
  readonly metadata: readonly ReplicaRecord[];
  /** Of the metadata group; as that of a shard. */
  readonly generation?: Generation;
  readonly shards: readonly ShardRecord[];
  /**
   * Ascending, touching one another, covering all slots (once there is a cluster); neighbours differ
   * in shard or epoch, so that there is one way to write a map down.
   */
  readonly slots: readonly SlotRange[];
  readonly settings: Readonly<Record<string, number>>;
  /** Running ones, and the last hundred that ended. */
  readonly operations: readonly OperationRecord[];
  /** Open ones and the last hundred that ended, by id. No slot is in two open ones. */
  readonly migrations: readonly MigrationRecord[];
  /** By slot. No key belongs to two of them. */
  readonly pins: readonly PinRecord[];
  /**
   * Shards that were removed, the last thousand: their replicas go, whoever leads them. One that merely
   * is not in `shards` may have been forgotten by a forced recovery of the metadata group (rule D07), and
   * have slots.
   */
  readonly removedShards: readonly GroupId[];
  /** The next id of each kind; none is ever used twice. */
  readonly next: {
    readonly node: number;
    readonly replica: number;
    readonly shard: number;
    readonly operation: number;
    readonly migration: number;
    readonly pin: number;
  };
}

/** The Raft group that keeps the topology; shards have the ids from 1 on. */
export const metadataGroup: GroupId = groupId(0);

/** Before `cluster init`. */
export const noCluster: Topology = {
  clusterId: '',
  birth: '',
  version: 0,
  nodes: [],
  metadata: [],
  shards: [],
  slots: [],
  settings: {},
  operations: [],
  migrations: [],
  pins: [],
  removedShards: [],
  next: { node: 1, replica: 1, shard: 1, operation: 1, migration: 1, pin: slotCount },
};

/** From JSON of this program, or of one that knew less. Throws for what is no JSON. */
export function parseTopology(text: string): Topology {
  const known = JSON.parse(text) as Topology;
  return { ...noCluster, ...known, next: { ...noCluster.next, ...known.next } };
}

/** The node with this id; undefined for one that never was. */
export function nodeOf(topology: Topology, id: number): NodeRecord | undefined {
  return topology.nodes.find((node) => node.id === id);
}

/** By id, made once for each list: a topology is a value, and a thousand shards are looked up again and again. */
const shardIndexes = new WeakMap<readonly ShardRecord[], ReadonlyMap<number, ShardRecord>>();

export function shardRecordOf({ shards }: Topology, id: number): ShardRecord | undefined {
  let index = shardIndexes.get(shards);
  if (index === undefined) {
    index = new Map(shards.map((shard) => [shard.id, shard]));
    shardIndexes.set(shards, index);
  }
  return index.get(id);
}

/** Of the Raft group of a shard, or of the metadata group (0). */
export function generationOf(topology: Topology, group: GroupId): Generation {
  return (group === metadataGroup ? topology : shardRecordOf(topology, group))?.generation ?? 0;
}

/**
 * The failure domain of a node: its `host` label, or the node itself where none is given, so that
 * several nodes of a test may share a machine.
 */
export function hostOf(node: NodeRecord): string {
  const label = node.labels['host'];
  return label === undefined ? `node ${node.id}` : `host ${label}`;
}

/** What routers need of it: undefined before there is a cluster. */
export function slotMapOf({ version, slots }: Topology): SlotMap | undefined {
  return version === 0 ? undefined : { version, ranges: slots };
}

/** The running replacement of a shard: there is never more than one. */
export function replacementOf(topology: Topology, shard: GroupId): Replacement | undefined {
  return topology.operations.find(
    ({ state, replacement }) => state === 'running' && replacement?.shard === shard,
  )?.replacement;
}

/** All replicas that a shard may have in its Raft group now: also the one that is being replaced. */
export function presentReplicas(topology: Topology, shard: ShardRecord): readonly ReplicaRecord[] {
  const replacement = replacementOf(topology, shard.id);
  return replacement === undefined ? shard.replicas : [...shard.replicas, replacement.from];
}

/** Those that have the shard's data: not the one that is only being built. */
export function establishedReplicas(
  topology: Topology,
  shard: ShardRecord,
): readonly ReplicaRecord[] {
  const to = replacementOf(topology, shard.id)?.to.replica;
  return presentReplicas(topology, shard).filter(({ replica }) => replica !== to);
}
