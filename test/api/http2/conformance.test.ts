import { once } from 'node:events';
import { connect } from 'node:http2';
import { expect } from 'chai';
import { ErrorCode, Flag, FrameType, preface, Setting } from '../../../src/api/http2/frames.js';
import {
  data,
  echoServer,
  END,
  frame,
  headers,
  hello,
  RawPeer,
  settings,
  u32,
  WHOLE,
  type EchoServer,
} from './raw-peer.js';
import { block, bytes, check, opened, type Case } from './verdict.js';

const { HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE } = FrameType;
const { PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } = FrameType;
const { PROTOCOL_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED } = ErrorCode;
const { COMPRESSION_ERROR, NO_ERROR } = ErrorCode;
const { ACK, PADDED } = Flag;

/** A request that is whole and gets no answer. */
const hanging = (streamId: number): Buffer => headers(streamId, '/hang');
const rawRequest = (text: string): Buffer =>
  frame(HEADERS, WHOLE | END, 1, Buffer.from(text, 'hex'));

/** A body that is longer than announced, and goes on. */
const cutByServer = [
  frame(HEADERS, WHOLE, 1, block([['content-length', '2']])),
  data(1, bytes(3), 0),
];

/** All on stream 1; `hello` goes before them. */
const cases: readonly Case[] = [
  [
    '4.1: an unknown type is ignored',
    [frame(0x42, 255, 5, bytes(5)), headers(1)],
    { answered: '' },
  ],
  [
    '4.1: unknown flags are ignored',
    [frame(HEADERS, 0xd5 & ~0x28, 1, block([]))],
    { answered: '' },
  ],
  [
    '4.1: the reserved bit of a stream id is ignored',
    [frame(HEADERS, WHOLE | END, 0x8000_0001, block([]))],
    { answered: '' },
  ],
  [
    '4.2: DATA of 16384 bytes',
    [opened(1), data(1, bytes(16_384))],
    { answered: bytes(16_384).toString() },
  ],
  [
    '4.2: HEADERS over 16384 bytes',
    [frame(HEADERS, WHOLE | END, 1, block([['x-long', 'x'.repeat(16_384)]]))],
    { goaway: FRAME_SIZE_ERROR },
  ],
  ['4.2: DATA over 16384 bytes', [opened(1), data(1, bytes(16_385))], { goaway: FRAME_SIZE_ERROR }],
  ['4.3: a block that cannot be decoded', [rawRequest('ff')], { goaway: COMPRESSION_ERROR }],
  [
    '4.3: an undecodable block of a stream that is over',
    [opened(1), frame(RST_STREAM, 0, 1, u32(8)), frame(HEADERS, WHOLE | END, 1, Buffer.of(0xff))],
    { goaway: COMPRESSION_ERROR },
  ],
  ['5.1: DATA on an idle stream', [data(1, bytes(1))], { goaway: PROTOCOL_ERROR }],
  [
    '5.1: RST_STREAM on an idle stream',
    [frame(RST_STREAM, 0, 1, u32(8))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '5.1: WINDOW_UPDATE on an idle stream',
    [frame(WINDOW_UPDATE, 0, 1, u32(8))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '5.1: PRIORITY on an idle stream',
    [frame(PRIORITY, 0, 1, bytes(5)), headers(1)],
    { answered: '' },
  ],
  [
    '5.1: DATA behind the end of a request',
    [hanging(1), data(1, bytes(1))],
    { reset: STREAM_CLOSED },
  ],
  ['5.1: HEADERS behind the end of a request', [hanging(1), headers(1)], { reset: STREAM_CLOSED }],
  [
    '5.1: CONTINUATION behind the end of a request',
    [hanging(1), frame(CONTINUATION, WHOLE, 1, block([]))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '5.1: CONTINUATION on a stream that the client has reset',
    [opened(1), frame(RST_STREAM, 0, 1, u32(8)), frame(CONTINUATION, WHOLE, 1, block([]))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '5.1: PRIORITY and WINDOW_UPDATE behind the end of a request',
    [
      settings([Setting.INITIAL_WINDOW_SIZE, 0]),
      headers(1, '/size/3'),
      frame(PRIORITY, 0, 1, bytes(5)),
      frame(WINDOW_UPDATE, 0, 1, u32(3)),
      settings([Setting.INITIAL_WINDOW_SIZE, 100]),
    ],
    { answered: 'bbb' },
  ],
  [
    '5.1: WINDOW_UPDATE, PRIORITY and RST_STREAM on a stream that is over',
    [
      opened(1),
      frame(RST_STREAM, 0, 1, u32(8)),
      frame(WINDOW_UPDATE, 0, 1, u32(8)),
      frame(PRIORITY, 0, 1, bytes(5)),
      frame(RST_STREAM, 0, 1, u32(8)),
      headers(3),
    ],
    { answered: '' },
  ],
  [
    // grpc-java does: its queue may have a body behind the end of its call.
    '5.1: DATA on a stream that the client has reset is ignored',
    [
      opened(1),
      frame(RST_STREAM, 0, 1, u32(8)),
      data(1, bytes(1), 0),
      data(1, bytes(1)),
      headers(3),
    ],
    { answered: '' },
  ],
  [
    '5.1: DATA behind a request that was whole when the client has reset it is ignored',
    [hanging(1), frame(RST_STREAM, 0, 1, u32(8)), data(1, bytes(1)), headers(3)],
    { answered: '' },
  ],
  [
    '5.1: trailers on a stream that the client has reset are ignored',
    [opened(1), frame(RST_STREAM, 0, 1, u32(8)), headers(1), headers(3)],
    { answered: '' },
  ],
  [
    '5.1: DATA behind the end of a request that the client has reset',
    [opened(1), frame(RST_STREAM, 0, 1, u32(8)), data(1, bytes(1)), data(1, bytes(1))],
    { goaway: STREAM_CLOSED },
  ],
  [
    '5.1: DATA on a stream that the server has reset, which the client cannot know yet',
    [...cutByServer, data(1, bytes(3), 0), data(1, bytes(3))],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '5.1: DATA behind the end of a request that the server has reset',
    [...cutByServer, data(1, bytes(3)), data(1, bytes(3))],
    { goaway: STREAM_CLOSED },
  ],
  [
    '5.1: DATA on a stream that both have reset is ignored',
    [...cutByServer, frame(RST_STREAM, 0, 1, u32(8)), data(1, bytes(3))],
    { reset: PROTOCOL_ERROR },
  ],
  ['5.1.1: an even stream id', [headers(2)], { goaway: PROTOCOL_ERROR }],
  [
    '5.1.1: a stream id below one that was used',
    [hanging(5), headers(3)],
    { goaway: STREAM_CLOSED },
  ],
  [
    '5.3.1: HEADERS of a stream that depends on itself',
    [
      frame(
        HEADERS,
        WHOLE | END | Flag.PRIORITY,
        1,
        Buffer.concat([u32(1), Buffer.of(255), block([])]),
      ),
    ],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '5.3.1: PRIORITY of a stream that depends on itself',
    [frame(PRIORITY, 0, 1, Buffer.concat([u32(1), Buffer.of(255)]))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '5.3.1: PRIORITY of any weight, exclusive, and on streams that are not there yet',
    [
      frame(PRIORITY, 0, 1, Buffer.concat([u32(0), Buffer.of(255)])),
      frame(PRIORITY, 0, 7, Buffer.concat([u32(2 ** 31 + 5), Buffer.of(0)])),
      headers(1),
    ],
    { answered: '' },
  ],
  [
    '5.5: an unknown type within a block',
    [frame(HEADERS, END, 1, block([])), frame(0x42, 0, 1, bytes(5))],
    { goaway: PROTOCOL_ERROR },
  ],
  ['6.1: DATA on stream 0', [data(0, bytes(1))], { goaway: PROTOCOL_ERROR }],
  [
    '6.1: padded DATA',
    [
      opened(1),
      data(1, Buffer.concat([Buffer.of(3), Buffer.from('ab'), Buffer.alloc(3)]), END | PADDED),
    ],
    { answered: 'ab' },
  ],
  [
    '6.1: DATA of padding only',
    [opened(1), data(1, Buffer.of(2, 0, 0), END | PADDED)],
    { answered: '' },
  ],
  [
    '6.1: more padding than payload',
    [opened(1), data(1, Buffer.of(3, 0, 0), END | PADDED)],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.1: padded without a length',
    [opened(1), data(1, bytes(0), END | PADDED)],
    { goaway: FRAME_SIZE_ERROR },
  ],
  ['6.1: empty DATA that ends a request', [opened(1), data(1, bytes(0))], { answered: '' }],
  ['6.2: HEADERS on stream 0', [headers(0)], { goaway: PROTOCOL_ERROR }],
  [
    '6.2: HEADERS with padding and priority',
    [
      frame(
        HEADERS,
        WHOLE | END | PADDED | Flag.PRIORITY,
        1,
        Buffer.concat([Buffer.of(4), bytes(5), block([]), Buffer.alloc(4)]),
      ),
    ],
    { answered: '' },
  ],
  [
    '6.2: HEADERS with more padding than payload',
    [frame(HEADERS, WHOLE | END | PADDED, 1, Buffer.concat([Buffer.of(200), block([])]))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.2: HEADERS too short for their priority',
    [frame(HEADERS, WHOLE | END | Flag.PRIORITY, 1, bytes(4))],
    { goaway: FRAME_SIZE_ERROR },
  ],
  ['6.3: PRIORITY on stream 0', [frame(PRIORITY, 0, 0, bytes(5))], { goaway: PROTOCOL_ERROR }],
  [
    '6.3: PRIORITY of 4 bytes',
    [hanging(1), frame(PRIORITY, 0, 1, bytes(4))],
    { reset: FRAME_SIZE_ERROR },
  ],
  ['6.4: RST_STREAM on stream 0', [frame(RST_STREAM, 0, 0, u32(8))], { goaway: PROTOCOL_ERROR }],
  [
    '6.3: PRIORITY of 6 bytes on a stream that is not there yet',
    [frame(PRIORITY, 0, 1, bytes(6))],
    { goaway: FRAME_SIZE_ERROR },
  ],
  [
    '6.4: RST_STREAM of 3 bytes',
    [hanging(1), frame(RST_STREAM, 0, 1, bytes(3))],
    { goaway: FRAME_SIZE_ERROR },
  ],
  ['6.5: SETTINGS on a stream', [frame(SETTINGS, 0, 1)], { goaway: PROTOCOL_ERROR }],
  ['6.5: SETTINGS of 5 bytes', [frame(SETTINGS, 0, 0, bytes(5))], { goaway: FRAME_SIZE_ERROR }],
  [
    '6.5: an acknowledgement with content',
    [frame(SETTINGS, ACK, 0, bytes(6))],
    { goaway: FRAME_SIZE_ERROR },
  ],
  ['6.5: an acknowledgement', [frame(SETTINGS, ACK, 0), headers(1)], { answered: '' }],
  ['6.5.2: ENABLE_PUSH 2', [settings([Setting.ENABLE_PUSH, 2])], { goaway: PROTOCOL_ERROR }],
  [
    '6.5.2: a window of 2^31',
    [settings([Setting.INITIAL_WINDOW_SIZE, 2 ** 31])],
    { goaway: FLOW_CONTROL_ERROR },
  ],
  [
    '6.5.2: frames of 16383 bytes',
    [settings([Setting.MAX_FRAME_SIZE, 16_383])],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.5.2: frames of 2^24 bytes',
    [settings([Setting.MAX_FRAME_SIZE, 2 ** 24])],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.5.2: settings that nobody knows, and all that there are',
    [settings([99, 99], [1, 0], [2, 0], [3, 0], [4, 70_000], [5, 2 ** 24 - 1], [6, 1]), headers(1)],
    { answered: '' },
  ],
  ['6.6: PUSH_PROMISE', [frame(PUSH_PROMISE, WHOLE, 1, u32(2))], { goaway: PROTOCOL_ERROR }],
  ['6.7: PING on a stream', [frame(PING, 0, 1, bytes(8))], { goaway: PROTOCOL_ERROR }],
  ['6.7: PING of 7 bytes', [frame(PING, 0, 0, bytes(7))], { goaway: FRAME_SIZE_ERROR }],
  ['6.7: an answer to no PING', [frame(PING, ACK, 0, bytes(8)), headers(1)], { answered: '' }],
  ['6.8: GOAWAY on a stream', [frame(GOAWAY, 0, 1, bytes(8))], { goaway: PROTOCOL_ERROR }],
  ['6.8: GOAWAY of 7 bytes', [frame(GOAWAY, 0, 0, bytes(7))], { goaway: FRAME_SIZE_ERROR }],
  [
    '6.9: WINDOW_UPDATE of 3 bytes',
    [frame(WINDOW_UPDATE, 0, 0, bytes(3))],
    { goaway: FRAME_SIZE_ERROR },
  ],
  ['6.9: WINDOW_UPDATE of 0', [frame(WINDOW_UPDATE, 0, 0, u32(0))], { goaway: PROTOCOL_ERROR }],
  [
    '6.9: WINDOW_UPDATE of 0 on a stream',
    [hanging(1), frame(WINDOW_UPDATE, 0, 1, u32(0))],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '6.9.1: a window over 2^31-1',
    [frame(WINDOW_UPDATE, 0, 0, u32(2 ** 31 - 1))],
    { goaway: FLOW_CONTROL_ERROR },
  ],
  [
    '6.9.1: a window of a stream over 2^31-1',
    [hanging(1), frame(WINDOW_UPDATE, 0, 1, u32(2 ** 31 - 1))],
    { reset: FLOW_CONTROL_ERROR },
  ],
  [
    '6.9.2: settings that make a window larger than 2^31-1',
    [
      hanging(1),
      frame(WINDOW_UPDATE, 0, 1, u32(2 ** 31 - 1 - 65_535)),
      settings([Setting.INITIAL_WINDOW_SIZE, 65_536]),
    ],
    { goaway: FLOW_CONTROL_ERROR },
  ],
  [
    '6.10: CONTINUATION of nothing',
    [frame(CONTINUATION, WHOLE, 1, block([]))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.10: a block in three frames, cut anywhere',
    [
      frame(HEADERS, END, 1, block([]).subarray(0, 2)),
      frame(CONTINUATION, 0, 1, block([]).subarray(2, 5)),
      frame(CONTINUATION, WHOLE, 1, block([]).subarray(5)),
    ],
    { answered: '' },
  ],
  [
    '6.10: CONTINUATION on stream 0 within a block',
    [frame(HEADERS, END, 1, block([])), frame(CONTINUATION, WHOLE, 0, bytes(0))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.10: CONTINUATION behind the end of a block',
    [hanging(1), frame(CONTINUATION, WHOLE, 1, bytes(0))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.10: DATA within a block',
    [frame(HEADERS, 0, 1, block([])), frame(CONTINUATION, 0, 1, bytes(0)), data(1, bytes(4))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.10: another frame within a block',
    [frame(HEADERS, END, 1, block([])), frame(PING, 0, 0, bytes(8))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '6.10: another stream within a block',
    [frame(HEADERS, END, 1, block([])), frame(CONTINUATION, WHOLE, 3, bytes(0))],
    { goaway: PROTOCOL_ERROR },
  ],
  [
    '7: RST_STREAM with a code that nobody knows',
    [hanging(1), frame(RST_STREAM, 0, 1, u32(0xffff_ffff)), headers(3)],
    { answered: '' },
  ],
];

const beginnings: readonly (readonly [string, Buffer, number])[] = [
  ['3.4: no preface', Buffer.from('GET / HTTP/1.1\r\n\r\n'), PROTOCOL_ERROR],
  [
    '3.4: a preface that is not followed by SETTINGS',
    Buffer.concat([preface, headers(1)]),
    PROTOCOL_ERROR,
  ],
  [
    '3.4: a preface followed by an acknowledgement',
    Buffer.concat([preface, frame(SETTINGS, ACK, 0)]),
    PROTOCOL_ERROR,
  ],
];

describe('HTTP/2 by hand, RFC 9113', () => {
  let server: EchoServer;
  before(async () => {
    server = await echoServer();
  });
  after(() => {
    server.close();
  });

  for (const [title, sent, verdict] of cases) {
    it(title, async () => {
      const peer = await RawPeer.connect(server.port, hello, ...sent);
      await check(peer, verdict);
      peer.close();
    });
  }

  for (const [title, sent, code] of beginnings) {
    it(title, async () => {
      const peer = await RawPeer.connect(server.port, sent);
      await check(peer, { goaway: code });
    });
  }

  it('3.4: sends its SETTINGS first, and acknowledges those of the client', async () => {
    const peer = await RawPeer.connect(server.port, hello);
    await peer.until('acknowledged', () => peer.of(SETTINGS).some(({ flags }) => flags === ACK));
    expect(peer.frames[0]?.type).to.equal(SETTINGS);
    expect(peer.frames[0]?.flags).to.equal(0);
    peer.close();
  });

  it('6.7: answers each PING with its content', async () => {
    const peer = await RawPeer.connect(server.port, hello);
    peer.send(
      frame(PING, 0, 0, Buffer.from('12345678')),
      frame(PING, 0, 0, Buffer.from('abcdefgh')),
    );
    await peer.until('two answers', () => peer.of(PING).length === 2);
    expect(peer.of(PING).map(({ flags, payload }) => [flags, payload.toString()])).to.deep.equal([
      [ACK, '12345678'],
      [ACK, 'abcdefgh'],
    ]);
    peer.close();
  });

  it('6.8: answers what is in progress behind a GOAWAY of the client, and ends', async () => {
    const peer = await RawPeer.connect(
      server.port,
      hello,
      opened(1),
      frame(GOAWAY, 0, 0, bytes(8)),
    );
    peer.send(data(1, Buffer.from('last')));
    await peer.until('closed', () => peer.closed);
    expect(peer.bodyOf(1).toString()).to.equal('last');
    expect(peer.goaway).to.equal(undefined);
  });

  it('6.8: answers what is in progress behind a GOAWAY with a code that nobody knows', async () => {
    const peer = await RawPeer.connect(
      server.port,
      hello,
      opened(1),
      frame(GOAWAY, 0, 0, Buffer.concat([u32(0), u32(0xff), Buffer.from('why')])),
      data(1, Buffer.from('last')),
    );
    await peer.until('closed', () => peer.closed);
    expect(peer.bodyOf(1).toString()).to.equal('last');
  });

  it('5.1: ends a connection that sends on a stream that both have ended', async () => {
    for (const late of [data(1, bytes(1)), headers(1)]) {
      const peer = await RawPeer.connect(server.port, hello, headers(1));
      await peer.until('answered', () => peer.isAnswered(1));
      peer.send(late);
      await check(peer, { goaway: STREAM_CLOSED });
    }
  });

  it('6.8: says which streams count when it leaves, refuses others, and ends with the last', async () => {
    const own = await echoServer();
    const peer = await RawPeer.connect(own.port, hello, hanging(1));
    await peer.until('in progress', () => own.service.hanging.size === 1);
    for (const connection of own.connections) connection.leave();
    await peer.until('told', () => peer.goaway !== undefined);
    expect(peer.goaway).to.deep.equal({ code: NO_ERROR, last: 1 });
    peer.send(headers(3));
    await peer.until('refused', () => peer.resetOf(3) !== undefined);
    expect(peer.resetOf(3)).to.equal(ErrorCode.REFUSED_STREAM);
    expect(peer.closed).to.equal(false);
    own.service.hanging.get(1)?.end(Buffer.of(0x88));
    await peer.until('closed', () => peer.closed);
    expect(peer.isAnswered(1)).to.equal(true);
    own.close();
  });

  it('6.4: tells a call that its client has reset it', async () => {
    const own = await echoServer();
    const peer = await RawPeer.connect(
      own.port,
      hello,
      hanging(1),
      frame(RST_STREAM, 0, 1, u32(8)),
    );
    await peer.until('told', () => own.service.gone.length === 1);
    expect(own.service.gone).to.deep.equal([[1, ErrorCode.CANCEL]]);
    peer.close();
    own.close();
  });

  it('RFC 7541, 4.2: tells a client that has made its table smaller that none is used', async () => {
    const session = connect(`http://127.0.0.1:${server.port}`, {
      settings: { headerTableSize: 0 },
    });
    await once(session, 'remoteSettings');
    for (let n = 0; n < 3; n++) {
      const stream = session.request({ ':method': 'POST', ':path': '/echo' });
      const response = once(stream, 'response');
      stream.end('table');
      await response;
      let body = '';
      for await (const chunk of stream as AsyncIterable<Buffer>) body += chunk.toString();
      expect(body).to.equal('table');
    }
    session.destroy();
  });
});
