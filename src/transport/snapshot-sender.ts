/**
 * One snapshot to one peer, on a connection of its own: hello, head, chunks as fast as the receiver
 * takes them, an empty chunk for the end, and the receiver's verdict.
 */
import { connect, type Socket } from 'node:net';
import { ByteReader, ByteWriter } from '../bytes.js';
import { FrameKind, FrameParser, frameOf, smallFrameBytesMax, type Frame } from './frame.js';
import { helloReplyCodec, judgeReply } from './handshake.js';
import { encodeSnapshotMeta, wellFormed } from './message-codec.js';
import { helloFrame, type OutgoingOptions } from './outgoing-connection.js';
import type { SnapshotHeader } from './transport.js';

export interface SnapshotResult {
  readonly ok: boolean;
  readonly reason: string;
}

export type SenderOptions = Pick<
  OutgoingOptions,
  'own' | 'node' | 'address' | 'clock' | 'registry' | 'limits'
>;

export class SnapshotSender {
  private readonly socket: Socket;
  private readonly parser = new FrameParser(smallFrameBytesMax);
  private readonly options: SenderOptions;
  private settle: (result: SnapshotResult) => void = () => undefined;
  /** Fulfilled once, by the verdict or by the end of the connection. */
  readonly result: Promise<SnapshotResult>;
  private ended = false;
  private accepted: () => void = () => undefined;
  private readonly welcome: Promise<void>;
  private onDrain: () => void = () => undefined;

  constructor(options: SenderOptions) {
    this.options = options;
    this.result = new Promise((resolve) => {
      this.settle = (result) => {
        this.ended = true;
        this.accepted();
        this.onDrain();
        resolve(result);
      };
    });
    this.welcome = new Promise((resolve) => {
      this.accepted = resolve;
    });
    this.socket = connect({ ...options.address(), noDelay: true });
    const { snapshotStallMsMax } = options.limits;
    this.socket.setTimeout(snapshotStallMsMax, () => {
      this.socket.destroy(new Error(`nothing moved for ${snapshotStallMsMax} ms`));
    });
    this.socket.on('drain', () => {
      this.onDrain();
    });
    this.socket.on('connect', () => {
      this.socket.write(helloFrame(options, 'snapshot'));
    });
    this.socket.on('data', (piece) => {
      this.onData(piece);
    });
    this.socket.on('error', (error) => {
      this.settle({ ok: false, reason: error.message });
    });
    this.socket.on('close', () => {
      this.settle({ ok: false, reason: 'the connection broke' });
    });
  }

  async send(header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>): Promise<SnapshotResult> {
    try {
      await this.welcome;
      if (this.ended) return await this.result;
      this.socket.write(headFrame(header));
      for await (const chunk of chunks) {
        // The verdict or the end of the connection may have come meanwhile.
        if (this.ended) break;
        // An empty one would mean the end.
        if (chunk.byteLength === 0) continue;
        if (!this.socket.write(frameOf(FrameKind.snapshotChunk, chunk))) await this.drained();
      }
      if (!this.ended) this.socket.write(frameOf(FrameKind.snapshotChunk, new Uint8Array()));
      return await this.result;
    } finally {
      this.socket.destroy();
    }
  }

  abort(): void {
    this.socket.destroy();
  }

  private drained(): Promise<void> {
    return new Promise((resolve) => {
      this.onDrain = resolve;
      // The end may have come before, and then wakes nobody any more.
      if (this.ended) resolve();
    });
  }

  private onData(piece: Buffer): void {
    try {
      this.parser.push(piece, (frame) => {
        this.onFrame(frame);
      });
    } catch (error) {
      this.settle({ ok: false, reason: String(error) });
    }
  }

  private onFrame({ kind, rest }: Frame): void {
    if (kind === FrameKind.hello) {
      const reply = wellFormed('hello reply', () => helloReplyCodec.decode(rest));
      const wrong = judgeReply(reply, this.options.node, this.options.registry);
      if (wrong === undefined) this.accepted();
      else this.settle({ ok: false, reason: `${wrong.code}: ${wrong.message}` });
    } else if (kind === FrameKind.verdict) {
      const reader = new ByteReader(rest);
      this.settle(wellFormed('verdict', () => ({ ok: reader.bool(), reason: reader.text() })));
    }
  }
}

function headFrame({ group, generation, from, to, term, snapshot }: SnapshotHeader): Buffer {
  const writer = new ByteWriter();
  writer.u32(group);
  writer.u64(generation);
  writer.u32(from);
  writer.u32(to);
  writer.u64(term);
  encodeSnapshotMeta(writer, snapshot);
  return frameOf(FrameKind.snapshotHead, writer.view());
}
