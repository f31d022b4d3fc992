/**
 * A client of a cluster: promises, automatic batches, retries under the same session within the
 * deadline, errors that say what a failed write may have done and what each endpoint said.
 */
import type {
  ChangeClusterReply,
  DeleteReply,
  DeleteRequest,
  GetReply,
  GetRequest,
  IncrementReply,
  IncrementRequest,
  InitClusterRequest,
  OperationMessage,
  OperationResultMessage,
  PutReply,
  PutRequest,
  ReplicaHashReply,
  ReplicaHashRequest,
  ReplyHeader,
  ScanReply,
  ScanRequest,
  SessionMessage,
  StatusReply,
  TakeHashReply,
  TakeHashRequest,
  TopologyReply,
  TransferLeaderReply,
  TransferLeaderRequest,
  TxnReply,
  TxnRequest,
} from '../../proto/messages.js';
import { ReadLevel } from '../../proto/messages.js';
import { slot as slotNumber, slotOf } from '../router/slot.js';
import { Attempts } from './attempts.js';
import { Batcher } from './batcher.js';
import { Connections } from './connections.js';
import { LogTime, type CallBounds } from './log-time.js';
import { methods } from './methods.js';
import { Operation } from './operation.js';
import {
  checkBytes,
  checkMessage,
  isForAnyReplica,
  slotOfTxn,
  withSession,
  withToken,
} from './requests.js';
import { pause, RetriedCalls } from './retried-calls.js';
import { Routes } from './routes.js';
import { asKvError, PipelineSender, UnarySender } from './senders.js';
import { SessionBook } from './session-book.js';
import type { SessionToken } from './session-token.js';
import { TopologyCache } from './topology-cache.js';
import { callStream, callUnary, cancelledError, detailOfError, type Method } from './wire.js';

/** A stream of pages is cut after an hour, and gone on with from its cursor. */
const scanMsMax = 3_600_000;
/** Below the lifetime of a session's writes (50 s), so that no retry comes too late to be known. */
const timeoutMsMax = 45_000;
/** What `batch` has under way at once. */
const sliceLengthMax = 10_000;
const sliceBytesMax = 16 * 1024 * 1024;

export interface ClientOptions {
  /** host:port of client addresses; any node will do, more are better. */
  readonly endpoints: readonly string[];
  /** For a whole operation with its retries, up to 45 s; 10 s if absent. */
  readonly timeoutMs?: number;
  /**
   * Operations begun in one turn of the event loop go out together, over one stream to each node.
   * True if absent; false: each is a call of its own.
   */
  readonly batching?: boolean;
}

export interface OperationOptions {
  readonly timeoutMs?: number;
  /** Ends the waiting. A write that was sent already may still be applied: see `outcome`. */
  readonly signal?: AbortSignal;
  /**
   * What the session has seen: goes with the request and takes in what the reply has seen. A read
   * with a token is one at level AT_LEAST, answered by any replica, if it names no other level.
   */
  readonly token?: SessionToken;
}

type Put = Omit<PutRequest, 'header' | 'session'>;
type Delete = Omit<DeleteRequest, 'header' | 'session'>;
type Increment = Omit<IncrementRequest, 'header' | 'session'>;
type Txn = Omit<TxnRequest, 'header' | 'session'>;
interface WithHeader {
  header?: ReplyHeader | null | undefined;
}

/** All methods reject with KvError. Writes carry a session: a retry never writes twice. */
export class QuorateClient {
  private readonly timeoutMs: number;
  private readonly batching: boolean;
  private readonly connections = new Connections();
  private readonly book = new SessionBook();
  private readonly routes: Routes;
  private readonly calls: RetriedCalls;
  private readonly batcher: Batcher;
  private readonly logTime: LogTime;
  private readonly topologyCache: TopologyCache;

