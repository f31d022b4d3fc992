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
import { ruleOf } from '../meta/pins.js';
import { isPin, Pins, segmentAt } from '../router/pins.js';
import { Router } from '../router/router.js';
import type { Slot } from '../router/slot.js';

/** Who has a slot, and the epoch of that ownership. */
export interface SlotOwner {
  readonly shard: number;
  readonly epoch: number;
}

/** Of a slot that has never moved. */
const bornEpoch = 1;

export class ClusterView {
  topology: Topology = noCluster;
  /** Called after each newer topology. */
  onUpdate: () => void = () => undefined;
  private router: Router | undefined;
  private pins = new Pins([]);
  private pinOwners: ReadonlyMap<Slot, SlotOwner> = new Map();
  /**
   * Owners that were named with a higher epoch than the map's: the new owner of a slot can be ahead of
   * every map (rule D31). At most one for each slot, and none that the map has caught up with.
   */
  private readonly ahead = new Map<Slot, SlotOwner>();
  private readonly remotes = new Map<GroupId, RemoteReplicas>();

  /** Takes a newer topology; an older one is ignored. */
  update(topology: Topology): void {
    if (topology.version <= this.topology.version) return;
    this.topology = topology;
    this.router = new Router({ version: topology.version, ranges: topology.slots });
    this.pins = new Pins(topology.pins.map(ruleOf));
    this.pinOwners = new Map(topology.pins.map(({ slot, ...owner }) => [slot, owner]));
    for (const [slot, owner] of this.ahead) {
      // Of a pin that the map has had and has no more nobody is the owner.
      const isGone = isPin(slot) && slot < topology.next.pin && !this.pinOwners.has(slot);
      if (isGone || owner.epoch <= (this.mapped(slot)?.epoch ?? 0)) this.ahead.delete(slot);
    }
    for (const shard of topology.shards) this.remotes.get(shard.id)?.follow(shard);
    this.onUpdate();
  }

  get version(): number {
    return this.topology.version;
  }

  /** By the highest epoch that was heard of; undefined as long as nobody named one. */
  ownerOf(slot: Slot): SlotOwner | undefined {
    return this.ahead.get(slot) ?? this.mapped(slot);
  }

  private mapped(slot: Slot): SlotOwner | undefined {
    return isPin(slot) ? this.pinOwners.get(slot) : this.router?.ownerOf(slot);
  }

  /** The pin that a key belongs to by the map, or else its hash slot. */
  slotOf(key: Uint8Array): Slot {
    return this.pins.slotOf(key);
  }

  /** Where the keys of a hash slot are from this one on; empty: from the first. */
  slotAt(home: Slot, from: Uint8Array): Slot {
    return segmentAt(home, this.pins.of(home), from).slot;
  }

  /**
   * A node, or a shard of this one, named the owner of a slot; the one with the higher epoch holds,
   * whatever the maps. Before there is a map, only what has moved since its birth is worth keeping.
   */
  learnOwner(slot: Slot, owner: SlotOwner): void {
    const epoch = this.ownerOf(slot)?.epoch ?? (isPin(slot) ? 0 : bornEpoch);
    if (owner.epoch > epoch) this.ahead.set(slot, owner);
  }

  /** The shard that has the slot; undefined while there is no cluster, or the shard is not in the map. */
  shardOf(slot: Slot): ShardRecord | undefined {
    const owner = this.ownerOf(slot);
    return owner === undefined ? undefined : shardRecordOf(this.topology, owner.shard);
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
