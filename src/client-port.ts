/**
 * A node's client side: the services behind the two doors of its client port, how they find the shard
 * of a slot, health, and the HTTP port.
 */

import { BatchService, batchPath } from './api/batch-service.js';
import { ClientListener, methodName } from './api/client-listener.js';
import { Deadlines } from './api/deadlines.js';
import { Dispatch, type OwnerHint, type Route } from './api/dispatch.js';
import { GrpcDoor } from './api/grpc-door.js';
import { createGrpcServer, type AdminMethods, type GrpcServer } from './api/grpc-server.js';
import { watchersMax } from './api/health.js';
import { HttpEndpoint } from './api/http-endpoint.js';
import { KvService } from './api/kv-service.js';
import { defaultLimits, type ApiLimits } from './api/limits.js';
import { ScanService, scanPagePath } from './api/scan-service.js';
import type { TopologyFeed } from './api/topology-feed.js';
import type { TopologyService } from './api/topology-service.js';
import { UnaryDoor } from './api/unary-door.js';
import type { Config } from './config/config.js';
import { KvError } from './errors.js';
import { metricsSource } from './foundations.js';
import type { NodeParts } from './node-parts.js';
import type { NodePicture } from './node-picture.js';
import type { Cancel } from './observe/clock.js';
import { LoopDelayMeter } from './observe/loop-delay.js';
import { Metrics } from './observe/metrics.js';
import type { Slot } from './router/slot.js';
import { startOf } from './shard/scan-cursor.js';

export interface ClientPortOptions {
  readonly parts: NodeParts;
  readonly picture: NodePicture;
  readonly feed: TopologyFeed;
  readonly topologies: TopologyService;
  readonly adminMethods: AdminMethods;
}

/** A client that ends its connection gets its answers this long, ms. */
const drainMs = 1000;
const healthEveryMs = 200;

export class ClientPort {
  private readonly options: ClientPortOptions;
  private readonly limits: ApiLimits;
  private readonly deadlines: Deadlines;
  private readonly dispatch: Dispatch;
  private readonly loopDelay = new LoopDelayMeter();
  private grpc: GrpcServer | undefined;
  private listener: ClientListener | undefined;
  private endpoint: HttpEndpoint | undefined;
  private stopHealth: Cancel = () => undefined;

  constructor(options: ClientPortOptions) {
    this.options = options;
    this.limits = limitsOf(options.parts.config);
    this.deadlines = new Deadlines(options.parts.clock);
    this.dispatch = this.newDispatch();
  }

  /** Listens; rejects with a message that names the address when somebody else does. */
  async open(): Promise<void> {
    const { deadlines, limits, options } = this;
    const { config, clock, foundations } = options.parts;
    const { kv, batches, scans } = this.services();
    const unaryMethods = new Map([
      ...kv.unaryMethods,
      [batchPath, batches.unary] as const,
      [scanPagePath, scans.unaryPage] as const,
    ]);
    this.grpc = createGrpcServer({
      limits,
      clock,
      deadlines,
      unaryMethods,
      streamMethods: {
        scan: (request, sink) => scans.scan(request, sink),
        pipeline: (requests, sink) => batches.pipeline(requests, sink),
        watch: (request, sink) => options.topologies.watch(request, sink),
      },
      adminMethods: options.adminMethods,
    });
    this.listener = await ClientListener.open({
      ...config.clientAddress,
      unaryDoor: new UnaryDoor({ limits, clock, deadlines }),
      unaryMethods: config.unaryDoor === 'http2' ? unaryMethods : new Map<string, never>(),
      grpcDoor: new GrpcDoor(this.grpc.server),
      onCall: (path) => foundations.meters.calling(methodName(path)),
    });
    this.endpoint = await HttpEndpoint.open({
      address: config.httpAddress,
      metrics: this.metrics(),
      notReady: () => options.picture.notReady(),
    });
    const { health } = this.grpc;
    this.stopHealth = clock.every(healthEveryMs, () => {
      const replicas = options.parts.shards.all().map(({ group }) => group);
      health.update(options.picture.notReady() === undefined, replicas);
    });
  }