  constructor({ endpoints, timeoutMs = 10_000, batching = true }: ClientOptions) {
    if (endpoints.length === 0) throw new RangeError('endpoints must name at least one node');
    const wrong = endpoints.find((endpoint) => !/^.+:\d{1,5}$/.test(endpoint));
    if (wrong !== undefined)
      throw new RangeError(`endpoints must be host:port (e.g. 127.0.0.1:7400), got '${wrong}'`);
    this.timeoutMs = Math.min(timeoutMs, timeoutMsMax);
    this.batching = batching;
    this.routes = new Routes(endpoints);
    const { connections, routes } = this;
    this.topologyCache = new TopologyCache(routes);
    this.calls = new RetriedCalls(connections, routes);
    const alone = new UnarySender(connections);
    const together = batching ? new PipelineSender(connections) : alone;
    const onReply = ({ header }: WithHeader): void => {
      this.learn(header);
    };
    this.batcher = new Batcher({ routes, together, alone, onReply });
    this.logTime = new LogTime(this.book, async (bounds) => {
      await this.read({ key: new Uint8Array([0]) }, bounds);
    });
  }

  get(request: GetRequest, options: OperationOptions = {}): Promise<GetReply> {
    return this.read(request, this.boundsOf(options));
  }

  put(request: Put, options: OperationOptions = {}): Promise<PutReply> {
    return this.write(options, async (session, bounds) => {
      const put: PutRequest = { ...request, session };
      checkMessage({ put });
      if (this.batching) return replyOf((await this.run({ put }, bounds)).put);
      return this.alone(methods.put, put, bounds);
    });
  }

  delete(request: Delete, options: OperationOptions = {}): Promise<DeleteReply> {
    return this.write(options, async (session, bounds) => {
      const del: DeleteRequest = { ...request, session };
      checkMessage({ delete: del });
      if (this.batching) return replyOf((await this.run({ delete: del }, bounds)).delete);
      return this.alone(methods.delete, del, bounds);
    });
  }

  increment(request: Increment, options: OperationOptions = {}): Promise<IncrementReply> {
    return this.write(options, async (session, bounds) => {
      const increment: IncrementRequest = { ...request, session };
      checkMessage({ increment });
      if (this.batching) return replyOf((await this.run({ increment }, bounds)).increment);
      return this.alone(methods.increment, increment, bounds);
    });
  }

  /** All keys in one slot (use a `{tag}`). */
  txn(request: Txn, options: OperationOptions = {}): Promise<TxnReply> {
    return this.write(options, (session, bounds) =>
      this.calls.call(
        methods.txn,
        { ...request, session },
        { ...bounds, header: bounds.token?.headerOf('none'), slot: slotOfTxn(request) },
      ),
    );
  }

  /**
   * Each operation on its own, retried on its own; results in order, failures among them as `error`.
   * Any number of operations: they are sent in as many batches as the limits of a request want.
   * Rejects when no node could be asked for its time (which writes need), or the signal says so.
   */
  async batch(
    operations: readonly OperationMessage[],
    options: OperationOptions = {},
  ): Promise<readonly OperationResultMessage[]> {
    this.topologyCache.open();
    const bounds = this.boundsOf(options);
    if (operations.some(({ get }) => !get)) await this.logTime.known(bounds);
    const results: OperationResultMessage[] = [];
    while (results.length < operations.length) {
      if (bounds.signal?.aborted === true)
        throw cancelledError(results.length > 0 ? 'unknown' : 'notApplied');
      const slice = sliceFrom(operations, results.length);
      results.push(...(await Promise.all(slice.map((each) => this.resultOf(each, bounds)))));
    }
    return results;
  }

