import { expect } from 'chai';
import fc from 'fast-check';
import {
  FrameKind,
  FrameParser,
  FrameWriter,
  frameBytesMax,
  frameOf,
  smallFrameBytesMax,
  type Frame,
} from '../../src/transport/frame.js';
import { MalformedMessage } from '../../src/transport/message-codec.js';

interface Sent {
  readonly kind: FrameKind;
  readonly rest: Uint8Array;
}

const anyFrame: fc.Arbitrary<Sent> = fc.record({
  kind: fc.constantFrom(...Object.values(FrameKind)),
  rest: fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.integer({ min: 0, max: 9000 }).map((length) => Buffer.alloc(length, length)),
  ),
});
const anyFrames = fc.array(anyFrame, { minLength: 1, maxLength: 8 });
const anySizes = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 });

const streamOf = (frames: readonly Sent[]): Buffer =>
  Buffer.concat(frames.map(({ kind, rest }) => frameOf(kind, rest)));

/** Pieces of the given sizes, over and over, until the stream is used up. */
function* piecesOf(stream: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, n = 0; at < stream.byteLength; n++) {
    const size = sizes[n % sizes.length] ?? 1;
    yield stream.subarray(at, at + size);
    at += size;
  }
}

const asSent = ({ kind, rest }: Frame | Sent): { kind: number; rest: string } => ({
  kind,
  rest: Buffer.from(rest).toString('hex'),
});

describe('frames', () => {
  it('come out as they went in, wherever the pieces of the stream end', () => {
    fc.assert(
      fc.property(anyFrames, anySizes, (frames, sizes) => {
        const parser = new FrameParser();
        const taken: unknown[] = [];
        for (const piece of piecesOf(streamOf(frames), sizes)) {
          parser.push(piece, (frame) => taken.push(asSent(frame)));
        }
        expect(taken).to.deep.equal(frames.map(asSent));
      }),
    );
  });

  it('come out one byte at a time, each as soon as its last byte is there', () => {
    const parser = new FrameParser();
    const frame = frameOf(FrameKind.messages, Buffer.from('abc'));
    let taken = 0;
    for (let at = 0; at < frame.byteLength; at++) {
      expect(taken).to.equal(0);
      parser.push(frame.subarray(at, at + 1), () => taken++);
    }
    expect(taken).to.equal(1);
  });

  it('with one bit flipped are never taken: those before it are, and nothing after', () => {
    fc.assert(
      fc.property(anyFrames, anySizes, fc.nat(), fc.nat(7), (frames, sizes, at, bit) => {
        const stream = streamOf(frames);
        const place = at % stream.byteLength;
        stream[place] = (stream[place] ?? 0) ^ (1 << bit);
        const [parser, taken] = [new FrameParser(), [] as unknown[]];
        try {
          for (const piece of piecesOf(stream, sizes))
            parser.push(piece, (frame) => taken.push(asSent(frame)));
        } catch (error) {
          expect(error).to.be.instanceOf(MalformedMessage);
        }
        let [whole, end] = [0, 0];
        for (const { rest } of frames) {
          end += 9 + rest.byteLength;
          if (end <= place) whole++;
        }
        expect(taken).to.deep.equal(frames.slice(0, whole).map(asSent));
      }),
      { numRuns: 300 },
    );
  });

  it('of an absurd length are refused at their head, before anything is gathered', () => {
    for (const [length, max] of [
      [0, frameBytesMax],
      [frameBytesMax + 1, frameBytesMax],
      [0xffff_ffff, frameBytesMax],
      [smallFrameBytesMax + 1, smallFrameBytesMax],
    ] as const) {
      const head = Buffer.alloc(8);
      head.writeUInt32BE(length);
      const parser = new FrameParser(max);
      expect(() => {
        parser.push(head, () => undefined);
      }).to.throw(MalformedMessage, `frame of ${length} bytes`);
    }
  });

  it('may be longer from the frame on that follows a raised limit, also within one piece', () => {
    const parser = new FrameParser(100);
    const stream = streamOf([
      { kind: FrameKind.hello, rest: Buffer.alloc(50) },
      { kind: FrameKind.messages, rest: Buffer.alloc(5000) },
    ]);
    const kinds: number[] = [];
    parser.push(stream, ({ kind }) => {
      kinds.push(kind);
      parser.payloadBytesMax = 10_000;
    });
    expect(kinds).to.deep.equal([FrameKind.hello, FrameKind.messages]);
  });

  it('built in place equal those built from a payload, and the writer begins anew', () => {
    fc.assert(
      fc.property(anyFrames, (frames) => {
        const writer = new FrameWriter();
        for (const { kind, rest } of frames) {
          expect(writer.isEmpty).to.equal(true);
          writer.begin(kind);
          writer.payload.raw(rest);
          expect(writer.isEmpty).to.equal(false);
          expect(writer.end().equals(frameOf(kind, rest))).to.equal(true);
        }
      }),
    );
  });
});
