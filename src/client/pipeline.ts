/**
 * One stream of batches to one node. It is opened by the first batch, opened again by the first one
 * after it broke, and ended when nothing was sent for a while.
 *
 * A batch that was written to a stream which broke before its reply has an unknown outcome, unless
 * there never was a connection.
 */
import { Metadata, type Client, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import type { BatchReply, BatchRequest } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { methods } from './methods.js';
import { errorOfCall } from './wire.js';

/** The server works on up to 256 of a stream at once. */
const batchesMax = 64;
/** Encoded requests without a reply; the batch that goes over it is still taken. */
const bytesMax = 8 * 1024 * 1024;
/** How long after its timeout at the server a batch may be answered: then the node counts as gone. */
const graceMs = 1000;
const idleMs = 5000;

export type BatchDone = (error: KvError | undefined, reply: BatchReply | undefined) => void;

interface Flying {
  readonly bytes: number;
  readonly timer: NodeJS.Timeout;
  readonly done: BatchDone;
}

type Stream = ClientDuplexStream<Buffer, BatchReply>;

export class Pipeline {
  private readonly endpoint: string;
  /** Throws KvError. */
  private readonly clientOf: () => Client;
  private stream: Stream | undefined;
  private readonly flying = new Map<number, Flying>();
  private bytes = 0;
  private nextId = 1;
  private idleTimer: NodeJS.Timeout | undefined;

  constructor(endpoint: string, clientOf: () => Client) {
    this.endpoint = endpoint;
    this.clientOf = clientOf;
  }

  get hasRoom(): boolean {
    return this.flying.size < batchesMax && this.bytes < bytesMax;
  }

  /** Calls `done` once, never before it returns. */
  send(request: BatchRequest & { readonly timeoutMs: number }, done: BatchDone): void {
    const id = this.nextId++;
    let encoded: Buffer;
    let stream: Stream;
    try {
      encoded = methods.pipeline.encode({ ...request, id });
      stream = this.stream ??= this.open();
    } catch (error) {
      queueMicrotask(() => {
        done(error instanceof KvError ? error : malformed(error), undefined);
      });
      return;
    }
    clearTimeout(this.idleTimer);
    const timer = setTimeout(() => {
      this.fail(stream, silent(this.endpoint));
    }, request.timeoutMs + graceMs);
    this.flying.set(id, { bytes: encoded.byteLength, timer, done });
    this.bytes += encoded.byteLength;
    // Its return value is not needed: `hasRoom` bounds what is written and not answered.
    stream.write(encoded);
  }

  close(): void {
    clearTimeout(this.idleTimer);
    const { stream } = this;
    if (stream === undefined) return;
    this.fail(stream, brokenError(this.endpoint, 'the client was closed'));
  }

  private open(): Stream {
    const { path, decode } = methods.pipeline;
    const stream: Stream = this.clientOf().makeBidiStreamRequest(
      path,
      (bytes: Buffer) => bytes,
      decode,
      new Metadata(),
      {},
    );
    stream.on('data', (reply: BatchReply) => {
      this.take(stream, reply);
    });
    stream.on('error', (error: ServiceError) => {
      this.fail(stream, streamError(error, this.endpoint));
    });
    stream.on('end', () => {
      this.fail(stream, brokenError(this.endpoint, 'the node ended the stream'));
    });
    return stream;
  }

  private take(stream: Stream, reply: BatchReply): void {
    if (stream !== this.stream) return;
    const flying = this.flying.get(reply.id ?? 0);
    if (flying === undefined) return;
    this.flying.delete(reply.id ?? 0);
    this.bytes -= flying.bytes;
    clearTimeout(flying.timer);
    if (this.flying.size === 0) this.idleTimer = setTimeout(this.endIdle, idleMs).unref();
    flying.done(undefined, reply);
  }

  private readonly endIdle = (): void => {
    if (this.flying.size > 0) return;
    const { stream } = this;
    this.stream = undefined;
    stream?.end();
  };

  /** Everything that flies fails; the next batch opens another stream. */
  private fail(stream: Stream, error: KvError): void {
    if (stream !== this.stream) return;
    this.stream = undefined;
    stream.cancel();
    const lost = [...this.flying.values()];
    this.flying.clear();
    this.bytes = 0;
    for (const { timer, done } of lost) {
      clearTimeout(timer);
      done(error, undefined);
    }
  }
}

function malformed(cause: unknown): KvError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new KvError(`a field has a value of the wrong type: ${text}`, {
    code: 'KV_INVALID',
    outcome: 'notApplied',
    cause,
  });
}

function silent(endpoint: string): KvError {
  return new KvError(`${endpoint}: no answer within the deadline; the outcome is unknown`, {
    code: 'KV_DEADLINE',
    outcome: 'unknown',
    unreachable: true,
  });
}

function brokenError(endpoint: string, text: string, cause?: unknown): KvError {
  return new KvError(`${endpoint}: ${text} while a request was under way`, {
    code: 'KV_UNKNOWN_OUTCOME',
    outcome: 'unknown',
    unreachable: true,
    cause,
  });
}

/** Whatever ended the stream says nothing about a single batch: only that it got no answer. */
function streamError(error: ServiceError, endpoint: string): KvError {
  const known = errorOfCall(error, endpoint);
  const final = known.code === 'KV_TOO_LARGE' || known.code === 'KV_UNIMPLEMENTED';
  if (final || known.fields.unreachable === true) return known;
  return brokenError(endpoint, `the stream broke (${error.details})`, error);
}
