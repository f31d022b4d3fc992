import { once } from 'node:events';
import { connect } from 'node:http2';
import { createServer } from 'node:net';
import { expect } from 'chai';
import fc from 'fast-check';
import { FrameReader } from '../../../src/api/http2/frame-reader.js';
import { ConnectionError, ErrorCode, Flag, FrameType } from '../../../src/api/http2/frames.js';
import { HpackDecoder } from '../../../src/api/http2/hpack-decoder.js';
import { encodeBlock } from '../../../src/api/http2/hpack-encoder.js';
import { codeLengths, decodeHuffman } from '../../../src/api/http2/huffman.js';
import { huffman, HpackWriter, integer, string, type Field } from './hpack-writer.js';

const limits = { tableBytesMax: 4096, listBytesMax: 65_536 };

/** "8286 84": hexadecimal, blanks as in the RFC. */
const hex = (text: string): Buffer => Buffer.from(text.replace(/\s/g, ''), 'hex');

function decode(decoder: HpackDecoder, block: Buffer): Field[] {
  const fields = decoder.decode(block);
  if (fields === undefined) throw new Error('over the limit');
  return fields.map(({ name, value }): Field => [name, value]);
}

function codeOf(run: () => unknown): number {
  try {
    run();
  } catch (error) {
    if (error instanceof ConnectionError) return error.code;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const request1: Field[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/'],
  [':authority', 'www.example.com'],
];
const request2: Field[] = [...request1, ['cache-control', 'no-cache']];
const request3: Field[] = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/index.html'],
  [':authority', 'www.example.com'],
  ['custom-key', 'custom-value'],
];
const date1 = 'Mon, 21 Oct 2013 20:13:21 GMT';
const date2 = 'Mon, 21 Oct 2013 20:13:22 GMT';
const response = (status: string, date: string): Field[] => [
  [':status', status],
  ['cache-control', 'private'],
  ['date', date],
  ['location', 'https://www.example.com'],
];
const response3: Field[] = [
  [':status', '200'],
  ['cache-control', 'private'],
  ['date', date2],
  ['location', 'https://www.example.com'],
  ['content-encoding', 'gzip'],
  ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
];

/** Blocks of one connection each, with the size of the dynamic table behind each of them. */
const examples: readonly {
  readonly name: string;
  readonly tableBytesMax?: number;
  readonly blocks: readonly (readonly [string, Field[], number])[];
}[] = [
  {
    name: 'C.2.1',
    blocks: [
      [
        '400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572',
        [['custom-key', 'custom-header']],
        55,
      ],
    ],
  },
  {
    name: 'C.2.2',
    blocks: [['040c 2f73 616d 706c 652f 7061 7468', [[':path', '/sample/path']], 0]],
  },
  {
    name: 'C.2.3',
    blocks: [['1008 7061 7373 776f 7264 0673 6563 7265 74', [['password', 'secret']], 0]],
  },
  { name: 'C.2.4', blocks: [['82', [[':method', 'GET']], 0]] },
  {
    name: 'C.3',
    blocks: [
      ['8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d', request1, 57],
      ['8286 84be 5808 6e6f 2d63 6163 6865', request2, 110],
      ['8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65', request3, 164],
    ],
  },
  {
    name: 'C.4',
    blocks: [
      ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', request1, 57],
      ['8286 84be 5886 a8eb 1064 9cbf', request2, 110],
      ['8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf', request3, 164],
    ],
  },
  {
    name: 'C.5',
    tableBytesMax: 256,
    blocks: [
      [
        '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a' +
          '3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        response('302', date1),
        222,
      ],
      ['4803 3330 37c1 c0bf', response('307', date1), 222],
      [
        '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04' +
          '677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49' +
          '553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31',
        response3,
        215,
      ],
    ],
  },
  {
    name: 'C.6',
    tableBytesMax: 256,
    blocks: [
      [
        '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e' +
          '919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
        response('302', date1),
        222,
      ],
      ['4883 640e ffc1 c0bf', response('307', date1), 222],
      [
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7' +
          '821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed' +
          '4ee5 b106 3d50 07',
        response3,
        215,
      ],
    ],
  },
];

describe('HPACK', () => {
  for (const { name, tableBytesMax, blocks } of examples) {
    it(`decodes the example ${name} of RFC 7541`, () => {
      const decoder = new HpackDecoder({ ...limits, tableBytesMax: tableBytesMax ?? 4096 });
      for (const [block, fields, tableBytes] of blocks) {
        expect(decode(decoder, hex(block))).to.deep.equal(fields);
        expect(decoder.tableBytes).to.equal(tableBytes);
      }
    });
  }

  it('knows a complete Huffman code: every sequence of bits means something', () => {
    const sum = codeLengths.reduce((total, length) => total + 2 ** -length, 0);
    expect(sum).to.equal(1);
    expect(codeLengths.length).to.equal(257);
  });

  it('decodes what any encoder may write, in every representation, with tables of any size', () => {
    const name = fc.constantFrom(':path', 'te', 'grpc-timeout', 'user-agent', 'a', 'x-long-name');
    const value = fc.oneof(
      fc.constantFrom('/', 'trailers', '1S', ''),
      fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    );
    const written = fc.record({
      field: fc.tuple(name, value),
      form: fc.constantFrom(
        'indexed' as const,
        'incremental' as const,
        'without' as const,
        'never' as const,
      ),
      huffman: fc.boolean(),
      nameIndexed: fc.boolean(),
    });
    const block = fc.record({
      resizes: fc.array(fc.integer({ min: 0, max: 4096 }), { maxLength: 2 }),
      fields: fc.array(written, { maxLength: 12 }),
    });
    fc.assert(
      fc.property(fc.array(block, { maxLength: 8 }), (blocks) => {
        const writer = new HpackWriter();
        const decoder = new HpackDecoder(limits);
        for (const { resizes, fields } of blocks) {
          const parts = [
            ...resizes.map((size) => writer.resize(size)),
            ...fields.map(({ field, ...choice }) => writer.write(field, choice)),
          ];
          expect(decode(decoder, Buffer.concat(parts))).to.deep.equal(
            fields.map(({ field }) => field),
          );
          expect(decoder.tableBytes).to.equal(writer.tableBytes);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('decodes what the HTTP/2 of Node writes, block after block of a connection', async () => {
    const received: Field[][] = [];
    const server = createServer((socket) => {
      const decoder = new HpackDecoder(limits);
      const reader = new FrameReader((head, payload) => {
        if (head.type !== FrameType.HEADERS) return;
        expect(head.flags & Flag.END_HEADERS).to.equal(Flag.END_HEADERS);
        const from = (head.flags & Flag.PRIORITY) === 0 ? 0 : 5;
        received.push(decode(decoder, payload.subarray(from)));
      });
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => {
        reader.push(chunk);
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const bound = server.address();
    const port = typeof bound === 'object' ? bound?.port : undefined;
    const session = connect(`http://127.0.0.1:${port}`);
    // Short codes around each character, so that the encoder finds the Huffman code worth while.
    const characters = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code));
    const sendable = characters.filter((one) => /[\t -~]/.test(one) && one.trim() === one);
    const sent = sendable.map((one, n): Field[] => [
      [':method', 'POST'],
      [':path', `/quorate.v1.KV/${n % 7}`],
      ['x-character', `eeeeeeeeeeeeeeeeeeeeeeee${one}eeeeeeeeeeeeeeeee`],
      ['x-number', String(n % 30)],
      ['x-large', 'l'.repeat(n % 11 === 0 ? 5000 : 5)],
    ]);
    for (const fields of sent) {
      session.request(Object.fromEntries(fields)).on('error', () => undefined);
    }
    const deadline = Date.now() + 10_000;
    while (received.length < sent.length && Date.now() < deadline) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    session.destroy();
    server.close();
    const own = received.map((fields) =>
      fields.filter(([name]) => name !== ':scheme' && name !== ':authority'),
    );
    expect(own.map((fields) => new Map(fields))).to.deep.equal(
      sent.map((fields) => new Map(fields)),
    );
  });

  it('decodes the code of every byte', () => {
    const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('latin1');
    expect(decodeHuffman(huffman(every))).to.equal(every);
  });

  const broken: readonly (readonly [string, Buffer])[] = [
    ['2.3.3: an index of 0', hex('80')],
    ['2.3.3: an index beyond both tables', hex('be')],
    ['2.3.3: the name of an entry that is not there', hex('7f20 0161')],
    ['5.1: an integer of too many bytes', hex('ffff ffff ffff ff7f')],
    ['5.1: an integer that ends with its block', hex('ff80')],
    ['5.2: a string longer than its block', hex('0005 61')],
    ['5.2: the code of EOS', Buffer.concat([hex('00 84'), hex('ffff fffc')])],
    ['5.2: padding of 8 bits', Buffer.concat([hex('00'), hex('82 1fff'), hex('0161')])],
    ['5.2: padding that is not 1', Buffer.concat([hex('00'), hex('81 18'), hex('0161')])],
    ['4.2: a table size behind a field', hex('82 20')],
    ['6.3: a table size over the limit', integer(4097, 5, 0x20)],
    ['a block that ends behind a name', Buffer.concat([hex('00'), string('a', false)])],
  ];
  for (const [title, block] of broken) {
    it(`answers COMPRESSION_ERROR to RFC 7541, ${title}`, () => {
      const decoder = new HpackDecoder(limits);
      expect(codeOf(() => decoder.decode(block))).to.equal(ErrorCode.COMPRESSION_ERROR);
    });
  }

  it('ends random bytes with fields or with COMPRESSION_ERROR, and its table stays bounded', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }), (blocks) => {
        const decoder = new HpackDecoder({ tableBytesMax: 512, listBytesMax: 1000 });
        try {
          for (const block of blocks) decoder.decode(Buffer.from(block));
        } catch (error) {
          expect(error).to.be.instanceOf(ConnectionError);
        }
        expect(decoder.tableBytes).to.be.at.most(512);
      }),
      { numRuns: 2000 },
    );
  });

  it('names a bomb as over the limit, holds little of it, and goes on with the same table', () => {
    const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 16_384 });
    const writer = new HpackWriter();
    const choice = { form: 'incremental', huffman: false, nameIndexed: false } as const;
    const large: Field = ['x-bomb', 'b'.repeat(3000)];
    const block = Buffer.concat([writer.write(large, choice), Buffer.alloc(10_000, 0xbe)]);
    expect(decoder.decode(block)).to.equal(undefined);
    expect(decode(decoder, hex('be'))).to.deep.equal([large]);
  });

  it('marks names and values that HTTP/2 does not allow', () => {
    const validity = (name: string, value: string): boolean | undefined => {
      const block = Buffer.concat([hex('00'), string(name, false), string(value, false)]);
      return new HpackDecoder(limits).decode(block)?.[0]?.valid;
    };
    expect(validity('x-a', 'with blank')).to.equal(true);
    expect(validity('x-a', '')).to.equal(true);
    // RFC 9113 forbids them; gRPC lets clients send them, and they do.
    for (const value of [' a', 'a\t', ' ']) expect(validity('x-a', value)).to.equal(true);
    expect(validity(':path', ' /a')).to.equal(false);
    for (const name of ['X-A', 'a b', 'a:b', '', 'ü']) expect(validity(name, 'v')).to.equal(false);
    for (const value of ['a\r\nb', 'a\0', 'a\x7f']) {
      expect(validity('a', value)).to.equal(false);
    }
  });

  it('writes blocks that its decoder and Node read, of lengths around the steps of an integer', () => {
    for (const length of [0, 1, 126, 127, 128, 254, 255, 16_510, 16_511, 20_000]) {
      const fields: Field[] = [
        [':status', '200'],
        ['x-long', 'v'.repeat(length)],
      ];
      expect(decode(new HpackDecoder(limits), encodeBlock(fields))).to.deep.equal(fields);
    }
  });
});
