/**
 * Puts a node together, floor by floor, and takes it apart again in the opposite order.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { groupId, nodeId, replicaId, type Member, type NodeId } from '../raft/index.js';
import { MemoryEngine, RaftLog, RocksEngine, type Engine } from '../storage/index.js';
import type { GroupStatusMessage, StatusReply } from '../proto/messages.js';
import { adminMethods, type AdminGroup } from './api/admin-service.js';
import { BatchService, batchPath } from './api/batch-service.js';
import { ClientListener } from './api/client-listener.js';
import { Deadlines } from './api/deadlines.js';
import { Dispatch } from './api/dispatch.js';
import { Forwarder } from './api/forwarder.js';
import { GrpcDoor } from './api/grpc-door.js';
import { createGrpcServer, type GrpcServer } from './api/grpc-server.js';
import { HttpEndpoint } from './api/http-endpoint.js';
import { KvService } from './api/kv-service.js';
import type { ApiLimits } from './api/limits.js';
import { defaultLimits } from './api/limits.js';
import { ScanService } from './api/scan-service.js';
import { UnaryDoor } from './api/unary-door.js';
import { formatAddress } from './config/address.js';
import type { Config } from './config/config.js';
import { Identity } from './config/identity.js';
import type { Group } from './group/group.js';
import { Host, type HostedGroup, type RaftSettings } from './group/host.js';
import { encodeMetaCommand, MetaMachine, type MetaResult } from './meta/meta-machine.js';
import { wholeMap } from './meta/slot-map.js';
import { DiskSpace } from './observe/disk-space.js';
import type { Clock } from './observe/clock.js';
import type { Log } from './observe/log.js';
import { LoopDelayMeter } from './observe/loop-delay.js';
import { Metrics } from './observe/metrics.js';
import { Router } from './router/router.js';
import type { CommandResult } from './shard/command.js';
import { ShardMachine } from './shard/shard-machine.js';
import { Shard } from './shard/shard.js';
import { TcpTransport } from './transport/tcp-transport.js';

const MiB = 1024 * 1024;
const metadataGroup = groupId(0);
const firstShard = groupId(1);
const handOverMs = 2000;
const drainMs = 1000;

export interface NodeOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  /** The node cannot go on; nothing is acknowledged any more. Called once. */
  readonly onFatal: (error: Error) => void;
}

/** Everything below the services. */
interface Foundations {
  readonly identity: Identity;
  readonly engine: Engine;
  readonly raftLog: RaftLog;
  readonly transport: TcpTransport;
  readonly host: Host;
}

export class QuorateNode {
  private readonly options: NodeOptions;
  private readonly foundations: Foundations;
  private readonly shard: Shard;
  private readonly shardGroup: Group<CommandResult>;
  private readonly disk: DiskSpace;
  private readonly deadlines: Deadlines;
  private readonly forwarder: Forwarder;
  private readonly loopDelay = new LoopDelayMeter();
  private readonly router = new Router(wholeMap(firstShard));
  private readonly startedMs: number;
  private listener: ClientListener | undefined;
  private endpoint: HttpEndpoint | undefined;
  private grpc: GrpcServer | undefined;
  private stopHealth: () => void = () => undefined;

  private constructor(
    options: NodeOptions,
    foundations: Foundations,
    services: { shard: Shard; shardGroup: Group<CommandResult>; disk: DiskSpace },
  ) {
    this.options = options;
    this.foundations = foundations;
    this.shard = services.shard;
    this.shardGroup = services.shardGroup;
    this.disk = services.disk;
    this.deadlines = new Deadlines(options.clock);
    this.forwarder = new Forwarder(options.clock);
    this.startedMs = options.clock.monotonicMs();
  }

