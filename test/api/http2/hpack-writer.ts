/**
 * An HPACK encoder with every representation of RFC 7541, chosen by whoever calls it: the slow,
 * obvious counterpart of the decoder under test.
 */
import { codeLengths } from '../../../src/api/http2/huffman.js';
import { staticFields } from '../../../src/api/http2/hpack-table.js';

export type Field = readonly [name: string, value: string];
export type Form = 'indexed' | 'incremental' | 'without' | 'never';

export interface Choice {
  readonly form: Form;
  readonly huffman: boolean;
  /** Refers to a name in the tables where there is one. */
  readonly nameIndexed: boolean;
}

/** Codes as strings of 0 and 1, assigned by the canonical rule. */
const codes: ReadonlyMap<number, string> = (() => {
  const bySymbol = new Map<number, string>();
  let code = 0n;
  let bits = 0;
  for (let length = 1; length <= 30; length++) {
    code <<= BigInt(length - bits);
    bits = length;
    codeLengths.forEach((own, symbol) => {
      if (own !== length) return;
      bySymbol.set(symbol, code.toString(2).padStart(length, '0'));
      code += 1n;
    });
  }
  return bySymbol;
})();

export function huffman(text: string): Buffer {
  const bits = [...Buffer.from(text, 'latin1')].map((byte) => codes.get(byte) ?? '').join('');
  const padded = bits.padEnd(Math.ceil(bits.length / 8) * 8, '1');
  return Buffer.from((padded.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
}

export function integer(value: number, prefixBits: number, pattern = 0): Buffer {
  const full = 2 ** prefixBits - 1;
  if (value < full) return Buffer.from([pattern | value]);
  const bytes = [pattern | full];
  let rest = value - full;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

export function string(text: string, coded: boolean): Buffer {
  const bytes = coded ? huffman(text) : Buffer.from(text, 'latin1');
  return Buffer.concat([integer(bytes.length, 7, coded ? 0x80 : 0), bytes]);
}

const sizeOf = ([name, value]: Field): number => name.length + value.length + 32;

export class HpackWriter {
  /** Newest first. */
  private readonly table: Field[] = [];
  private limit = 4096;

  get tableBytes(): number {
    return this.table.reduce((sum, field) => sum + sizeOf(field), 0);
  }

  resize(limit: number): Buffer {
    this.limit = limit;
    this.evict();
    return integer(limit, 5, 0x20);
  }

  write([name, value]: Field, { form, huffman: coded, nameIndexed }: Choice): Buffer {
    const all: Field[] = [
      ...staticFields.map((field): Field => [field.name, field.value]),
      ...this.table,
    ];
    const whole = all.findIndex((entry) => entry[0] === name && entry[1] === value) + 1;
    if (form === 'indexed' && whole > 0) return integer(whole, 7, 0x80);
    const named = nameIndexed ? all.findIndex((entry) => entry[0] === name) + 1 : 0;
    const [bits, pattern] =
      form === 'incremental' ? [6, 0x40] : form === 'never' ? [4, 0x10] : [4, 0x00];
    const head = integer(named, bits, pattern);
    if (form === 'incremental') {
      this.table.unshift([name, value]);
      this.evict();
    }
    const literalName = named === 0 ? string(name, coded) : Buffer.alloc(0);
    return Buffer.concat([head, literalName, string(value, coded)]);
  }

  private evict(): void {
    while (this.tableBytes > this.limit) this.table.pop();
  }
}
