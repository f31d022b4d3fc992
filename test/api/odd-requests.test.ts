import { expect } from 'chai';
import { ClientListener } from '../../src/api/client-listener.js';
import { Deadlines } from '../../src/api/deadlines.js';
import { GrpcDoor } from '../../src/api/grpc-door.js';
import { createGrpcServer } from '../../src/api/grpc-server.js';
import { ErrorCode, FrameType } from '../../src/api/http2/frames.js';
import { LeanListener } from '../../src/api/lean-listener.js';
import { defaultLimits } from '../../src/api/limits.js';
import { systemClock } from '../../src/observe/clock.js';
import { data, END, frame, hello, RawPeer, requestBlock, WHOLE } from './http2/raw-peer.js';
import { string } from './http2/hpack-writer.js';

const path = '/quorate.v1.Admin/Status';
const host = [':authority', 'localhost'] as const;
const grpc = ['content-type', 'application/grpc'] as const;
const message = Buffer.alloc(5);

/** Well-formed for HTTP/2, and more than the next hop takes. */
const odd: readonly (readonly [string, Buffer])[] = [
  ['the field http2-settings', requestBlock(path, [host, grpc, ['http2-settings', 'AAMAAABk']])],
  ['a field twice that stands once', requestBlock(path, [host, grpc, grpc])],
  [
    'a cookie in many pieces',
    requestBlock(path, [host, grpc, ['cookie', 'a=1'], ['cookie', 'b=2']]),
  ],
  [
    'the method CONNECT with a path',
    Buffer.concat([
      Buffer.of(0x01),
      string('localhost', false),
      Buffer.of(0x02),
      string('CONNECT', false),
      Buffer.of(0x86, 0x04),
      string(path, false),
    ]),
  ],
  [
    'fields by the names of what every object has',
    requestBlock(path, [host, grpc, ['constructor', 'x'], ['__proto__', 'y'], ['__proto__', 'z']]),
  ],
  ['a path that is no path', requestBlock('*', [host, grpc])],
  [
    'a method that nobody knows',
    Buffer.concat([
      Buffer.of(0x02),
      string('BREW', false),
      Buffer.of(0x86, 0x84, 0x01),
      string('localhost', false),
    ]),
  ],
];

type Kind = 'http2' | 'lean';

async function openPort(kind: Kind): Promise<{ port: number; close(): Promise<void> }> {
  const deadlines = new Deadlines(systemClock);
  const terms = { limits: defaultLimits, clock: systemClock, deadlines };
  const { server } = createGrpcServer({
    ...terms,
    unaryMethods: new Map(),
    streamMethods: {
      scan: () => Promise.resolve(),
      pipeline: () => new Promise<void>(() => undefined),
      watch: () => Promise.resolve(),
    },
    adminMethods: { Status: () => Promise.resolve({ nodeId: 5 }) },
  });
  const listener = await (kind === 'lean' ? LeanListener : ClientListener).open({
    host: '127.0.0.1',
    port: 0,
    terms,
    unaryMethods: new Map([['/echo', (request, _call, done) => done(undefined, request)]]),
    grpcDoor: new GrpcDoor(server),
    onCall: () => () => undefined,
  });
  return {
    port: listener.port,
    async close() {
      await listener.close(100);
      deadlines.close();
    },
  };
}

