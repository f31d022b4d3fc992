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
  PlanRebalanceReply,
  PlanRebalanceRequest,
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
  ShardFiguresReply,
  ShardFiguresRequest,
  TakeHashReply,
  TakeHashRequest,
  TopologyReply,
  TransferLeaderReply,
  TransferLeaderRequest,
  TxnReply,
  TxnRequest,
} from '../../proto/messages.js';
import type { KvError } from '../errors.js';
import { Batcher } from './batcher.js';
import { closedError, Connections } from './connections.js';
import { LogTime, type CallBounds } from './log-time.js';
import { methods } from './methods.js';
import { Operation } from './operation.js';
import {
  checkBytes,
  checkMessage,
  checkTxn,
  isForAnyReplica,
  keyWritten,
  sliceFrom,
  withSession,
  withToken,
} from './requests.js';
import { RetriedCalls } from './retried-calls.js';
import { Routes } from './routes.js';
import { scanPages } from './scan.js';
import { asKvError, PipelineSender, UnarySender } from './senders.js';
import { SessionBook } from './session-book.js';
import type { SessionToken } from './session-token.js';
import { TopologyCache } from './topology-cache.js';
import { callUnary, cancelledError, detailOfError, type Method } from './wire.js';

/** Below the lifetime of a session's writes (50 s), so that no retry comes too late to be known. */
const timeoutMsMax = 45_000;
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
interface WithSession {
  session?: SessionMessage | null | undefined;
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
    this.logTime = new LogTime(this.book, (key, deadline) => this.askTime(key, deadline));
  }

  get(request: GetRequest, options: OperationOptions = {}): Promise<GetReply> {
    return this.read(request, this.boundsOf(options));
  }

  put(request: Put, options: OperationOptions = {}): Promise<PutReply> {
    return this.writeOne(methods.put, request, options, {
      message: (put) => ({ put }),
      reply: ({ put }) => put,
    });
  }

  delete(request: Delete, options: OperationOptions = {}): Promise<DeleteReply> {
    return this.writeOne(methods.delete, request, options, {
      message: (del) => ({ delete: del }),
      reply: (result) => result.delete,
    });
  }

  increment(request: Increment, options: OperationOptions = {}): Promise<IncrementReply> {
    return this.writeOne(methods.increment, request, options, {
      message: (increment) => ({ increment }),
      reply: ({ increment }) => increment,
    });
  }

  /** All keys in one slot (use a `{tag}`). */
  async txn(request: Txn, options: OperationOptions = {}): Promise<TxnReply> {
    const key = checkTxn(request);
    return this.write(key, options, (session, bounds) =>
      this.callAlone(methods.txn, { ...request, session }, key, bounds),
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
    const { closed } = this.connections;
    if (closed.aborted) throw closedError('notApplied');
    this.topologyCache.open();
    const bounds = this.boundsOf(options);
    const written = operations.map(keyWritten).find((key) => key !== undefined);
    if (written !== undefined) await this.timeKnown(written, bounds);
    const results: OperationResultMessage[] = [];
    while (results.length < operations.length) {
      if (bounds.signal?.aborted === true)
        throw cancelledError(results.length > 0 ? 'unknown' : 'notApplied');
      const slice = sliceFrom(operations, results.length);
      results.push(...(await Promise.all(slice.map((each) => this.resultOf(each, bounds)))));
      if (closed.aborted) throw closedError('unknown');
    }
    return results;
  }

  /**
   * Pages of a scan, slot by slot, each from a node that has the slot; the timeout is for one page. Goes
   * on where it was, and no key comes twice, when nodes fail and slots move. Begin again with the last
   * `cursor` after a failure.
   */
  async *scan(request: ScanRequest, options: OperationOptions = {}): AsyncGenerator<ScanReply> {
    this.topologyCache.open();
    yield* scanPages(this.calls, request, () => this.boundsOf(options));
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

  /** Which slots would have to move so that every shard has its share. Changes nothing. */
  planRebalance(
    request: PlanRebalanceRequest,
    options: OperationOptions = {},
  ): Promise<PlanRebalanceReply> {
    return this.calls.call(methods.planRebalance, request, {
      ...this.boundsOf(options),
      isRead: true,
    });
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

  /** What the leader of a shard knows of its slots, and of migrations that it is the source of. */
  shardFigures(
    request: ShardFiguresRequest,
    options: OperationOptions = {},
  ): Promise<ShardFiguresReply> {
    return this.calls.call(methods.shardFigures, request, this.boundsOf(options));
  }

  /** Of the replica on the node at `endpoint`. */
  replicaHash(
    endpoint: string,
    request: ReplicaHashRequest,
    options: OperationOptions = {},
  ): Promise<ReplicaHashReply> {
    return this.at(endpoint, methods.replicaHash, request, options);
  }

  /**
   * Whatever is under way rejects with KV_CANCELLED, and so does every later call. Nothing of the client
   * keeps the process alive afterwards.
   */
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
    return callUnary(this.connections, called, request, { ...this.boundsOf(options), endpoint });
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
    const reply = await this.calls.call(methods.get, get, {
      ...bounds,
      anyReplica: isForAnyReplica(get.level),
      key: get.key,
      header: get.header ?? undefined,
      isRead: true,
    });
    this.learn(reply.header);
    return reply;
  }

  /** Log time: of the leader of the key's shard. */
  private async askTime(key: Uint8Array, deadline: number): Promise<void> {
    const header = { wantLogTime: true };
    const options = { deadline, key, isRead: true, header };
    this.learn((await this.calls.call(methods.get, { key }, options)).header);
    if (!this.book.knowsLogTime) throw asKvError(new Error('the leader did not tell its time'));
  }

  private async timeKnown(key: Uint8Array, bounds: CallBounds): Promise<void> {
    if (!this.book.knowsLogTime) await this.logTime.known(key, bounds);
  }

  private async writeOne<Q extends { readonly key: Uint8Array }, R extends WithHeader>(
    called: Method<Q & WithSession, R>,
    request: Q,
    options: OperationOptions,
    inBatch: {
      readonly message: (request: Q & WithSession) => OperationMessage;
      readonly reply: (result: OperationResultMessage) => R | null | undefined;
    },
  ): Promise<R> {
    checkMessage(inBatch.message({ ...request, session: undefined }));
    return this.write(request.key, options, async (session, bounds) => {
      const full = { ...request, session };
      return this.batching
        ? replyOf(inBatch.reply(await this.run(inBatch.message(full), bounds)))
        : this.callAlone(called, full, request.key, bounds);
    });
  }

  /** A write that is a call of its own. */
  private callAlone<Q extends object, R extends object>(
    called: Method<Q, R>,
    request: Q,
    key: Uint8Array,
    bounds: CallBounds,
  ): Promise<R> {
    const header = bounds.token?.headerOf('none');
    return this.calls.call(called, request, { ...bounds, header, key });
  }

  /** `key`: the write's, or one of several in one slot. */
  private async write<R extends WithHeader>(
    key: Uint8Array,
    options: OperationOptions,
    send: (session: SessionMessage, bounds: CallBounds) => Promise<R>,
  ): Promise<R> {
    this.topologyCache.open();
    const bounds = this.boundsOf(options);
    await this.timeKnown(key, bounds);
    const reply = await this.inSession(key, (session) => send(session, bounds));
    this.learn(reply.header);
    bounds.token?.learn(reply.header, 'unknown');
    return reply;
  }

  /**
   * Where the clocks of shards are far apart, the write's last moment may be too far ahead for its own: then
   * it is sent once more, as another write, by the time of its shard.
   */
  private async inSession<R>(
    key: Uint8Array,
    send: (session: SessionMessage) => Promise<R>,
    mayRepeat = true,
  ): Promise<R> {
    const shard = this.routes.shardOf(this.routes.slotOf(key)) ?? 0;
    const session = this.book.begin(shard);
    try {
      return await send(session);
    } catch (reason) {
      const error = asKvError(reason);
      if (error.code === 'KV_SESSION_EXPIRED') this.book.forgetBehind(shard);
      if (!mayRepeat || !isTooFarAhead(error)) throw error;
      this.book.learnBehind(shard, (session.notAfterMs ?? 0) - (error.fields.size ?? 0));
    } finally {
      this.book.end(session);
    }
    return this.inSession(key, send, false);
  }

  /** One operation of a batch: failures are results too. */
  private async resultOf(
    operation: OperationMessage,
    bounds: CallBounds,
  ): Promise<OperationResultMessage> {
    const key = keyWritten(operation);
    try {
      const result =
        key === undefined
          ? await this.run(operation, bounds)
          : await this.inSession(key, (session) =>
              this.run(withSession(operation, session), bounds),
            );
      const { get, put, delete: del, increment } = result;
      bounds.token?.learn((get ?? put ?? del ?? increment)?.header, get ? 'notApplied' : 'unknown');
      return result;
    } catch (error) {
      return { error: detailOfError(asKvError(error)) };
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

/** No attempt at the write was applied, and none will be: its last moment lies too far ahead. */
function isTooFarAhead({ code, outcome, fields }: KvError): boolean {
  return code === 'KV_INVALID' && outcome === 'notApplied' && (fields.limit ?? 0) > 0;
}

function replyOf<R>(reply: R | null | undefined): R {
  if (reply !== null && reply !== undefined) return reply;
  throw asKvError(new Error('the reply answers another kind of operation'));
}