  /** Pages of a scan; goes on at another node, from the last cursor, when one fails. */
  async *scan(request: ScanRequest, options: OperationOptions = {}): AsyncGenerator<ScanReply> {
    // A scan goes on from its cursor; the server takes one beginning, not two.
    const { afterKey, ...unplaced } = request;
    const { token } = options;
    const level = request.level ?? ReadLevel.AT_LEAST;
    const slot = typeof request.slot === 'number' ? slotNumber(request.slot) : undefined;
    let { cursor } = request;
    let left = request.limit ?? 0;
    let { deadline } = this.boundsOf(options);
    let attempts = new Attempts(true);
    const isAborted = (): boolean => options.signal?.aborted === true;
    for (;;) {
      if (isAborted()) throw attempts.conclude(cancelledError('notApplied'));
      const endpoint = this.routes.endpointOf(slot);
      try {
        const rest: ScanRequest = {
          ...unplaced,
          limit: left,
          ...(afterKey === undefined || cursor !== request.cursor ? {} : { afterKey }),
          ...(cursor === undefined ? {} : { cursor }),
          ...(token === undefined ? {} : { level, header: token.headerOf(slot ?? 'all') }),
        };
        const pages = callStream(this.connections.to(endpoint), methods.scan, rest, {
          deadline: Date.now() + scanMsMax,
          endpoint,
          signal: options.signal,
        });
        for await (const page of pages) {
          ({ deadline } = this.boundsOf(options));
          attempts = new Attempts(true);
          cursor = page.cursor ?? cursor;
          token?.learn(page.header);
          if (left > 0) left = Math.max(0, left - (page.kvs?.length ?? 0));
          yield page;
          if (page.done === true) return;
        }
        return;
      } catch (reason) {
        const error = asKvError(reason);
        const waitMs = attempts.next(endpoint, error, deadline);
        this.routes.onFailure(slot, endpoint, error);
        if (waitMs === undefined || isAborted()) throw attempts.conclude(error);
        await pause(waitMs, options.signal);
      }
    }
  }

  /** Of the node at `endpoint` itself; asked once, not retried elsewhere. */
  status(endpoint: string, options: OperationOptions = {}): Promise<StatusReply> {
    return this.at(endpoint, methods.status, {}, options);
  }

  /** Makes one cluster of the first nodes; `endpoints` must name them. The same again changes nothing. */
  initCluster(request: InitClusterRequest, options: OperationOptions = {}): Promise<TopologyReply> {
    return this.calls.call(methods.initCluster, request, this.boundsOf(options));
  }

  /**
   * One command of the metadata group, e.g. { kind: 'drain', node: 3 }. KV_INVALID: it was refused.
   * `ifVersion`: only if the map is of this version still.
   */
  changeCluster(
    command: object,
    { ifVersion = 0, ...options }: OperationOptions & { readonly ifVersion?: number } = {},
  ): Promise<ChangeClusterReply> {
    const request = { command: JSON.stringify(command), ifVersion };
    return this.calls.call(methods.changeCluster, request, this.boundsOf(options));
  }

  /** The cluster as the node that answers knows it. */
  topology(options: OperationOptions = {}): Promise<TopologyReply> {
    return this.calls.call(methods.getTopology, {}, { ...this.boundsOf(options), isRead: true });
  }

  /** Resolves when another replica leads the group. */
  transferLeader(
    request: TransferLeaderRequest,
    options: OperationOptions = {},
  ): Promise<TransferLeaderReply> {
    return this.calls.call(methods.transferLeader, request, this.boundsOf(options));
  }

  /** The index at which every replica of a group takes the hash of its state, for `replicaHash`. */
  takeHash(request: TakeHashRequest, options: OperationOptions = {}): Promise<TakeHashReply> {
    return this.calls.call(methods.takeHash, request, this.boundsOf(options));
  }

  /** Of the replica on the node at `endpoint`. */
  replicaHash(
    endpoint: string,
    request: ReplicaHashRequest,
    options: OperationOptions = {},
  ): Promise<ReplicaHashReply> {
    return this.at(endpoint, methods.replicaHash, request, options);
  }

  /** Operations under way reject with KV_CANCELLED. */
  close(): void {
    this.topologyCache.close();
    this.batcher.close();
    this.connections.close();
  }

  private at<Q extends object, R extends object>(
    endpoint: string,
    called: Method<Q, R>,
    request: Q,
    options: OperationOptions,
  ): Promise<R> {
    const bounds = { ...this.boundsOf(options), endpoint };
    return callUnary(this.connections.to(endpoint), called, request, bounds);
  }

