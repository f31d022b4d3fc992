/**
 * Fields -> header blocks, the least that RFC 7541 allows: literals that no table remembers, in plain
 * characters. So a block is a constant that every connection understands at every moment.
 */
import { staticFields } from './hpack-table.js';

/** The value of :status 200 in the static table. */
const status200 = 0x88;
/** 6.2.2: a literal without indexing; its name by index, or 0 and the name follows. */
const nameBits = 4;

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
        : Buffer.concat([encodeName(name), encodeString(value)]),
    ),
  );
}

function encodeName(name: string): Buffer {
  const index = staticFields.findIndex((field) => field.name === name) + 1;
  return index > 0
    ? encodeInteger(index, nameBits)
    : Buffer.concat([encodeInteger(0, nameBits), encodeString(name)]);
}

/** The highest bit 0 says: no Huffman code. */
function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeInteger(bytes.length, 7), bytes]);
}

/** RFC 7541, 5.1; the bits before the prefix are 0. */
function encodeInteger(value: number, prefixBits: number): Buffer {
  const full = (1 << prefixBits) - 1;
  if (value < full) return Buffer.of(value);
  const bytes = [full];
  let rest = value - full;
  for (; rest >= 128; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}
