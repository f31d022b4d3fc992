/**
 * The cluster as its metadata group knows it: a plain, frozen value with a version. Everybody else
 * holds a copy that may be old; nothing is decided by a copy.
 */
import type { GroupId, NodeId, ReplicaId } from '../../raft/index.js';
import type { SlotRange } from './slot-map.js';

/** `suspect` and `down`: its connections are gone, for short or long. `draining`: its replicas leave. */
export type NodeState = 'up' | 'suspect' | 'down' | 'draining' | 'removed';

export interface NodeRecord {
  readonly id: NodeId;
  /** Of its data directory, 32 hexadecimal digits: who joins with the same one is the same node. */
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
  readonly birthSlots: readonly { readonly first: number; readonly last: number }[];
}

/** One thing that an operator or the cluster itself has begun, and how far it is. */
export interface OperationRecord {
  readonly id: number;
  readonly kind: 'replaceReplica' | 'drainNode' | 'removeNode';
  /** For people: "shard 3: replica 12 on node 2 -> node 5". */
  readonly what: string;
  readonly state: 'running' | 'done' | 'failed' | 'cancelled';
  readonly progress: string;
  readonly sinceMs: number;
}

export interface Topology {
  readonly clusterId: string;
  /** Rises with every change. 0: there is no cluster yet (`cluster init` has not been called). */
  readonly version: number;
  readonly nodes: readonly NodeRecord[];
  /** Whom the metadata group itself is to consist of. */
  readonly metadata: readonly ReplicaRecord[];
  readonly shards: readonly ShardRecord[];
  /** Ascending, touching one another, covering all slots; the shard and epoch of each. */
  readonly slots: readonly SlotRange[];
  readonly settings: Readonly<Record<string, number>>;
  /** Running ones, and the last hundred that ended. */
  readonly operations: readonly OperationRecord[];
  /** The next id of each kind; none is ever used twice. */
  readonly next: {
    readonly node: number;
    readonly replica: number;
    readonly shard: number;
    readonly operation: number;
  };
}

/** The node with this id; undefined for one that never was. */
export function nodeOf(topology: Topology, id: number): NodeRecord | undefined {
  return topology.nodes.find((node) => node.id === id);
}

export function shardRecordOf(topology: Topology, id: number): ShardRecord | undefined {
  return topology.shards.find((shard) => shard.id === id);
}
