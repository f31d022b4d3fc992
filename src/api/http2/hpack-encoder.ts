/**
 * Fields -> header blocks, the least that RFC 7541 allows: literals that no table remembers, in plain
 * characters. So a block is a constant that every connection understands at every moment.
 */

/** The value of :status 200 in the static table. */
const status200 = 0x88;
/** 6.2.2: a literal without indexing, whose name follows. */
const literal = 0x00;

/**
 * Says that this side keeps a dynamic table of size 0. Stands before the first block of a connection:
 * a peer that has lowered the table's size in its SETTINGS expects to be told so (RFC 7541, 4.2).
 */
export const noTable: Uint8Array = Uint8Array.of(0x20);

/** Names in lower case; values of characters up to U+00FF. */
export function encodeBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.map(([name, value]) =>
      name === ':status' && value === '200'
        ? Uint8Array.of(status200)
        : Buffer.concat([Uint8Array.of(literal), encodeString(name), encodeString(value)]),
    ),
  );
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeLength(bytes.length), bytes]);
}

/** An integer with a prefix of 7 bits (RFC 7541, 5.1); the highest bit 0 says: no Huffman code. */
function encodeLength(length: number): Uint8Array {
  if (length < 127) return Uint8Array.of(length);
  const bytes = [127];
  let rest = length - 127;
  for (; rest >= 128; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}
