/** Requests as messages (RFC 9113, section 8): what is a well-formed one. */
import { expect } from 'chai';
import { ErrorCode, FrameType } from '../../../src/api/http2/frames.js';
import {
  data,
  echoServer,
  END,
  frame,
  headers,
  hello,
  RawPeer,
  WHOLE,
  type EchoServer,
} from './raw-peer.js';
import { block, bytes, check, opened, type Case } from './verdict.js';

const { HEADERS } = FrameType;
const { PROTOCOL_ERROR, NO_ERROR } = ErrorCode;

const requestWith = (...fields: readonly (readonly [string, string])[]): Buffer =>
  frame(HEADERS, WHOLE | END, 1, block(fields));
const rawRequest = (text: string): Buffer =>
  frame(HEADERS, WHOLE | END, 1, Buffer.from(text, 'hex'));

/** All on stream 1; `hello` goes before them. */
const cases: readonly Case[] = [
  [
    '8.1: trailers that end a request',
    [opened(1), data(1, Buffer.from('a'), 0), frame(HEADERS, WHOLE | END, 1)],
    { answered: 'a' },
  ],
  [
    '8.1: trailers that do not end it',
    [opened(1), data(1, Buffer.from('a'), 0), frame(HEADERS, WHOLE, 1)],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.1: pseudo-fields in trailers',
    [opened(1), frame(HEADERS, WHOLE | END, 1, Buffer.of(0x83))],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.1.1: a body longer than its content-length',
    [frame(HEADERS, WHOLE, 1, block([['content-length', '2']])), data(1, bytes(3))],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.1.1: a body shorter than its content-length',
    [frame(HEADERS, WHOLE, 1, block([['content-length', '4']])), data(1, bytes(3))],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.1.1: a body of several frames longer than its content-length',
    [
      frame(HEADERS, WHOLE, 1, block([['content-length', '5']])),
      data(1, bytes(3), 0),
      data(1, bytes(3)),
    ],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.1.1: no body where there should be one',
    [requestWith(['content-length', '4'])],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.1.1: a content-length that is no number',
    [requestWith(['content-length', '+1'])],
    { reset: PROTOCOL_ERROR },
  ],
  ['8.2.1: a name in upper case', [requestWith(['X-Upper', 'a'])], { reset: PROTOCOL_ERROR }],
  ['8.2.1: a value with a line break', [requestWith(['x', 'a\r\nb'])], { reset: PROTOCOL_ERROR }],
  [
    '8.2.2: a field of the connection',
    [requestWith(['connection', 'close'])],
    { reset: PROTOCOL_ERROR },
  ],
  ['8.2.2: te: gzip', [requestWith(['te', 'gzip'])], { reset: PROTOCOL_ERROR }],
  ['8.2.2: te: trailers', [requestWith(['te', 'trailers'])], { answered: '' }],
  [
    '8.3: a pseudo-field behind others',
    [rawRequest('83 86 5f00 84'.replace(/ /g, ''))],
    { reset: PROTOCOL_ERROR },
  ],
  [
    '8.3: a pseudo-field that nobody knows',
    [
      frame(
        HEADERS,
        WHOLE | END,
        1,
        Buffer.concat([block([]), Buffer.from('00053a7465737401 61'.replace(' ', ''), 'hex')]),
      ),
    ],
    { reset: PROTOCOL_ERROR },
  ],
  ['8.3: a pseudo-field of a response', [rawRequest('83868488')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: no method', [rawRequest('8684')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: no scheme', [rawRequest('8384')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: no path', [rawRequest('8386')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: an empty path', [rawRequest('83860400')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: two schemes', [rawRequest('83868684')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: two paths', [rawRequest('83868484')], { reset: PROTOCOL_ERROR }],
  ['8.3.1: two methods', [rawRequest('83838684')], { reset: PROTOCOL_ERROR }],
];

describe('HTTP/2 by hand, messages', () => {
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

  it('8.1: ends a request that is still arriving with NO_ERROR behind its answer, and ignores the rest', async () => {
    const peer = await RawPeer.connect(server.port, hello, headers(1, '/early', WHOLE));
    await peer.until('answered and cut', () => peer.resetOf(1) !== undefined);
    expect(peer.isAnswered(1)).to.equal(true);
    expect(peer.resetOf(1)).to.equal(NO_ERROR);
    peer.send(data(1, bytes(10), 0), frame(HEADERS, WHOLE | END, 1));
    await check(peer, { reset: NO_ERROR });
    peer.close();
  });
});
