import { expect } from 'chai';
import { ErrorCode, Flag, FrameType, preface, Setting } from '../../../src/api/http2/frames.js';
import { Slab } from '../../../src/api/http2/frame-sender.js';
import { defaultHttp2Limits, type Http2Limits } from '../../../src/api/http2/limits.js';
import { ServerConnection } from '../../../src/api/http2/server-connection.js';
import { systemClock } from '../../../src/observe/clock.js';
import { HpackWriter } from './hpack-writer.js';
import {
  data,
  EchoService,
  echoServer,
  END,
  frame,
  headers,
  hello,
  MemorySocket,
  RawPeer,
  requestBlock,
  settings,
  u32,
  WHOLE,
} from './raw-peer.js';

const { HEADERS, CONTINUATION, PRIORITY, RST_STREAM, PING, WINDOW_UPDATE } = FrameType;

const opened = (streamId: number): Buffer => headers(streamId, '/echo', WHOLE);
const many = (count: number, make: (n: number) => Buffer): Buffer[] =>
  Array.from({ length: count }, (_, n) => make(n));
const none = { burst: 20, perSecond: 0 };

/** Each is stopped by ENHANCE_YOUR_CALM, and not by the number of frames just below. */
const floods: readonly {
  readonly title: string;
  readonly limits: Partial<Http2Limits>;
  readonly allowed: readonly Buffer[];
  readonly tooMuch: readonly Buffer[];
}[] = [
  {
    title: 'rapid reset: streams opened and reset at once (CVE-2023-44487)',
    limits: { resets: none },
    allowed: many(20, (n) =>
      Buffer.concat([headers(2 * n + 1, '/hang'), frame(RST_STREAM, 0, 2 * n + 1, u32(8))]),
    ),
    tooMuch: [headers(51, '/hang'), frame(RST_STREAM, 0, 51, u32(8))],
  },
  {
    title: 'streams that the client makes the server reset',
    limits: { resets: none },
    allowed: many(20, (n) => frame(HEADERS, WHOLE | END, 2 * n + 1, Buffer.of(0x83))),
    tooMuch: [frame(HEADERS, WHOLE | END, 51, Buffer.of(0x83))],
  },
  {
    title: 'streams beyond the limit, again and again',
    limits: { resets: none, streamsMax: 1 },
    allowed: [headers(1, '/hang'), ...many(20, (n) => headers(2 * n + 3))],
    tooMuch: [headers(51)],
  },
  {
    title: 'CONTINUATION without an end (CVE-2024-27316)',
    limits: { continuationsMax: 5 },
    allowed: [
      frame(HEADERS, END, 1, requestBlock('/echo')),
      ...many(4, () => frame(CONTINUATION, 0, 1)),
      frame(CONTINUATION, WHOLE, 1),
    ],
    tooMuch: [frame(HEADERS, END, 3), ...many(6, () => frame(CONTINUATION, 0, 3))],
  },
  {
    title: 'a header block without an end',
    limits: { headerBlockBytesMax: 30_000 },
    allowed: [],
    tooMuch: [
      frame(HEADERS, END, 1, Buffer.alloc(16_000)),
      frame(CONTINUATION, 0, 1, Buffer.alloc(16_000)),
    ],
  },
  {
    title: 'empty DATA (CVE-2019-9518)',
    limits: { idleFrames: none },
    allowed: [opened(1), ...many(20, () => data(1, Buffer.alloc(0), 0))],
    tooMuch: [data(1, Buffer.alloc(0), 0)],
  },
  {
    title: 'padding without content',
    limits: { idleFrames: none },
    allowed: [opened(1), ...many(20, () => data(1, Buffer.of(1, 0), Flag.PADDED))],
    tooMuch: [data(1, Buffer.of(1, 0), Flag.PADDED)],
  },
  {
    title: 'PRIORITY (CVE-2019-9513)',
    limits: { idleFrames: none },
    allowed: many(20, () => frame(PRIORITY, 0, 1, Buffer.alloc(5))),
    tooMuch: [frame(PRIORITY, 0, 1, Buffer.alloc(5))],
  },
  {
    title: 'SETTINGS, again and again',
    limits: { idleFrames: none },
    allowed: many(20, (n) => settings([Setting.INITIAL_WINDOW_SIZE, n])),
    tooMuch: [settings([Setting.INITIAL_WINDOW_SIZE, 1])],
  },
  {
    title: 'frames of unknown types',
    limits: { idleFrames: none },
    allowed: many(20, () => frame(0x55, 0, 0)),
    tooMuch: [frame(0x55, 0, 0)],
  },
  {
    title: 'PING, many within one turn (CVE-2019-9512)',
    limits: { controlFramesMax: 50 },
    allowed: [],
    tooMuch: many(2000, () => frame(PING, 0, 0, Buffer.alloc(8))),
  },
  {
    title: 'SETTINGS, many within one turn (CVE-2019-9515)',
    limits: { controlFramesMax: 50 },
    allowed: [],
    tooMuch: many(2000, () => settings([Setting.INITIAL_WINDOW_SIZE, 1])),
  },
];

