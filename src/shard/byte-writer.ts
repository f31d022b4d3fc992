/**
 * Appends numbers and bytes to one growing buffer. Numbers are LEB128 varints: seven bits a byte,
 * lowest first, at most eight bytes, because nothing here exceeds 2^53 - 1.
 */
const firstCapacity = 1024;
/** A larger buffer is not kept for the next use. */
const keptCapacityMax = 256 * 1024;

export class ByteWriter {
  private buffer = Buffer.allocUnsafeSlow(firstCapacity);
  private at = 0;

  get length(): number {
    return this.at;
  }

  byte(value: number): void {
    this.reserve(1);
    this.buffer[this.at++] = value;
  }

  flag(value: boolean): void {
    this.byte(value ? 1 : 0);
  }

  /** A safe integer from 0 up; throws RangeError for anything else, which is a bug of the caller. */
  varint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new RangeError(`a varint must be a safe integer from 0 up, got ${value}`);
    this.reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.buffer[this.at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.buffer[this.at++] = rest;
  }

  /** A safe integer: sign byte, then magnitude. */
  integer(value: number): void {
    this.flag(value < 0);
    this.varint(Math.abs(value));
  }

  /** Length, then the bytes. */
  bytes(value: Uint8Array): void {
    this.varint(value.byteLength);
    this.raw(value);
  }

  raw(value: Uint8Array): void {
    this.reserve(value.byteLength);
    this.buffer.set(value, this.at);
    this.at += value.byteLength;
  }

  /** A copy of what was written; begins anew. */
  take(): Uint8Array {
    const taken = Buffer.allocUnsafe(this.at);
    this.buffer.copy(taken, 0, 0, this.at);
    this.at = 0;
    if (this.buffer.byteLength > keptCapacityMax)
      this.buffer = Buffer.allocUnsafeSlow(firstCapacity);
    return taken;
  }

  /** Forgets what was written, after a failure in the middle. */
  reset(): void {
    this.at = 0;
  }

  private reserve(more: number): void {
    const needed = this.at + more;
    if (needed <= this.buffer.byteLength) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.buffer.byteLength * 2));
    this.buffer.copy(grown, 0, 0, this.at);
    this.buffer = grown;
  }
}
