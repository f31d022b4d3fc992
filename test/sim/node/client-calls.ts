/**
 * How a client of simulated nodes reaches them: routes and attempts are the SDK's, its connections are
 * not. Every request goes through the bytes of its message.
 */
import type {
  BatchReply,
  BatchRequest,
  DeleteReply,
  DeleteRequest,
  GetReply,
  GetRequest,
  GetTopologyRequest,
  IncrementReply,
  IncrementRequest,
  OperationMessage,
  OperationResultMessage,
  PutReply,
  PutRequest,
  ReplyHeader,
  ScanReply,
  ScanRequest,
  TopologyReply,
} from '../../../proto/messages.js';
import { Attempts, attemptMsMax } from '../../../src/client/attempts.js';
import { Routes } from '../../../src/client/routes.js';
import { errorOfDetail, method, type Method } from '../../../src/client/wire.js';
import { KvError } from '../../../src/errors.js';
import { isPin } from '../../../src/router/pins.js';
import { anySlot, type Slot } from '../../../src/router/slot.js';
import type { SimRandom } from '../random.js';
import { Life } from './life.js';
import { addressOf, type NodeWorld } from './sim-node.js';

/** A call that may be part of a batch. */
export interface KeyMethod<Q extends object, R extends object> extends Method<Q, R> {
  readonly wrap: (request: Q) => OperationMessage;
  readonly unwrap: (result: OperationResultMessage) => R | null | undefined;
}

export const get: KeyMethod<GetRequest, GetReply> = {
  ...method<GetRequest, GetReply>('KV/Get', 'GetRequest', 'GetReply'),
  wrap: (request) => ({ get: request }),
  unwrap: (result) => result.get,
};
export const put: KeyMethod<PutRequest, PutReply> = {
  ...method<PutRequest, PutReply>('KV/Put', 'PutRequest', 'PutReply'),
  wrap: (request) => ({ put: request }),
  unwrap: (result) => result.put,
};
export const del: KeyMethod<DeleteRequest, DeleteReply> = {
  ...method<DeleteRequest, DeleteReply>('KV/Delete', 'DeleteRequest', 'DeleteReply'),
  wrap: (request) => ({ delete: request }),
  unwrap: (result) => result.delete,
};
export const increment: KeyMethod<IncrementRequest, IncrementReply> = {
  ...method<IncrementRequest, IncrementReply>('KV/Increment', 'IncrementRequest', 'IncrementReply'),
  wrap: (request) => ({ increment: request }),
  unwrap: (result) => result.increment,
};
export const scanPage = method<ScanRequest, ScanReply>('KV/ScanPage', 'ScanRequest', 'ScanReply');
const batch = method<BatchRequest, BatchReply>('KV/Batch', 'BatchRequest', 'BatchReply');
const getTopology = method<GetTopologyRequest, TopologyReply>(
  'Admin/GetTopology',
  'GetTopologyRequest',
  'TopologyReply',
);

export interface CallOptions {
  /** The key that is asked about, or else the slot where a page begins. */
  readonly key?: Uint8Array;
  readonly slot?: Slot | undefined;
  readonly isRead: boolean;
  readonly withinMs: number;
  readonly wantLogTime?: boolean;
}

export class ClientCalls {
  readonly life: Life;
  private readonly world: NodeWorld;
  private readonly place: number;
  private readonly routes: Routes;
  private readonly followsMap: boolean;

  constructor(world: NodeWorld, place: number, random: SimRandom) {
    this.world = world;
    this.place = place;
    const { timeline, plan } = world;
    this.life = new Life(timeline, { offsetMs: 0, rate: 1 });
    const seeds = Array.from({ length: plan.nodes }, (_, n) => addressOf(n + 1));
    this.routes = new Routes(random.shuffled(seeds), () => timeline.now);
    this.followsMap = random.chance(0.7);
    this.routes.onBehind = (endpoint) => {
      if (this.followsMap) void this.learnMap(endpoint);
    };
  }

  /** As the SDK's `RetriedCalls`. */
  call<Q extends object, R extends object>(
    called: Method<Q, R>,
    request: Q,
    options: CallOptions,
  ): Promise<R> {
    return this.retried(called, request, options);
  }

  /** As the SDK's `Batcher`: the first attempt goes in a batch, each that fails there goes on alone. */
  callTogether<Q extends object, R extends object>(
    called: KeyMethod<Q, R>,
    request: Q,
    options: CallOptions & { readonly together: Together },
  ): Promise<R> {
    const { together } = options;
    return this.retried(called, request, options, {
      endpoint: together.endpoint,
      ask: async () => {
        const result = await together.add(called.wrap(request));
        if (result.error) throw errorOfDetail(result.error);
        const reply = called.unwrap(result);
        if (reply === null || reply === undefined)
          throw new Error(`the reply to a batch has no answer to ${called.path}`);
        return reply;
      },
    });
  }

