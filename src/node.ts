/**
 * Puts a node together, floor by floor, and takes it apart again in the opposite order.
 */
import { groupId, nodeId, replicaId, type GroupId } from '../raft/index.js';
import type {
  GroupStatusMessage,
  InitClusterRequest,
  JoinRequest,
  StatusReply,
} from '../proto/messages.js';
import { adminMethods } from './api/admin-service.js';
import { BatchService, batchPath } from './api/batch-service.js';
import { ClientListener, methodName } from './api/client-listener.js';
import { Deadlines } from './api/deadlines.js';
import { Dispatch, type OwnerHint, type Route } from './api/dispatch.js';
import { GroupDoor, type AdminGroup } from './api/group-door.js';
import { GrpcDoor } from './api/grpc-door.js';
import { watchersMax } from './api/health.js';
import { createGrpcServer, kvService, type GrpcServer } from './api/grpc-server.js';
import { HttpEndpoint } from './api/http-endpoint.js';
import { KvService } from './api/kv-service.js';
import { MetadataDoor } from './api/metadata-door.js';
import type { ApiLimits } from './api/limits.js';
import { defaultLimits } from './api/limits.js';
import { ScanService, scanPagePath } from './api/scan-service.js';
import { TopologyFeed } from './api/topology-feed.js';
import { TopologyService, type KnownLeader } from './api/topology-service.js';
import { UnaryDoor } from './api/unary-door.js';
import { ClusterView } from './cluster/cluster-view.js';
import { Controller } from './cluster/controller.js';
import type { ShardReport } from './cluster/decisions.js';
import { LocalShards } from './cluster/local-shards.js';
import { Metadata } from './cluster/metadata.js';
import { RecoveredGroups } from './cluster/recovered-groups.js';
import { writeTopologyCache } from './cluster/topology-cache.js';
import { formatAddress } from './config/address.js';
import { KvError } from './errors.js';
import type { Config } from './config/config.js';
import {
  layFoundations,
  metricsSource,
  peerAddresses,
  type FoundationOptions,
  type Foundations,
} from './foundations.js';
import type { HostedGroup } from './group/host.js';
import type { Issued } from './meta/commands.js';
import { metadataGroup, shardRecordOf, type Topology } from './meta/topology.js';
import { packageVersion } from './package-version.js';
import { DiskSpace } from './observe/disk-space.js';
import { LoopDelayMeter } from './observe/loop-delay.js';
import { Metrics } from './observe/metrics.js';
import type { Slot } from './router/slot.js';
import { startOf } from './shard/scan-cursor.js';

const MiB = 1024 * 1024;
const handOverMs = 2000;
const drainMs = 1000;

interface Parts {
  readonly metadata: Metadata;
  readonly shards: LocalShards;
  readonly view: ClusterView;
  readonly disk: DiskSpace;
  /** Takes a topology from wherever it came, unless it is older than what is known. */
  readonly onTopology: (topology: Topology) => void;
}

export type NodeOptions = FoundationOptions;

export class QuorateNode {
  private readonly options: NodeOptions;
  private readonly foundations: Foundations;
  private readonly door: MetadataDoor;
  private readonly metadata: Metadata;
  private readonly shards: LocalShards;
  private readonly view: ClusterView;
  private readonly disk: DiskSpace;
  private readonly deadlines: Deadlines;
  private readonly loopDelay = new LoopDelayMeter();
  private readonly startedMs: number;
  private listener: ClientListener | undefined;
  private endpoint: HttpEndpoint | undefined;
  private grpc: GrpcServer | undefined;
  private stopHealth: () => void = () => undefined;
  private readonly feed: TopologyFeed;
  private readonly topologies: TopologyService;
  private controller: Controller | undefined;
  private recovered: RecoveredGroups | undefined;

  private constructor(options: NodeOptions, foundations: Foundations, parts: Parts) {
    this.options = options;
    this.foundations = foundations;
    this.shards = parts.shards;
    this.view = parts.view;
    this.disk = parts.disk;
    this.deadlines = new Deadlines(options.clock);
    const { metadata, view } = parts;
    const { link } = foundations;
    this.metadata = metadata;
    const addressOf = (node: number): string | undefined => this.clientAddressOf(node);
    this.door = new MetadataDoor({ metadata, addressOf, view, link, clock: options.clock });
    const { clock } = options;
    this.feed = new TopologyFeed({
      clock,
      log: options.log,
      node: foundations.node,
      view,
      link,
      isInformed: () => metadata.isInformed,
      onTopology: parts.onTopology,
    });
    const onMapVersion = (version: number): void => {
      this.feed.onMapVersion(version);
    };
    this.topologies = new TopologyService({
      clock,
      topology: () => view.topology,
      leaders: () => this.knownLeaders(),
      onMapVersion,
      watchersMax: defaultLimits.watchersMax,
    });
    view.onUpdate = () => {
      this.topologies.onTopology();
    };
    this.startedMs = clock.monotonicMs();
  }