for (const kind of ['http2', 'lean'] as const) {
  describe(`client port with the ${kind} door, odd requests`, () => {
    let port: Awaited<ReturnType<typeof openPort>>;
    beforeEach(async () => {
      port = await openPort(kind);
    });
    afterEach(() => port.close());

    it('cuts streams that outlast its grace with their connection: a reset without an error is one to gRPC', async () => {
      const own = await openPort(kind);
      const peer = await RawPeer.connect(own.port, hello);
      const asked = requestBlock('/grpc.health.v1.Health/Watch', [host, grpc, ['te', 'trailers']]);
      for (const id of [1, 3]) {
        peer.send(frame(FrameType.HEADERS, WHOLE, id, asked), data(id, message, END));
        await peer.until('in progress', () => peer.of(FrameType.DATA, id).length > 0);
      }
      await own.close();
      await peer.until('cut', () => peer.closed);
      expect(peer.of(FrameType.RST_STREAM)).to.deep.equal([]);
    });

    it('ends a connection on which calls are given up again and again: none is left without an answer', async () => {
      const peer = await RawPeer.connect(port.port, hello);
      const asked = requestBlock('/grpc.health.v1.Health/Watch', [host, grpc, ['te', 'trailers']]);
      // Some that are in progress when the connection is ended, and end with it.
      const [inProgress, ids] = [50, 1500].map((length) =>
        Array.from({ length }, (_, n) => 2 * n + 1),
      );
      for (const id of inProgress ?? [])
        peer.send(frame(FrameType.HEADERS, WHOLE, id, asked), data(id, message, END));
      for (const id of ids?.slice(50) ?? [])
        peer.send(
          frame(FrameType.HEADERS, WHOLE, id, asked),
          frame(FrameType.RST_STREAM, 0, id, Buffer.of(0, 0, 0, ErrorCode.CANCEL)),
        );
      await peer.until('the end', () => peer.closed);
      const [goodbye] = peer.of(FrameType.GOAWAY);
      expect(goodbye?.payload.readUInt32BE(4)).to.equal(ErrorCode.ENHANCE_YOUR_CALM);
      expect(goodbye?.payload.subarray(8).toString()).to.match(
        /^too many calls given up: the limit .* 3[03] more each second; use longer deadlines/,
      );
    });

    for (const [title, block] of odd) {
      it(`outlives ${title}`, async () => {
        const peer = await RawPeer.connect(port.port, hello);
        peer.send(frame(FrameType.HEADERS, WHOLE, 1, block), data(1, message));
        await peer.until(
          'an end of the stream, or of the connection',
          () =>
            peer.closed ||
            peer.isAnswered(1) ||
            peer.resetOf(1) !== undefined ||
            peer.goaway !== undefined,
        );
        const other = await RawPeer.connect(port.port, hello);
        const asked = requestBlock(path, [host, grpc, ['te', 'trailers']]);
        other.send(frame(FrameType.HEADERS, WHOLE, 1, asked), data(1, message, END));
        await other.until('others are served', () => other.isAnswered(1));
        expect(other.resetOf(1) ?? ErrorCode.NO_ERROR).to.equal(ErrorCode.NO_ERROR);
        peer.close();
        other.close();
      });
    }
  });
}

describe('client port with the lean door', () => {
  it('ends a call with more fields than grpc-js takes by the code that grpc-js says, not as one that is leaving', async () => {
    const port = await openPort('lean');
    const peer = await RawPeer.connect(port.port, hello);
    const many = Array.from({ length: 130 }, (_, n) => [`x-${n}`, 'v'] as const);
    const asked = requestBlock(path, [host, grpc, ...many]);
    peer.send(frame(FrameType.HEADERS, WHOLE, 1, asked), data(1, message, END));
    await peer.until('ended', () => peer.isAnswered(1) || peer.resetOf(1) !== undefined);
    expect(peer.resetOf(1)).to.equal(ErrorCode.ENHANCE_YOUR_CALM);
    peer.close();
    await port.close();
  });

  it('refuses requests whose pieces cost more than they bring, and forgets them', async () => {
    const port = await openPort('lean');
    const peer = await RawPeer.connect(port.port, hello);
    const asked = requestBlock('/echo', [host, grpc]);
    // 64 MiB of pieces of one byte, each of which is an object.
    const pieces = Buffer.concat(
      Array.from({ length: 10_000 }, () => data(1, Buffer.from('x'), 0)),
    );
    peer.send(frame(FrameType.HEADERS, WHOLE, 1, asked));
    for (let n = 0; n < 28; n++) peer.send(pieces);
    await peer.until('refused', () => peer.isAnswered(1));
    const [answer] = peer.of(FrameType.HEADERS, 1);
    expect(answer?.payload.toString('latin1')).to.contain('grpc-status\x018');
    peer.send(frame(FrameType.HEADERS, WHOLE, 3, asked), data(3, message, END));
    await peer.until('the next is served', () => peer.isAnswered(3));
    expect(peer.bodyOf(3).equals(message)).to.equal(true);
    peer.close();
    await port.close();
  });

  it('ends a stream of small pieces that nobody reads, and takes no other call for it', async () => {
    const port = await openPort('lean');
    const peer = await RawPeer.connect(port.port, hello);
    peer.send(
      frame(FrameType.HEADERS, WHOLE, 1, requestBlock('/quorate.v1.KV/Pipeline', [host, grpc])),
    );
    // Messages of no bytes, in five pieces each.
    const pieces = Buffer.concat(Array.from({ length: 10_000 }, () => data(1, Buffer.of(0), 0)));
    for (let n = 0; n < 60 && peer.resetOf(1) === undefined; n++) {
      peer.send(pieces, frame(FrameType.PING, 0, 0, Buffer.alloc(8)));
      await peer.until('read', () => peer.of(FrameType.PING).length > n);
    }
    await peer.until('ended', () => peer.resetOf(1) !== undefined);
    expect(peer.resetOf(1)).to.equal(ErrorCode.ENHANCE_YOUR_CALM);
    const asked = requestBlock('/echo', [host, grpc]);
    peer.send(frame(FrameType.HEADERS, WHOLE, 3, asked), data(3, message.subarray(0, 2), 0));
    peer.send(data(3, message.subarray(2), END));
    await peer.until('the next is served', () => peer.isAnswered(3));
    expect(peer.bodyOf(3).equals(message)).to.equal(true);
    peer.close();
    await port.close();
  });
});
