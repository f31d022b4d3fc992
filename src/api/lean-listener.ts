/**
 * The client port with HTTP/2 frames written by hand (`http2/`), chosen by the option `http2`: does
 * what `client-listener.ts` does on `node:http2`, with a fraction of its streams, events and garbage.
 */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { OutgoingHttpHeaders } from 'node:http2';
import { status as statusCodes } from '@grpc/grpc-js';
import { KvError } from '../errors.js';
import { listen, type ClientListenerOptions, type OpenPort } from './client-listener.js';
import { frameMessage } from './grpc-frame.js';
import { Slab } from './http2/frame-sender.js';
import { ErrorCode } from './http2/frames.js';
import { encodeBlock } from './http2/hpack-encoder.js';
import { defaultHttp2Limits, type Http2Limits } from './http2/limits.js';
import { fieldOf, type RequestHead } from './http2/request-head.js';
import { ServerConnection } from './http2/server-connection.js';
import type { ServerStream, StreamConsumer } from './http2/server-stream.js';
import { RequestParts } from './request-parts.js';
import { grpcStatusOf } from './status.js';
import { StreamRelay } from './stream-relay.js';
import {
  refusalFields,
  replyContentType,
  UnaryCall,
  type Answers,
  type CallTerms,
} from './unary-call.js';
import { forwardedHeader, type UnaryMethod } from './unary.js';

const okHead = encodeBlock([
  [':status', '200'],
  ['content-type', replyContentType],
]);
const okTail = encodeBlock([['grpc-status', '0']]);

/** Of sockets, both ways: what one turn of a busy connection reads and writes at once. */
const socketBufferBytes = 256 * 1024;
/** Of requests of one connection that have come in part, at least; or two of the largest there are. */
const partBytesLeast = 64 * 1024 * 1024;

export class LeanListener implements OpenPort {
  private readonly server: Server;
  private readonly open = new Set<ServerConnection>();
  private readonly options: ClientListenerOptions;
  private readonly limits: Http2Limits;
  private readonly slab = new Slab();

  private constructor(options: ClientListenerOptions, limits: Partial<Http2Limits>) {
    this.options = options;
    const { streamsMax, unreadBytesMax } = options.terms.limits;
    this.limits = { ...defaultHttp2Limits, streamsMax, unreadBytesMax, ...limits };
    this.server = createServer({ noDelay: true, highWaterMark: socketBufferBytes }, (socket) => {
      this.accept(socket);
    });
  }

  /** As ClientListener.open. */
  static async open(
    options: ClientListenerOptions,
    limits: Partial<Http2Limits> = {},
  ): Promise<LeanListener> {
    const listener = new LeanListener(options, limits);
    await listen(listener.server, options);
    return listener;
  }

  get port(): number {
    // A TCP server that listens has an AddressInfo, never a path.
    return (this.server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.open.size;
  }

  async close(graceMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.options.terms.clock.after(graceMs, () => {
        for (const connection of this.open) connection.destroy();
      });
      this.server.close(() => {
        cancel();
        resolve();
      });
      for (const connection of this.open) connection.leave();
    });
    this.options.grpcDoor.close();
  }

  private accept(socket: Socket): void {
    const bytesMax = Math.max(partBytesLeast, 2 * this.options.terms.limits.stepBytesMax);
    const parts = new RequestParts(bytesMax);
    const connection = new ServerConnection({
      socket,
      clock: this.options.terms.clock,
      limits: this.limits,
      slab: this.slab,
      onStream: (stream, head) => this.onStream(stream, head, parts),
      onClosed: () => {
        this.open.delete(connection);
      },
    });
    this.open.add(connection);
  }

  private onStream(stream: ServerStream, head: RequestHead, parts: RequestParts): StreamConsumer {
    const { unaryMethods, terms, onCall } = this.options;
    const ended = onCall(head.path);
    const method = unaryMethods.get(head.path);
    if (method === undefined) return this.relay(stream, head, { parts, ended });
    const unary = new UnaryStream({ stream, terms, method, parts, ended });
    unary.call.begin({
      path: head.path,
      timeout: fieldOf(head, 'grpc-timeout'),
      forwarded: fieldOf(head, forwardedHeader) !== undefined,
    });
    return unary;
  }

  private relay(
    stream: ServerStream,
    head: RequestHead,
    { parts, ended }: Pick<UnaryStreamOptions, 'parts' | 'ended'>,
  ): StreamConsumer {
    const inner = this.options.grpcDoor.request(onward(head));
    if (inner === undefined) {
      ended('CANCELLED');
      stream.reset(ErrorCode.PROTOCOL_ERROR);
      return nobody;
    }
    return new StreamRelay({
      stream,
      inner,
      parts,
      onStatus: (status) => {
        ended(status === undefined ? 'CANCELLED' : (statusCodes[Number(status)] ?? 'UNKNOWN'));
      },
    });
  }
}

