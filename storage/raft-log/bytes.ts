/**
 * Numbers and bytes into a growing buffer and out again, little-endian. 64-bit fields are two
 * 32-bit halves, because terms and indexes are safe integers and a BigInt costs an allocation.
 */
const twoTo32 = 0x1_0000_0000;

/** Bytes being written; reused from turn to turn. */
export class ByteSink {
  private bytes: Buffer;
  private view: DataView;
  private used = 0;

  /** `capacity`: bytes to begin with; it doubles as needed. */
  constructor(capacity: number) {
    this.bytes = Buffer.allocUnsafeSlow(capacity);
    this.view = viewOf(this.bytes);
  }

  get length(): number {
    return this.used;
  }

  /** What was written so far; valid until the next write or `clear`. */
  written(): Buffer {
    return this.bytes.subarray(0, this.used);
  }

  /** Forgets everything; gives memory back when one large turn has grown it past `keepMax`. */
  clear(keepMax: number): void {
    this.used = 0;
    if (this.bytes.length > keepMax) {
      this.bytes = Buffer.allocUnsafeSlow(keepMax);
      this.view = viewOf(this.bytes);
    }
  }

  /** Leaves `count` bytes to be filled in by the `set` methods. */
  skip(count: number): void {
    this.reserve(count);
    this.used += count;
  }

  u8(value: number): void {
    this.reserve(1);
    this.view.setUint8(this.used, value);
    this.used += 1;
  }

  u32(value: number): void {
    this.reserve(4);
    this.setU32(this.used, value);
    this.used += 4;
  }

  /** A safe, non-negative integer in eight bytes. */
  u64(value: number): void {
    this.reserve(8);
    this.setU64(this.used, value);
    this.used += 8;
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.used);
    this.used += bytes.length;
  }

  setU8(at: number, value: number): void {
    this.view.setUint8(at, value);
  }

  setU32(at: number, value: number): void {
    if (!(value >= 0 && value < twoTo32)) throw new RangeError(`not 32 bits: ${value}`);
    this.view.setUint32(at, value, true);
  }

  setU64(at: number, value: number): void {
    if (!(Number.isSafeInteger(value) && value >= 0)) throw new RangeError(`not safe: ${value}`);
    this.view.setUint32(at, value % twoTo32, true);
    this.view.setUint32(at + 4, Math.floor(value / twoTo32), true);
  }

  private reserve(count: number): void {
    if (this.used + count <= this.bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.bytes.length * 2, this.used + count));
    grown.set(this.bytes.subarray(0, this.used));
    this.bytes = grown;
    this.view = viewOf(grown);
  }
}

/** Bytes being read. Throws RangeError past the end and on an unsafe integer. */
export class ByteSource {
  private readonly bytes: Buffer;
  private at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  u8(): number {
    const value = this.bytes.readUInt8(this.at);
    this.at += 1;
    return value;
  }

  u32(): number {
    const value = this.bytes.readUInt32LE(this.at);
    this.at += 4;
    return value;
  }

  u64(): number {
    const value = this.u32() + this.u32() * twoTo32;
    if (!Number.isSafeInteger(value)) throw new RangeError(`not a safe integer: ${value}`);
    return value;
  }

  /** Aliases the source. */
  raw(length: number): Buffer {
    if (length > this.left) throw new RangeError(`${length} bytes wanted, ${this.left} left`);
    const part = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return part;
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
