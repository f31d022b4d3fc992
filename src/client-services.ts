/** What clients of a node can call, whatever the port: the KV methods, and how they find a shard. */
import { BatchService, batchPath } from './api/batch-service.js';
import { Deadlines } from './api/deadlines.js';
import { Dispatch, type OwnerHint, type Route } from './api/dispatch.js';
import type { StreamMethods } from './api/grpc-server.js';
import { KvService } from './api/kv-service.js';
import { defaultLimits, stepBytesMax, type ApiLimits } from './api/limits.js';
import { ScanService, scanPagePath } from './api/scan-service.js';
import type { TopologyFeed } from './api/topology-feed.js';
import type { TopologyService } from './api/topology-service.js';
import type { UnaryMethods } from './api/unary.js';
import type { Config } from './config/config.js';
import { KvError } from './errors.js';
import type { NodeParts } from './node-parts.js';
import type { Slot } from './router/slot.js';
import { startOf } from './shard/scan-cursor.js';

export interface ClientServicesOptions {
  readonly parts: NodeParts;
  readonly feed: TopologyFeed;
  readonly topologies: TopologyService;
}

export class ClientServices {
  readonly limits: ApiLimits;
  readonly deadlines: Deadlines;
  readonly unaryMethods: UnaryMethods;
  readonly streamMethods: StreamMethods;
  private readonly options: ClientServicesOptions;

  constructor(options: ClientServicesOptions) {
    this.options = options;
    const { parts, topologies } = options;
    const { clock } = parts;
    const limits = limitsOf(parts.config);
    const deadlines = new Deadlines(clock);
    const dispatch = this.newDispatch();
    const kv = new KvService({ dispatch, limits });
    const batches = new BatchService({ dispatch, limits, clock, deadlines });
    const scans = new ScanService({ dispatch, limits, clock, deadlines });
    this.limits = limits;
    this.deadlines = deadlines;
    this.unaryMethods = new Map([
      ...kv.unaryMethods,
      [batchPath, batches.unary] as const,
      [scanPagePath, scans.unaryPage] as const,
    ]);
    this.streamMethods = {
      scan: (request, sink) => scans.scan(request, sink),
      pipeline: (requests, sink) => batches.pipeline(requests, sink),
      watch: (request, sink) => topologies.watch(request, sink),
    };
  }

  /** When nobody is left who could answer the calls that still wait. */
  endWaiting(): void {
    this.deadlines.close();
  }

  private newDispatch(): Dispatch {
    const { parts, feed } = this.options;
    const { config, clock, foundations, view, disk, clientAddressOf } = parts;
    return new Dispatch({
      clock,
      forwarder: foundations.forwarder,
      routeOf: (slot) => this.routeOf(slot),
      slotOf: (key) => view.slotOf(key),
      startOf: (page) => {
        const { slot: home, from } = startOf(page);
        return { home, slot: () => view.slotAt(home, from) };
      },
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
    const local = shards.answering(record.id);
    if (local !== undefined) return { kind: 'local', shard: local.shard };
    return { kind: 'remote', shard: view.remote(record) };
  }

  private ownerOf(slot: Slot): OwnerHint | undefined {
    const { view, shards } = this.options.parts;
    const owner = view.ownerOf(slot);
    const record = view.shardOf(slot);
    if (owner === undefined) return undefined;
    const { shard, epoch } = owner;
    const local = record && shards.answering(record.id)?.shard;
    const node = local ? local.leaderNode : record && view.remote(record).bestNode;
    return { shard, epoch, node };
  }
}

function limitsOf(config: Config): ApiLimits {
  const { keyBytesMax, valueBytesMax, requestBytesMax, batchLengthMax } = config;
  return {
    ...defaultLimits,
    keyBytesMax,
    valueBytesMax,
    requestBytesMax,
    batchLengthMax,
    stepBytesMax: stepBytesMax(requestBytesMax, batchLengthMax),
  };
}

function noShard(mapVersion: number): KvError {
  const message =
    mapVersion === 0
      ? 'these nodes are no cluster yet: make one of them with quorate cluster init --shards N --replicas N'
      : 'the slot has moved to a shard that this node has not heard of yet: try again';
  return new KvError(message, { code: 'KV_UNAVAILABLE', outcome: 'notApplied', retryAfterMs: 200 });
}
