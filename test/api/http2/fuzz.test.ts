/** Bytes by chance into a connection in memory: what it does is a function of the seed. */
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect, createServer, type AddressInfo } from 'node:net';
import { expect } from 'chai';
import fc from 'fast-check';
import { Slab } from '../../../src/api/http2/frame-sender.js';
import { FrameType, preface } from '../../../src/api/http2/frames.js';
import { defaultHttp2Limits, type Http2Limits } from '../../../src/api/http2/limits.js';
import { ServerConnection } from '../../../src/api/http2/server-connection.js';
import type { Clock } from '../../../src/observe/clock.js';
import {
  MemorySocket,
  data,
  EchoService,
  echoServer,
  frame,
  headers,
  hello,
  requestBlock,
  settings,
  u32,
} from './raw-peer.js';

const limits: Http2Limits = {
  ...defaultHttp2Limits,
  streamsMax: 8,
  unreadBytesMax: 200_000,
  streamWindowBytes: 65_535,
  connectionWindowBytes: 131_072,
};

interface Outcome {
  readonly out: Buffer;
  readonly ended: boolean;
  readonly gone: readonly [stream: number, code: number][];
  readonly requests: readonly number[];
  readonly hanging: readonly number[];
  readonly streamCount: number;
  readonly unread: number;
}

/** One connection that reads these chunks in one turn each, or all in one. */
async function play(chunks: readonly Buffer[], turnEach: boolean): Promise<Outcome> {
  const socket = new MemorySocket();
  const service = new EchoService();
  let turn: (() => void)[] = [];
  const endTurn = (): void => {
    const due = turn;
    turn = [];
    for (const run of due) run();
  };
  const clock: Clock = {
    monotonicMs: () => 0,
    wallMs: () => 0,
    every: () => () => undefined,
    after: () => () => undefined,
    endOfTurn: (run) => turn.push(run),
  };
  const connection = new ServerConnection({
    socket,
    clock,
    limits,
    slab: new Slab(),
    onStream: service.onStream,
    onClosed: () => undefined,
  });
  for (const chunk of chunks) {
    // As a socket does it: the bytes of a turn, at once.
    socket.emit('data', chunk);
    expect(connection.streamCount).to.be.at.most(limits.streamsMax);
    if (turnEach) endTurn();
  }
  for (let n = 0; n < 20 && turn.length > 0; n++) endTurn();
  await new Promise((resolve) => setImmediate(resolve));
  const outcome = {
    out: Buffer.concat(socket.sent),
    ended: socket.writableEnded,
    // Copies: the end of the socket tells those that are left.
    gone: [...service.gone],
    requests: [...service.ended],
    hanging: [...service.hanging.keys()],
    streamCount: connection.streamCount,
    unread: socket.writableLength,
  };
  socket.destroy();
  return outcome;
}

/** Types of the frames that were sent, which must be whole. */
function typesOf(out: Buffer): number[] {
  const types: number[] = [];
  let at = 0;
  while (at < out.length) {
    types.push(out[at + 3] ?? -1);
    at += 9 + out.readUIntBE(at, 3);
  }
  expect(at).to.equal(out.length);
  return types;
}

function cut(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0, n = 0; at < bytes.length; n++) {
    const end = at + (lengths[n % lengths.length] ?? 1);
    chunks.push(Buffer.from(bytes.subarray(at, end)));
    at = end;
  }
  return chunks;
}

const payload = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const path = fc.constantFrom('/echo', '/hang', '/early', '/size/50000', '/size/10', '/head/20000');

/** Bytes, given the id of the next stream that a peer in its right mind would open. */
type Part = { readonly opens: boolean; readonly bytes: (next: number) => Buffer };

const part = (bytes: (next: number) => Buffer, opens = false): Part => ({ bytes, opens });
const back = fc.constantFrom(2, 2, 2, 4, 6, 8);

/** What such a peer might send, and what it would not. */
const somePart: fc.Arbitrary<Part> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(path, fc.constantFrom(4, 4, 5))
      .map(([to, how]) => part((next) => headers(next, to, how), true)),
  },
  {
    weight: 8,
    arbitrary: fc
      .tuple(back, payload, fc.constantFrom(0, 0, 1))
      .map(([ago, bytes, how]) => part((next) => data(next - ago, bytes, how))),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(back, fc.boolean(), fc.nat(200_000))
      .map(([ago, all, n]) =>
        part((next) => frame(FrameType.WINDOW_UPDATE, 0, all ? 0 : next - ago, u32(n + 1))),
      ),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(back, fc.nat(12))
      .map(([ago, code]) => part((next) => frame(FrameType.RST_STREAM, 0, next - ago, u32(code)))),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom(1, 3, 4, 4, 4, 6, 9), fc.nat(100_000))
      .map((pair) => part(() => settings(pair))),
  },
  {
    weight: 1,
    arbitrary: fc.constant(part(() => frame(FrameType.PING, 0, 0, Buffer.alloc(8)))),
  },
  {
    weight: 2,
    arbitrary: fc.constant(
      part((next) => {
        const block = requestBlock('/echo');
        return Buffer.concat([
          frame(FrameType.HEADERS, 1, next, block.subarray(0, 4)),
          frame(FrameType.CONTINUATION, 4, next, block.subarray(4)),
        ]);
      }, true),
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(12), fc.nat(255), fc.nat(50), payload)
      .map((head) => part(() => frame(...head))),
  },
);
const session = fc.array(somePart, { maxLength: 40 }).map((parts) => {
  let next = 1;
  const bytes = parts.map((each) => {
    const made = each.bytes(next);
    if (each.opens) next += 2;
    return made;
  });
  return Buffer.concat([hello, ...bytes]);
});
const lengths = fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 10 });

