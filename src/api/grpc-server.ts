/**
 * The grpc-js server behind the library's door: streams, admin calls, health, reflection, and the
 * unary KV calls as well (for clients whose calls are sent this way by configuration, and so that
 * one contract suite can run over both doors).
 */
import {
  Metadata,
  Server,
  type handleUnaryCall,
  type MethodDefinition,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { protoFiles, protoFolder, serviceDefinition } from '../../proto/definitions.js';
import type {
  BatchReply,
  BatchRequest,
  ScanReply,
  ScanRequest,
  WatchRequest,
} from '../../proto/messages.js';
import type { Clock } from '../observe/clock.js';
import type { Deadlines, Expiring } from './deadlines.js';
import { Health } from './health.js';
import type { ApiLimits } from './limits.js';
import { statusTrailers, toKvError } from './status.js';
import { deadlineError, deadlineOf } from './unary-call.js';
import { forwardedHeader, type CallContext, type UnaryMethod, type UnaryMethods } from './unary.js';

/** Where a stream's replies go. */
export interface ReplySink<T> {
  /** Resolves when the client has room for more; rejects when it stays away for too long. */
  send(reply: T): Promise<void>;
  /** Resolves when this very reply has left; rejects as `send` does. */
  flush(reply: T): Promise<void>;
  /** The client cancelled, or its connection is gone. */
  readonly ended: boolean;
}

/** The calls that are no unary KV calls. They reject with KvError. */
export interface StreamMethods {
  scan(request: ScanRequest, sink: ReplySink<ScanReply>): Promise<void>;
  /** Answers each batch, in any order. */
  pipeline(requests: AsyncIterable<BatchRequest>, sink: ReplySink<BatchReply>): Promise<void>;
  /** Sends encoded events until the watcher leaves. */
  watch(request: WatchRequest, sink: ReplySink<Uint8Array>): Promise<void>;
}

/** Admin calls: decoded request in, reply out. Reject with KvError. */
export type AdminMethods = Readonly<
  Record<string, (request: object, forwarded: boolean) => Promise<object>>
>;

export interface GrpcServerOptions {
  readonly limits: ApiLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly unaryMethods: UnaryMethods;
  readonly streamMethods: StreamMethods;
  readonly adminMethods: AdminMethods;
}

/** How long a stream's client may leave replies unread before its stream is cancelled, ms. */
const unreadMsMax = 30_000;

export interface GrpcServer {
  readonly server: Server;
  readonly health: Health;
}

/** A server with all services added; it listens nowhere. */
export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  const server = new Server({
    'grpc.max_receive_message_length': options.limits.requestBytesMax + 1024,
    'grpc.max_send_message_length': -1,
  });
  server.addService(rawUnary(serviceDefinition('KV')), kvImplementation(options));
  server.addService(serviceDefinition('Admin'), adminImplementation(options.adminMethods));
  server.addService(rawReplies(serviceDefinition('Topology')), {
    Watch: (call: ServerWritableStream<WatchRequest, Uint8Array>) => {
      const sink = new StreamSink<Uint8Array>(call, options.deadlines, options.clock);
      void finish(call, options.streamMethods.watch(call.request, sink));
    },
  });
  const health = new Health();
  health.update(false, []);
  health.addTo(server);
  const files = loadSync([...protoFiles], { includeDirs: [protoFolder] });
  new ReflectionService(files).addToServer(server);
  return { server, health };
}

/** Unary methods in and out as bytes: their implementations do the decoding for both doors. */
function rawUnary(definition: ServiceDefinition): ServiceDefinition {
  const raw = Object.entries(definition).map(
    ([name, method]): [string, MethodDefinition<object, object>] =>
      method.requestStream || method.responseStream
        ? [name, method]
        : [
            name,
            {
              ...method,
              requestDeserialize: (bytes: Buffer) => bytes,
              responseSerialize: (bytes: object) => asBuffer(bytes),
            },
          ],
  );
  return Object.fromEntries(raw);
}

/** Replies come encoded. */
function rawReplies(definition: ServiceDefinition): ServiceDefinition {
  const raw = Object.entries(definition).map(
    ([name, method]): [string, MethodDefinition<object, object>] => [
      name,
      { ...method, responseSerialize: asBuffer },
    ],
  );
  return Object.fromEntries(raw);
}

function asBuffer(bytes: object): Buffer {
  if (bytes instanceof Uint8Array)
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  throw new TypeError('a reply that should be encoded is not bytes');
}

function kvImplementation(options: GrpcServerOptions): UntypedServiceImplementation {
  const { streamMethods, deadlines } = options;
  const implementation: UntypedServiceImplementation = {
    Scan: (call: ServerWritableStream<ScanRequest, ScanReply>) => {
      const sink = new StreamSink<ScanReply>(call, deadlines, options.clock);
      void finish(call, streamMethods.scan(call.request, sink));
    },
    Pipeline: (call: ServerDuplexStream<BatchRequest, BatchReply>) => {
      const sink = new StreamSink<BatchReply>(call, deadlines, options.clock);
      // The default iterator would destroy the stream at the end of its requests, with the last
      // replies and the status still in it.
      const requests: AsyncIterable<BatchRequest> = {
        [Symbol.asyncIterator]: () => call.iterator({ destroyOnReturn: false }),
      };
      void finish(call, streamMethods.pipeline(requests, sink));
    },
  };
  for (const [path, method] of options.unaryMethods) {
    implementation[path.slice(path.lastIndexOf('/') + 1)] = unaryHandler(options, method);
  }
  return implementation;
}