  /** Tells whoever asks for its health to go elsewhere; it goes on answering. */
  leave(): void {
    this.stopHealth();
    this.grpc?.health.leave();
  }

  /** Lets calls end for a moment. */
  async close(): Promise<void> {
    await this.listener?.close(drainMs);
    await this.endpoint?.close();
    this.loopDelay.close();
  }

  /** When nobody is left who could answer the calls that still wait. */
  endWaiting(): void {
    this.deadlines.close();
  }

  private services(): { kv: KvService; batches: BatchService; scans: ScanService } {
    const { dispatch, limits, deadlines } = this;
    const { clock } = this.options.parts;
    return {
      kv: new KvService({ dispatch, limits }),
      batches: new BatchService({ dispatch, limits, clock, deadlines }),
      scans: new ScanService({ dispatch, limits, clock, deadlines }),
    };
  }

  private newDispatch(): Dispatch {
    const { parts, feed } = this.options;
    const { config, clock, foundations, view, disk, clientAddressOf } = parts;
    return new Dispatch({
      clock,
      forwarder: foundations.forwarder,
      routeOf: (slot) => this.routeOf(slot),
      startOf: (page) => startOf(page).slot,
      addressOf: clientAddressOf,
      clusterId: config.clusterId,
      mapVersion: () => view.version,
      ownerOf: (slot) => this.ownerOf(slot),
      onOwner: (slot, owner) => {
        view.learnOwner(slot, owner);
      },
      onMapVersion: (version) => {
        feed.onMapVersion(version);
      },
      diskFull: () => disk.full,
    });
  }

  private routeOf(slot: Slot): Route {
    const { view, shards } = this.options.parts;
    const record = view.shardOf(slot);
    if (record === undefined) return { kind: 'none', error: noShard(view.version) };
    const local = shards.get(record.id);
    // A replica that is being rebuilt can answer nothing, and another one can.
    if (local !== undefined && !local.group.isRestoring)
      return { kind: 'local', shard: local.shard };
    return { kind: 'remote', shard: view.remote(record) };
  }

  private ownerOf(slot: Slot): OwnerHint | undefined {
    const { view, shards } = this.options.parts;
    const owner = view.ownerOf(slot);
    const record = view.shardOf(slot);
    if (owner === undefined) return undefined;
    const { shard, epoch } = owner;
    const local = record && shards.get(record.id)?.shard;
    const node = local ? local.leaderNode : record && view.remote(record).bestNode;
    return { shard, epoch, node };
  }

  private metrics(): Metrics {
    const { foundations, disk } = this.options.parts;
    const watching = (): number => this.grpc?.health.watching ?? 0;
    const source = metricsSource(foundations, {
      loopDelay: this.loopDelay,
      queues: () => [{ queue: 'health_watchers', length: watching(), limit: watchersMax }],
      gauges: [
        ['client_connections', 'Open', () => this.listener?.connections ?? 0],
        ['client_requests_waiting', 'Calls that wait for an answer', () => this.deadlines.size],
        [
          'migrations_driven',
          'Migrations whose source is led by this node',
          () => this.options.picture.migrationsDriven,
        ],
        [
          'slots_in_migration',
          'On their way to or from replicas on this node',
          () => this.options.picture.slotsInMigration,
        ],
        ['disk_free_bytes', 'Of the data directory', () => disk.freeBytes],
        ['disk_reserve_bytes', 'Below it writes are refused', () => disk.reserveBytes],
      ],
    });
    return new Metrics(source, foundations.meters);
  }
}

function limitsOf(config: Config): ApiLimits {
  const { keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax } = config;
  return { ...defaultLimits, keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax };
}

function noShard(mapVersion: number): KvError {
  const message =
    mapVersion === 0
      ? 'these nodes are no cluster yet: make one of them with quorate cluster init --shards N --replicas N'
      : 'the slot has moved to a shard that this node has not heard of yet: try again';
  return new KvError(message, { code: 'KV_UNAVAILABLE', outcome: 'notApplied', retryAfterMs: 200 });
}
