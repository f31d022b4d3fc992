/**
 * Reads what `ByteWriter` wrote, strictly: bytes that no writer could have made are an error, and
 * nothing is allocated for a length that the input does not have.
 */

/** Bytes of no known form: cut, damaged, or written by a newer version. */
export class MalformedBytes extends Error {
  override readonly name = 'MalformedBytes';
}

const varintBytesMax = 8;

export class ByteReader {
  /** Position of the next byte. */
  at = 0;
  private readonly input: Uint8Array;
  private readonly what: string;

  /** `what` names the input in errors. What is read aliases `input`. */
  constructor(input: Uint8Array, what: string) {
    this.input = input;
    this.what = what;
  }

  byte(): number {
    const value = this.input[this.at];
    if (value === undefined) throw this.malformed('is cut');
    this.at++;
    return value;
  }

  flag(): boolean {
    const value = this.byte();
    if (value > 1) throw this.malformed(`has a flag of ${value}`);
    return value === 1;
  }

  varint(): number {
    let value = 0;
    let factor = 1;
    for (let length = 1; length <= varintBytesMax; length++) {
      const byte = this.byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        if (byte === 0 && length > 1) throw this.malformed('has a number longer than need be');
        if (!Number.isSafeInteger(value)) throw this.malformed('has a number beyond 2^53 - 1');
        return value;
      }
      factor *= 0x80;
    }
    throw this.malformed(`has a number of more than ${varintBytesMax} bytes`);
  }

  integer(): number {
    const negative = this.flag();
    const magnitude = this.varint();
    if (negative && magnitude === 0) throw this.malformed('has a negative zero');
    return negative ? -magnitude : magnitude;
  }

  bytes(): Uint8Array {
    return this.raw(this.varint());
  }

  raw(length: number): Uint8Array {
    const end = this.at + length;
    if (end > this.input.byteLength) throw this.malformed('is cut');
    const value = this.input.subarray(this.at, end);
    this.at = end;
    return value;
  }

  /** A count of things that take at least one byte each: never more than there are bytes left. */
  count(): number {
    const value = this.varint();
    if (value > this.input.byteLength - this.at) throw this.malformed('has a count beyond its end');
    return value;
  }

  /** What was read from `from` up to here. */
  since(from: number): Uint8Array {
    return this.input.subarray(from, this.at);
  }

  rest(): Uint8Array {
    return this.raw(this.input.byteLength - this.at);
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.at !== this.input.byteLength) throw this.malformed('has bytes behind its end');
  }

  malformed(problem: string): MalformedBytes {
    return new MalformedBytes(`${this.what} ${problem} (byte ${this.at})`);
  }
}