function unaryHandler(
  options: GrpcServerOptions,
  method: UnaryMethod,
): handleUnaryCall<Uint8Array, Uint8Array> {
  return (call, callback) => {
    const context = new GrpcCall(call, options, callback);
    if (context.deadlineMs <= options.clock.monotonicMs()) {
      context.expire();
      return;
    }
    options.deadlines.enter(context);
    method(call.request, context, (error, reply) => {
      context.answer(error, reply);
    });
  };
}

type Callback = Parameters<handleUnaryCall<Uint8Array, Uint8Array>>[1];

class GrpcCall implements CallContext, Expiring {
  readonly deadlineMs: number;
  readonly forwarded: boolean;
  ended = false;
  mayHaveApplied = false;
  private readonly deadlines: Deadlines;
  private readonly callback: Callback;

  constructor(
    call: ServerUnaryCall<Uint8Array, Uint8Array>,
    options: GrpcServerOptions,
    callback: Callback,
  ) {
    const { clock, limits, deadlines } = options;
    const deadline = call.getDeadline();
    const until = deadline instanceof Date ? deadline.getTime() : deadline;
    const timeoutMs = Number.isFinite(until) ? until - clock.wallMs() : undefined;
    this.deadlineMs = deadlineOf(timeoutMs, clock.monotonicMs(), limits);
    this.forwarded = call.metadata.get(forwardedHeader).length > 0;
    this.deadlines = deadlines;
    this.callback = callback;
    call.on('cancelled', () => {
      this.leave();
    });
  }

  expire(): void {
    this.answer(deadlineError(this.mayHaveApplied), undefined);
  }

  answer(error: unknown, reply: Uint8Array | undefined): void {
    if (!this.leave()) return;
    if (error !== undefined) this.callback(failure(error));
    else this.callback(null, reply ?? new Uint8Array());
  }

  private leave(): boolean {
    if (this.ended) return false;
    this.ended = true;
    this.deadlines.leave(this);
    return true;
  }
}

/** Any error in the form grpc-js wants. */
function failure(error: unknown): { code: number; details: string; metadata: Metadata } {
  const { code, message, details } = statusTrailers(toKvError(error));
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(details));
  return { code, details: message, metadata };
}

function adminImplementation(methods: AdminMethods): UntypedServiceImplementation {
  const implementation: UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(methods)) {
    const handler: handleUnaryCall<object, object> = (call, callback) => {
      method(call.request, call.metadata.get(forwardedHeader).length > 0).then(
        (reply) => {
          callback(null, reply);
        },
        (error: unknown) => {
          callback(failure(error));
        },
      );
    };
    implementation[name] = handler;
  }
  return implementation;
}

type ReplyStream<T> = ServerWritableStream<object, T> | ServerDuplexStream<object, T>;

class StreamSink<T extends object> implements ReplySink<T> {
  ended = false;
  private readonly stream: ReplyStream<T>;
  private readonly deadlines: Deadlines;
  private readonly clock: Clock;

  constructor(stream: ReplyStream<T>, deadlines: Deadlines, clock: Clock) {
    this.stream = stream;
    this.deadlines = deadlines;
    this.clock = clock;
    stream.on('cancelled', () => {
      this.ended = true;
    });
    stream.on('error', () => {
      this.ended = true;
    });
  }

  send(reply: T): Promise<void> {
    if (this.ended || this.stream.write(reply)) return Promise.resolve();
    return this.untilRead((settle) => this.stream.once('drain', settle));
  }

  flush(reply: T): Promise<void> {
    if (this.ended) return Promise.resolve();
    return this.untilRead((settle) => this.stream.write(reply, settle));
  }

  private untilRead(begin: (settle: () => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.deadlines.leave(patience);
        this.stream.removeListener('drain', settle);
        this.stream.removeListener('cancelled', settle);
        resolve();
      };
      const patience = {
        deadlineMs: this.clock.monotonicMs() + unreadMsMax,
        expire: () => {
          this.ended = true;
          reject(
            new Error(
              `the client left replies unread for ${unreadMsMax} ms: go on from where they end`,
            ),
          );
        },
      };
      this.deadlines.enter(patience);
      this.stream.once('cancelled', settle);
      begin(settle);
    });
  }
}

async function finish<T>(stream: ReplyStream<T>, work: Promise<void>): Promise<void> {
  try {
    await work;
    stream.end();
  } catch (error) {
    // grpc-js sends an emitted error as the status of the stream.
    stream.emit('error', failure(error));
  }
}