  /** Recovers, joins its groups and begins to serve. Rejects with a message that names the remedy. */
  static async open(options: NodeOptions): Promise<QuorateNode> {
    const { config, log, clock, onFatal } = options;
    const foundations = await layFoundations(options);
    const { host, engine } = foundations;
    const members = config.initialCluster.map(({ node }): Member => ({
      id: replicaId(node),
      node: nodeId(node),
    }));
    const replica = replicaId(config.nodeId);

    let meta: MetaMachine | undefined;
    const metaGroup = await host.addGroup<MetaResult>({
      id: metadataGroup,
      replica,
      firstMembers: members,
      createMachine: (prefix) => (meta = new MetaMachine(engine, prefix)),
    });
    let machine: ShardMachine | undefined;
    const shardGroup = await host.addGroup<CommandResult>({
      id: firstShard,
      replica,
      firstMembers: members,
      createMachine: (prefix) => (machine = new ShardMachine(engine, prefix)),
    });
    if (meta === undefined || machine === undefined)
      throw new Error('a group was opened without its state machine');
    bootstrapWhenLeading(meta, metaGroup, config, log);
    const shard = new Shard({ group: shardGroup, machine, clock, log, onFatal });
    const disk = await DiskSpace.open({
      directory: config.dataDirectory,
      reserveBytes: config.diskReserveMib * MiB,
      clock,
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
    const node = new QuorateNode(options, foundations, { shard, shardGroup, disk });
    await node.serve();
    return node;
  }

  /** Hands leadership over, lets calls end, and closes everything in order. */
  async close(): Promise<void> {
    const { host, raftLog, engine } = this.foundations;
    this.stopHealth();
    this.grpc?.health.setStatus('', 'NOT_SERVING');
    this.grpc?.health.setStatus('quorate.v1.KV', 'NOT_SERVING');
    // While it hands over, this node goes on answering: requests are forwarded to the next leader.
    await host.handOver(handOverMs);
    await this.listener?.close(drainMs);
    await this.endpoint?.close();
    this.shard.close();
    await host.close();
    this.deadlines.close();
    this.forwarder.close();
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
      forwarder: this.forwarder,
      shardOf: (slot) => (this.router.shardOf(slot) === firstShard ? this.shard : undefined),
      addressOf: (node) => this.clientAddressOf(node),
      mapVersion: () => this.router.version,
      diskFull: () => this.disk.full,
    });
    const kv = new KvService({ dispatch, limits });
    const batches = new BatchService({ dispatch, limits, clock, deadlines: this.deadlines });
    const scans = new ScanService({ dispatch, limits, clock, deadlines: this.deadlines });
    const unaryMethods = new Map([...kv.unaryMethods, [batchPath, batches.unary] as const]);
    this.grpc = createGrpcServer({
      limits,
      clock,
      deadlines: this.deadlines,
      unaryMethods,
      streamMethods: {
        scan: (request, sink) => scans.scan(request, sink),
        pipeline: (requests, sink) => batches.pipeline(requests, sink),
      },
      adminMethods: adminMethods({
        groups: () => this.adminGroups(),
        node: () => this.nodeStatus(),
      }),
    });
    await this.foundations.host.start();
    this.listener = await ClientListener.open({
      ...config.clientAddress,
      unaryDoor: new UnaryDoor({ limits, clock, deadlines: this.deadlines }),
      unaryMethods: config.unaryDoor === 'http2' ? unaryMethods : new Map<string, never>(),
      grpcDoor: new GrpcDoor(this.grpc.server),
    });
    this.endpoint = await HttpEndpoint.open({
      address: config.httpAddress,
      metrics: this.metrics(),
      notReady: () => this.notReady(),
    });
    this.stopHealth = clock.every(200, () => {
      this.updateHealth();
    });
    log(
      'info',
      { clients: formatAddress(config.clientAddress), peers: formatAddress(config.peerAddress) },
      'serving',
    );
  }

  private updateHealth(): void {
    const status = this.notReady() === undefined ? 'SERVING' : 'NOT_SERVING';
    for (const name of ['', 'quorate.v1.KV', `shard/${firstShard}`])
      this.grpc?.health.setStatus(name, status);
  }

