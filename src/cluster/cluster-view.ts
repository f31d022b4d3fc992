/**
 * The newest topology that this node has heard of, and what follows from it for routing. It may be
 * old: a wrong guess costs an attempt, because ownership is decided in the shard (R75).
 */
import type { GroupId, NodeId } from '../../raft/index.js';
import {
  nodeOf,
  noCluster,
  shardRecordOf,
  type ShardRecord,
  type Topology,
} from '../meta/topology.js';
import { Router } from '../router/router.js';
import type { Slot } from '../router/slot.js';

export class ClusterView {
  topology: Topology = noCluster;
  private router: Router | undefined;
  private readonly remotes = new Map<GroupId, RemoteReplicas>();

  /** Takes a newer topology; an older one is ignored. */
  update(topology: Topology): void {
    if (topology.version <= this.topology.version) return;
    this.topology = topology;
    this.router = new Router({ version: topology.version, ranges: topology.slots });
    for (const shard of topology.shards) this.remotes.get(shard.id)?.follow(shard);
  }

  get version(): number {
    return this.topology.version;
  }

  /** The shard that has the slot; undefined as long as there is no cluster. */
  shardOf(slot: Slot): ShardRecord | undefined {
    if (this.router === undefined) return undefined;
    return shardRecordOf(this.topology, this.router.shardOf(slot));
  }

  /** Of a node's client port; undefined for a node that is not known. */
  clientAddressOf(node: number): string | undefined {
    return nodeOf(this.topology, node)?.clientAddress;
  }

  /** Whom to ask about a shard that has no replica here. */
  remote(shard: ShardRecord): RemoteReplicas {
    let remote = this.remotes.get(shard.id);
    if (remote === undefined) {
      remote = new RemoteReplicas(shard);
      this.remotes.set(shard.id, remote);
    }
    return remote;
  }
}

/** The nodes that have replicas of a shard, the most promising one first. */
export class RemoteReplicas {
  private nodes: readonly NodeId[];

  constructor(shard: ShardRecord) {
    this.nodes = shard.replicas.map(({ node }) => node);
  }

  get bestNode(): NodeId | undefined {
    return this.nodes[0];
  }

  /** Keeps the order in which the nodes are known to be worth asking. */
  follow(shard: ShardRecord): void {
    const now = shard.replicas.map(({ node }) => node);
    const known = this.nodes.filter((node) => now.includes(node));
    this.nodes = [...known, ...now.filter((node) => !known.includes(node))];
  }

  learn(leader: number): void {
    const found = this.nodes.find((node) => node === leader);
    if (found !== undefined) this.nodes = [found, ...this.nodes.filter((node) => node !== leader)];
  }

  avoid(node: number): void {
    const found = this.nodes.find((each) => each === node);
    if (found !== undefined) this.nodes = [...this.nodes.filter((each) => each !== node), found];
  }
}
