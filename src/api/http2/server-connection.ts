/**
 * A server's side of one HTTP/2 connection (RFC 9113): takes frames, keeps the state of its streams,
 * and says what is wrong with the right code and scope. Knows nothing of what is asked and answered.
 */
import type { Duplex } from 'node:stream';
import type { Cancel, Clock } from '../../observe/clock.js';
import { FrameReader } from './frame-reader.js';
import { FrameSender, type Slab } from './frame-sender.js';
import {
  ConnectionError,
  ErrorCode,
  Flag,
  FrameType,
  goawayFrame,
  pingAck,
  resetFrame,
  Setting,
  settingsAck,
  settingsFrame,
  windowDefault,
  windowMax,
  windowUpdateFrame,
  type FrameHead,
} from './frames.js';
import { HpackDecoder } from './hpack-decoder.js';
import type { HeaderField } from './hpack-table.js';
import { Allowance, tooManyResets, type Http2Limits } from './limits.js';
import { checkPriority, unpadded, withoutPriority } from './payload.js';
import { readSettings } from './peer-settings.js';
import { isRegular, readRequest, type RequestHead } from './request-head.js';
import { ServerStream, type StreamConsumer, type StreamPort } from './server-stream.js';

export interface ServerConnectionOptions {
  readonly socket: Duplex;
  readonly clock: Clock;
  readonly limits: Http2Limits;
  readonly slab: Slab;
  /** A request begins; what is returned takes its body. May answer at once. */
  readonly onStream: (stream: ServerStream, head: RequestHead) => StreamConsumer;
  readonly onClosed: () => void;
}

/** Of the dynamic table that the peer fills: the default, so it is not announced. */
const tableBytesMax = 4096;

/** A header block whose end has not come yet. */
interface OpenBlock {
  readonly streamId: number;
  readonly endStream: boolean;
  readonly parts: Buffer[];
  bytes: number;
}

export class ServerConnection implements StreamPort {
  private readonly options: ServerConnectionOptions;
  private readonly reader: FrameReader;
  private readonly decoder: HpackDecoder;
  private readonly sender: FrameSender;
  private readonly streams = new Map<number, ServerStream>();
  /**
   * Streams that this side has ended while the peer may still be sending on them, and those that the
   * peer has reset: what comes is ignored. Oldest first, no more than there may be streams, twice over.
   */
  private readonly cut = new Set<number>();
  private readonly resets: Allowance;
  private readonly idleFrames: Allowance;
  private readonly flush: () => void;
  private readonly cancelPrefaceWatch: Cancel;
  private cancelLinger: Cancel = () => undefined;
  private flushing = false;
  private sawSettings = false;
  private block: OpenBlock | undefined;
  private lastStreamId = 0;
  /** For streams to come. */
  private peerStreamWindow = windowDefault;
  private receiveWindow: number;
  private unreturned = 0;
  /** One of both sides has said goodbye: the connection ends with its last stream. */
  private leaving = false;
  /** Nothing is read any more. */
  private ended = false;