  /** Recovers, joins its groups and begins to serve. Rejects with a message that names the remedy. */
  static async open(options: NodeOptions): Promise<QuorateNode> {
    const { config, log, clock, onFatal } = options;
    const foundations = await layFoundations(options);
    const { node: own, host, engine, raftLog, transport } = foundations;
    const view = new ClusterView();
    const onTopology = (topology: Topology): void => {
      if (topology.version <= view.version) return;
      view.update(topology);
      transport.follow(peerAddresses(config, topology));
      shards.follow(topology);
      writeTopologyCache(config.dataDirectory, topology);
    };
    const addressOf = (node: number): string => clientAddressOf(node, { view, config }) ?? '';
    const metadata = new Metadata({ host, engine, addressOf, onTopology });
    const shards = new LocalShards({
      node: own,
      host,
      engine,
      clock,
      log,
      onFatal,
      isConnected: (node) => transport.peers().some((peer) => peer.node === node && peer.connected),
      metadata,
    });
    // Before the topology is known: a restarted node votes and serves with what it had.
    await shards.recover(raftLog.recovered);
    // The first nodes are the metadata group's first voters; who joins is given a replica, or none.
    const founders = config.initialCluster.map(({ node }) => ({
      replica: replicaId(node),
      node: nodeId(node),
    }));
    if (config.join.length === 0) await shards.found(replicaId(own), founders);
    if (foundations.topology !== undefined) onTopology(foundations.topology);
    const disk = await DiskSpace.open({
      directory: config.dataDirectory,
      reserveBytes: config.diskReserveMib * MiB,
      clock,
      writtenBytes: () => raftLog.statistics().writtenBytes,
      onError: (error) => {
        log('warn', { error: String(error) }, 'cannot measure the space left on disk');
      },
      onChange: (full, freeBytes) => {
        log(
          full ? 'error' : 'info',
          { freeBytes },
          full ? 'disk nearly full: writes are refused' : 'disk has room again',
        );
      },
    });
    const parts = { metadata, shards, view, disk, onTopology };
    const node = new QuorateNode(options, foundations, parts);
    node.lead(metadata);
    await node.serve();
    return node;
  }

  /** Hands leadership over, lets calls end, and closes everything in order. */
  async close(): Promise<void> {
    const { host, raftLog, engine } = this.foundations;
    this.stopHealth();
    this.feed.close();
    this.topologies.close();
    this.recovered?.close();
    this.controller?.close();
    for (const name of this.grpc?.health.names() ?? []) this.grpc?.health.set(name, 'NOT_SERVING');
    // While it hands over, this node goes on answering: requests are forwarded to the next leader.
    await host.handOver(handOverMs);
    await this.listener?.close(drainMs);
    await this.endpoint?.close();
    this.shards.close();
    await host.close();
    this.deadlines.close();
    this.foundations.forwarder.close();
    this.disk.close();
    this.loopDelay.close();
    await raftLog.close();
    await engine.close();
  }

