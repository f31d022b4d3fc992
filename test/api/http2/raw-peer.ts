/** A client that writes any bytes, and a service to write them to: what HTTP/2 does is under test. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { Slab } from '../../../src/api/http2/frame-sender.js';
import { Flag, FrameType, preface } from '../../../src/api/http2/frames.js';
import { encodeBlock } from '../../../src/api/http2/hpack-encoder.js';
import { defaultHttp2Limits, type Http2Limits } from '../../../src/api/http2/limits.js';
import { ServerConnection } from '../../../src/api/http2/server-connection.js';
import type { RequestHead } from '../../../src/api/http2/request-head.js';
import type { ServerStream, StreamConsumer } from '../../../src/api/http2/server-stream.js';
import { systemClock } from '../../../src/observe/clock.js';
import { string } from './hpack-writer.js';

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** The bytes of any frame, also of those that nobody should send. */
export function frame(
  type: number,
  flags: number,
  streamId: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId >>> 0, 5);
  return Buffer.concat([head, payload]);
}

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0, 0);
  return bytes;
};

/** POST, http and a path: as short as it gets, without the table. */
export function requestBlock(
  path: string,
  fields: readonly (readonly [string, string])[] = [],
): Buffer {
  const more = fields.flatMap(([name, value]) => [
    Buffer.of(0x00),
    string(name, false),
    string(value, false),
  ]);
  return Buffer.concat([Buffer.of(0x83, 0x86, 0x04), string(path, false), ...more]);
}

export const END = Flag.END_STREAM;
export const WHOLE = Flag.END_HEADERS;

export function headers(streamId: number, path = '/echo', flags = WHOLE | END): Buffer {
  return frame(FrameType.HEADERS, flags, streamId, requestBlock(path));
}

export function data(streamId: number, payload: Buffer, flags: number = END): Buffer {
  return frame(FrameType.DATA, flags, streamId, payload);
}

export function settings(...pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.concat(
    pairs.map(([id, value]) => Buffer.concat([Buffer.of(id >>> 8, id & 255), u32(value)])),
  );
  return frame(FrameType.SETTINGS, 0, 0, payload);
}

export const hello = Buffer.concat([preface, settings()]);

const okHead = encodeBlock([[':status', '200']]);
const okTail = encodeBlock([['grpc-status', '0']]);

/** Echoes bodies; '/hang' waits, '/early' answers before the body, '/size/N' answers N bytes, '/head/N' a field of N characters. */
export class EchoService {
  readonly hanging = new Map<number, ServerStream>();
  readonly gone: [stream: number, code: number][] = [];
  readonly ended: number[] = [];

  readonly onStream = (stream: ServerStream, { path }: RequestHead): StreamConsumer => {
    const parts: Buffer[] = [];
    const [, kind, length] = path.split('/');
    // A path may come damaged.
    const size = Math.min(Number(length) || 0, 1_000_000);
    if (kind === 'early') stream.end(okHead);
    return {
      onData: (bytes) => {
        parts.push(Buffer.from(bytes));
        if (kind !== 'hoard') stream.consumed(bytes.length);
      },
      onEnd: () => {
        this.ended.push(stream.id);
        if (kind === 'early') return;
        if (kind === 'hang') {
          this.hanging.set(stream.id, stream);
          return;
        }
        const long = kind === 'head' ? encodeBlock([['x-long', 'h'.repeat(size)]]) : '';
        const body = kind === 'size' ? Buffer.alloc(size, 'b') : Buffer.concat(parts);
        stream.sendHead(Buffer.concat([okHead, Buffer.from(long)]));
        if (body.length > 0) stream.sendBody(body);
        stream.end(okTail);
      },
      onGone: (code) => {
        this.gone.push([stream.id, code]);
        this.hanging.delete(stream.id);
      },
    };
  };
}

export interface EchoServer {
  readonly port: number;
  readonly service: EchoService;
  readonly connections: Set<ServerConnection>;
  close(): void;
}