  private async read(request: GetRequest, bounds: CallBounds): Promise<GetReply> {
    this.topologyCache.open();
    checkBytes('key', request.key);
    const reply = this.batching
      ? replyOf((await this.run({ get: request }, bounds)).get)
      : await this.readAlone(request, bounds);
    bounds.token?.learn(reply.header);
    return reply;
  }

  private async readAlone(request: GetRequest, bounds: CallBounds): Promise<GetReply> {
    const { token } = bounds;
    const get = (token && withToken({ get: request }, token).get) ?? request;
    const anyReplica = isForAnyReplica(get.level);
    const reply = await this.calls.call(methods.get, get, {
      ...bounds,
      anyReplica,
      slot: anyReplica ? undefined : slotOf(get.key),
      header: get.header ?? undefined,
      isRead: true,
    });
    this.learn(reply.header);
    return reply;
  }

  /** A write that is a call of its own. */
  private alone<Q extends { readonly key: Uint8Array }, R extends object>(
    called: Method<Q, R>,
    request: Q,
    bounds: CallBounds,
  ): Promise<R> {
    const header = bounds.token?.headerOf('none');
    return this.calls.call(called, request, { ...bounds, header, slot: slotOf(request.key) });
  }

  private async write<R extends WithHeader>(
    options: OperationOptions,
    send: (session: SessionMessage, bounds: CallBounds) => Promise<R>,
  ): Promise<R> {
    this.topologyCache.open();
    const bounds = this.boundsOf(options);
    if (!this.book.knowsLogTime) await this.logTime.known(bounds);
    const session = this.book.begin();
    try {
      const reply = await send(session, bounds);
      this.learn(reply.header);
      bounds.token?.learn(reply.header);
      return reply;
    } finally {
      this.book.end(session);
    }
  }

  /** One operation of a batch: failures are results too. */
  private async resultOf(
    operation: OperationMessage,
    bounds: CallBounds,
  ): Promise<OperationResultMessage> {
    const session = operation.get ? undefined : this.book.begin();
    try {
      const message = session ? withSession(operation, session) : operation;
      const result = await this.run(message, bounds);
      const { get, put, delete: del, increment } = result;
      bounds.token?.learn((get ?? put ?? del ?? increment)?.header);
      return result;
    } catch (error) {
      return { error: detailOfError(asKvError(error)) };
    } finally {
      if (session) this.book.end(session);
    }
  }

  private run(message: OperationMessage, bounds: CallBounds): Promise<OperationResultMessage> {
    return new Promise((resolve, reject) => {
      if (bounds.signal?.aborted === true) throw cancelledError('notApplied');
      checkMessage(message);
      const operation = new Operation({
        ...bounds,
        message: bounds.token === undefined ? message : withToken(message, bounds.token),
        done: (error, result) => {
          if (result !== undefined) resolve(result);
          else reject(asKvError(error));
        },
      });
      this.batcher.submit(operation);
    });
  }

  private learn(header: ReplyHeader | null | undefined): void {
    this.book.learn(header?.logTimeMs);
  }

  private boundsOf({ timeoutMs = this.timeoutMs, signal, token }: OperationOptions): CallBounds {
    return { deadline: Date.now() + Math.min(timeoutMs, timeoutMsMax), signal, token };
  }
}

function replyOf<R>(reply: R | null | undefined): R {
  if (reply !== null && reply !== undefined) return reply;
  throw asKvError(new Error('the reply answers another kind of operation'));
}

/** Up to the bounds of a slice, at least one. */
function sliceFrom(operations: readonly OperationMessage[], from: number): OperationMessage[] {
  const slice: OperationMessage[] = [];
  let bytes = 0;
  for (let at = from; at < operations.length && slice.length < sliceLengthMax; at++) {
    const operation = operations[at] ?? {};
    bytes += operation.put?.value?.byteLength ?? 0;
    if (slice.length > 0 && bytes > sliceBytesMax) break;
    slice.push(operation);
  }
  return slice;
}
