/**
 * The way out of a connection. What is said in one go (the answers to all writes of a command, say) leaves
 * in one write: frames of control first, then the responses in turns, as far as the peer's windows and its socket have
 * room. Everything else waits, in order, and is bounded.
 */
import type { Duplex } from 'node:stream';
import {
  ErrorCode,
  Flag,
  frameBytesMax,
  FrameType,
  headBytes,
  resetFrame,
  windowDefault,
  writeHead,
} from './frames.js';
import { noTable } from './hpack-encoder.js';
import type { ServerStream } from './server-stream.js';

/** Of one stream before it is another's turn. */
const turnBytesMax = 64 * 1024;
/** Of one write; the next follows when the socket has taken it. */
const writeBytesMax = 256 * 1024;
/** A stream whose waiting body is at most this has room again. */
const fewBytes = 16 * 1024;

const slabBytes = 64 * 1024;

/**
 * Memory that frames are written into, piece by piece, for all connections of a port: a piece that was
 * handed to a socket is not written again.
 */
export class Slab {
  private buffer = Buffer.allocUnsafeSlow(slabBytes);
  private used = 0;
  private from = 0;
  private full: Buffer[] = [];
  /** Of the current collection. */
  bytes = 0;

  /** Calls `write` with a place for `length` bytes, at most `slabBytes`. */
  add(length: number): { readonly out: Buffer; readonly at: number } {
    if (this.used + length > slabBytes) {
      if (this.used > this.from) this.full.push(this.buffer.subarray(this.from, this.used));
      this.buffer = Buffer.allocUnsafeSlow(slabBytes);
      this.used = 0;
      this.from = 0;
    }
    const at = this.used;
    this.used += length;
    this.bytes += length;
    return { out: this.buffer, at };
  }

  /** All pieces since the last `take`. */
  take(): Buffer[] {
    const pieces = this.full;
    if (this.used > this.from) pieces.push(this.buffer.subarray(this.from, this.used));
    this.from = this.used;
    this.full = [];
    this.bytes = 0;
    return pieces;
  }
}

export interface FrameSenderOptions {
  readonly socket: Duplex;
  readonly slab: Slab;
  readonly controlFramesMax: number;
  readonly unreadBytesMax: number;
  /** Calls `flush` when the running code is done. */
  readonly flushSoon: () => void;
  /** A stream's last frame was handed to the socket. */
  readonly onSent: (stream: ServerStream) => void;
  /** The peer makes us hold too much. */
  readonly onFull: (what: string) => void;
}

export class FrameSender {
  /** What the peer allows the whole connection to send in DATA frames. */
  window = windowDefault;
  private readonly options: FrameSenderOptions;
  private control: Uint8Array[] = [];
  private queue: ServerStream[] = [];
  /** Bytes of bodies that wait. */
  private waitingBytes = 0;
  private firstBlock = true;

  constructor(options: FrameSenderOptions) {
    this.options = options;
    // By the connection: it may have waited for this to say goodbye.
    options.socket.on('drain', options.flushSoon);
  }

  get idle(): boolean {
    return this.control.length === 0 && this.queue.length === 0;
  }

  /** A whole frame; goes before all responses that wait. */
  sendControl(frame: Uint8Array): void {
    if (this.control.length >= this.options.controlFramesMax) {
      this.options.onFull(`${this.control.length} frames that it does not read`);
      return;
    }
    this.control.push(frame);
    this.options.flushSoon();
  }

  /** A stream has something to send, or a window that may let it. */
  add(stream: ServerStream): void {
    if (stream.queued || stream.closed) return;
    stream.queued = true;
    this.queue.push(stream);
    this.options.flushSoon();
  }

  /** Counts a body that begins to wait. */
  hold(bytes: number): void {
    const { socket, unreadBytesMax, onFull } = this.options;
    this.waitingBytes += bytes;
    const unread = this.waitingBytes + socket.writableLength;
    if (unread > unreadBytesMax) onFull(`${unread} bytes of replies that it does not read`);
  }

  /** The stream is closed; what it had to say is dropped. */
  drop(stream: ServerStream): void {
    this.waitingBytes -= stream.bodyBytes;
    stream.body = [];
    stream.bodyBytes = 0;
    stream.head = undefined;
    stream.tail = undefined;
  }

