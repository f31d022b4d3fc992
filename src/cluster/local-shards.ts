/**
 * The groups of which this node has a replica, shards and perhaps the metadata group: opened again
 * after a restart, created and removed as the topology says, brought to the members that it names, and
 * (shards) led by whom it names first.
 *
 * All of this looks at what is and at what should be, again and again: nothing is lost by a crash.
 */
import {
  isVoter,
  type Generation,
  type GroupId,
  type NodeId,
  type ReplicaId,
} from '../../raft/index.js';
import type { Engine, RecoveredGroup } from '../../storage/index.js';
import type { Group } from '../group/group.js';
import type { Host } from '../group/host.js';
import {
  metadataGroup,
  replacementOf,
  shardRecordOf,
  type ReplicaRecord,
  type ShardRecord,
  type Topology,
} from '../meta/topology.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { Slot } from '../router/slot.js';
import type { CommandResult } from '../shard/command.js';
import { ShardMachine } from '../shard/shard-machine.js';
import { Shard } from '../shard/shard.js';
import { goneTo, isServing, type SlotState } from '../shard/slot-state.js';
import type { SlotOwner } from './cluster-view.js';
import { isSettled, nextStep } from './membership-keeper.js';

export interface LocalShardsOptions {
  readonly node: NodeId;
  readonly host: Host;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
  /** The node has a live connection. */
  readonly isConnected: (node: NodeId) => boolean;
  readonly metadata: MetadataReplica;
  /** A shard of this node says whose a slot is: it knows before any map does (rule D31). */
  readonly onOwner: (slot: Slot, owner: SlotOwner) => void;
}

/** A replica of a group, whatever its state machine is. */
export type LocalReplica = Pick<
  Group<unknown>,
  | 'id'
  | 'replica'
  | 'generation'
  | 'isLeader'
  | 'leaderNode'
  | 'membership'
  | 'status'
  | 'transferLeadership'
  | 'learnGeneration'
  | 'rouse'
  | 'changeMembership'
>;

/** This node's replica of the metadata group, while it has one. */
export interface MetadataReplica {
  /** Creates it, or opens it again. */
  open(
    replica: ReplicaId,
    founders: readonly ReplicaRecord[],
    generation: Generation,
  ): Promise<LocalReplica>;
  /** It is about to be removed: nobody is to ask it any more. */
  drop(): void;
}

/** Whom a group is to consist of. */
type GroupRecord = Pick<ShardRecord, 'id' | 'replicas' | 'founders' | 'generation'>;

export interface LocalShard {
  readonly id: GroupId;
  readonly group: Group<CommandResult>;
  readonly shard: Shard;
}

/** A leader is asked to hand over to the shard's first replica this often at most, ms. */
const handBackEveryMs = 3000;

/** Between two looks at whether shards and members are those of the topology, ms. */
const keepEveryMs = 1000;

/** Replicas created at once: they share syncs of the Raft log, and the groups that run have turns between. */
const creationsMax = 64;

/**
 * So many looks without a leader a replica that is to go waits for its group to let it go, if by its own
 * log it still counts. One that was away when it was removed never hears of it; one that hears a leader is
 * still needed: its successor may never come to vote.
 */
const farewellRounds = 10;

export class LocalShards {
  private readonly options: LocalShardsOptions;
  private readonly shards = new Map<GroupId, LocalShard>();
  /** Of all groups. */
  private readonly replicas = new Map<GroupId, LocalReplica>();
  /** Being opened, or about to be: the first of them may bring a topology that names them all. */
  private readonly opening = new Set<GroupId>();
  private topology: Topology | undefined;
  /** Creations and removals happen one after the other. */
  private following: Promise<void> = Promise.resolve();
  /** Looks in a row at a replica that the topology does not name, and that hears no leader. */
  private readonly unnamed = new Map<ReplicaId, number>();
  private readonly stops: readonly (() => void)[];
  private closed = false;

  constructor(options: LocalShardsOptions) {
    this.options = options;
    const { clock } = options;
    this.stops = [
      clock.every(handBackEveryMs, () => {
        this.handBack();
      }),
      clock.every(keepEveryMs, () => {
        this.keep();
      }),
    ];
  }

  get(id: GroupId): LocalShard | undefined {
    return this.shards.get(id);
  }

