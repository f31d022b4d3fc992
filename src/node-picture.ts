/**
 * What a node tells of itself and its replicas: to operators, to its health checks, and to the node
 * that decides for the cluster.
 */
import { groupId, replicaId, type GroupId } from '../raft/index.js';
import type {
  GroupStatusMessage,
  ShardFiguresReply,
  StatusReply,
  StepMigrationReply,
  StepMigrationRequest,
} from '../proto/messages.js';
import { invalid } from './api/convert.js';
import type { AdminGroup } from './api/group-door.js';
import { stepHere } from './api/migration-steps.js';
import { shardFigures } from './api/shard-figures.js';
import type { KnownLeader } from './api/topology-service.js';
import type { ShardReport } from './cluster/decisions.js';
import type { MigrationFigures } from './cluster/migration-order.js';
import { formatAddress } from './config/address.js';
import { peerAddresses } from './foundations.js';
import type { HostedGroup } from './group/host.js';
import { metadataGroup, shardRecordOf } from './meta/topology.js';
import type { NodeParts } from './node-parts.js';
import { packageVersion } from './package-version.js';

/** Migrations that this node drives from a shard, by id. */
type ExportsOf = (shard: GroupId) => Iterable<readonly [id: number, MigrationFigures]>;

export class NodePicture {
  private readonly parts: NodeParts;
  private readonly exportsOf: ExportsOf;
  private readonly startedMs: number;

  constructor(parts: NodeParts, exportsOf: ExportsOf) {
    this.parts = parts;
    this.exportsOf = exportsOf;
    this.startedMs = parts.clock.monotonicMs();
  }

  /** Why requests would fail just now; undefined when they would not. */
  notReady(): string | undefined {
    const { view, shards } = this.parts;
    if (view.version === 0) return 'there is no cluster yet: quorate cluster init';
    for (const { id, group } of shards.all()) {
      if (group.isRestoring) return `its replica of shard ${id} is being rebuilt`;
      if (group.leaderNode === undefined) return `shard ${id} has no leader just now`;
    }
    return undefined;
  }

  get migrationsDriven(): number {
    return this.parts.shards.all().reduce((sum, { id }) => sum + [...this.exportsOf(id)].length, 0);
  }

  get slotsInMigration(): number {
    return this.parts.shards.all().reduce((sum, { shard }) => sum + shard.slotsInMigration.size, 0);
  }

  *knownLeaders(): Iterable<KnownLeader> {
    for (const { id, group } of this.parts.shards.all()) {
      const { leaderNode: node, term } = group;
      if (node !== undefined) yield { shard: id, node, term };
    }
  }

  groups(): readonly AdminGroup[] {
    return this.parts.foundations.host.allGroups().map((group) => ({
      id: group.id,
      isLeader: () => group.isLeader,
      leaderNode: () => group.leaderNode,
      status: () => this.groupStatus(group),
      transferLeadership: (to) => group.transferLeadership(to === 0 ? noTarget : replicaId(to)),
      hash: () => group.hash(),
      hashAt: (index) => group.hashAt(index),
      takeHash: () => this.takeHash(group.id),
      stepMigration: (request) => this.stepMigration(request),
      shardFigures: (withSlots) => this.shardFigures(group.id, withSlots),
    }));
  }

  /** The members of a shard as its leader says, here or elsewhere; undefined when nobody says. */
  async shardReport(id: GroupId): Promise<ShardReport | undefined> {
    const { foundations, view, clientAddressOf } = this.parts;
    const local = foundations.host.allGroups().find((group) => group.id === id);
    if (local?.isLeader === true) return reportOf(this.groupStatus(local));
    const record = shardRecordOf(view.topology, id);
    if (record === undefined) return undefined;
    const remote = view.remote(record);
    const node = local?.leaderNode ?? remote.bestNode;
    const address = node === undefined ? undefined : clientAddressOf(node);
    if (node === undefined || address === undefined) return undefined;
    try {
      const { groups } = await foundations.link.status(address);
      const found = groups.find(({ groupId: group }) => group === id);
      if (found?.role === 'leader') return reportOf(found);
      if (found !== undefined && found.leaderNode > 0) remote.learn(found.leaderNode);
      else remote.avoid(node);
    } catch {
      // It does not answer: somebody else is asked in the next round.
      remote.avoid(node);
    }
    return undefined;
  }

