import { expect } from 'chai';
import fc from 'fast-check';
import { FrameReader } from '../../../src/api/http2/frame-reader.js';
import {
  ConnectionError,
  ErrorCode,
  frameBytesMax,
  goawayFrame,
  headBytes,
  pingAck,
  preface,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
  writeHead,
} from '../../../src/api/http2/frames.js';

function frameOf(length: number, type: number, streamId: number): Buffer {
  const frame = Buffer.alloc(headBytes + length, type);
  writeHead(frame, 0, { length, type, flags: length % 256, streamId });
  return frame;
}

/** What was read, as text: one line for each frame. */
function read(chunks: readonly Buffer[]): string[] {
  const lines: string[] = [];
  const reader = new FrameReader(({ length, type, flags, streamId }, payload) => {
    lines.push(`${length} ${type} ${flags} ${streamId} ${payload.toString('hex')}`);
  });
  for (const chunk of chunks) reader.push(chunk);
  return lines;
}

describe('FrameReader', () => {
  it('reads the same frames however their bytes are cut into chunks', () => {
    const frames = fc.array(
      fc.tuple(fc.nat(300), fc.nat(255), fc.nat(0x7fff_ffff)).map((parts) => frameOf(...parts)),
      { maxLength: 8 },
    );
    const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(frames, cuts, (list, lengths) => {
        const bytes = Buffer.concat([preface, ...list]);
        const chunks: Buffer[] = [];
        for (let at = 0, n = 0; at < bytes.length; n++) {
          const length = lengths[n % lengths.length] ?? 1;
          chunks.push(bytes.subarray(at, at + length));
          at += length;
        }
        const whole = read([bytes]);
        expect(whole.length).to.equal(list.length);
        expect(read(chunks)).to.deep.equal(whole);
      }),
      { numRuns: 300 },
    );
  });

  it('reads frames byte by byte as it reads them in one piece', () => {
    const bytes = Buffer.concat([
      preface,
      settingsFrame([[4, 65_536]]),
      windowUpdateFrame(0, 1000),
      pingAck(Buffer.alloc(8, 7)),
      resetFrame(5, 8),
      goawayFrame(7, 0, 'bye'),
      frameOf(frameBytesMax, 0, 1),
    ]);
    expect(read(Array.from(bytes, (byte) => Buffer.of(byte)))).to.deep.equal(read([bytes]));
    expect(read([bytes])[1]).to.equal('4 8 0 0 000003e8');
  });

  it('ignores the reserved bit of a stream id', () => {
    const frame = frameOf(0, 0, 3);
    frame[5] = 0x80;
    expect(read([preface, frame])).to.deep.equal(['0 0 0 3 ']);
  });

  const refused: readonly (readonly [string, Buffer[], number])[] = [
    ['RFC 9113, 3.4: HTTP/1.1', [Buffer.from('GET / HTTP/1.1\r\n')], ErrorCode.PROTOCOL_ERROR],
    [
      'RFC 9113, 3.4: a preface that ends otherwise',
      [preface.subarray(0, 20), Buffer.from('abcd')],
      ErrorCode.PROTOCOL_ERROR,
    ],
    [
      'RFC 9113, 4.2: a frame over the limit, before its payload has come',
      [preface, frameOf(frameBytesMax + 1, 0, 1).subarray(0, headBytes)],
      ErrorCode.FRAME_SIZE_ERROR,
    ],
  ];
  for (const [title, chunks, code] of refused) {
    it(`refuses ${title}`, () => {
      expect(() => read(chunks))
        .to.throw(ConnectionError)
        .with.property('code', code);
      const bytes = Array.from(Buffer.concat(chunks), (byte) => Buffer.of(byte));
      expect(() => read(bytes))
        .to.throw(ConnectionError)
        .with.property('code', code);
    });
  }
});