  /** A batch of so many operations, to wherever the key should be. */
  batch(length: number, key: Uint8Array): Together {
    const endpoint = this.routes.endpointOf(this.routes.slotOf(key));
    return new Together(endpoint, length, async (operations) => {
      const header = { mapVersion: this.routes.mapVersion, redirect: false };
      const bytes = batch.encode({ header, operations: [...operations] });
      const reply = await this.attempt(endpoint, batch.path, bytes, attemptMsMax);
      return batch.decode(Buffer.from(reply)).results ?? [];
    });
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.life.after(ms, resolve);
    });
  }

  private async retried<Q extends object, R extends object>(
    called: Method<Q, R>,
    request: Q,
    { key, slot: given, isRead, withinMs, wantLogTime = false }: CallOptions,
    first?: { readonly endpoint: string; readonly ask: () => Promise<R> },
  ): Promise<R> {
    const { world, routes } = this;
    const attempts = new Attempts(isRead, () => world.timeline.now);
    const deadline = world.timeline.now + withinMs;
    let hint = given;
    for (let attempt = 0; ; attempt++) {
      if (attempt > 0 && !isRead) world.coverage.count('write tried again');
      const slot = hint ?? (key && routes.slotOf(key));
      if (slot !== undefined && isPin(slot)) world.coverage.count('asked a pin');
      const together = attempt === 0 ? first : undefined;
      const endpoint = together?.endpoint ?? routes.endpointOf(slot);
      try {
        if (together !== undefined) return await together.ask();
        const redirect = attempts.redirect && slot !== undefined;
        const own = wantLogTime ? { wantLogTime } : {};
        const header = { mapVersion: routes.mapVersion, redirect, ...own };
        const left = Math.min(deadline - world.timeline.now, attemptMsMax);
        const bytes = called.encode({ ...request, header });
        const reply = called.decode(
          Buffer.from(await this.attempt(endpoint, called.path, bytes, left)),
        );
        const { header: answered }: { header?: ReplyHeader | null | undefined } = reply;
        routes.reached(endpoint, answered?.mapVersion);
        return reply;
      } catch (reason) {
        if (!(reason instanceof KvError)) throw reason;
        const waitMs = attempts.next(endpoint, reason, deadline);
        routes.onFailure(slot, endpoint, reason);
        hint = (key === undefined ? pinOf(reason) : routes.hinted(key, reason)) ?? given;
        if (hint !== undefined && isPin(hint)) world.coverage.count('pin named by an error');
        if (together !== undefined) world.coverage.count('left its batch to try again');
        if (waitMs === undefined) throw attempts.conclude(reason);
        if (waitMs > 0) await this.pause(waitMs);
      }
    }
  }

  private attempt(
    address: string,
    path: string,
    request: Uint8Array,
    timeoutMs: number,
  ): Promise<Uint8Array> {
    const { place, life } = this;
    return new Promise((resolve, reject) => {
      const cancel = life.after(timeoutMs, () => {
        const text = `${address}: no answer within the deadline`;
        reject(new KvError(text, { code: 'KV_DEADLINE', outcome: 'unknown' }));
      });
      const call = { place, life, address, path, request, timeoutMs, forwarded: false };
      this.world.calls.call(call, (error, reply) => {
        cancel();
        if (error !== undefined) reject(error);
        else resolve(reply ?? new Uint8Array());
      });
    });
  }

  private async learnMap(endpoint: string): Promise<void> {
    try {
      const bytes = getTopology.encode({});
      const reply = await this.attempt(endpoint, getTopology.path, bytes, attemptMsMax);
      const topology = getTopology.decode(Buffer.from(reply));
      if (topology.version > 0) this.routes.useTopology(topology);
    } catch (error) {
      // It will be named again.
      if (!(error instanceof KvError)) this.world.fail(error);
    }
  }
}

type SendBatch = (
  operations: readonly OperationMessage[],
) => Promise<readonly OperationResultMessage[]>;

/** Operations that leave in one message, once all of them are there. */
export class Together {
  readonly endpoint: string;
  private readonly length: number;
  private readonly send: SendBatch;
  private readonly operations: OperationMessage[] = [];
  private begin: (results: ReturnType<SendBatch>) => void = () => undefined;
  private readonly results: ReturnType<SendBatch>;

  constructor(endpoint: string, length: number, send: SendBatch) {
    this.endpoint = endpoint;
    this.length = length;
    this.send = send;
    this.results = new Promise((resolve) => {
      this.begin = resolve;
    });
  }

  /** Rejects with what became of the batch as a whole. */
  async add(operation: OperationMessage): Promise<OperationResultMessage> {
    const at = this.operations.push(operation) - 1;
    if (this.operations.length === this.length) this.begin(this.send(this.operations));
    return (await this.results)[at] ?? {};
  }
}

/** Of a page of a scan: where its first keys are, if they are pinned. */
function pinOf({ fields: { pinSlot = 0, shardId = 0 } }: KvError): Slot | undefined {
  return pinSlot > 0 && shardId > 0 ? anySlot(pinSlot) : undefined;
}