const mutation = fc.record({
  at: fc.nat(),
  kind: fc.constantFrom('flip' as const, 'drop' as const, 'insert' as const, 'repeat' as const),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }),
});

function mutated(
  bytes: Buffer,
  changes: readonly { at: number; kind: string; bytes: Uint8Array }[],
): Buffer {
  let result = Buffer.from(bytes);
  for (const { at: anywhere, kind, bytes: some } of changes) {
    // The hello stays: what comes after it is of interest.
    const at = hello.length + (anywhere % Math.max(1, result.length - hello.length));
    const before = result.subarray(0, at);
    const [first] = some;
    if (kind === 'flip') {
      if (at < result.length) result[at] = (result[at] ?? 0) ^ (first ?? 1);
    } else if (kind === 'drop') result = Buffer.concat([before, result.subarray(at + some.length)]);
    else if (kind === 'insert') result = Buffer.concat([before, some, result.subarray(at)]);
    else result = Buffer.concat([result.subarray(0, at + 30), result.subarray(at)]);
  }
  return result;
}

function checkBounds(outcome: Outcome): void {
  const types = typesOf(outcome.out);
  expect(outcome.unread).to.equal(0);
  if (outcome.ended) {
    expect(outcome.streamCount).to.equal(0);
    // Either it has told the peer what is wrong, or the peer has said goodbye itself.
    expect(types.length).to.be.greaterThan(0);
  }
  // Who is told that nobody waits any more is told once.
  const gone = outcome.gone.map(([id]) => id);
  expect(new Set(gone).size).to.equal(gone.length);
  for (const id of outcome.hanging) expect(gone).not.to.include(id);
}

/** What Node's own client sends for calls of all kinds: its tables, Huffman codes, windows and frames. */
async function recordedSession(): Promise<Buffer> {
  const server = await echoServer();
  const recorded: Buffer[] = [];
  const between = createServer((outer) => {
    const inner = connect(server.port, '127.0.0.1');
    inner.pipe(outer).on('error', () => undefined);
    outer.on('data', (chunk: Buffer) => {
      recorded.push(chunk);
      inner.write(chunk);
    });
    outer.on('close', () => inner.destroy());
  }).listen(0, '127.0.0.1');
  await once(between, 'listening');
  const session = connectHttp2(`http://127.0.0.1:${(between.address() as AddressInfo).port}`, {
    settings: { initialWindowSize: 1000, headerTableSize: 256 },
  });
  await once(session, 'remoteSettings');
  const paths = ['/echo', '/size/5000', '/head/9000', '/early', '/hang', '/echo'];
  for (const [n, path] of paths.entries()) {
    const stream = session.request({ ':method': 'POST', ':path': path, 'x-n': String(n) });
    stream.on('error', () => undefined);
    stream.resume();
    stream.write(Buffer.alloc(300 * n, n));
    if (path === '/hang') stream.close(constants.NGHTTP2_CANCEL);
    else stream.end('the end');
    await once(stream, 'close');
    session.settings({ initialWindowSize: 1000 - 100 * n });
  }
  session.ping(() => undefined);
  session.close();
  await once(session, 'close');
  between.close();
  server.close();
  return Buffer.concat(recorded);
}

describe('HTTP/2 by hand, any bytes', () => {
  it('stays within its bounds, sends whole frames, and tells nobody twice, whatever comes', async () => {
    await fc.assert(
      fc.asyncProperty(
        session,
        fc.array(mutation, { maxLength: 4 }),
        lengths,
        async (bytes, changes, parts) => {
          const outcome = await play(cut(mutated(bytes, changes), parts), true);
          checkBounds(outcome);
        },
      ),
      { numRuns: 1500 },
    );
  });

  it('ends a connection of noise with GOAWAY and nothing else', async () => {
    const noise = fc.uint8Array({ minLength: 24, maxLength: 200 });
    await fc.assert(
      fc.asyncProperty(noise, lengths, async (bytes, parts) => {
        fc.pre(!Buffer.from(bytes).subarray(0, 24).equals(preface));
        const outcome = await play(cut(Buffer.from(bytes), parts), false);
        expect(outcome.ended).to.equal(true);
        expect(typesOf(outcome.out)).to.deep.equal([FrameType.GOAWAY]);
      }),
      { numRuns: 300 },
    );
  });

  it('says the same, byte for byte, however the bytes of a turn are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        session,
        fc.array(mutation, { maxLength: 2 }),
        lengths,
        async (bytes, changes, parts) => {
          const input = mutated(bytes, changes);
          const whole = await play([input], false);
          const pieces = await play(cut(input, parts), false);
          expect(pieces.out.equals(whole.out)).to.equal(true);
          expect(pieces.ended).to.equal(whole.ended);
          expect(pieces.gone).to.deep.equal(whole.gone);
          expect(pieces.requests).to.deep.equal(whole.requests);
        },
      ),
      { numRuns: 700 },
    );
  });

  it('stays within its bounds on the session of a real client, damaged anywhere', async () => {
    const recorded = await recordedSession();
    const undamaged = await play([recorded], true);
    expect(undamaged.requests).to.include.members([1, 3, 5, 11]);
    await fc.assert(
      fc.asyncProperty(
        fc.array(mutation, { minLength: 1, maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 10 }),
        async (changes, parts) => {
          checkBounds(await play(cut(mutated(recorded, changes), parts), true));
        },
      ),
      { numRuns: 800 },
    );
  });
});
