/**
 * The fast door: unary calls served straight on `node:http2`. gRPC over HTTP/2 is a POST whose body
 * is one framed message, answered by headers, one framed message and trailers with the status.
 * grpc-js spends 35-60 us of the one core a leader has on such a call, this about half.
 */
import {
  constants,
  type Http2Session,
  type ServerHttp2Stream,
  type IncomingHttpHeaders,
} from 'node:http2';
import { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { Deadlines, Expiring } from './deadlines.js';
import { encodeGrpcMessage, frameMessage, parseTimeoutMs, unframeMessage } from './grpc-frame.js';
import type { ApiLimits } from './limits.js';
import { statusTrailers, toKvError } from './status.js';
import { forwardedHeader, stepMigrationPath, type CallContext, type UnaryMethod } from './unary.js';

const okHeaders = { ':status': 200, 'content-type': 'application/grpc+proto' } as const;
const okTrailers = { 'grpc-status': '0' } as const;
const respondWithTrailers = { waitForTrailers: true } as const;
const framePrefixBytes = 5;

/** The error of a call whose deadline passed. */
export function deadlineError(mayHaveApplied: boolean): KvError {
  const outcome = mayHaveApplied ? 'unknown' : 'notApplied';
  const text = mayHaveApplied
    ? 'deadline passed while the request was under way: it may have been applied; ' +
      'retry with the same session, or read'
    : 'deadline passed before the request was carried out: nothing was applied';
  return new KvError(text, { code: 'KV_DEADLINE', outcome });
}

/** A timeout from a client as an absolute, bounded deadline. */
export function deadlineOf(timeoutMs: number | undefined, now: number, limits: ApiLimits): number {
  return now + Math.min(timeoutMs ?? limits.timeoutMsDefault, limits.timeoutMsMax);
}

export function tooLarge(what: string, size: number, limit: number): KvError {
  return new KvError(`${what} is ${size} bytes, the limit is ${limit}`, {
    code: 'KV_TOO_LARGE',
    outcome: 'notApplied',
    limit,
    size,
  });
}

/** Replies of one connection that its client has not read yet. */
class Unread {
  bytes = 0;
}

export interface UnaryDoorOptions {
  readonly limits: ApiLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
}

export class UnaryDoor {
  readonly limits: ApiLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  private readonly unread = new WeakMap<Http2Session, Unread>();

  constructor(options: UnaryDoorOptions) {
    this.limits = options.limits;
    this.clock = options.clock;
    this.deadlines = options.deadlines;
  }

  /** Takes over a stream; `method` is the implementation of its path. */
  accept(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, method: UnaryMethod): void {
    const call = new UnaryCall(this, stream, method);
    call.begin(headers);
  }

  /** Counts a reply as unread until its stream closes; a client that never reads loses its connection. */
  replied(stream: ServerHttp2Stream, bytes: number): void {
    const session = stream.session;
    if (session === undefined) return;
    let unread = this.unread.get(session);
    if (unread === undefined) this.unread.set(session, (unread = new Unread()));
    unread.bytes += bytes;
    if (unread.bytes > this.limits.unreadBytesMax) {
      session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      return;
    }
    const counted = unread;
    stream.once('close', () => {
      counted.bytes -= bytes;
    });
  }
}

class UnaryCall implements CallContext, Expiring {
  deadlineMs = 0;
  forwarded = false;
  ended = false;
  mayHaveApplied = false;
  private first: Buffer | undefined;
  private rest: Buffer[] | undefined;
  private bytes = 0;
  private bytesMax = 0;
  private readonly door: UnaryDoor;
  private readonly stream: ServerHttp2Stream;
  private readonly method: UnaryMethod;

  constructor(door: UnaryDoor, stream: ServerHttp2Stream, method: UnaryMethod) {
    this.door = door;
    this.stream = stream;
    this.method = method;
  }

  begin(headers: IncomingHttpHeaders): void {
    const { stream, door } = this;
    const { requestBytesMax, stepBytesMax } = door.limits;
    this.bytesMax = headers[':path'] === stepMigrationPath ? stepBytesMax : requestBytesMax;
    stream.on('error', () => {
      // The peer reset the stream; 'close' follows and ends the call.
      this.abandon();
    });
    stream.on('close', () => {
      this.abandon();
    });
    try {
      const timeoutMs = parseTimeoutMs(single(headers['grpc-timeout']));
      this.deadlineMs = deadlineOf(timeoutMs, door.clock.monotonicMs(), door.limits);
      this.forwarded = headers[forwardedHeader] !== undefined;
    } catch (error) {
      this.fail(toKvError(error));
      return;
    }
    door.deadlines.enter(this);
    stream.on('data', (chunk: Buffer) => {
      this.onData(chunk);
    });
    stream.on('end', () => {
      this.onEnd();
    });
  }

  /** Called by the door's deadline watch. */
  expire(): void {
    this.fail(deadlineError(this.mayHaveApplied));
  }

  private onData(chunk: Buffer): void {
    if (this.ended) return;
    this.bytes += chunk.byteLength;
    if (this.bytes > this.bytesMax + framePrefixBytes) {
      this.fail(tooLarge('request', this.bytes - framePrefixBytes, this.bytesMax));
      return;
    }
    if (this.first === undefined) this.first = chunk;
    else (this.rest ??= []).push(chunk);
  }

  private onEnd(): void {
    if (this.ended) return;
    const first = this.first ?? Buffer.alloc(0);
    const body = this.rest === undefined ? first : Buffer.concat([first, ...this.rest]);
    let request: Uint8Array;
    try {
      request = unframeMessage(body);
    } catch (error) {
      this.fail(toKvError(error));
      return;
    }
    if (this.deadlineMs <= this.door.clock.monotonicMs()) {
      this.fail(deadlineError(false));
      return;
    }
    this.method(request, this, (error, reply) => {
      if (error !== undefined) this.fail(error);
      else if (reply !== undefined) this.succeed(reply);
    });
  }

  private succeed(reply: Uint8Array): void {
    if (!this.leave()) return;
    const { stream } = this;
    stream.respond(okHeaders, respondWithTrailers);
    stream.once('wantTrailers', () => {
      stream.sendTrailers(okTrailers);
    });
    const framed = frameMessage(reply);
    this.door.replied(stream, framed.byteLength);
    if (!stream.destroyed) stream.end(framed);
  }

  private fail(error: KvError): void {
    if (!this.leave()) return;
    const { code, message, details } = statusTrailers(error);
    this.stream.respond(
      {
        ...okHeaders,
        'grpc-status': String(code),
        'grpc-message': encodeGrpcMessage(message),
        'grpc-status-details-bin': Buffer.from(details).toString('base64'),
      },
      { endStream: true },
    );
    // The request may still be arriving: tell the client that nobody reads it any more.
    if (!this.stream.readableEnded) this.stream.close(constants.NGHTTP2_NO_ERROR);
  }

  private abandon(): void {
    this.leave();
  }

  /** Ends the call once; false when it has ended already, or there is nobody left to answer. */
  private leave(): boolean {
    if (this.ended) return false;
    this.ended = true;
    this.door.deadlines.leave(this);
    return !this.stream.destroyed && !this.stream.closed;
  }
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
