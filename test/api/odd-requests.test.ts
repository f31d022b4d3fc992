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

for (const kind of ['http2', 'lean'] as const) {
  describe(`client port with the ${kind} door, odd requests`, () => {
    for (const [title, block] of odd) {
      it(`outlives ${title}`, async () => {
        const terms = {
          limits: defaultLimits,
          clock: systemClock,
          deadlines: new Deadlines(systemClock),
        };
        const { server } = createGrpcServer({
          ...terms,
          unaryMethods: new Map(),
          streamMethods: {
            scan: () => Promise.resolve(),
            pipeline: () => Promise.resolve(),
            watch: () => Promise.resolve(),
          },
          adminMethods: { Status: () => Promise.resolve({ nodeId: 5 }) },
        });
        const listener = await (kind === 'lean' ? LeanListener : ClientListener).open({
          host: '127.0.0.1',
          port: 0,
          terms,
          unaryMethods: new Map(),
          grpcDoor: new GrpcDoor(server),
          onCall: () => () => undefined,
        });
        const peer = await RawPeer.connect(listener.port, hello);
        peer.send(frame(FrameType.HEADERS, WHOLE, 1, block), data(1, message));
        await peer.until(
          'an end of the stream, or of the connection',
          () =>
            peer.closed ||
            peer.isAnswered(1) ||
            peer.resetOf(1) !== undefined ||
            peer.goaway !== undefined,
        );
        const other = await RawPeer.connect(listener.port, hello);
        other.send(
          frame(FrameType.HEADERS, WHOLE, 1, requestBlock(path, [host, grpc, ['te', 'trailers']])),
        );
        other.send(data(1, message, END));
        await other.until('others are served', () => other.isAnswered(1));
        expect(other.resetOf(1) ?? ErrorCode.NO_ERROR).to.equal(ErrorCode.NO_ERROR);
        peer.close();
        other.close();
        await listener.close(100);
        terms.deadlines.close();
      });
    }
  });
}
