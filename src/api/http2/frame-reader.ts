/**
 * Cuts the bytes of a connection into frames, however they arrive. A frame that lies within one chunk
 * is handed out as a view of it; one that does not is collected in a buffer of its announced size,
 * at most 16 KiB for each connection.
 */
import {
  ConnectionError,
  ErrorCode,
  frameBytesMax,
  headBytes,
  preface,
  streamIdMax,
  type FrameHead,
} from './frames.js';

export type OnFrame = (head: FrameHead, payload: Buffer) => void;

export class FrameReader {
  private readonly onFrame: OnFrame;
  private prefaceRead = 0;
  /** An incomplete frame: as large as its head, and once that is known as the whole frame. */
  private partial: Buffer | undefined;
  private partialRead = 0;

  constructor(onFrame: OnFrame) {
    this.onFrame = onFrame;
  }

  get hasPreface(): boolean {
    return this.prefaceRead === preface.length;
  }

  /**
   * Payloads are views of `chunk`. Throws ConnectionError for bytes that are no HTTP/2 and for frames
   * over the limit; after that the connection cannot be read any further.
   */
  push(chunk: Buffer): void {
    let at = this.readPreface(chunk);
    at = this.complete(chunk, at);
    while (chunk.length - at >= headBytes) {
      const head = readHead(chunk, at);
      const end = at + headBytes + head.length;
      if (end > chunk.length) break;
      this.onFrame(head, chunk.subarray(at + headBytes, end));
      at = end;
    }
    if (at < chunk.length) this.keep(chunk, at);
  }

  /** Returns where the frames begin. */
  private readPreface(chunk: Buffer): number {
    let at = 0;
    while (this.prefaceRead < preface.length && at < chunk.length) {
      if (chunk[at] !== preface[this.prefaceRead]) {
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'this port speaks HTTP/2 only');
      }
      at += 1;
      this.prefaceRead += 1;
    }
    return at;
  }

  private keep(chunk: Buffer, at: number): void {
    const known = chunk.length - at >= headBytes;
    const bytes = known ? headBytes + readHead(chunk, at).length : headBytes;
    this.partial = Buffer.allocUnsafe(bytes);
    this.partialRead = chunk.copy(this.partial, 0, at);
  }

  /** Adds to the incomplete frame, and hands it out when it is whole. Returns where the next begins. */
  private complete(chunk: Buffer, from: number): number {
    let at = from;
    while (this.partial !== undefined && at < chunk.length) {
      const { partial } = this;
      const taken = chunk.copy(partial, this.partialRead, at);
      at += taken;
      this.partialRead += taken;
      if (this.partialRead < partial.length) break;
      const head = readHead(partial, 0);
      const bytes = headBytes + head.length;
      if (partial.length === bytes) {
        this.partial = undefined;
        this.onFrame(head, partial.subarray(headBytes));
      } else {
        this.partial = Buffer.allocUnsafe(bytes);
        partial.copy(this.partial);
      }
    }
    return at;
  }
}

function readHead(bytes: Buffer, at: number): FrameHead {
  const length = bytes.readUIntBE(at, 3);
  if (length > frameBytesMax) {
    throw new ConnectionError(
      ErrorCode.FRAME_SIZE_ERROR,
      `frame of ${length} bytes, the limit is ${frameBytesMax}`,
    );
  }
  return {
    length,
    type: bytes[at + 3] ?? 0,
    flags: bytes[at + 4] ?? 0,
    streamId: bytes.readUInt32BE(at + 5) & streamIdMax,
  };
}
