/**
 * Topology.Watch: the topology of this node and the leaders it knows, told to every watcher as far as
 * the watcher has not heard them. It is this node's own knowledge: no quorum is asked.
 *
 * A watcher that reads slowly has one event under way and nothing queued: the next event is made when
 * it has room, of what is newest then.
 */
import { codecOf } from '../../proto/definitions.js';
import type { WatchEvent, WatchRequest } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import type { Topology } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';
import { routingReply, topologyReply } from './admin-service.js';
import type { ReplySink } from './grpc-server.js';

const heartbeatMs = 2000;
/** Between two looks at who leads. */
const lookEveryMs = 100;

const eventCodec = codecOf<WatchEvent>('quorate.v1.WatchEvent');

export interface KnownLeader {
  readonly shard: number;
  readonly node: number;
  readonly term: number;
}

export interface TopologyServiceOptions {
  readonly clock: Clock;
  readonly topology: () => Topology;
  /** Of shards whose leader is known. */
  readonly leaders: () => Iterable<KnownLeader>;
  /** A watcher names this version: nobody may have it. */
  readonly onMapVersion: (version: number) => void;
  readonly watchersMax: number;
}

/** What a watcher has been told. */
interface Watcher {
  readonly sink: ReplySink<Uint8Array>;
  readonly withDocument: boolean;
  version: number;
  /** Leaders that changed later are news. */
  change: number;
  /** Ends its wait; undefined while it does not wait. */
  wake: (() => void) | undefined;
}

export class TopologyService {
  private readonly options: TopologyServiceOptions;
  private readonly watchers = new Set<Watcher>();
  private readonly leaders = new Map<number, KnownLeader & { readonly change: number }>();
  /** Counts changes of leaders. */
  private change = 0;
  private sinceHeartbeatMs = 0;
  /** Runs while there are watchers. */
  private stopLooking: Cancel | undefined;
  /** Encoded once for all watchers: without and with the document. */
  private encoded: { readonly version: number; readonly bytes: (Uint8Array | undefined)[] } = {
    version: 0,
    bytes: [],
  };
  private closed = false;

  constructor(options: TopologyServiceOptions) {
    this.options = options;
  }

  /** The topology is another one. */
  onTopology(): void {
    this.wakeAll();
  }

  /** Until the watcher leaves. Rejects with KvError when there are too many. */
  async watch(request: WatchRequest, sink: ReplySink<Uint8Array>): Promise<void> {
    const { watchersMax, onMapVersion, clock } = this.options;
    if (this.watchers.size >= watchersMax) throw tooMany(watchersMax);
    const version = request.fromVersion ?? 0;
    onMapVersion(version);
    const withDocument = request.withDocument === true;
    const watcher: Watcher = { sink, withDocument, version, change: 0, wake: undefined };
    this.findLeaders();
    this.watchers.add(watcher);
    this.stopLooking ??= clock.every(lookEveryMs, () => {
      this.look();
    });
    try {
      while (!sink.ended && !this.closed) {
        await sink.flush(this.eventFor(watcher));
        // What changed while it was sent is told at once.
        if (this.hasNews(watcher)) continue;
        await new Promise<void>((resolve) => {
          watcher.wake = resolve;
        });
        watcher.wake = undefined;
      }
    } finally {
      this.watchers.delete(watcher);
      if (this.watchers.size === 0) {
        this.stopLooking?.();
        this.stopLooking = undefined;
      }
    }
  }

  /** Watchers are let go: they find another node. */
  close(): void {
    this.closed = true;
    this.wakeAll();
  }

  private look(): void {
    this.sinceHeartbeatMs += lookEveryMs;
    const due = this.sinceHeartbeatMs >= heartbeatMs;
    if (due) this.sinceHeartbeatMs = 0;
    if (this.findLeaders() || due) this.wakeAll();
    else for (const { sink, wake } of this.watchers) if (sink.ended) wake?.();
  }

  /** True: there are changes. */
  private findLeaders(): boolean {
    const before = this.change;
    for (const leader of this.options.leaders()) {
      const known = this.leaders.get(leader.shard);
      if (known?.node === leader.node && known.term >= leader.term) continue;
      this.change += 1;
      this.leaders.set(leader.shard, { ...leader, change: this.change });
    }
    return this.change > before;
  }

  private wakeAll(): void {
    for (const { wake } of this.watchers) wake?.();
  }

  private hasNews({ version, change }: Watcher): boolean {
    return this.options.topology().version > version || this.change > change;
  }

  private eventFor(watcher: Watcher): Uint8Array {
    const { version } = this.options.topology();
    const leaders = [...this.leaders.values()]
      .filter(({ change }) => change > watcher.change)
      .map(({ shard, node, term }) => ({ shardId: shard, nodeId: node, term }));
    const rest = eventCodec.encode({ leaders, version, heartbeatMs });
    watcher.change = this.change;
    if (version <= watcher.version) return rest;
    watcher.version = version;
    // Two encoded messages one after the other are one with the fields of both.
    return Buffer.concat([this.topologyBytes(watcher.withDocument), rest]);
  }

  private topologyBytes(withDocument: boolean): Uint8Array {
    const topology = this.options.topology();
    if (this.encoded.version !== topology.version)
      this.encoded = { version: topology.version, bytes: [] };
    const { bytes } = this.encoded;
    const reply = withDocument ? topologyReply : routingReply;
    return (bytes[Number(withDocument)] ??= eventCodec.encode({ topology: reply(topology) }));
  }
}

function tooMany(watchersMax: number): KvError {
  return new KvError(`this node has ${watchersMax} watchers already: ask another node`, {
    code: 'KV_OVERLOADED',
    outcome: 'notApplied',
    retryAfterMs: 1000,
    limit: watchersMax,
    size: watchersMax + 1,
  });
}