export async function echoServer(limits: Partial<Http2Limits> = {}): Promise<EchoServer> {
  const service = new EchoService();
  const connections = new Set<ServerConnection>();
  const slab = new Slab();
  const server = createServer({ noDelay: true, highWaterMark: 256 * 1024 }, (socket) => {
    const connection = new ServerConnection({
      socket,
      clock: systemClock,
      limits: { ...defaultHttp2Limits, ...limits },
      slab,
      onStream: service.onStream,
      onClosed: () => connections.delete(connection),
    });
    connections.add(connection);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  return {
    port: typeof bound === 'object' ? (bound?.port ?? 0) : 0,
    service,
    connections,
    close() {
      for (const connection of connections) connection.destroy();
      server.close();
    },
  };
}

export class RawPeer {
  readonly frames: Frame[] = [];
  closed = false;
  readonly socket: Socket;
  private rest: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.rest = Buffer.concat([this.rest, chunk]);
      while (this.rest.length >= 9 && this.rest.length >= 9 + this.rest.readUIntBE(0, 3)) {
        const end = 9 + this.rest.readUIntBE(0, 3);
        this.frames.push({
          type: this.rest[3] ?? 0,
          flags: this.rest[4] ?? 0,
          streamId: this.rest.readUInt32BE(5),
          payload: Buffer.from(this.rest.subarray(9, end)),
        });
        this.rest = this.rest.subarray(end);
      }
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.closed = true;
    });
  }

  static async connect(port: number, ...first: readonly Buffer[]): Promise<RawPeer> {
    const socket = connect(port, '127.0.0.1');
    const peer = new RawPeer(socket);
    await once(socket, 'connect');
    peer.send(...first);
    return peer;
  }

  send(...bytes: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(bytes));
  }

  of(type: number, streamId?: number): Frame[] {
    return this.frames.filter(
      (each) => each.type === type && (streamId === undefined || each.streamId === streamId),
    );
  }

  bodyOf(streamId: number): Buffer {
    return Buffer.concat(this.of(FrameType.DATA, streamId).map(({ payload }) => payload));
  }

  /** The response has come to its end, by trailers. */
  isAnswered(streamId: number): boolean {
    return this.of(FrameType.HEADERS, streamId).some(({ flags }) => (flags & END) !== 0);
  }

  resetOf(streamId: number): number | undefined {
    return this.of(FrameType.RST_STREAM, streamId)[0]?.payload.readUInt32BE(0);
  }

  /** Its code, and the last stream that it names. */
  get goaway(): { readonly code: number; readonly last: number } | undefined {
    const payload = this.of(FrameType.GOAWAY)[0]?.payload;
    return payload && { code: payload.readUInt32BE(4), last: payload.readUInt32BE(0) };
  }

  async until(what: string, done: () => boolean): Promise<void> {
    const deadline = Date.now() + 10_000;
    while (!done()) {
      if (Date.now() > deadline) {
        const seen = this.frames.map(({ type, flags, streamId }) => `${type}/${flags}@${streamId}`);
        throw new Error(`${what}: not within 10 s; closed ${this.closed}, came ${seen.join(' ')}`);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  close(): void {
    this.socket.destroy();
  }
}

/** A socket without a network; the test emits its 'data'. */
export class MemorySocket extends Duplex {
  readonly sent: Buffer[] = [];
  /** Of the memory that each of them kept from being freed. */
  readonly heldBytes: number[] = [];
  /** Nobody reads at the other end. */
  private stuck: boolean;
  private waiting: (() => void) | undefined;

  constructor({ stuck = false } = {}) {
    super({ autoDestroy: true, highWaterMark: stuck ? 1024 : 1024 * 1024 });
    this.stuck = stuck;
  }

  override _read(): void {
    // Pushed by whoever plays the peer.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.sent.push(Buffer.from(chunk));
    this.heldBytes.push(chunk.buffer.byteLength);
    if (this.stuck) this.waiting = done;
    else done();
  }

  /** The other end reads again. */
  release(): void {
    this.stuck = false;
    this.waiting?.();
  }
}
