/**
 * The library's door: everything that is not a unary KV call goes to a grpc-js server inside this
 * process, over one HTTP/2 session of the process with itself. So reflection, health,
 * streams and admin calls keep their library, on the same port.
 */
import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { ServerCredentials } from '@grpc/grpc-js';
import { socketPair } from './socket-pair.js';

const unavailableTrailers = {
  ':status': 200,
  'content-type': 'application/grpc+proto',
  'grpc-status': '14',
  'grpc-message': 'the node is shutting down',
} as const;

/** Headers that belong to one connection and must not travel to the next. */
function onward(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const copy: OutgoingHttpHeaders = {};
  for (const name of Object.keys(headers)) copy[name] = headers[name];
  return copy;
}

export class GrpcDoor {
  private readonly server: Server;
  private session: ClientHttp2Session | undefined;

  /** `server` has its services added already and listens nowhere. */
  constructor(server: Server) {
    this.server = server;
  }

  /** Passes a stream through to grpc-js, both ways, with its end, trailers and cancellation. */
  accept(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    stream.on('error', () => {
      // 'close' follows.
    });
    const inner = this.request(onward(headers));
    if (inner === undefined) {
      stream.close(constants.NGHTTP2_PROTOCOL_ERROR);
      return;
    }
    passResponse(inner, stream);
    passEnd(inner, stream);
    stream.pipe(inner);
  }

  /**
   * The stream's other half, towards grpc-js. Undefined for headers that Node takes from a client and
   * does not send: `http2-settings`, or a second `content-type`. A client that sends them must not end
   * the process.
   */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream | undefined {
    const session = this.openSession();
    try {
      return session.request(headers, { endStream: false });
    } catch {
      return undefined;
    }
  }

  /** Streams in progress are cut; new ones are refused. */
  close(): void {
    this.session?.destroy();
    this.server.forceShutdown();
  }

  private openSession(): ClientHttp2Session {
    if (this.session !== undefined && !this.session.destroyed && !this.session.closed) {
      return this.session;
    }
    const injector = this.server.createConnectionInjector(ServerCredentials.createInsecure());
    const outside = socketPair((inside) => {
      injector.injectConnection(inside);
    });
    const session = connect('http://localhost', {
      createConnection: () => outside,
      settings: { initialWindowSize: 1024 * 1024 },
      maxSessionMemory: 256,
    });
    session.on('error', () => {
      // Its streams fail by themselves; the next call opens another session.
      session.destroy();
    });
    this.session = session;
    return session;
  }
}

function passResponse(inner: ClientHttp2Stream, stream: ServerHttp2Stream): void {
  let trailers: IncomingHttpHeaders | undefined;
  inner.on('response', (headers, flags) => {
    if (stream.destroyed || stream.closed) return;
    if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) {
      stream.respond(onward(headers), { endStream: true });
      return;
    }
    stream.respond(onward(headers), { waitForTrailers: true });
    stream.once('wantTrailers', () => {
      stream.sendTrailers(onward(trailers ?? { 'grpc-status': '13' }));
    });
    inner.pipe(stream);
  });
  inner.on('trailers', (received) => {
    trailers = received;
  });
}

/** One side's end becomes the other's; a stream that ended well is not also aborted. */
function passEnd(inner: ClientHttp2Stream, stream: ServerHttp2Stream): void {
  stream.on('close', () => {
    if (inner.closed || inner.destroyed) return;
    inner.close(stream.rstCode === 0 ? constants.NGHTTP2_CANCEL : stream.rstCode);
  });
  inner.on('error', () => {
    if (!stream.headersSent && !stream.destroyed)
      stream.respond(unavailableTrailers, { endStream: true });
  });
  inner.on('close', () => {
    if (stream.closed || stream.destroyed || stream.writableEnded) return;
    if (!stream.headersSent) stream.respond(unavailableTrailers, { endStream: true });
    else stream.close(inner.rstCode === 0 ? constants.NGHTTP2_INTERNAL_ERROR : inner.rstCode);
  });
}