  flush(): void {
    const { socket, slab } = this.options;
    if (socket.writableNeedDrain || !socket.writable) return;
    for (const frame of this.control) put(slab, frame);
    this.control = [];
    const { queue } = this;
    this.queue = [];
    // Behind those whose turn has not come.
    const again: ServerStream[] = [];
    let more = false;
    for (const stream of queue) {
      stream.queued = false;
      if (stream.closed) continue;
      const isTurn = slab.bytes < writeBytesMax;
      if (isTurn) this.emit(stream);
      if (stream.closed || stream.queued || !hasMore(stream)) continue;
      const blocked = stream.head === undefined && stream.bodyBytes > 0;
      // Blocked by its own window it comes back with a WINDOW_UPDATE of its own.
      if (blocked && stream.sendWindow <= 0) continue;
      stream.queued = true;
      (isTurn ? again : this.queue).push(stream);
      more ||= !(blocked && this.window <= 0);
    }
    this.queue.push(...again);
    this.write(slab.take());
    if (more) this.options.flushSoon();
  }

  private write(pieces: readonly Buffer[]): void {
    const { socket } = this.options;
    // What waits for a slow peer must not keep the whole slab that it lies in.
    const isSlow = socket.writableLength > 0;
    if (pieces.length > 1) socket.cork();
    for (const piece of pieces) socket.write(isSlow ? copyOf(piece) : piece);
    if (pieces.length > 1) socket.uncork();
  }

  private emit(stream: ServerStream): void {
    const { slab, onSent } = this.options;
    if (stream.head !== undefined) {
      this.putBlock(stream.id, stream.head, 0);
      stream.head = undefined;
    }
    if (stream.bodyBytes > 0) this.emitBody(stream);
    if (stream.bodyBytes > 0 || stream.tail === undefined) return;
    this.putBlock(stream.id, stream.tail, Flag.END_STREAM);
    stream.tail = undefined;
    // The request may still be arriving: tell the client that nobody reads it any more.
    if (!stream.remoteEnded) put(slab, resetFrame(stream.id, ErrorCode.NO_ERROR));
    onSent(stream);
  }

  private emitBody(stream: ServerStream): void {
    const before = stream.bodyBytes;
    let allowed = Math.min(before, stream.sendWindow, this.window, turnBytesMax);
    while (allowed > 0) {
      const length = Math.min(allowed, frameBytesMax);
      const { out, at } = this.options.slab.add(headBytes + length);
      writeHead(out, at, { length, type: FrameType.DATA, flags: 0, streamId: stream.id });
      takeBody(stream, out.subarray(at + headBytes, at + headBytes + length));
      allowed -= length;
    }
    const sent = before - stream.bodyBytes;
    stream.sendWindow -= sent;
    this.window -= sent;
    this.waitingBytes -= sent;
    if (before > fewBytes && stream.bodyBytes <= fewBytes) stream.onRoom?.();
  }

  /** HEADERS, and CONTINUATION as long as it takes. */
  private putBlock(streamId: number, block: Uint8Array, endStream: number): void {
    const whole = this.firstBlock ? Buffer.concat([noTable, block]) : block;
    this.firstBlock = false;
    for (let from = 0; from === 0 || from < whole.byteLength; from += frameBytesMax) {
      const length = Math.min(whole.byteLength - from, frameBytesMax);
      const last = from + length === whole.byteLength ? Flag.END_HEADERS : 0;
      const type = from === 0 ? FrameType.HEADERS : FrameType.CONTINUATION;
      const { out, at } = this.options.slab.add(headBytes + length);
      writeHead(out, at, { length, type, flags: last | (from === 0 ? endStream : 0), streamId });
      out.set(
        from === 0 && last !== 0 ? whole : whole.subarray(from, from + length),
        at + headBytes,
      );
    }
  }
}

function hasMore({ head, bodyBytes, tail }: ServerStream): boolean {
  return head !== undefined || bodyBytes > 0 || tail !== undefined;
}

/** In memory of its own, which is not shared with anything that lives longer. */
function copyOf(piece: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(piece.length);
  piece.copy(copy);
  return copy;
}

function put(slab: Slab, frame: Uint8Array): void {
  const { out, at } = slab.add(frame.byteLength);
  out.set(frame, at);
}

/** Fills `out` from the front of the waiting body. */
function takeBody(stream: ServerStream, out: Buffer): void {
  let at = 0;
  let used = 0;
  while (at < out.length) {
    const piece = stream.body[used];
    if (piece === undefined) break;
    const length = Math.min(piece.byteLength, out.length - at);
    out.set(length === piece.byteLength ? piece : piece.subarray(0, length), at);
    at += length;
    if (length === piece.byteLength) used += 1;
    else stream.body[used] = piece.subarray(length);
  }
  stream.body.splice(0, used);
  stream.bodyBytes -= out.length;
}
