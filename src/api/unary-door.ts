/**
 * The fast door: unary calls served straight on `node:http2`. grpc-js spends 35-60 us of the one core
 * a leader has on such a call, this about half.
 */
import {
  constants,
  type Http2Session,
  type ServerHttp2Stream,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { KvError } from '../errors.js';
import { frameMessage } from './grpc-frame.js';
import {
  refusalFields,
  replyContentType,
  UnaryCall,
  type Answers,
  type CallTerms,
} from './unary-call.js';
import { forwardedHeader, type UnaryMethod } from './unary.js';

const okHeaders = { ':status': 200, 'content-type': replyContentType } as const;
const okTrailers = { 'grpc-status': '0' } as const;
const respondWithTrailers = { waitForTrailers: true } as const;

/** Replies of one connection that its client has not read yet. */
class Unread {
  bytes = 0;
}

export class UnaryDoor {
  private readonly terms: CallTerms;
  private readonly unread = new WeakMap<Http2Session, Unread>();

  constructor(terms: CallTerms) {
    this.terms = terms;
  }

  /** Takes over a stream; `method` is the implementation of its path. */
  accept(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, method: UnaryMethod): void {
    const call = new UnaryCall(this.terms, method, new StreamAnswers(this, stream));
    stream.on('error', () => {
      // The peer reset the stream; 'close' follows.
      call.abandon();
    });
    stream.on('close', () => {
      call.abandon();
    });
    call.begin({
      path: headers[':path'] ?? '',
      timeout: single(headers['grpc-timeout']),
      forwarded: headers[forwardedHeader] !== undefined,
    });
    if (call.ended) return;
    stream.on('data', (chunk: Buffer) => {
      call.onData(chunk);
    });
    stream.on('end', () => {
      call.onEnd();
    });
  }

  /** Counts a reply as unread until its stream closes; a client that never reads loses its connection. */
  replied(stream: ServerHttp2Stream, bytes: number): void {
    const session = stream.session;
    if (session === undefined) return;
    let unread = this.unread.get(session);
    if (unread === undefined) this.unread.set(session, (unread = new Unread()));
    unread.bytes += bytes;
    if (unread.bytes > this.terms.limits.unreadBytesMax) {
      session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      return;
    }
    const counted = unread;
    stream.once('close', () => {
      counted.bytes -= bytes;
    });
  }
}

class StreamAnswers implements Answers {
  private readonly door: UnaryDoor;
  private readonly stream: ServerHttp2Stream;

  constructor(door: UnaryDoor, stream: ServerHttp2Stream) {
    this.door = door;
    this.stream = stream;
  }

  reply(message: Uint8Array): void {
    const { stream } = this;
    if (stream.destroyed || stream.closed) return;
    stream.respond(okHeaders, respondWithTrailers);
    stream.once('wantTrailers', () => {
      stream.sendTrailers(okTrailers);
    });
    const framed = frameMessage(message);
    this.door.replied(stream, framed.byteLength);
    if (!stream.destroyed) stream.end(framed);
  }

  refuse(error: KvError): void {
    const { stream } = this;
    if (stream.destroyed || stream.closed) return;
    stream.respond({ ':status': 200, ...refusalFields(error) }, { endStream: true });
    // The request may still be arriving: tell the client that nobody reads it any more.
    if (!stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR);
  }
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