  private async serve(): Promise<void> {
    const { config, clock, log } = this.options;
    const limits = limitsOf(config);
    const dispatch = new Dispatch({
      clock,
      forwarder: this.foundations.forwarder,
      routeOf: (slot) => this.routeOf(slot),
      startOf: (page) => startOf(page).slot,
      addressOf: (node) => this.clientAddressOf(node),
      clusterId: config.clusterId,
      mapVersion: () => this.view.version,
      ownerOf: (slot) => this.ownerOf(slot),
      onOwner: (slot, owner) => {
        this.view.learnOwner(slot, owner);
      },
      onMapVersion: (version) => {
        this.feed.onMapVersion(version);
      },
      diskFull: () => this.disk.full,
    });
    const kv = new KvService({ dispatch, limits });
    const batches = new BatchService({ dispatch, limits, clock, deadlines: this.deadlines });
    const scans = new ScanService({ dispatch, limits, clock, deadlines: this.deadlines });
    const unaryMethods = new Map([
      ...kv.unaryMethods,
      [batchPath, batches.unary] as const,
      [scanPagePath, scans.unaryPage] as const,
    ]);
    this.grpc = createGrpcServer({
      limits,
      clock,
      deadlines: this.deadlines,
      unaryMethods,
      streamMethods: {
        scan: (request, sink) => scans.scan(request, sink),
        pipeline: (requests, sink) => batches.pipeline(requests, sink),
        watch: (request, sink) => this.topologies.watch(request, sink),
      },
      adminMethods: adminMethods({
        groups: () => this.adminGroups(),
        door: this.groupDoor(),
        node: () => this.nodeStatus(),
        topology: () => this.view.topology,
        initCluster: (request, forwarded) => this.initCluster(request, forwarded),
        join: (request, forwarded) => this.join(request, forwarded),
        changeCluster: ({ command, ifVersion }, forwarded) =>
          this.door.changeText(command, forwarded, ifVersion),
      }),
    });
    await this.foundations.host.start();
    this.listener = await ClientListener.open({
      ...config.clientAddress,
      unaryDoor: new UnaryDoor({ limits, clock, deadlines: this.deadlines }),
      unaryMethods: config.unaryDoor === 'http2' ? unaryMethods : new Map<string, never>(),
      grpcDoor: new GrpcDoor(this.grpc.server),
      onCall: (path) => this.foundations.meters.calling(methodName(path)),
    });
    this.endpoint = await HttpEndpoint.open({
      address: config.httpAddress,
      metrics: this.metrics(),
      notReady: () => this.notReady(),
    });
    this.stopHealth = clock.every(200, () => {
      this.updateHealth();
    });
    const [clients, peers] = [config.clientAddress, config.peerAddress].map(formatAddress);
    log('info', { clients, peers }, 'serving');
  }

  /** Acts for the cluster whenever this node leads the metadata group. */
  private lead(metadata: Metadata): void {
    const { clock, log } = this.options;
    const { transport, node, host } = this.foundations;
    this.controller = new Controller({
      node,
      metadata,
      view: this.view,
      clock,
      log,
      isConnected: (other) =>
        transport.peers().some((peer) => peer.node === other && peer.connected),
      report: (shard) => this.shardReport(shard),
    });
    this.controller.start();
    const run = (text: string): Promise<unknown> => this.door.changeText(text, false);
    this.recovered = new RecoveredGroups({ node, host, view: this.view, clock, log, run });
  }