describe('HTTP/2 by hand, abuse', () => {
  for (const { title, limits, allowed, tooMuch } of floods) {
    it(`ends a connection of ${title}`, async () => {
      const server = await echoServer(limits);
      const peer = await RawPeer.connect(
        server.port,
        hello,
        ...allowed,
        frame(PING, 0, 0, Buffer.alloc(8)),
      );
      await peer.until('as much as is allowed', () => peer.of(PING).length > 0);
      expect(peer.goaway).to.equal(undefined);
      peer.send(...tooMuch);
      await peer.until('closed', () => peer.closed);
      expect(peer.goaway?.code).to.equal(ErrorCode.ENHANCE_YOUR_CALM);
      const other = await RawPeer.connect(server.port, hello, headers(1));
      await other.until('others are served', () => other.isAnswered(1));
      other.close();
      server.close();
    });
  }

  it('gives the allowance back with time', async () => {
    const server = await echoServer({ idleFrames: { burst: 1, perSecond: 1_000_000 } });
    const peer = await RawPeer.connect(server.port, hello);
    for (let n = 0; n < 10; n++) {
      peer.send(frame(0x55, 0, 0), frame(PING, 0, 0, Buffer.alloc(8)));
      await peer.until('answered', () => peer.of(PING).length === n + 1);
    }
    expect(peer.goaway).to.equal(undefined);
    peer.close();
    server.close();
  });

  it('refuses streams beyond the limit, and takes new ones when others have ended', async () => {
    const server = await echoServer({ streamsMax: 2 });
    const peer = await RawPeer.connect(
      server.port,
      hello,
      headers(1, '/hang'),
      opened(3),
      headers(5),
      opened(7),
    );
    // The client could not know yet: what it sends on a refused stream is no error.
    peer.send(data(7, Buffer.from('a')), data(3, Buffer.from('b')));
    await peer.until('the second ends', () => peer.isAnswered(3));
    expect([peer.resetOf(5), peer.resetOf(7)]).to.deep.equal([
      ErrorCode.REFUSED_STREAM,
      ErrorCode.REFUSED_STREAM,
    ]);
    peer.send(headers(9));
    await peer.until('a new one', () => peer.isAnswered(9));
    expect(server.service.ended).to.deep.equal([1, 3, 9]);
    peer.close();
    server.close();
  });

  it('refuses a request of too many fields, and understands the next by the same table', async () => {
    const server = await echoServer({ headerListBytesMax: 4000 });
    const writer = new HpackWriter();
    const choice = { form: 'incremental', huffman: true, nameIndexed: true } as const;
    const bomb = Buffer.concat([
      requestBlock('/echo'),
      writer.write(['x-bomb', 'b'.repeat(1000)], choice),
      Buffer.alloc(10_000, 0xbe),
    ]);
    const peer = await RawPeer.connect(server.port, hello, frame(HEADERS, WHOLE | END, 1, bomb));
    const next = Buffer.concat([requestBlock('/echo'), Buffer.of(0xbe)]);
    peer.send(frame(HEADERS, WHOLE | END, 3, next));
    await peer.until('the next', () => peer.isAnswered(3));
    expect(peer.resetOf(1)).to.equal(ErrorCode.ENHANCE_YOUR_CALM);
    peer.close();
    server.close();
  });

  it('ends the connection of a client that lets more replies wait than it may', async () => {
    const server = await echoServer({ unreadBytesMax: 100_000 });
    const peer = await RawPeer.connect(
      server.port,
      hello,
      settings([Setting.INITIAL_WINDOW_SIZE, 0]),
    );
    peer.send(
      headers(1, '/size/60000'),
      headers(3, '/size/30000'),
      frame(PING, 0, 0, Buffer.alloc(8)),
    );
    await peer.until('two may wait', () => peer.of(PING).length === 1);
    peer.send(headers(5, '/size/30000'));
    await peer.until('closed', () => peer.closed);
    expect(peer.goaway?.code).to.equal(ErrorCode.ENHANCE_YOUR_CALM);
    server.close();
  });

  it('counts no reply that has left, or whose stream the client has reset', async () => {
    const server = await echoServer({ unreadBytesMax: 100_000 });
    const peer = await RawPeer.connect(
      server.port,
      hello,
      settings([Setting.INITIAL_WINDOW_SIZE, 30_000]),
    );
    for (let n = 0; n < 20; n++) {
      const streamId = 2 * n + 1;
      peer.send(headers(streamId, '/size/60000'));
      await peer.until('half', () => peer.bodyOf(streamId).length === 30_000);
      if (n % 2 === 0) peer.send(frame(RST_STREAM, 0, streamId, u32(8)));
      else {
        peer.send(frame(WINDOW_UPDATE, 0, streamId, u32(30_000)));
        await peer.until('answered', () => peer.isAnswered(streamId));
      }
      peer.send(frame(WINDOW_UPDATE, 0, 0, u32(60_000)));
    }
    expect(peer.goaway).to.equal(undefined);
    peer.close();
    server.close();
  });

  it('ends a connection that never says hello', async () => {
    const server = await echoServer({ prefaceMsMax: 30 });
    const silent = await RawPeer.connect(server.port, preface.subarray(0, 10));
    const half = await RawPeer.connect(server.port, preface);
    await silent.until('closed', () => silent.closed);
    await half.until('closed', () => half.closed);
    expect(server.connections.size).to.equal(0);
    server.close();
  });

  it('forgets a connection that is cut, with all that was in progress', async () => {
    const server = await echoServer();
    const peer = await RawPeer.connect(server.port, hello, headers(1, '/hang'), opened(3));
    await peer.until('in progress', () => server.service.hanging.size === 1);
    peer.close();
    await peer.until('forgotten', () => server.connections.size === 0);
    expect(server.service.gone).to.deep.equal([
      [1, ErrorCode.CANCEL],
      [3, ErrorCode.CANCEL],
    ]);
    server.close();
  });

  it('hands a socket that takes nothing no more than a little, and ends it when too much waits', async () => {
    const socket = new MemorySocket({ stuck: true });
    const service = new EchoService();
    const connection = connectionOn(socket, service);
    socket.emit('data', Buffer.concat([hello, headers(1, '/hang')]));
    expect(connection.streamCount).to.equal(1);
    for (let n = 0; n < 100 && connection.streamCount > 0; n++) {
      socket.emit('data', Buffer.concat(many(50, () => frame(PING, 0, 0, Buffer.alloc(8)))));
      await new Promise((resolve) => setImmediate(resolve));
      expect(socket.writableLength).to.be.below(5000);
    }
    expect(service.gone).to.deep.equal([[1, ErrorCode.ENHANCE_YOUR_CALM]]);
    socket.destroy();
  });

  it('says goodbye when a slow peer has read what waits before it', async () => {
    const socket = new MemorySocket({ stuck: true });
    const connection = connectionOn(socket, new EchoService());
    socket.emit('data', hello);
    for (let n = 0; n < 100 && !socket.writableNeedDrain; n++) {
      socket.emit('data', Buffer.concat(many(20, () => frame(PING, 0, 0, Buffer.alloc(8)))));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(socket.writableNeedDrain).to.equal(true);
    connection.leave();
    await new Promise((resolve) => setImmediate(resolve));
    expect(socket.writableEnded).to.equal(false);
    socket.release();
    for (let n = 0; n < 100 && !socket.writableEnded; n++)
      await new Promise((resolve) => setImmediate(resolve));
    expect(socket.writableEnded).to.equal(true);
    expect(Buffer.concat(socket.sent).subarray(-17, -13)).to.deep.equal(Buffer.of(0, 0, 8, 7));
    socket.destroy();
  });

  it('keeps for a slow peer what it is to read, and not all that was written for others', async () => {
    const socket = new MemorySocket({ stuck: true });
    connectionOn(socket, new EchoService());
    socket.emit('data', hello);
    for (let n = 0; n < 10; n++) {
      socket.emit('data', frame(PING, 0, 0, Buffer.alloc(8)));
      await new Promise((resolve) => setImmediate(resolve));
    }
    socket.release();
    await new Promise((resolve) => setImmediate(resolve));
    expect(Buffer.concat(socket.sent).length).to.be.greaterThan(10 * 17);
    // The first was on its way before anything waited.
    expect(Math.max(...socket.heldBytes.slice(1))).to.be.below(200);
    socket.destroy();
  });
});

function connectionOn(socket: MemorySocket, service: EchoService): ServerConnection {
  return new ServerConnection({
    socket,
    clock: systemClock,
    limits: { ...defaultHttp2Limits, controlFramesMax: 200 },
    slab: new Slab(),
    onStream: service.onStream,
    onClosed: () => undefined,
  });
}
