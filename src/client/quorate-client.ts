/**
 * A client of a cluster: promises, retries under the same session within the deadline, errors that
 * say what a failed write may have done.
 */
import { Client, credentials } from '@grpc/grpc-js';
import type {
  BatchReply,
  BatchRequest,
  ChangeClusterReply,
  ChangeClusterRequest,
  DeleteReply,
  DeleteRequest,
  GetReply,
  GetRequest,
  GetTopologyRequest,
  IncrementReply,
  IncrementRequest,
  InitClusterRequest,
  OperationMessage,
  OperationResultMessage,
  PutReply,
  PutRequest,
  ReplicaHashReply,
  ReplicaHashRequest,
  ScanReply,
  ScanRequest,
  SessionMessage,
  StatusReply,
  StatusRequest,
  TopologyReply,
  TransferLeaderReply,
  TransferLeaderRequest,
  TxnReply,
  TxnRequest,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { SessionBook } from './session-book.js';
import { callStream, callUnary, method, type Method } from './wire.js';

const methods = {
  get: method<GetRequest, GetReply>('KV/Get', 'GetRequest', 'GetReply'),
  put: method<PutRequest, PutReply>('KV/Put', 'PutRequest', 'PutReply'),
  delete: method<DeleteRequest, DeleteReply>('KV/Delete', 'DeleteRequest', 'DeleteReply'),
  increment: method<IncrementRequest, IncrementReply>(
    'KV/Increment',
    'IncrementRequest',
    'IncrementReply',
  ),
  txn: method<TxnRequest, TxnReply>('KV/Txn', 'TxnRequest', 'TxnReply'),
  batch: method<BatchRequest, BatchReply>('KV/Batch', 'BatchRequest', 'BatchReply'),
  scan: method<ScanRequest, ScanReply>('KV/Scan', 'ScanRequest', 'ScanReply'),
  status: method<StatusRequest, StatusReply>('Admin/Status', 'StatusRequest', 'StatusReply'),
  initCluster: method<InitClusterRequest, TopologyReply>(
    'Admin/InitCluster',
    'InitClusterRequest',
    'TopologyReply',
  ),
  getTopology: method<GetTopologyRequest, TopologyReply>(
    'Admin/GetTopology',
    'GetTopologyRequest',
    'TopologyReply',
  ),
  changeCluster: method<ChangeClusterRequest, ChangeClusterReply>(
    'Admin/ChangeCluster',
    'ChangeClusterRequest',
    'ChangeClusterReply',
  ),
  transferLeader: method<TransferLeaderRequest, TransferLeaderReply>(
    'Admin/TransferLeader',
    'TransferLeaderRequest',
    'TransferLeaderReply',
  ),
  replicaHash: method<ReplicaHashRequest, ReplicaHashReply>(
    'Admin/ReplicaHash',
    'ReplicaHashRequest',
    'ReplicaHashReply',
  ),
} as const;

const retryDelayMs = 25;
/** A single attempt at a node that does not answer: then another node is asked. */
const attemptMsMax = 2000;
/** A stream of pages is cut after an hour, and gone on with from its cursor. */
const scanMsMax = 3_600_000;
/** Below the lifetime of a session's writes (50 s), so that no retry comes too late to be known. */
const timeoutMsMax = 45_000;

export interface ClientOptions {
  /** host:port of client addresses; any node will do, more are better. */
  readonly endpoints: readonly string[];
  /** For a whole operation with its retries, up to 45 s; 10 s if absent. */
  readonly timeoutMs?: number;
}

export interface OperationOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

type Put = Omit<PutRequest, 'header' | 'session'>;
type Delete = Omit<DeleteRequest, 'header' | 'session'>;
type Increment = Omit<IncrementRequest, 'header' | 'session'>;
type Txn = Omit<TxnRequest, 'header' | 'session'>;

/** All methods reject with KvError. Writes carry a session: a retry never writes twice. */
export class QuorateClient {
  private readonly endpoints: readonly string[];
  private readonly timeoutMs: number;
  private readonly connections = new Map<string, Client>();
  private readonly book = new SessionBook();
  private current = 0;

  constructor(options: ClientOptions) {
    if (options.endpoints.length === 0)
      throw new RangeError('endpoints must name at least one node');
    this.endpoints = options.endpoints;
    this.timeoutMs = Math.min(options.timeoutMs ?? 10_000, timeoutMsMax);
  }

  async get(request: GetRequest, options: OperationOptions = {}): Promise<GetReply> {
    const reply = await this.retry(methods.get, request, options).catch(failRead);
    this.book.learn(reply.header?.logTimeMs);
    return reply;
  }

  put(request: Put, options: OperationOptions = {}): Promise<PutReply> {
    return this.write(methods.put, request, request.key, options);
  }

  delete(request: Delete, options: OperationOptions = {}): Promise<DeleteReply> {
    return this.write(methods.delete, request, request.key, options);
  }

  increment(request: Increment, options: OperationOptions = {}): Promise<IncrementReply> {
    return this.write(methods.increment, request, request.key, options);
  }

  /** All keys in one slot (use a `{tag}`). */
  txn(request: Txn, options: OperationOptions = {}): Promise<TxnReply> {
    return this.write(methods.txn, request, new Uint8Array([0]), options);
  }

  /** Each operation on its own; results in order, failures among them as `error`. */
  async batch(
    operations: readonly OperationMessage[],
    options: OperationOptions = {},
  ): Promise<readonly OperationResultMessage[]> {
    await this.ensureLogTime(options);
    const sessions: SessionMessage[] = [];
    const withSession = <T extends object>(write: T): T & { session: SessionMessage } => {
      const session = this.book.begin();
      sessions.push(session);
      return { ...write, session };
    };
    const numbered = operations.map((operation): OperationMessage => {
      if (operation.put) return { put: withSession(operation.put) };
      if (operation.delete) return { delete: withSession(operation.delete) };
      if (operation.increment) return { increment: withSession(operation.increment) };
      return operation;
    });
    try {
      const reply = await this.retry(methods.batch, { operations: numbered }, options);
      this.book.learn(reply.header?.logTimeMs);
      return reply.results ?? [];
    } finally {
      for (const session of sessions) this.book.end(session);
    }
  }

  /** Pages of a scan; goes on at another node, from the last cursor, when one fails. */
  async *scan(request: ScanRequest, options: OperationOptions = {}): AsyncGenerator<ScanReply> {
    // A scan goes on from its cursor; the server takes one beginning, not two.
    const { afterKey, ...unplaced } = request;
    let { cursor } = request;
    let left = request.limit ?? 0;
    let deadline = this.deadlineOf(options);
    for (;;) {
      const endpoint = this.endpoint();
      try {
        const rest: ScanRequest = {
          ...unplaced,
          limit: left,
          ...(afterKey === undefined || cursor !== request.cursor ? {} : { afterKey }),
          ...(cursor === undefined ? {} : { cursor }),
        };
        const pages = callStream(this.connection(endpoint), methods.scan, rest, {
          deadline: Date.now() + scanMsMax,
          endpoint,
        });
        for await (const page of pages) {
          deadline = this.deadlineOf(options);
          cursor = page.cursor ?? cursor;
          if (left > 0) left = Math.max(0, left - (page.kvs?.length ?? 0));
          yield page;
          if (page.done === true) return;
        }
        return;
      } catch (error) {
        await this.beforeRetry(error, deadline, false, options.signal).catch(failRead);
      }
    }
  }

  /** Of the node at `endpoint` itself; asked once, not retried elsewhere. */
  status(endpoint: string, options: OperationOptions = {}): Promise<StatusReply> {
    return this.at(endpoint, methods.status, {}, options);
  }

  /** Makes one cluster of the first nodes; `endpoints` must name them. The same again changes nothing. */
  initCluster(request: InitClusterRequest, options: OperationOptions = {}): Promise<TopologyReply> {
    return this.retry(methods.initCluster, request, options);
  }

  /** One command of the metadata group, e.g. { kind: 'drain', node: 3 }. KV_INVALID: it was refused. */
  changeCluster(command: object, options: OperationOptions = {}): Promise<ChangeClusterReply> {
    return this.retry(methods.changeCluster, { command: JSON.stringify(command) }, options);
  }

  /** The cluster as the node that answers knows it. */
  topology(options: OperationOptions = {}): Promise<TopologyReply> {
    return this.retry(methods.getTopology, {}, options).catch(failRead);
  }

  transferLeader(
    endpoint: string,
    request: TransferLeaderRequest,
    options: OperationOptions = {},
  ): Promise<TransferLeaderReply> {
    return this.at(endpoint, methods.transferLeader, request, options);
  }

  replicaHash(
    endpoint: string,
    request: ReplicaHashRequest,
    options: OperationOptions = {},
  ): Promise<ReplicaHashReply> {
    return this.at(endpoint, methods.replicaHash, request, options);
  }

  close(): void {
    for (const connection of this.connections.values()) connection.close();
    this.connections.clear();
  }

  private at<Q extends object, R extends object>(
    endpoint: string,
    called: Method<Q, R>,
    request: Q,
    options: OperationOptions,
  ): Promise<R> {
    const deadline = this.deadlineOf(options);
    return callUnary(this.connection(endpoint), called, request, {
      deadline,
      endpoint,
      signal: options.signal,
    });
  }

  private async write<
    Q extends object,
    R extends { header?: { logTimeMs?: number } | null | undefined },
  >(
    called: Method<Q & { session: SessionMessage }, R>,
    request: Q,
    key: Uint8Array,
    options: OperationOptions,
  ): Promise<R> {
    await this.ensureLogTime(options, key);
    const session = this.book.begin();
    try {
      const reply = await this.retry(called, { ...request, session }, options);
      this.book.learn(reply.header?.logTimeMs);
      return reply;
    } finally {
      this.book.end(session);
    }
  }

  /** A write carries a last moment in the server's log time, so that must be known before. */
  private async ensureLogTime(
    options: OperationOptions,
    key: Uint8Array = new Uint8Array([0]),
  ): Promise<void> {
    if (!this.book.knowsLogTime) await this.get({ key }, options);
  }

  /**
   * Attempts until the deadline. Sent again under the same session, so an attempt whose outcome is
   * unknown stays unknown only if no later attempt gets the answer from the session's record.
   */
  private async retry<Q extends object, R extends object>(
    called: Method<Q, R>,
    request: Q,
    options: OperationOptions,
  ): Promise<R> {
    const deadline = this.deadlineOf(options);
    let unknown = false;
    for (;;) {
      const endpoint = this.endpoint();
      try {
        return await callUnary(this.connection(endpoint), called, request, {
          deadline: Math.min(deadline, Date.now() + attemptMsMax),
          endpoint,
          signal: options.signal,
        });
      } catch (error) {
        unknown ||= error instanceof KvError && error.outcome === 'unknown';
        await this.beforeRetry(error, deadline, unknown, options.signal);
      }
    }
  }

  /** Moves on to another node and waits a little; rethrows when there is no point or no time. */
  private async beforeRetry(
    error: unknown,
    deadline: number,
    unknown: boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (!(error instanceof KvError)) throw error;
    const wait = Math.max(error.fields.retryAfterMs ?? 0, retryDelayMs);
    if (!retryable(error) || signal?.aborted === true || Date.now() + wait >= deadline) {
      throw unknown ? sticky(error) : error;
    }
    this.current += 1;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }

  private endpoint(): string {
    return this.endpoints[this.current % this.endpoints.length] ?? '';
  }

  private connection(endpoint: string): Client {
    let connection = this.connections.get(endpoint);
    if (connection === undefined) {
      connection = new Client(endpoint, credentials.createInsecure(), {
        // A node that was killed comes back soon: look again quickly.
        'grpc.initial_reconnect_backoff_ms': 50,
        'grpc.max_reconnect_backoff_ms': 500,
        'grpc.max_receive_message_length': 64 * 1024 * 1024,
      });
      this.connections.set(endpoint, connection);
    }
    return connection;
  }

  private deadlineOf(options: OperationOptions): number {
    return Date.now() + Math.min(options.timeoutMs ?? this.timeoutMs, timeoutMsMax);
  }
}

function retryable(error: KvError): boolean {
  return (
    error.code === 'KV_NOT_LEADER' ||
    error.code === 'KV_UNAVAILABLE' ||
    error.code === 'KV_OVERLOADED' ||
    error.code === 'KV_UNKNOWN_OUTCOME' ||
    error.code === 'KV_DEADLINE'
  );
}

/** Whatever became of a read, nothing was applied. */
function failRead(error: unknown): never {
  if (!(error instanceof KvError) || error.outcome === 'notApplied') throw error;
  throw new KvError(error.message, { ...error.fields, outcome: 'notApplied', cause: error });
}

/** An earlier attempt may have been applied: later refusals do not change that (rule D04). */
function sticky(error: KvError): KvError {
  if (error.outcome === 'unknown') return error;
  return new KvError(`${error.message} (an earlier attempt may have been applied)`, {
    ...error.fields,
    outcome: 'unknown',
    cause: error,
  });
}
