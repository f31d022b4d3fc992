/**
 * Frames: what travels on a peer connection.
 *
 *   frame = length u32 (of the payload), CRC-32 of the payload u32, payload
 *   payload = kind u8, rest
 *
 * TCP's own checksum is too weak for gigabytes of log; a frame that does not match its checksum
 * closes the connection.
 */
import { crc32 } from 'node:zlib';
import { ByteWriter } from '../bytes.js';
import { MalformedMessage } from './message-codec.js';

export const FrameKind = {
  hello: 0,
  messages: 1,
  ping: 2,
  pong: 3,
  snapshotHead: 4,
  snapshotChunk: 5,
  verdict: 6,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

const headBytes = 8;
/** A largest entry (a request of 4 MiB by default, 256 MiB at most) must fit. */
export const frameBytesMax = 320 * 1024 * 1024;
/**
 * Hellos, pongs and verdicts are far smaller. Who has not said yet who it is, or has nothing else to
 * say, cannot make this node gather more.
 */
export const smallFrameBytesMax = 64 * 1024;

/** A frame under construction: `begin`, write the rest of the payload, `end`. */
export class FrameWriter {
  readonly payload = new ByteWriter();
  private empty = true;

  get isEmpty(): boolean {
    return this.empty;
  }

  /** Bytes so far, head included. */
  get size(): number {
    return this.payload.size;
  }

  begin(kind: FrameKind): void {
    this.empty = false;
    this.payload.u32(0);
    this.payload.u32(0);
    this.payload.u8(kind);
  }

  /** The finished frame. */
  end(): Buffer {
    const payload = this.payload.view(headBytes);
    this.payload.patchU32(0, payload.byteLength);
    this.payload.patchU32(4, crc32(payload));
    this.empty = true;
    return this.payload.take();
  }
}

/** A whole frame from its kind and the rest of its payload. */
export function frameOf(kind: FrameKind, rest: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(headBytes + 1 + rest.byteLength);
  frame[headBytes] = kind;
  frame.set(rest, headBytes + 1);
  frame.writeUInt32BE(1 + rest.byteLength, 0);
  frame.writeUInt32BE(crc32(frame.subarray(headBytes)), 4);
  return frame;
}

export interface Frame {
  readonly kind: number;
  /** The payload after its kind; aliases what was received. */
  readonly rest: Buffer;
}

/** Cuts a byte stream into frames, wherever the pieces end. */
export class FrameParser {
  /** The longest payload that is taken; holds from the next frame on. */
  payloadBytesMax: number;
  private pieces: Buffer[] = [];
  private have = 0;
  /** Bytes wanted before anything can be cut: a head, then a whole frame. */
  private wanted = headBytes;

  constructor(payloadBytesMax = frameBytesMax) {
    this.payloadBytesMax = payloadBytesMax;
  }

  /** Throws MalformedMessage for a wrong checksum or an absurd length: close the connection. */
  push(piece: Buffer, take: (frame: Frame) => void): void {
    this.pieces.push(piece);
    this.have += piece.byteLength;
    // Joined only once a whole frame is there: a large frame in small pieces is not copied for each.
    while (this.have >= this.wanted) {
      const bytes =
        this.pieces.length === 1 ? (this.pieces[0] ?? piece) : Buffer.concat(this.pieces);
      const used = this.cut(bytes, take);
      this.pieces = used === bytes.byteLength ? [] : [bytes.subarray(used)];
      this.have = bytes.byteLength - used;
    }
  }

  /** Takes all whole frames; returns the bytes used, and sets how many are wanted next. */
  private cut(bytes: Buffer, take: (frame: Frame) => void): number {
    let at = 0;
    for (;;) {
      const left = bytes.byteLength - at;
      this.wanted = headBytes;
      if (left < headBytes) return at;
      const length = bytes.readUInt32BE(at);
      if (length < 1 || length > this.payloadBytesMax)
        throw new MalformedMessage(`frame of ${length} bytes`);
      this.wanted = headBytes + length;
      if (left < this.wanted) return at;
      const payload = bytes.subarray(at + headBytes, at + this.wanted);
      if (crc32(payload) !== bytes.readUInt32BE(at + 4))
        throw new MalformedMessage('frame checksum does not match');
      at += this.wanted;
      take({ kind: payload[0] ?? 0, rest: payload.subarray(1) });
    }
  }
}