/** Of a stream that was reset at once: nothing comes any more. */
const nobody: StreamConsumer = {
  onData: () => undefined,
  onEnd: () => undefined,
  onGone: () => undefined,
};

interface UnaryStreamOptions {
  readonly stream: ServerStream;
  readonly terms: CallTerms;
  readonly method: UnaryMethod;
  readonly parts: RequestParts;
  readonly ended: (code: string) => void;
}

/** A stream that carries a unary call. */
class UnaryStream implements StreamConsumer, Answers {
  readonly call: UnaryCall;
  private readonly stream: ServerStream;
  private readonly parts: RequestParts;
  private readonly ended: (code: string) => void;
  /** Of this call in `parts`. */
  private bytes = 0;

  constructor({ stream, terms, method, parts, ended }: UnaryStreamOptions) {
    this.stream = stream;
    this.parts = parts;
    this.ended = ended;
    this.call = new UnaryCall(terms, method, this);
  }

  onData(bytes: Buffer): void {
    this.stream.consumed(bytes.length);
    if (this.call.ended) return;
    this.bytes += this.parts.keep(bytes.length);
    if (this.parts.isOver) this.call.fail(overloaded(this.parts));
    else this.call.onData(this.stream.remoteEnded ? bytes : copyOf(bytes));
  }

  onEnd(): void {
    this.release();
    this.call.onEnd();
  }

  onGone(): void {
    if (!this.call.ended) this.ended('CANCELLED');
    this.release();
    this.call.abandon();
  }

  reply(message: Uint8Array): void {
    this.ended('OK');
    this.stream.sendHead(okHead);
    this.stream.sendBody(frameMessage(message));
    this.stream.end(okTail);
  }

  refuse(error: KvError): void {
    this.ended(statusCodes[grpcStatusOf(error.code)] ?? 'UNKNOWN');
    this.release();
    this.stream.end(encodeBlock([[':status', '200'], ...Object.entries(refusalFields(error))]));
  }

  private release(): void {
    this.parts.giveBack(this.bytes);
    this.bytes = 0;
  }
}

/** A piece that waits for the rest of its request must not keep all that was received with it. */
function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}

function overloaded({ bytes: size, bytesMax: limit }: RequestParts): KvError {
  return new KvError(
    `${size} bytes of unfinished requests on this connection, the limit is ${limit}`,
    { code: 'KV_OVERLOADED', outcome: 'notApplied', limit, size },
  );
}

/** As `node:http2` takes them: fields of one name as a list. Any name: also `constructor`. */
function onward(head: RequestHead): OutgoingHttpHeaders {
  const headers = Object.create(null) as OutgoingHttpHeaders;
  for (const { name, value } of head.fields) {
    const earlier = headers[name];
    if (earlier === undefined) headers[name] = value;
    else headers[name] = [...(Array.isArray(earlier) ? earlier : [String(earlier)]), value];
  }
  return headers;
}
