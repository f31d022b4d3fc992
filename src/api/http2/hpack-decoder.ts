/**
 * Header blocks -> fields (RFC 7541). Every block of a connection goes through its one decoder, also
 * of streams that nobody serves: the dynamic table is shared by all of them.
 */
import { ConnectionError, ErrorCode } from './frames.js';
import { decodeHuffman } from './huffman.js';
import {
  DynamicTable,
  fieldBytes,
  newField,
  staticFields,
  type HeaderField,
} from './hpack-table.js';

export interface HpackLimits {
  /** What SETTINGS_HEADER_TABLE_SIZE allows the peer. */
  readonly tableBytesMax: number;
  /** Of all fields of a block, decoded: a block of a few bytes may name a large entry many times. */
  readonly listBytesMax: number;
}

/** Of the continuation of an integer: 28 bits, more than any limit here. */
const integerShiftMax = 21;

export class HpackDecoder {
  private readonly limits: HpackLimits;
  private readonly table: DynamicTable;
  private block: Buffer = Buffer.alloc(0);
  private at = 0;

  constructor(limits: HpackLimits) {
    this.limits = limits;
    this.table = new DynamicTable(limits.tableBytesMax);
  }

  /** Of the dynamic table, as RFC 7541 counts; for tests. */
  get tableBytes(): number {
    return this.table.bytes;
  }

  /**
   * The fields of a block, in order; undefined when they are over the limit (the table has taken part all
   * the same). Throws ConnectionError COMPRESSION_ERROR: after that nothing can be decoded.
   */
  decode(block: Buffer): HeaderField[] | undefined {
    this.block = block;
    this.at = 0;
    this.readTableSizes();
    const fields: HeaderField[] = [];
    let bytes = 0;
    while (this.at < block.length) {
      const field = this.readField();
      bytes += fieldBytes(field);
      if (bytes <= this.limits.listBytesMax) fields.push(field);
    }
    return bytes <= this.limits.listBytesMax ? fields : undefined;
  }

  /** Only at the beginning of a block (4.2). */
  private readTableSizes(): void {
    while (((this.block[this.at] ?? 0) & 0xe0) === 0x20) {
      const bytes = this.readInteger(5);
      if (bytes > this.limits.tableBytesMax) {
        throw broken(`table size ${bytes}, the limit is ${this.limits.tableBytesMax}`);
      }
      this.table.resize(bytes);
    }
  }

  private readField(): HeaderField {
    const first = this.block[this.at] ?? 0;
    // 6.1: an entry of a table.
    if ((first & 0x80) !== 0) return this.entry(this.readInteger(7));
    // 6.2.1: a literal, to be added to the table.
    if ((first & 0x40) !== 0) {
      const field = this.readLiteral(6);
      this.table.add(field);
      return field;
    }
    if ((first & 0x20) !== 0) throw broken('a table size within a block');
    // 6.2.2 and 6.2.3: a literal that is not added, now or ever.
    return this.readLiteral(4);
  }

  private readLiteral(prefixBits: number): HeaderField {
    const index = this.readInteger(prefixBits);
    const name = index === 0 ? this.readString() : this.entry(index).name;
    return newField(name, this.readString());
  }

  private entry(index: number): HeaderField {
    const { length } = staticFields;
    const field = index <= length ? staticFields[index - 1] : this.table.at(index - length - 1);
    if (field === undefined) throw broken(`no entry ${index} in the tables`);
    return field;
  }

  /** 5.1: in the low bits of a byte, and where these are all 1 in the bytes that follow. */
  private readInteger(prefixBits: number): number {
    const full = (1 << prefixBits) - 1;
    let value = this.readByte() & full;
    if (value < full) return value;
    for (let shift = 0; ; shift += 7) {
      if (shift > integerShiftMax) throw broken('an integer that does not end');
      const byte = this.readByte();
      value += (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
  }

  private readString(): string {
    const huffman = ((this.block[this.at] ?? 0) & 0x80) !== 0;
    const length = this.readInteger(7);
    const from = this.at;
    this.at += length;
    if (this.at > this.block.length) throw broken('a string that goes beyond its block');
    if (!huffman) return this.block.toString('latin1', from, this.at);
    const text = decodeHuffman(this.block.subarray(from, this.at));
    if (text === undefined) throw broken('a string that is no Huffman code');
    return text;
  }

  private readByte(): number {
    const byte = this.block[this.at];
    if (byte === undefined) throw broken('a block that ends within a field');
    this.at += 1;
    return byte;
  }
}

function broken(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.COMPRESSION_ERROR, `header block: ${what}`);
}