  /** Why requests would fail just now; undefined when they would not. */
  private notReady(): string | undefined {
    if (this.shardGroup.status().restoring) return 'this replica is being rebuilt from a snapshot';
    if (!this.shardGroup.isLeader && this.shardGroup.leaderNode === undefined)
      return 'shard 1 has no leader just now';
    return undefined;
  }

  private metrics(): Metrics {
    const { host, transport, raftLog, engine } = this.foundations;
    return new Metrics({
      groups: () =>
        host.allGroups().map((group) => {
          const { term, commitIndex, appliedIndex, lastIndex } = group.status();
          const kind = group.id === metadataGroup ? 'metadata' : 'shard';
          return {
            group: group.id,
            kind,
            leading: group.isLeader,
            term,
            commitIndex,
            appliedIndex,
            lastIndex,
            counters: group.figures(),
          };
        }),
      transport: () => transport.statistics(),
      raftLog: () => ({ ...raftLog.statistics() }),
      engine: () => engine.statistics(),
      connections: () => this.listener?.connections ?? 0,
      callsInFlight: () => this.deadlines.size,
      loopDelay: this.loopDelay,
    });
  }

  private clientAddressOf(node: number): string | undefined {
    const member = this.options.config.initialCluster.find((each) => each.node === node);
    return member === undefined ? undefined : formatAddress(member.client);
  }

  private adminGroups(): readonly AdminGroup[] {
    return this.foundations.host.allGroups().map((group) => ({
      id: group.id,
      isLeader: group.isLeader,
      status: () => this.groupStatus(group),
      transferLeadership: (to) => group.transferLeadership(to === 0 ? noTarget : replicaId(to)),
      hash: async () => {
        const { appliedIndex, hash } = await group.hash();
        return { appliedIndex, hash, keys: group.id === firstShard ? this.shard.keys : 0 };
      },
    }));
  }

  private groupStatus(group: HostedGroup): GroupStatusMessage {
    const status = group.status();
    const { membership } = status.membership;
    const nodeOf = new Map(membership.members.map((member) => [member.id, member.node]));
    const nodesOf = (ids: readonly number[]): number[] =>
      [...nodeOf].filter(([id]) => ids.includes(id)).map(([, node]) => node);
    const isShard = group.id === firstShard;
    const leaderNode = group.leaderNode ?? 0;
    return {
      groupId: group.id,
      kind: isShard ? 'shard' : 'metadata',
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
      slots: isShard ? this.shard.slots : 0,
      keys: isShard ? this.shard.keys : 0,
      restoring: status.restoring,
    };
  }