  node(): Omit<StatusReply, 'groups'> {
    const { config, clock, foundations, view, disk, clientAddressOf } = this.parts;
    const { transport, raftLog } = foundations;
    const peers = peerAddresses(config, view.topology);
    return {
      clusterId: config.clusterId,
      nodeId: foundations.node,
      version: packageVersion,
      uptimeMs: Math.floor(clock.monotonicMs() - this.startedMs),
      clientAddress: formatAddress(config.clientAddress),
      peerAddress: formatAddress(config.peerAddress),
      peers: transport.peers().map(({ node, connected, roundTripUs }) => {
        const peerAddress = peers.get(node);
        return {
          nodeId: node,
          peerAddress: peerAddress === undefined ? '' : formatAddress(peerAddress),
          clientAddress: clientAddressOf(node) ?? '',
          connected,
          roundTripUs,
        };
      }),
      rssBytes: process.memoryUsage.rss(),
      raftLogBytes: raftLog.statistics().bytes,
      diskFreeBytes: disk.freeBytes,
      diskFull: disk.full,
    };
  }

  private takeHash(id: GroupId): Promise<number> {
    if (id === metadataGroup) return this.parts.metadata.takeHash();
    return new Promise((resolve, reject) => {
      const local = this.parts.shards.get(id);
      if (local === undefined) throw new Error(`group ${id} has no replica here any more`);
      local.shard.takeHash((error, index) => {
        if (error === undefined) resolve(index);
        else reject(error);
      });
    });
  }

  private shardFigures(id: GroupId, withSlots: boolean): ShardFiguresReply {
    const local = this.parts.shards.get(id);
    if (local === undefined) throw invalid('only shards have slots: name one, from 1 on');
    return shardFigures(local.shard.slotFigures(), this.exportsOf(id), withSlots);
  }

  private async stepMigration(request: StepMigrationRequest): Promise<StepMigrationReply> {
    const { shards, disk } = this.parts;
    const local = shards.get(groupId(request.shardId));
    if (local === undefined) throw invalid('only shards take part in migrations');
    return stepHere(local.shard, request, disk.full);
  }

  private groupStatus(group: HostedGroup): GroupStatusMessage {
    const status = group.status();
    const { membership } = status.membership;
    const nodeOf = new Map(membership.members.map((member) => [member.id, member.node]));
    const nodesOf = (ids: readonly number[]): number[] =>
      [...nodeOf].filter(([id]) => ids.includes(id)).map(([, node]) => node);
    const shard = this.parts.shards.get(group.id)?.shard;
    const leaderNode = group.leaderNode ?? 0;
    return {
      groupId: group.id,
      kind: group.id === metadataGroup ? 'metadata' : 'shard',
      replicaId: group.replica,
      role: status.role,
      term: status.term,
      leaderNode,
      leaderAddress: this.parts.clientAddressOf(leaderNode) ?? '',
      firstIndex: status.firstIndex,
      lastIndex: status.lastIndex,
      commitIndex: status.commitIndex,
      appliedIndex: status.appliedIndex,
      voters: nodesOf(membership.incoming),
      learners: nodesOf(membership.learners),
      slots: shard?.slots ?? 0,
      keys: shard?.keys ?? 0,
      restoring: status.restoring,
      voterReplicas: [...new Set([...membership.incoming, ...membership.outgoing])],
      learnerReplicas: [...membership.learners],
      membershipCommitted: status.membership.index <= status.commitIndex,
    };
  }
}

const noTarget = 0 as ReturnType<typeof replicaId>;

function reportOf(status: GroupStatusMessage): ShardReport | undefined {
  // Of the metadata group this node leads it: whatever it decides comes after that in the same log.
  if (!status.membershipCommitted && status.groupId !== metadataGroup) return undefined;
  return {
    voters: status.voterReplicas.map(replicaId),
    learners: status.learnerReplicas.map(replicaId),
  };
}