  constructor(options: ServerConnectionOptions) {
    const { socket, clock, limits, slab } = options;
    this.options = options;
    this.receiveWindow = limits.connectionWindowBytes;
    this.resets = new Allowance(limits.resets, clock);
    this.idleFrames = new Allowance(limits.idleFrames, clock);
    this.decoder = new HpackDecoder({ tableBytesMax, listBytesMax: limits.headerListBytesMax });
    this.reader = new FrameReader((head, payload) => {
      if (!this.ended) this.onFrame(head, payload);
    });
    this.flush = () => {
      this.flushNow();
    };
    this.sender = new FrameSender({
      socket,
      slab,
      controlFramesMax: limits.controlFramesMax,
      unreadBytesMax: limits.unreadBytesMax,
      flushSoon: () => {
        this.flushSoon();
      },
      onSent: (stream) => {
        if (!stream.remoteEnded) this.rememberCut(stream.id);
        this.close(stream);
      },
      onFull: (what) => {
        this.fail(new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, what));
      },
    });
    this.cancelPrefaceWatch = clock.after(limits.prefaceMsMax, () => {
      if (!this.sawSettings) socket.destroy();
    });
    this.listen();
    this.greet();
  }

  get streamCount(): number {
    return this.streams.size;
  }

  /** Takes no new streams; the connection ends when those in progress have. */
  leave(): void {
    if (this.leaving || this.ended) return;
    this.leaving = true;
    this.sender.sendControl(goawayFrame(this.lastStreamId, ErrorCode.NO_ERROR));
  }

  /** Ends it at once. */
  destroy(): void {
    this.options.socket.destroy();
  }

  // What streams ask for.

  sendSoon(stream: ServerStream): void {
    this.sender.add(stream);
  }

  held(bytes: number): void {
    this.sender.hold(bytes);
  }

  consumed(stream: ServerStream, bytes: number): void {
    this.returnToConnection(bytes);
    if (stream.closed || stream.remoteEnded) return;
    stream.unreturned += bytes;
    if (stream.unreturned < this.options.limits.streamWindowBytes / 2) return;
    stream.receiveWindow += stream.unreturned;
    this.sender.sendControl(windowUpdateFrame(stream.id, stream.unreturned));
    stream.unreturned = 0;
  }

  reset(stream: ServerStream, code: number): void {
    if (!stream.remoteEnded) this.rememberCut(stream.id);
    this.close(stream);
    this.sender.sendControl(resetFrame(stream.id, code));
  }

  private listen(): void {
    const { socket, onClosed } = this.options;
    socket.on('data', (chunk: Buffer) => {
      this.onBytes(chunk);
    });
    socket.on('error', () => {
      // 'close' follows.
    });
    socket.on('close', () => {
      this.ended = true;
      this.cancelPrefaceWatch();
      this.cancelLinger();
      this.cutAll(ErrorCode.CANCEL);
      onClosed();
    });
  }

  private greet(): void {
    const { streamsMax, streamWindowBytes, connectionWindowBytes, headerListBytesMax } =
      this.options.limits;
    this.sender.sendControl(
      settingsFrame([
        [Setting.MAX_CONCURRENT_STREAMS, streamsMax],
        [Setting.INITIAL_WINDOW_SIZE, streamWindowBytes],
        [Setting.MAX_HEADER_LIST_SIZE, headerListBytesMax],
      ]),
    );
    this.sender.sendControl(windowUpdateFrame(0, connectionWindowBytes - windowDefault));
  }

  private onBytes(chunk: Buffer): void {
    if (this.ended) return;
    try {
      this.reader.push(chunk);
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      this.fail(error);
    }
  }

  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(this.flush);
  }

  private flushNow(): void {
    this.flushing = false;
    if (this.ended) return;
    this.sender.flush();
    if (this.leaving && this.streams.size === 0 && this.sender.idle) this.finish();
  }

  /** All is said: ends this side, and the peer's when it has read it. */
  private finish(): void {
    const { socket, clock, limits } = this.options;
    this.ended = true;
    socket.end(() => {
      this.cancelLinger = clock.after(limits.lingerMs, () => socket.destroy());
    });
  }

  /** An error of the connection: says so, and reads nothing any more (RFC 9113, 5.4.1). */
  private fail({ code, message }: ConnectionError): void {
    if (this.ended) return;
    const { socket, clock, limits } = this.options;
    this.ended = true;
    socket.end(goawayFrame(this.lastStreamId, code, message));
    // Time for the peer to read that, whatever it has not read before.
    this.cancelLinger = clock.after(limits.lingerMs, () => socket.destroy());
    this.cutAll(code);
  }

  private cutAll(code: number): void {
    for (const stream of this.streams.values()) {
      this.close(stream);
      stream.consumer?.onGone(code);
    }
  }

  private onFrame(head: FrameHead, payload: Buffer): void {
    const { type, streamId } = head;
    if (!this.sawSettings && (type !== FrameType.SETTINGS || (head.flags & Flag.ACK) !== 0)) {
      throw protocolError('the first frame is not SETTINGS');
    }
    if (this.block !== undefined) {
      if (type !== FrameType.CONTINUATION || streamId !== this.block.streamId) {
        throw protocolError('a header block is interrupted');
      }
      this.onContinuation(this.block, head, payload);
      return;
    }
    if (type === FrameType.DATA) this.onData(head, payload);
    else if (type === FrameType.HEADERS) this.onHeaders(head, payload);
    else if (type === FrameType.WINDOW_UPDATE) this.onWindowUpdate(streamId, payload);
    else if (type === FrameType.RST_STREAM) this.onReset(streamId, payload);
    else if (type === FrameType.SETTINGS) this.onSettings(head, payload);
    else if (type === FrameType.PING) this.onPing(head, payload);
    else if (type === FrameType.GOAWAY) this.onGoaway(streamId, payload);
    else if (type === FrameType.PRIORITY) this.onPriority(streamId, payload);
    else if (type === FrameType.PUSH_PROMISE) throw protocolError('a client that pushes');
    else if (type === FrameType.CONTINUATION) throw protocolError('CONTINUATION of nothing');
    else this.countIdle();
  }

  private onHeaders(head: FrameHead, payload: Buffer): void {
    const { streamId, flags } = head;
    if (streamId === 0) throw protocolError('HEADERS on stream 0');
    const part = withoutPriority(head, unpadded(flags, payload));
    const endStream = (flags & Flag.END_STREAM) !== 0;
    if ((flags & Flag.END_HEADERS) !== 0) this.onBlock(streamId, part, endStream);
    else this.block = { streamId, endStream, parts: [part], bytes: part.length };
  }

  private onContinuation(block: OpenBlock, { flags }: FrameHead, payload: Buffer): void {
    const { headerBlockBytesMax, continuationsMax } = this.options.limits;
    block.bytes += payload.length;
    // As many as there are parts before it: the first is HEADERS.
    if (block.bytes > headerBlockBytesMax || block.parts.length > continuationsMax) {
      throw new ConnectionError(
        ErrorCode.ENHANCE_YOUR_CALM,
        `a header block of ${block.bytes} bytes in ${block.parts.length + 1} frames: ` +
          `the limits are ${headerBlockBytesMax} and ${continuationsMax + 1}`,
      );
    }
    block.parts.push(payload);
    if ((flags & Flag.END_HEADERS) === 0) return;
    this.block = undefined;
    this.onBlock(block.streamId, Buffer.concat(block.parts), block.endStream);
  }

  private onBlock(streamId: number, block: Buffer, endStream: boolean): void {
    // Also of streams that are refused or gone: the table must see every block.
    const fields = this.decoder.decode(block);
    const stream = this.streams.get(streamId);
    if (stream !== undefined) this.onTrailers(stream, fields, endStream);
    else if (streamId > this.lastStreamId) this.onRequest(streamId, fields, endStream);
    else this.onLate(streamId, endStream);
  }

  private onRequest(
    streamId: number,
    fields: readonly HeaderField[] | undefined,
    endStream: boolean,
  ): void {
    if (streamId % 2 === 0) throw protocolError('a client opens a stream with an even id');
    this.lastStreamId = streamId;
    const { limits, onStream } = this.options;
    const head = fields === undefined ? undefined : readRequest(fields);
    const full = this.leaving || this.streams.size >= limits.streamsMax;
    if (full) this.refuse(streamId, ErrorCode.REFUSED_STREAM, endStream);
    else if (fields === undefined) this.refuse(streamId, ErrorCode.ENHANCE_YOUR_CALM, endStream);
    else if (head === undefined) this.refuse(streamId, ErrorCode.PROTOCOL_ERROR, endStream);
    else {
      const windows = { send: this.peerStreamWindow, receive: limits.streamWindowBytes };
      const stream = new ServerStream(this, streamId, windows);
      stream.missing = head.contentLength;
      this.streams.set(streamId, stream);
      const consumer = onStream(stream, head);
      // It may have been reset at once.
      if (stream.closed) return;
      stream.consumer = consumer;
      if (endStream) this.endRequest(stream);
    }
  }

  private onTrailers(
    stream: ServerStream,
    fields: readonly HeaderField[] | undefined,
    endStream: boolean,
  ): void {
    if (stream.remoteEnded) this.streamError(stream, ErrorCode.STREAM_CLOSED);
    else if (!endStream || fields?.every(isRegular) !== true) {
      this.streamError(stream, ErrorCode.PROTOCOL_ERROR);
    } else this.endRequest(stream);
  }

  /** A frame of a stream that is no more. */
  private onLate(streamId: number, endStream: boolean): void {
    if (!this.cut.has(streamId)) {
      throw new ConnectionError(ErrorCode.STREAM_CLOSED, `stream ${streamId} is closed`);
    }
    if (endStream) this.cut.delete(streamId);
  }

  private onData({ streamId, flags, length }: FrameHead, payload: Buffer): void {
    if (streamId === 0) throw protocolError('DATA on stream 0');
    this.checkOpened(streamId);
    const bytes = unpadded(flags, payload);
    const endStream = (flags & Flag.END_STREAM) !== 0;
    this.receiveWindow -= length;
    if (this.receiveWindow < 0) {
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'DATA beyond the window');
    }
    if (bytes.length === 0 && !endStream) this.countIdle();
    const stream = this.streams.get(streamId);
    if (stream === undefined) {
      this.returnToConnection(length);
      this.onLate(streamId, endStream);
      return;
    }
    stream.receiveWindow -= length;
    if (stream.missing !== undefined) stream.missing -= bytes.length;
    if (!this.mayTake(stream)) {
      this.returnToConnection(length);
      return;
    }
    if (length > bytes.length) this.consumed(stream, length - bytes.length);
    if (endStream) stream.remoteEnded = true;
    if (bytes.length > 0) stream.consumer?.onData(bytes);
    if (endStream) this.endRequest(stream);
  }

  /** False when the DATA that was just counted breaks a rule; then the stream is gone. */
  private mayTake(stream: ServerStream): boolean {
    if (stream.remoteEnded) this.streamError(stream, ErrorCode.STREAM_CLOSED);
    else if (stream.receiveWindow < 0) this.streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
    else if ((stream.missing ?? 0) < 0) this.streamError(stream, ErrorCode.PROTOCOL_ERROR);
    else return true;
    return false;
  }

  private endRequest(stream: ServerStream): void {
    stream.remoteEnded = true;
    if ((stream.missing ?? 0) > 0) this.streamError(stream, ErrorCode.PROTOCOL_ERROR);
    else stream.consumer?.onEnd();
  }

  private onWindowUpdate(streamId: number, payload: Buffer): void {
    const increment = fourBytes('WINDOW_UPDATE', payload) & windowMax;
    if (streamId === 0) {
      if (increment === 0) throw protocolError('WINDOW_UPDATE of 0');
      this.sender.window += increment;
      if (this.sender.window > windowMax) {
        throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a window over 2^31-1');
      }
      if (!this.sender.idle) this.flushSoon();
      return;
    }
    this.checkOpened(streamId);
    const stream = this.streams.get(streamId);
    if (stream === undefined) return;
    stream.sendWindow += increment;
    if (increment === 0) this.streamError(stream, ErrorCode.PROTOCOL_ERROR);
    else if (stream.sendWindow > windowMax) {
      this.streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
    } else if (stream.bodyBytes > 0) this.sender.add(stream);
  }

  private onReset(streamId: number, payload: Buffer): void {
    const code = fourBytes('RST_STREAM', payload);
    if (streamId === 0) throw protocolError('RST_STREAM on stream 0');
    this.checkOpened(streamId);
    const stream = this.streams.get(streamId);
    if (stream === undefined) return;
    // No frame should follow, but grpc-java may have one in its queue.
    this.rememberCut(streamId);
    this.close(stream);
    stream.consumer?.onGone(code);
    this.countReset();
  }

  private onSettings({ streamId, flags }: FrameHead, payload: Buffer): void {
    if (streamId !== 0) throw protocolError('SETTINGS on a stream');
    if ((flags & Flag.ACK) !== 0) {
      if (payload.length > 0) throw sizeError('an acknowledgement of SETTINGS with content');
      return;
    }
    if (this.sawSettings) this.countIdle();
    this.sawSettings = true;
    // The encoder here uses no table, and frames are never over the least limit: the rest is for others.
    const streamWindow = readSettings(payload).initialWindowSize ?? this.peerStreamWindow;
    const change = streamWindow - this.peerStreamWindow;
    this.peerStreamWindow = streamWindow;
    if (change !== 0) for (const stream of this.streams.values()) this.changeWindow(stream, change);
    this.sender.sendControl(settingsAck);
  }

  /** By a change of the initial window, which reaches back to streams in progress (6.9.2). */
  private changeWindow(stream: ServerStream, change: number): void {
    stream.sendWindow += change;
    if (stream.sendWindow > windowMax) {
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a window over 2^31-1');
    }
    if (stream.bodyBytes > 0 && change > 0) this.sender.add(stream);
  }

  private onPing({ streamId, flags }: FrameHead, payload: Buffer): void {
    if (streamId !== 0) throw protocolError('PING on a stream');
    if (payload.length !== 8) throw sizeError('a PING that is not 8 bytes');
    if ((flags & Flag.ACK) === 0) this.sender.sendControl(pingAck(payload));
  }

  private onGoaway(streamId: number, payload: Buffer): void {
    if (streamId !== 0) throw protocolError('GOAWAY on a stream');
    if (payload.length < 8) throw sizeError('a GOAWAY of less than 8 bytes');
    this.leaving = true;
    this.flushSoon();
  }

  private onPriority(streamId: number, payload: Buffer): void {
    if (streamId === 0) throw protocolError('PRIORITY on stream 0');
    const stream = this.streams.get(streamId);
    if (payload.length === 5) {
      checkPriority(streamId, payload);
      this.countIdle();
    } else if (stream !== undefined) this.streamError(stream, ErrorCode.FRAME_SIZE_ERROR);
    else throw sizeError('a PRIORITY that is not 5 bytes');
  }

  /** A frame of a stream that nobody has opened is an error of the connection (5.1). */
  private checkOpened(streamId: number): void {
    if (streamId > this.lastStreamId || streamId % 2 === 0) {
      throw protocolError(`stream ${streamId} has not been opened`);
    }
  }

  private streamError(stream: ServerStream, code: number): void {
    this.reset(stream, code);
    stream.consumer?.onGone(code);
    this.countReset();
  }

  private refuse(streamId: number, code: number, endStream: boolean): void {
    if (!endStream) this.rememberCut(streamId);
    this.sender.sendControl(resetFrame(streamId, code));
    this.countReset();
  }

  /** Work that is begun and thrown away costs the peer nothing: it may not do so for ever. */
  private countReset(): void {
    if (!this.resets.take()) {
      const reason = tooManyResets(this.options.limits.resets);
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, reason);
    }
  }

  private countIdle(): void {
    if (!this.idleFrames.take()) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'too many frames that bring nothing');
    }
  }

  private rememberCut(streamId: number): void {
    this.cut.add(streamId);
    if (this.cut.size <= 2 * this.options.limits.streamsMax) return;
    for (const oldest of this.cut) {
      this.cut.delete(oldest);
      break;
    }
  }

  private close(stream: ServerStream): void {
    stream.closed = true;
    this.sender.drop(stream);
    this.streams.delete(stream.id);
    if (this.leaving) this.flushSoon();
  }

  private returnToConnection(bytes: number): void {
    this.unreturned += bytes;
    if (this.unreturned < this.options.limits.connectionWindowBytes / 2) return;
    this.receiveWindow += this.unreturned;
    this.sender.sendControl(windowUpdateFrame(0, this.unreturned));
    this.unreturned = 0;
  }
}

function protocolError(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.PROTOCOL_ERROR, what);
}

function sizeError(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, what);
}

function fourBytes(what: string, payload: Buffer): number {
  if (payload.length !== 4) throw sizeError(`a ${what} that is not 4 bytes`);
  return payload.readUInt32BE(0);
}