  private nodeStatus(): Omit<StatusReply, 'groups'> {
    const { config, clock } = this.options;
    const { transport, raftLog } = this.foundations;
    return {
      clusterId: config.clusterId,
      nodeId: config.nodeId,
      version: packageVersion,
      uptimeMs: Math.floor(clock.monotonicMs() - this.startedMs),
      clientAddress: formatAddress(config.clientAddress),
      peerAddress: formatAddress(config.peerAddress),
      peers: transport.peers().map(({ node, connected, roundTripUs }) => {
        const member = config.initialCluster.find((each) => each.node === node);
        const peerAddress = member === undefined ? '' : formatAddress(member.peer);
        return {
          nodeId: node,
          peerAddress,
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

const packageVersion = readVersion();

function readVersion(): string {
  for (const up of ['..', '../..', '../../..']) {
    try {
      const fields: unknown = JSON.parse(
        readFileSync(join(import.meta.dirname, up, 'package.json'), 'utf8'),
      );
      if (typeof fields === 'object' && fields !== null && 'version' in fields)
        return String(fields.version);
    } catch {
      // Not there: one folder further up, in the compiled tree.
    }
  }
  return 'unknown';
}

async function layFoundations({ config, log, clock, onFatal }: NodeOptions): Promise<Foundations> {
  const identity = Identity.open({
    directory: config.dataDirectory,
    clusterId: config.clusterId,
    nodeId: config.nodeId,
  });
  // First the engine: its lock keeps a second process away from the Raft log as well.
  const engine =
    config.engine === 'memory'
      ? new MemoryEngine()
      : await RocksEngine.open({
          directory: join(config.dataDirectory, 'state'),
          memoryBytesMax: config.engineMemoryMib * MiB,
        });
  const raftLog = await RaftLog.open({
    directory: join(config.dataDirectory, 'raft-log'),
    segmentBytes: config.segmentMib * MiB,
    tailBytesMax: 4 * MiB,
    heldSegmentsMax: 16,
    onFailure: onFatal,
  });
  const own = {
    clusterId: config.clusterId,
    nodeId: nodeId(config.nodeId),
    directoryId: identity.directoryId,
  };
  const transport = new TcpTransport({
    own,
    listen: config.peerAddress,
    peers: new Map<NodeId, Config['peerAddress']>(
      config.initialCluster.map(({ node, peer }) => [nodeId(node), peer]),
    ),
    clock,
    log,
    registry: identity,
  });
  const host = new Host({
    node: own.nodeId,
    log: raftLog,
    engine,
    transport,
    clock,
    tickMs: config.tickMs,
    raft: raftSettings(config),
    limits: {
      proposalsMax: 100_000,
      readsMax: 100_000,
      durableMarkBytes: Math.min(8, config.logKeptMib / 2) * MiB,
      logKeptBytes: config.logKeptMib * MiB,
    },
    logLine: log,
    seed: randomInt(2 ** 32),
    onFatal,
  });
  return { identity, engine, raftLog, transport, host };
}

function raftSettings(config: Config): RaftSettings {
  const { electionTicks, heartbeatTicks } = config;
  return {
    electionTicks,
    heartbeatTicks,
    // The rest of an election timeout is the drift that clocks may have (R31, R33).
    leaseTicks: config.leases ? Math.floor((electionTicks * config.leasePercent) / 100) : 0,
    preVote: true,
    checkQuorum: true,
    entryBytesMax: config.requestBytesMax + 64 * 1024,
    messageBytesMax: MiB,
    inflightMessagesMax: 256,
    inflightBytesMax: 16 * MiB,
    uncommittedBytesMax: config.uncommittedMib * MiB,
    windowBytesMax: 16 * MiB,
    // A disk or apply loop that has not moved for two election timeouts hangs.
    stalledTicksMax: electionTicks * 2,
    quietTicks: Math.ceil(config.quietAfterMs / config.tickMs),
    promoteLagMax: 64,
  };
}

function limitsOf(config: Config): ApiLimits {
  const { keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax } = config;
  return { ...defaultLimits, keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax };
}

/** The first leader writes down who the cluster is; any later attempt changes nothing. */
function bootstrapWhenLeading(
  meta: MetaMachine,
  group: Group<MetaResult>,
  config: Config,
  log: Log,
): void {
  meta.onLeading = ({ leading, clockMedianMs }) => {
    if (!leading || meta.topology.version > 0) return;
    const nodes = config.initialCluster.map(({ node, peer, client }) => ({
      id: node,
      directoryId: '',
      peerAddress: formatAddress(peer),
      clientAddress: formatAddress(client),
      labels: {},
      weight: 100,
    }));
    const command = encodeMetaCommand({
      kind: 'init',
      clusterId: config.clusterId,
      nodes,
      metadata: nodes.map(({ id }) => ({ replica: id, node: id })),
      shards: 1,
      replication: Math.min(nodes.length, 7),
      nowMs: Math.max(0, Math.floor(clockMedianMs)),
    });
    group.propose(command, (outcome) => {
      // The next leader tries again if this did not go through.
      log('info', { outcome: outcome.kind }, 'cluster record proposed');
    });
  };
}
