import { expect } from 'chai';
import fc from 'fast-check';
import { ByteReader, ByteWriter } from '../../src/bytes.js';
import {
  decodeMessage,
  decodeSnapshotMeta,
  encodeMessage,
  encodeSnapshotMeta,
  MalformedMessage,
  wellFormed,
} from '../../src/transport/message-codec.js';
import type { GroupMessage } from '../../src/transport/transport.js';
import { anyMessage, anyMessageOf, anySnapshotMeta, messageTypes } from './arbitraries.js';

function encoded(...messages: readonly GroupMessage[]): Buffer {
  const writer = new ByteWriter();
  for (const message of messages) encodeMessage(writer, message);
  return writer.take();
}

/** Every number in it, however deep; bytes are no numbers. */
function numbersOf(value: unknown): number[] {
  if (typeof value === 'number') return [value];
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return [];
  return Object.values(value).flatMap(numbersOf);
}

/** Decodes what may be anything: a whole message of safe numbers, or the one typed error. */
function expectTypedErrorOrSafe(bytes: Uint8Array): void {
  let decoded: GroupMessage;
  try {
    decoded = decodeMessage(new ByteReader(bytes));
  } catch (error) {
    expect(error).to.be.instanceOf(MalformedMessage);
    return;
  }
  for (const number of numbersOf(decoded)) {
    expect(Number.isSafeInteger(number) && number >= 0, String(number)).to.equal(true);
  }
}

describe('a message as bytes', () => {
  for (const type of messageTypes) {
    it(`is read as it was written: ${type}`, () => {
      fc.assert(
        fc.property(anyMessageOf(type), (message) => {
          const reader = new ByteReader(encoded(message));
          expect(decodeMessage(reader)).to.deep.equal(message);
          expect(reader.left).to.equal(0);
        }),
      );
    });
  }

  it('stands next to others without a mark between them', () => {
    fc.assert(
      fc.property(fc.array(anyMessage, { maxLength: 20 }), (messages) => {
        const reader = new ByteReader(encoded(...messages));
        const read: GroupMessage[] = [];
        while (reader.left > 0) read.push(decodeMessage(reader));
        expect(read).to.deep.equal(messages);
      }),
    );
  });

  it('cut anywhere is malformed', () => {
    fc.assert(
      fc.property(anyMessage, fc.double({ min: 0, max: 1, noNaN: true }), (message, where) => {
        const bytes = encoded(message);
        const cut = bytes.subarray(0, Math.floor(where * (bytes.byteLength - 1)));
        expect(() => decodeMessage(new ByteReader(cut))).to.throw(MalformedMessage);
      }),
    );
  });

  it('of random bytes gives the typed error or safe numbers', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), expectTypedErrorOrSafe), {
      numRuns: 500,
    });
  });

  it('of random bytes behind a known version and type gives the typed error or safe numbers', () => {
    const body = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 13 }), body, (type, bytes) => {
        expectTypedErrorOrSafe(Buffer.from([3, type, ...bytes]));
      }),
      { numRuns: 2000 },
    );
  });

  it('with any bytes changed gives the typed error or safe numbers', () => {
    const change = fc.record({ at: fc.nat(), byte: fc.integer({ min: 0, max: 255 }) });
    fc.assert(
      fc.property(
        anyMessage,
        fc.array(change, { minLength: 1, maxLength: 4 }),
        (message, changes) => {
          const bytes = encoded(message);
          for (const { at, byte } of changes) bytes[at % bytes.byteLength] = byte;
          expectTypedErrorOrSafe(bytes);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('D16: of another version is refused, and the versions are named', () => {
    fc.assert(
      fc.property(anyMessage, fc.integer({ min: 0, max: 255 }), (message, version) => {
        fc.pre(version !== 3);
        const bytes = encoded(message);
        bytes[0] = version;
        expect(() => decodeMessage(new ByteReader(bytes))).to.throw(
          MalformedMessage,
          `version ${version}, this program knows 3`,
        );
      }),
    );
  });

  it('that promises more entries than there are bytes allocates nothing for them', () => {
    const writer = new ByteWriter();
    writer.raw(Buffer.from([3, 5]));
    writer.u32(1);
    writer.u64(0);
    for (const id of [1, 2]) writer.u32(id);
    for (const number of [1, 1, 1, 1]) writer.u64(number);
    writer.u32(0xffff_ffff);
    expect(() => decodeMessage(new ByteReader(writer.take()))).to.throw(
      MalformedMessage,
      '4294967295 entries in 0 bytes',
    );
  });

  it('D01: carries the replica ids of both ends, and none can be 0', () => {
    fc.assert(
      fc.property(anyMessage, fc.constantFrom(14, 18), (message, at) => {
        const bytes = encoded(message);
        bytes.writeUInt32BE(0, at);
        expect(() => decodeMessage(new ByteReader(bytes))).to.throw(MalformedMessage, 'replica id');
      }),
    );
  });
});

describe('the head of a snapshot as bytes', () => {
  it('is read as it was written, and cut anywhere it is malformed', () => {
    fc.assert(
      fc.property(anySnapshotMeta, fc.double({ min: 0, max: 1, noNaN: true }), (meta, where) => {
        const writer = new ByteWriter();
        encodeSnapshotMeta(writer, meta);
        const bytes = writer.take();
        expect(decodeSnapshotMeta(new ByteReader(bytes))).to.deep.equal(meta);
        const cut = bytes.subarray(0, Math.floor(where * (bytes.byteLength - 1)));
        const read = (): unknown =>
          wellFormed('head', () => decodeSnapshotMeta(new ByteReader(cut)));
        expect(read).to.throw(MalformedMessage);
      }),
    );
  });
});
