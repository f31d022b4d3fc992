/**
 * What only the leader of a group can do, asked for at any node: done here when this node leads the
 * group, else passed on to the node that does, one hop.
 */
import type {
  GroupStatusMessage,
  ReplicaHashReply,
  ReplicaHashRequest,
  ShardFiguresReply,
  ShardFiguresRequest,
  StepMigrationReply,
  StepMigrationRequest,
  TakeHashReply,
  TakeHashRequest,
  TransferLeaderReply,
  TransferLeaderRequest,
} from '../../proto/messages.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import { KvError } from '../errors.js';
import type { HashAt, ReplicaHash } from '../group/group.js';
import { metadataGroup, shardRecordOf } from '../meta/topology.js';
import type { Clock } from '../observe/clock.js';
import { invalid } from './convert.js';
import type { NodeLink } from './node-link.js';
import { toKvError } from './status.js';

/** A group with a replica on this node, as the admin calls see it. */
export interface AdminGroup {
  readonly id: number;
  /** Now, as far as this replica knows; both may change with every turn. */
  isLeader(): boolean;
  leaderNode(): number | undefined;
  status(): GroupStatusMessage;
  /** 0: to the best one. False when there is nobody, or not this one, to take over just now. */
  transferLeadership(toReplica: number): boolean;
  /** Over the applied state, at the index that is applied now. */
  hash(): Promise<ReplicaHash>;
  hashAt(index: number): HashAt;
  /** The index of the logged command; rejects with KvError. Asked of a leader. */
  takeHash(): Promise<number>;
  /** Asked of a leader; throws KvError KV_INVALID for a group that has no slots. */
  shardFigures(withSlots: boolean): ShardFiguresReply;
  /** Rejects with KvError; KV_INVALID for bytes that are no step of a target. Asked of a leader. */
  stepMigration(request: StepMigrationRequest): Promise<StepMigrationReply>;
}

export interface GroupDoorOptions {
  readonly groups: () => readonly AdminGroup[];
  readonly view: ClusterView;
  readonly link: NodeLink;
  readonly clock: Clock;
  /** Of a node's client port; undefined when it is not known. */
  readonly addressOf: (node: number) => string | undefined;
}

/** While there is no leader, or nobody can take over from it: this often, and this long, ms. */
const retryMs = 100;
const patienceMs = 5000;
/** A new leader that was named has to be heard of within this time, ms. */
const transferMs = 1500;

export class GroupDoor {
  private readonly options: GroupDoorOptions;

  constructor(options: GroupDoorOptions) {
    this.options = options;
  }

  /** Resolves when another replica leads. */
  transferLeader(request: TransferLeaderRequest, forwarded: boolean): Promise<TransferLeaderReply> {
    return this.atLeader(request.groupId, forwarded, {
      here: (group) => this.transfer(group, request.toReplica ?? 0),
      there: (address) => this.options.link.transferLeader(address, request),
    });
  }

  /** Resolves with the index at which every replica of the group takes the hash of its state. */
  takeHash(request: TakeHashRequest, forwarded: boolean): Promise<TakeHashReply> {
    return this.atLeader(request.groupId, forwarded, {
      here: async (group) => ({ index: await group.takeHash() }),
      there: (address) => this.options.link.takeHash(address, request),
    });
  }

  shardFigures(request: ShardFiguresRequest, forwarded: boolean): Promise<ShardFiguresReply> {
    return this.atLeader(request.shardId, forwarded, {
      here: (group) => Promise.resolve(group.shardFigures(request.withSlots === true)),
      there: (address) => this.options.link.shardFigures(address, request),
    });
  }

  /** Resolves with the states of the slots when all steps are applied at the leader of the shard. */
  stepMigration(
    request: StepMigrationRequest,
    forwarded: boolean,
    withinMs = patienceMs,
  ): Promise<StepMigrationReply> {
    const call = {
      here: (group: AdminGroup) => group.stepMigration(request),
      there: (address: string, leftMs: number) =>
        this.options.link.stepMigration(address, request, leftMs),
    };
    return this.atLeader(request.shardId, forwarded, call, withinMs);
  }

  /** Of the replica on this very node. */
  async replicaHash({ groupId: id, atIndex = 0 }: ReplicaHashRequest): Promise<ReplicaHashReply> {
    const groups = this.options.groups();
    const group = groups.find((each) => each.id === id);
    if (group === undefined)
      throw invalid(
        `no group ${id} on this node: it has ${groups.map((each) => each.id).join(', ')}`,
      );
    if (atIndex === 0) return replyOf(await group.hash());
    const found = group.hashAt(atIndex);
    if (found.kind === 'hash') return replyOf(found.hash);
    if (found.kind === 'pending')
      return { appliedIndex: atIndex, hash: '', keys: 0, pending: true };
    throw invalid(
      `this replica of group ${id} has no hash of index ${atIndex}: it was restarted meanwhile, came ` +
        'past it by a snapshot, or newer hashes were wanted: check again',
    );
  }

