/**
 * The client port: one HTTP/2 server, two doors behind it. Unary KV calls go the short way, all
 * else through grpc-js.
 */
import {
  constants,
  createServer,
  type Http2Server,
  type Http2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo, Server, Socket } from 'node:net';
import { status as statusCodes } from '@grpc/grpc-js';
import { serviceDefinition } from '../../proto/definitions.js';
import type { GrpcDoor } from './grpc-door.js';
import { Allowance, tooManyResets } from './http2/limits.js';
import type { CallTerms } from './unary-call.js';
import { UnaryDoor } from './unary-door.js';
import type { UnaryMethods } from './unary.js';

/**
 * Calls that a client gives up. Just below nghttp2's own limit (1,000 and 33 a second), at which it says
 * goodbye, goes on taking calls that the client is told were not taken, and answers none.
 */
const resetsMax = { burst: 900, perSecond: 30 } as const;

export interface ClientListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly terms: CallTerms;
  /** Served by the unary door; an empty map sends everything through grpc-js. */
  readonly unaryMethods: UnaryMethods;
  readonly grpcDoor: GrpcDoor;
  /** For metrics: a call begins; what it returns is called with its gRPC status, by name. */
  readonly onCall: (path: string) => (code: string) => void;
}

/** A client port that listens. */
export interface OpenPort {
  readonly port: number;
  readonly connections: number;
  /** Stops listening, lets calls in flight end for `graceMs`, then cuts the rest. */
  close(graceMs: number): Promise<void>;
}

export class ClientListener implements OpenPort {
  private readonly server: Http2Server;
  /** With what is left of the calls that its client may give up. */
  private readonly sessions = new Map<Http2Session, Allowance>();
  private readonly sockets = new Set<Socket>();
  private readonly options: ClientListenerOptions;

  private constructor(options: ClientListenerOptions) {
    this.options = options;
    this.server = createServer({
      settings: {
        initialWindowSize: 1024 * 1024,
        maxConcurrentStreams: options.terms.limits.streamsMax,
      },
      // MiB that nghttp2 may hold for one connection; above it new streams are refused.
      maxSessionMemory: 128,
    });
    this.accept();
  }

  /** Listens. Rejects when the port is taken, with the address and the remedy in the message. */
  static async open(options: ClientListenerOptions): Promise<ClientListener> {
    const listener = new ClientListener(options);
    await listen(listener.server, options);
    return listener;
  }

  get port(): number {
    // A TCP server that listens has an AddressInfo, never a path.
    return (this.server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.sessions.size;
  }

  async close(graceMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.options.terms.clock.after(graceMs, () => {
        // Not the sessions: these would end each stream without an error, which is one to gRPC.
        for (const socket of this.sockets) socket.destroy();
      });
      this.server.close(() => {
        cancel();
        resolve();
      });
      for (const session of this.sessions.keys()) session.close();
    });
    this.options.grpcDoor.close();
  }

  private accept(): void {
    const { terms, unaryMethods, grpcDoor, onCall } = this.options;
    const unaryDoor = new UnaryDoor(terms);
    this.server.on('connection', (socket: Socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
    this.server.on('session', (session) => {
      this.sessions.set(session, new Allowance(resetsMax, terms.clock));
      session.setLocalWindowSize(8 * 1024 * 1024);
      session.on('error', () => {
        // A broken connection; its calls end through their streams.
      });
      session.on('close', () => {
        this.sessions.delete(session);
      });
    });
    this.server.on('stream', (stream, headers) => {
      const path = headers[':path'] ?? '';
      const ended = onCall(path);
      const { session } = stream;
      stream.once('close', () => {
        ended(codeOf(stream));
        if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) this.countReset(session);
      });
      const method = unaryMethods.get(path);
      if (method === undefined) grpcDoor.accept(stream, headers);
      else unaryDoor.accept(stream, headers, method);
    });
  }

  /** Also of calls that this side gave up: a mistake of the client, mostly. */
  private countReset(session: Http2Session | undefined): void {
    // Of a connection that has ended, its other streams end too.
    if (session === undefined || session.destroyed) return;
    if (this.sessions.get(session)?.take() !== false) return;
    const reason = tooManyResets(resetsMax);
    const code = constants.NGHTTP2_ENHANCE_YOUR_CALM;
    session.goaway(code, 0, Buffer.from(reason));
    session.destroy(new Error(reason), code);
  }
}

/** Rejects when the port is taken, with the address and the remedy in the message. */
export function listen(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(error.code === 'EADDRINUSE' ? portInUse(host, port, error) : error);
    });
    server.listen({ host, port, backlog: 1024 }, resolve);
  });
}

/** What a client asks for is not for it to name: metrics know the methods that there are. */
const methodNames: ReadonlyMap<string, string> = new Map(
  [serviceDefinition('KV'), serviceDefinition('Admin')]
    .flatMap((service) => Object.values(service))
    .map(({ path }) => [path, path.slice(path.lastIndexOf('/') + 1)]),
);

export function methodName(path: string): string {
  return methodNames.get(path) ?? 'other';
}

/** Without a status the client has gone before its answer. */
function codeOf({ sentHeaders, sentTrailers }: ServerHttp2Stream): string {
  const code = sentTrailers?.['grpc-status'] ?? sentHeaders?.['grpc-status'];
  return code === undefined ? 'CANCELLED' : (statusCodes[Number(code)] ?? 'UNKNOWN');
}

function portInUse(host: string, port: number, cause: Error): Error {
  return new Error(
    `client address ${host}:${port} is in use by another process: ` +
      'stop it, or choose another port with --client-address',
    { cause },
  );
}
