/**
 * The shards of which this node has a replica: opened again after a restart, created and removed as
 * the topology says, and led by whom it names first.
 */
import type { GroupId, NodeId, ReplicaId } from '../../raft/index.js';
import type { Engine, RecoveredGroup } from '../../storage/index.js';
import type { Group } from '../group/group.js';
import type { Host } from '../group/host.js';
import { shardRecordOf, type ShardRecord, type Topology } from '../meta/topology.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { CommandResult } from '../shard/command.js';
import { ShardMachine } from '../shard/shard-machine.js';
import { Shard } from '../shard/shard.js';

export interface LocalShardsOptions {
  readonly node: NodeId;
  readonly host: Host;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
  /** The node has a live connection. */
  readonly isConnected: (node: NodeId) => boolean;
}

export interface LocalShard {
  readonly id: GroupId;
  readonly group: Group<CommandResult>;
  readonly shard: Shard;
}

/** A leader is asked to hand over to the shard's first replica this often at most, ms. */
const handBackEveryMs = 3000;

export class LocalShards {
  private readonly options: LocalShardsOptions;
  private readonly shards = new Map<GroupId, LocalShard>();
  private topology: Topology | undefined;
  /** Creations happen one after the other. */
  private following: Promise<void> = Promise.resolve();
  private readonly stopHandingBack: () => void;

  constructor(options: LocalShardsOptions) {
    this.options = options;
    this.stopHandingBack = options.clock.every(handBackEveryMs, () => {
      this.handBack();
    });
  }

  get(id: GroupId): LocalShard | undefined {
    return this.shards.get(id);
  }

  all(): readonly LocalShard[] {
    return [...this.shards.values()];
  }

  /** Opens the replicas that this node had before it was stopped; before the host starts. */
  async recover(recovered: readonly RecoveredGroup[]): Promise<void> {
    for (const { group, replica } of recovered) await this.open(group, replica, []);
  }

  /** Creates what the topology gives to this node. Whatever fails stops the node. */
  follow(topology: Topology): void {
    this.topology = topology;
    this.following = this.following
      .then(() => this.create(topology))
      .catch((error: unknown) => {
        this.options.onFatal(error instanceof Error ? error : new Error(String(error)));
      });
  }

  close(): void {
    this.stopHandingBack();
    for (const { shard } of this.shards.values()) shard.close();
  }

  private async create(topology: Topology): Promise<void> {
    for (const shard of topology.shards) {
      if (this.shards.has(shard.id)) continue;
      const own = shard.replicas.find(({ node }) => node === this.options.node);
      if (own === undefined) continue;
      // A founder's log begins with all founders as voters. Nobody else's does: whoever comes later
      // learns from the leader who the members are.
      const isFounder = shard.founders.some(({ replica }) => replica === own.replica);
      await this.open(shard.id, own.replica, isFounder ? shard.founders : []);
    }
  }

  private async open(
    id: GroupId,
    replica: ReplicaId,
    founders: ShardRecord['founders'],
  ): Promise<void> {
    const { host, engine, clock, log, onFatal } = this.options;
    let machine: ShardMachine | undefined;
    const group = await host.addGroup<CommandResult>({
      id,
      replica,
      firstMembers: founders.map((founder) => ({ id: founder.replica, node: founder.node })),
      createMachine: (prefix) => (machine = new ShardMachine(engine, prefix)),
    });
    if (machine === undefined) throw new Error(`shard ${id} was opened without its state machine`);
    const birthSlots = (): ShardRecord['birthSlots'] | undefined =>
      this.topology === undefined ? undefined : shardRecordOf(this.topology, id)?.birthSlots;
    const shard = new Shard({ group, machine, clock, log, onFatal, birthSlots });
    this.shards.set(id, { id, group, shard });
  }

  /** Leaders are spread as replicas are: the first one of each shard leads when it can. */
  private handBack(): void {
    const { node, isConnected } = this.options;
    for (const { id, group } of this.shards.values()) {
      const [first] = (this.topology && shardRecordOf(this.topology, id)?.replicas) ?? [];
      if (first === undefined || first.node === node || !group.isLeader) continue;
      const { progress, lastIndex } = group.status();
      const caughtUp = progress.some(
        (peer) => peer.id === first.replica && peer.match === lastIndex && peer.recentlyActive,
      );
      if (caughtUp && isConnected(first.node)) group.transferLeadership(first.replica);
    }
  }
}