  /** The members of a shard as its leader says, here or elsewhere; undefined when nobody says. */
  private async shardReport(id: GroupId): Promise<ShardReport | undefined> {
    const local = this.foundations.host.allGroups().find((group) => group.id === id);
    if (local?.isLeader === true) return reportOf(this.groupStatus(local));
    const record = shardRecordOf(this.view.topology, id);
    if (record === undefined) return undefined;
    const remote = this.view.remote(record);
    const node = local?.leaderNode ?? remote.bestNode;
    const address = node === undefined ? undefined : this.clientAddressOf(node);
    if (node === undefined || address === undefined) return undefined;
    try {
      const { groups } = await this.foundations.link.status(address);
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

  private routeOf(slot: Slot): Route {
    const record = this.view.shardOf(slot);
    if (record === undefined) return { kind: 'none', error: noShard(this.view.version) };
    const local = this.shards.get(record.id);
    // A replica that is being rebuilt can answer nothing, and another one can.
    if (local !== undefined && !local.group.isRestoring)
      return { kind: 'local', shard: local.shard };
    return { kind: 'remote', shard: this.view.remote(record) };
  }

  private ownerOf(slot: Slot): OwnerHint | undefined {
    const owner = this.view.ownerOf(slot);
    const record = this.view.shardOf(slot);
    if (owner === undefined) return undefined;
    const { shard, epoch } = owner;
    const local = record && this.shards.get(record.id)?.shard;
    const node = local ? local.leaderNode : record && this.view.remote(record).bestNode;
    return { shard, epoch, node };
  }

  private *knownLeaders(): Iterable<KnownLeader> {
    for (const { id, group } of this.shards.all()) {
      const { leaderNode: node, term } = group;
      if (node !== undefined) yield { shard: id, node, term };
    }
  }

  private async initCluster(
    { shards, replicas }: InitClusterRequest,
    forwarded: boolean,
  ): Promise<Topology> {
    const { config } = this.options;
    const command = {
      kind: 'init',
      clusterId: config.clusterId,
      nodes: config.initialCluster.map(({ node, peer, client }) => ({
        id: node,
        directoryId: this.directoryOf(node),
        peerAddress: formatAddress(peer),
        clientAddress: formatAddress(client),
        labels: {},
        weight: 100,
      })),
      metadata: config.initialCluster.map(({ node }) => ({ replica: node, node })),
      shards,
      replication: replicas,
    };
    const { version } = await this.door.changeText(JSON.stringify(command), forwarded);
    return this.topologyAt(version);
  }

  private async join(
    request: JoinRequest,
    forwarded: boolean,
  ): Promise<{ nodeId: number; topology: Topology }> {
    const { config } = this.options;
    const { clusterId, directoryId, peerAddress, clientAddress, labels, weight } = request;
    if (clusterId !== config.clusterId) {
      throw new KvError(
        `this is cluster '${config.clusterId}', not '${clusterId}': correct --join or --cluster-id`,
        { code: 'KV_INVALID', outcome: 'notApplied' },
      );
    }
    const command = {
      kind: 'addNode',
      directoryId: Buffer.from(directoryId).toString('hex'),
      peerAddress,
      clientAddress,
      labels: Object.fromEntries(labels.map((label) => label.split('=', 2))),
      weight,
    };
    const { version, issued } = await this.door.changeText(JSON.stringify(command), forwarded);
    const { node = 0 } = JSON.parse(issued) as Issued;
    return { nodeId: node, topology: await this.topologyAt(version) };
  }

  /** The topology once this node knows this version of it, or a later one. */
  private async topologyAt(version: number): Promise<Topology> {
    const { clock } = this.options;
    const deadline = clock.monotonicMs() + 5000;
    while (this.view.version < version && clock.monotonicMs() < deadline) {
      await new Promise<void>((resolve) => {
        clock.after(20, resolve);
      });
    }
    return this.view.topology;
  }

  /** Hexadecimal. A first node must have been heard once before a cluster is made of it. */
  private directoryOf(node: number): string {
    const { identity } = this.foundations;
    const known = node === this.foundations.node ? identity.directoryId : identity.known(node);
    if (known !== undefined) return Buffer.from(known).toString('hex');
    throw new KvError(`node ${node} has not been heard yet: start it, then try again`, {
      code: 'KV_UNAVAILABLE',
      outcome: 'notApplied',
      retryAfterMs: 200,
    });
  }

  private updateHealth(): void {
    const health = this.grpc?.health;
    if (health === undefined) return;
    const status = this.notReady() === undefined ? 'SERVING' : 'NOT_SERVING';
    for (const name of ['', kvService]) health.set(name, status);
    for (const { id, group } of this.shards.all())
      health.setShard(id, !group.isRestoring && group.leaderNode !== undefined);
    for (const id of health.shards.keys())
      if (this.shards.get(groupId(id)) === undefined) health.setShard(id, undefined);
  }

  /** Why requests would fail just now; undefined when they would not. */
  private notReady(): string | undefined {
    if (this.view.version === 0) return 'there is no cluster yet: quorate cluster init';
    for (const { id, group } of this.shards.all()) {
      if (group.isRestoring) return `its replica of shard ${id} is being rebuilt`;
      if (group.leaderNode === undefined) return `shard ${id} has no leader just now`;
    }
    return undefined;
  }

  private metrics(): Metrics {
    const watching = (): number => this.grpc?.health.watching ?? 0;
    const source = metricsSource(this.foundations, {
      loopDelay: this.loopDelay,
      queues: () => [{ queue: 'health_watchers', length: watching(), limit: watchersMax }],
      gauges: [
        ['client_connections', 'Open', () => this.listener?.connections ?? 0],
        ['client_requests_waiting', 'Calls that wait for an answer', () => this.deadlines.size],
        ['disk_free_bytes', 'Of the data directory', () => this.disk.freeBytes],
        ['disk_reserve_bytes', 'Below it writes are refused', () => this.disk.reserveBytes],
      ],
    });
    return new Metrics(source, this.foundations.meters);
  }

  private clientAddressOf(node: number): string | undefined {
    return clientAddressOf(node, { view: this.view, config: this.options.config });
  }

  private adminGroups(): readonly AdminGroup[] {
    return this.foundations.host.allGroups().map((group) => ({
      id: group.id,
      isLeader: () => group.isLeader,
      leaderNode: () => group.leaderNode,
      status: () => this.groupStatus(group),
      transferLeadership: (to) => group.transferLeadership(to === 0 ? noTarget : replicaId(to)),
      hash: () => group.hash(),
      hashAt: (index) => group.hashAt(index),
      takeHash: () => this.takeHash(group.id),
    }));
  }

  private groupDoor(): GroupDoor {
    return new GroupDoor({
      groups: () => this.adminGroups(),
      view: this.view,
      link: this.foundations.link,
      clock: this.options.clock,
      addressOf: (node) => this.clientAddressOf(node),
    });
  }

  private takeHash(id: GroupId): Promise<number> {
    if (id === metadataGroup) return this.metadata.takeHash();
    return new Promise((resolve, reject) => {
      const local = this.shards.get(id);
      if (local === undefined) throw new Error(`group ${id} has no replica here any more`);
      local.shard.takeHash((error, index) => {
        if (error === undefined) resolve(index);
        else reject(error);
      });
    });
  }

  private groupStatus(group: HostedGroup): GroupStatusMessage {
    const status = group.status();
    const { membership } = status.membership;
    const nodeOf = new Map(membership.members.map((member) => [member.id, member.node]));
    const nodesOf = (ids: readonly number[]): number[] =>
      [...nodeOf].filter(([id]) => ids.includes(id)).map(([, node]) => node);
    const shard = this.shards.get(group.id)?.shard;
    const leaderNode = group.leaderNode ?? 0;
    return {
      groupId: group.id,
      kind: group.id === metadataGroup ? 'metadata' : 'shard',
      replicaId: group.replica,
      role: status.role,
      term: status.term,
      leaderNode,
      leaderAddress: this.clientAddressOf(leaderNode) ?? '',
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

  private nodeStatus(): Omit<StatusReply, 'groups'> {
    const { config, clock } = this.options;
    const { transport, raftLog } = this.foundations;
    const peers = peerAddresses(config, this.view.topology);
    return {
      clusterId: config.clusterId,
      nodeId: this.foundations.node,
      version: packageVersion,
      uptimeMs: Math.floor(clock.monotonicMs() - this.startedMs),
      clientAddress: formatAddress(config.clientAddress),
      peerAddress: formatAddress(config.peerAddress),
      peers: transport.peers().map(({ node, connected, roundTripUs }) => {
        const peerAddress = peers.get(node);
        return {
          nodeId: node,
          peerAddress: peerAddress === undefined ? '' : formatAddress(peerAddress),
          clientAddress: this.clientAddressOf(node) ?? '',
          connected,
          roundTripUs,
        };
      }),
      rssBytes: process.memoryUsage.rss(),
      raftLogBytes: raftLog.statistics().bytes,
      diskFreeBytes: this.disk.freeBytes,
      diskFull: this.disk.full,
    };
  }
}

const noTarget = 0 as ReturnType<typeof replicaId>;

function limitsOf(config: Config): ApiLimits {
  const { keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax } = config;
  return { ...defaultLimits, keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax };
}

function clientAddressOf(
  node: number,
  { view, config }: { readonly view: ClusterView; readonly config: Config },
): string | undefined {
  const address = view.clientAddressOf(node);
  if (address !== undefined) return address;
  const member = config.initialCluster.find((each) => each.node === node);
  return member === undefined ? undefined : formatAddress(member.client);
}

function reportOf(status: GroupStatusMessage): ShardReport | undefined {
  // Of the metadata group this node leads it: whatever it decides comes after that in the same log.
  if (!status.membershipCommitted && status.groupId !== metadataGroup) return undefined;
  return {
    voters: status.voterReplicas.map(replicaId),
    learners: status.learnerReplicas.map(replicaId),
  };
}

function noShard(mapVersion: number): KvError {
  const message =
    mapVersion === 0
      ? 'these nodes are no cluster yet: make one of them with quorate cluster init --shards N --replicas N'
      : 'the slot has moved to a shard that this node has not heard of yet: try again';
  return new KvError(message, { code: 'KV_UNAVAILABLE', outcome: 'notApplied', retryAfterMs: 200 });
}