  /**
   * The same, unless another node must be asked: while the replica here is rebuilt, and when the topology
   * has no place for it and it hears no leader. It was removed while its node was away, and waits.
   */
  answering(id: GroupId): LocalShard | undefined {
    const local = this.shards.get(id);
    if (local === undefined || local.group.isRestoring) return undefined;
    const { replica, leaderNode } = local.group;
    const { topology } = this;
    const isLeft =
      leaderNode === undefined && topology !== undefined && isUnnamed(topology, id, replica);
    return isLeft ? undefined : local;
  }

  all(): readonly LocalShard[] {
    return [...this.shards.values()];
  }

  /** Opens the replicas that this node had before it was stopped; before the host starts. */
  async recover(recovered: readonly RecoveredGroup[]): Promise<void> {
    // The metadata group's replica brings its topology while it is opened, and that names the others.
    for (const { group } of recovered) this.opening.add(group);
    for (const { group, replica } of recovered) await this.open(group, replica, []);
  }

  /**
   * The metadata group's first replicas, before there is a topology: not on a node that had one before,
   * which it lost since.
   */
  async found(replica: ReplicaId, founders: readonly ReplicaRecord[]): Promise<void> {
    const { host } = this.options;
    if (this.replicas.has(metadataGroup) || replica <= host.removedFloor(metadataGroup)) return;
    await this.open(metadataGroup, replica, founders);
  }

  /** Creates what the topology gives to this node. Whatever fails stops the node. */
  follow(topology: Topology): void {
    this.topology = topology;
    this.align(topology);
  }

  close(): void {
    this.closed = true;
    for (const stop of this.stops) stop();
    for (const { shard } of this.shards.values()) shard.close();
  }

  // ---- replicas on this node

  private align(topology: Topology): void {
    this.following = this.following
      .then(async () => {
        for (const id of this.departing(topology)) await this.remove(id);
        const arriving = this.arriving(topology);
        for (let at = 0; at < arriving.length; at += creationsMax) {
          const some = arriving.slice(at, at + creationsMax);
          await Promise.all(some.map((each) => this.create(each)));
        }
      })
      .catch((error: unknown) => {
        // What is under way while the node stops finds log and engine closed.
        if (this.closed) return;
        this.options.onFatal(error instanceof Error ? error : new Error(String(error)));
      });
  }

  /** Named on this node, and neither here nor removed from here before (rule D01). */
  private arriving(topology: Topology): readonly { record: GroupRecord; own: ReplicaRecord }[] {
    const { node, host } = this.options;
    return groupRecords(topology).flatMap((record) => {
      const own = record.replicas.find((each) => each.node === node);
      const isHere = this.replicas.has(record.id) || this.opening.has(record.id);
      if (own === undefined || this.closed || isHere) return [];
      // A topology from before the removal: after a restart, an old one may be heard again.
      return own.replica > host.removedFloor(record.id) ? [{ record, own }] : [];
    });
  }

  private async create({
    record,
    own,
  }: {
    record: GroupRecord;
    own: ReplicaRecord;
  }): Promise<void> {
    // A founder's log begins with all founders as voters. Nobody else's does: whoever comes later
    // learns from the leader who the members are.
    const { id, founders } = record;
    const generation = Math.max(0, record.generation ?? 0);
    // Nor a founder's once the group was recovered: then it began anew, with the survivor alone.
    const isFounder = generation === 0 && founders.some(({ replica }) => replica === own.replica);
    await this.open(id, own.replica, isFounder ? founders : [], generation);
  }

  /** Replicas that have no place here any more, and that nobody waits for. */
  private departing(topology: Topology): readonly GroupId[] {
    if (this.closed) return [];
    return [...this.replicas]
      .filter(([id, group]) => {
        // The shard is gone, with a word about it: there is nothing left to lead.
        if (topology.removedShards.includes(id)) return true;
        if (!isUnnamed(topology, id, group.replica) || group.isLeader) return false;
        const { membership, outdatedBy } = group.status();
        const looks = this.unnamed.get(group.replica) ?? 0;
        // One of a generation that is over counts nowhere, whatever its own log says.
        if (outdatedBy > 0 || !isVoter(membership.membership, group.replica)) return true;
        return looks >= farewellRounds;
      })
      .map(([id]) => id);
  }

  private async remove(id: GroupId): Promise<void> {
    const group = this.replicas.get(id);
    if (group === undefined) return;
    this.replicas.delete(id);
    this.unnamed.delete(group.replica);
    if (id === metadataGroup) this.options.metadata.drop();
    this.shards.get(id)?.shard.close();
    this.shards.delete(id);
    await this.options.host.removeGroup(id);
  }

