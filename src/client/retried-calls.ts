/** Unary calls with their retries: whatever does not go in a batch. */
import type { ReplyHeader, RequestHeader } from '../../proto/messages.js';
import type { KvError } from '../errors.js';
import { anySlot, type Slot } from '../router/slot.js';
import { stopWatching, watchAbort } from './abort-watch.js';
import { Attempts, attemptMsMax } from './attempts.js';
import type { Connections } from './connections.js';
import type { Routes } from './routes.js';
import { asKvError } from './senders.js';
import { callUnary, cancelledError, type Method } from './wire.js';

export interface RetriedCallOptions {
  /** Of the whole call. Milliseconds since 1970. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
  /** The leader of this key's shard is asked first, unless any replica will do; undefined: any node. */
  readonly key?: Uint8Array | undefined;
  /** Instead of the key's, where there is none. */
  readonly slot?: Slot | undefined;
  readonly isRead?: boolean;
  /** Asks each node in its turn; with a slot each one that has a replica of its shard. */
  readonly anyReplica?: boolean;
  /** What the request's header says beside the routing. */
  readonly header?: RequestHeader | undefined;
}

export class RetriedCalls {
  private readonly connections: Connections;
  private readonly routes: Routes;

  constructor(connections: Connections, routes: Routes) {
    this.connections = connections;
    this.routes = routes;
  }

  /** Rejects with KvError. */
  async call<Request extends object, Reply extends object>(
    called: Method<Request, Reply>,
    request: Request,
    options: RetriedCallOptions,
  ): Promise<Reply> {
    const { deadline, signal, key, isRead = false, anyReplica = false, header: own } = options;
    let { slot: hint } = options;
    const attempts = new Attempts(isRead);
    for (;;) {
      const { routes } = this;
      const slot = hint ?? (key && routes.slotOf(key));
      const endpoint = anyReplica ? routes.nextEndpoint(slot) : routes.endpointOf(slot);
      const redirect = attempts.redirect && slot !== undefined && !anyReplica;
      // Where a request has no header it is left out when it is encoded.
      const header = { mapVersion: this.routes.mapVersion, redirect, ...own };
      try {
        const reply = await callUnary(
          this.connections,
          called,
          { ...request, header },
          { deadline: Math.min(deadline, Date.now() + attemptMsMax), endpoint, signal },
        );
        const { header: answered }: { header?: ReplyHeader | null } = reply;
        this.routes.reached(endpoint, answered?.mapVersion);
        return reply;
      } catch (reason) {
        const error = asKvError(reason);
        const waitMs = attempts.next(endpoint, error, deadline);
        routes.onFailure(slot, endpoint, error);
        hint = (key === undefined ? pinOf(error) : routes.hinted(key, error)) ?? options.slot;
        if (waitMs === undefined) throw attempts.conclude(error);
        if (waitMs > 0) await pause(waitMs, [signal, this.connections.closed]);
        if (signal?.aborted === true) throw attempts.conclude(cancelledError(attempts.outcome));
      }
    }
  }
}

/** Of a page of a scan: where its first keys are, if they are pinned. */
function pinOf({ fields: { pinSlot = 0, shardId = 0 } }: KvError): Slot | undefined {
  return pinSlot > 0 && shardId > 0 ? anySlot(pinSlot) : undefined;
}

/** Ends early when one of the signals says so. */
function pause(ms: number, signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      for (const signal of signals) stopWatching(signal, end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    for (const signal of signals) watchAbort(signal, end);
  });
}