  private async transfer(group: AdminGroup, toReplica: number): Promise<TransferLeaderReply> {
    const { clock } = this.options;
    if (toReplica === group.status().replicaId) return { leaderNode: group.leaderNode() ?? 0 };
    if (!group.transferLeadership(toReplica)) {
      const whom = toReplica === 0 ? 'no other voter' : `replica ${toReplica} is no voter that`;
      throw new KvError(`${name(group.id)}: ${whom} could take over just now`, {
        code: 'KV_UNAVAILABLE',
        outcome: 'notApplied',
        retryAfterMs: 1000,
      });
    }
    const deadline = clock.monotonicMs() + transferMs;
    let leaderNode = group.leaderNode();
    while (group.isLeader() || leaderNode === undefined) {
      if (clock.monotonicMs() > deadline)
        throw new KvError(
          `${name(group.id)}: the replica that was to lead did not take over: it may lag behind`,
          { code: 'KV_UNAVAILABLE', outcome: 'notApplied', retryAfterMs: 1000 },
        );
      await this.pause();
      leaderNode = group.leaderNode();
    }
    return { leaderNode };
  }

  private async atLeader<T>(
    id: number,
    forwarded: boolean,
    {
      here,
      there,
    }: {
      here(group: AdminGroup): Promise<T>;
      /** `leftMs`: of what the caller waits for. */
      there(address: string, leftMs: number): Promise<T>;
    },
    withinMs = patienceMs,
  ): Promise<T> {
    const { groups, clock } = this.options;
    const deadline = clock.monotonicMs() + withinMs;
    for (let turn = 0; ; turn++) {
      const local = groups().find((each) => each.id === id);
      try {
        if (local?.isLeader() === true) return await here(local);
        const addresses = this.addresses(id, local);
        const address = forwarded ? undefined : addresses[turn % Math.max(1, addresses.length)];
        if (address === undefined) throw this.notLeader(id, local);
        return await there(address, Math.max(1, deadline - clock.monotonicMs()));
      } catch (error) {
        const problem = toKvError(error);
        const passing = problem.code === 'KV_NOT_LEADER' || problem.code === 'KV_UNAVAILABLE';
        if (forwarded || !passing || clock.monotonicMs() > deadline) throw problem;
        await this.pause();
      }
    }
  }

  private pause(): Promise<void> {
    return new Promise((resolve) => {
      this.options.clock.after(retryMs, resolve);
    });
  }

  /** Client addresses of the nodes with a replica, the leader's first as far as known. */
  private addresses(id: number, local: AdminGroup | undefined): readonly string[] {
    const { view, addressOf } = this.options;
    const { topology } = view;
    const shard = shardRecordOf(topology, id);
    if (shard === undefined && id !== metadataGroup)
      throw invalid(
        `there is no shard ${id} in cluster '${topology.clusterId}': quorate shard list has them`,
      );
    const { replicas } = shard ?? { replicas: topology.metadata };
    const nodes = replicas.map(({ node }): number => node);
    const leader = local?.leaderNode();
    const sorted = leader === undefined ? nodes : [leader, ...nodes.filter((n) => n !== leader)];
    return sorted.map(addressOf).filter((address) => address !== undefined);
  }

  private notLeader(id: number, local: AdminGroup | undefined): KvError {
    const leaderNode = local?.leaderNode() ?? 0;
    const leaderAddress = this.options.addressOf(leaderNode) ?? '';
    return leaderNode === 0
      ? new KvError(`${name(id)} has no leader that could be reached: try again`, {
          code: 'KV_UNAVAILABLE',
          outcome: 'notApplied',
          retryAfterMs: 200,
        })
      : new KvError(`this node does not lead ${name(id)}: ask its leader`, {
          code: 'KV_NOT_LEADER',
          outcome: 'notApplied',
          leaderNode,
          leaderAddress,
        });
  }
}

function name(id: number): string {
  return id === metadataGroup ? 'the metadata group' : `shard ${id}`;
}

function replyOf({ appliedIndex, hash, keys }: ReplicaHash): ReplicaHashReply {
  return { appliedIndex, hash, keys, pending: false };
}