  private async open(
    id: GroupId,
    replica: ReplicaId,
    founders: readonly ReplicaRecord[],
    generation: Generation = 0,
  ): Promise<void> {
    this.opening.add(id);
    const group =
      id === metadataGroup
        ? await this.options.metadata.open(replica, founders, generation)
        : await this.openShard(id, replica, founders, generation);
    this.opening.delete(id);
    this.replicas.set(id, group);
  }

  private async openShard(
    id: GroupId,
    replica: ReplicaId,
    founders: readonly ReplicaRecord[],
    generation: Generation,
  ): Promise<LocalReplica> {
    const { host, engine, clock, log, onFatal, onOwner } = this.options;
    let machine: ShardMachine | undefined;
    const group = await host.addGroup<CommandResult>({
      id,
      replica,
      firstMembers: founders.map((founder) => ({ id: founder.replica, node: founder.node })),
      generation,
      createMachine: (prefix) => {
        machine = new ShardMachine(engine, prefix, clock.endOfTurn);
        machine.onOwnership = (slot, state) => {
          const owner = ownerTold(id, state);
          if (owner !== undefined) onOwner(slot, owner);
        };
        return machine;
      },
    });
    if (machine === undefined) throw new Error(`shard ${id} was opened without its state machine`);
    const birthSlots = (): ShardRecord['birthSlots'] | undefined =>
      this.topology === undefined ? undefined : shardRecordOf(this.topology, id)?.birthSlots;
    const shard = new Shard({ group, machine, clock, log, onFatal, birthSlots });
    this.shards.set(id, { id, group, shard });
    return group;
  }

  // ---- members, and who leads

  private keep(): void {
    const { topology } = this;
    if (topology === undefined) return;
    for (const group of this.replicas.values()) {
      const { id, replica, leaderNode } = group;
      const isUnwanted = isUnnamed(topology, id, replica);
      // One that was removed while it was away and quiet would wait for ever for a leader's word.
      if (isUnwanted) group.rouse();
      const isAlone = isUnwanted && leaderNode === undefined;
      if (isAlone) this.unnamed.set(replica, (this.unnamed.get(replica) ?? 0) + 1);
      else this.unnamed.delete(replica);
    }
    for (const record of groupRecords(topology)) {
      const group = this.replicas.get(record.id);
      const { generation = 0 } = record;
      // Of a lower one: its majority, even if all of it came back, must not go on (rule D07).
      group?.learnGeneration(generation);
      // Of a higher one: the members that the record names are those of before the recovery.
      if (group?.isLeader === true && group.generation === generation)
        this.keepMembers(group, record, topology);
    }
    if (this.departing(topology).length > 0 || this.arriving(topology).length > 0)
      this.align(topology);
  }

  private keepMembers(
    group: LocalReplica,
    { id, replicas }: GroupRecord,
    topology: Topology,
  ): void {
    if (isSettled(group.membership.membership, replicas)) return;
    const { isConnected, log } = this.options;
    const issuedBelow = topology.next.replica;
    const step = nextStep(group.status(), { replicas, issuedBelow, isConnected });
    if (step?.kind === 'handOver') {
      group.transferLeadership(step.to);
    } else if (step?.kind === 'change') {
      const { addLearners, remove } = step.change;
      const fields = { group: id, add: addLearners.map((member) => member.id), remove };
      group.changeMembership(step.change, (outcome) => {
        // Whatever became of it, the next look sees what is.
        log('info', { ...fields, outcome: outcome.kind }, 'changed the members of a group');
      });
    }
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

/** Whose a slot is by the word of this shard; undefined: it is not, or not any more, for it to say. */
export function ownerTold(shard: GroupId, state: SlotState): SlotOwner | undefined {
  const { epoch } = state;
  if (isServing(state)) return { shard, epoch };
  const target = goneTo(state);
  return target === undefined ? undefined : { shard: target, epoch };
}

/** Nobody founds a replica of the metadata group by the topology: its founders made the topology. */
function groupRecords({ metadata, generation = 0, shards }: Topology): readonly GroupRecord[] {
  return [{ id: metadataGroup, replicas: metadata, founders: [], generation }, ...shards];
}

/**
 * The topology has no place for the replica, neither as a member nor as one that is being replaced.
 * Not so when it does not know the id yet: then it is older than the replica.
 */
function isUnnamed(topology: Topology, id: GroupId, replica: ReplicaId): boolean {
  if (replica >= topology.next.replica) return false;
  const named = id === metadataGroup ? topology.metadata : shardRecordOf(topology, id)?.replicas;
  const isNamed = named?.some((each) => each.replica === replica);
  return isNamed !== true && replacementOf(topology, id)?.from.replica !== replica;
}
