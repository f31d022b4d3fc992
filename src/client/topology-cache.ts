/**
 * Keeps the client's topology up to date: one Topology.Watch from the first use on, at one node after
 * the other. It keeps no process alive: its connection and its timers hold nothing.
 */
import type { WatchEvent } from '../../proto/messages.js';
import { watchTopology } from '../../proto/topology-watch.js';
import type { Routes } from './routes.js';

/** Before the next node is tried; twice as long each time, until one has told something. */
const againMsMin = 100;
const againMsMax = 10_000;
/** A node has named a newer version: so long the watch may take to bring it. */
const graceMs = 200;
/** Between two changes of the node for that reason; twice as long each time it was in vain. */
const moveMsMin = 1000;
const moveMsMax = 60_000;

export class TopologyCache {
  private readonly routes: Routes;
  private endpoint = '';
  private stopWatch: (() => void) | undefined;
  private readonly timers = new Set<NodeJS.Timeout>();
  private againMs = againMsMin;
  private moveMs = moveMsMin;
  private nextMoveMs = 0;
  private moving = false;
  private closed = false;

  constructor(routes: Routes) {
    this.routes = routes;
    routes.onBehind = (endpoint, version) => {
      this.onBehind(endpoint, version);
    };
  }

  /** The client is used: now it is worth knowing. */
  open(): void {
    if (this.stopWatch === undefined && !this.closed) this.watch(this.routes.endpointOf(undefined));
  }

  close(): void {
    this.closed = true;
    this.stopWatch?.();
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
  }

  /**
   * `endpoint` has a newer map, by its own account. The watch is moved there unless it brings that
   * version itself. A version that nobody has is believed no more than once a minute.
   */
  private onBehind(endpoint: string, version: number): void {
    if (this.closed || this.moving || performance.now() < this.nextMoveMs) return;
    this.moving = true;
    this.after(graceMs, () => {
      this.moving = false;
      if (this.routes.mapVersion >= version) return;
      this.nextMoveMs = performance.now() + this.moveMs;
      this.moveMs = Math.min(moveMsMax, this.moveMs * 2);
      this.watch(endpoint);
    });
  }

  private watch(endpoint: string): void {
    const { routes } = this;
    this.stopWatch?.();
    this.endpoint = endpoint;
    this.stopWatch = watchTopology({
      endpoint,
      request: { fromVersion: routes.mapVersion },
      after: (ms, fire) => this.after(ms, fire),
      holdsProcess: false,
      onEvent: (event) => {
        this.take(event);
      },
      onEnd: () => {
        this.after(this.againMs, () => {
          if (this.endpoint === endpoint) this.watch(routes.nextEndpoint());
        });
        this.againMs = Math.min(againMsMax, this.againMs * 2);
      },
    });
  }

  private take({ topology, leaders = [] }: WatchEvent): void {
    this.againMs = againMsMin;
    if (topology && topology.version > this.routes.mapVersion) {
      this.moveMs = moveMsMin;
      this.nextMoveMs = 0;
      this.routes.useTopology(topology);
    }
    this.routes.useLeaders(leaders);
  }

  private after(ms: number, fire: () => void): () => void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      fire();
    }, ms).unref();
    this.timers.add(timer);
    return () => {
      clearTimeout(timer);
      this.timers.delete(timer);
    };
  }
}
