/**
 * A connection that a peer opened to this node: checked once, then either Raft messages and probes,
 * or one snapshot.
 */
import type { Socket } from 'node:net';
import { groupId, nodeId, replicaId, type NodeId } from '../../raft/index.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import { ByteReader, ByteWriter } from '../bytes.js';
import {
  FrameKind,
  FrameParser,
  frameBytesMax,
  frameOf,
  smallFrameBytesMax,
  type Frame,
} from './frame.js';
import {
  helloCodec,
  helloReplyCodec,
  judgeHello,
  type DirectoryRegistry,
  type OwnIdentity,
} from './handshake.js';
import {
  decodeMessage,
  decodeSnapshotMeta,
  MalformedMessage,
  wellFormed,
} from './message-codec.js';
import {
  SnapshotInterrupted,
  type GroupMessage,
  type IncomingSnapshot,
  type SnapshotHeader,
  type TransportReceiver,
} from './transport.js';

/** Chunks waiting to be taken before the socket is not read any more (256 KiB each: 2 MiB). */
const chunksWaitingMax = 8;
/** Pongs that the peer has not fetched: a few thousand. It probes, and does not read the answers. */
const unreadBytesMax = 64 * 1024;
const pingBytes = 8;

export interface IncomingOptions {
  readonly own: OwnIdentity;
  readonly isKnown: (node: number) => boolean;
  readonly registry: DirectoryRegistry;
  readonly receiver: TransportReceiver;
  readonly clock: Clock;
  readonly log: Log;
  readonly handshakeMsMax: number;
  /** Calls of `probe` without a byte of the peer after which it is gone, by purpose. */
  readonly silentProbesMax: { readonly raft: number; readonly snapshot: number };
  readonly count: (name: string, by?: number) => void;
  /** The peer has said who it is, and may stay. */
  readonly onWelcome: (connection: IncomingConnection) => void;
  /** One more snapshot may come in; false: refuse it. */
  readonly admitSnapshot: (connection: IncomingConnection) => boolean;
}

export class IncomingConnection {
  private peer: NodeId | undefined;
  private purpose = '';
  private snapshot: ChunkQueue | undefined;
  private refused = false;
  private silentProbes = 0;
  private readonly parser = new FrameParser(smallFrameBytesMax);
  private readonly socket: Socket;
  private readonly options: IncomingOptions;

  constructor(socket: Socket, options: IncomingOptions) {
    this.socket = socket;
    this.options = options;
    socket.setNoDelay(true);
    const cancel = options.clock.after(options.handshakeMsMax, () => {
      if (this.peer === undefined) socket.destroy();
    });
    socket.on('data', (piece) => {
      this.onData(piece);
    });
    socket.on('error', (error) => {
      options.log(
        'debug',
        { peer: this.peer, error: error.message },
        'connection of a peer failed',
      );
    });
    socket.on('close', () => {
      cancel();
      this.snapshot?.fail('the connection broke');
    });
  }

  destroy(): void {
    this.socket.destroy();
  }

  /**
   * Called regularly: cuts a connection whose other end is gone without a word, which would hold its
   * socket for ever, and the install of its snapshot too. Calls are counted, not time: after a stall
   * of this process the peer's bytes are still waiting to be read.
   */
  probe(): void {
    if (this.peer === undefined || this.snapshot?.isOurTurn === true) this.silentProbes = 0;
    const max = this.options.silentProbesMax;
    if (++this.silentProbes <= (this.purpose === 'snapshot' ? max.snapshot : max.raft)) return;
    this.options.log('warn', { peer: this.peer }, 'peer fell silent: connection closed');
    this.socket.destroy();
  }

  private onData(piece: Buffer): void {
    this.silentProbes = 0;
    this.options.count('bytesIn', piece.byteLength);
    try {
      this.parser.push(piece, (frame) => {
        this.onFrame(frame);
      });
    } catch (error) {
      // What the receiver throws is a bug of this node, which must not go on.
      if (!(error instanceof MalformedMessage)) throw error;
      // Bytes that no node sends: whatever is wrong over there, this connection is worth nothing.
      this.options.count('malformed');
      this.options.log(
        'warn',
        { peer: this.peer, address: this.socket.remoteAddress, error: error.message },
        'damaged or foreign bytes on the peer port: connection closed',
      );
      this.socket.destroy();
    }
  }

  private onFrame({ kind, rest }: Frame): void {
    if (this.refused) return;
    if (this.peer === undefined) {
      if (kind !== FrameKind.hello) throw new MalformedMessage('the first frame is no hello');
      this.onHello(rest);
    } else if (kind === FrameKind.messages && this.purpose === 'raft') {
      this.onMessages(this.peer, rest);
    } else if (kind === FrameKind.ping) {
      this.onPing(rest);
    } else if (
      kind === FrameKind.snapshotHead &&
      this.purpose === 'snapshot' &&
      this.snapshot === undefined
    ) {
      this.onSnapshotHead(this.peer, rest);
    } else if (kind === FrameKind.snapshotChunk && this.snapshot !== undefined) {
      this.snapshot.push(rest);
    } else {
      throw new MalformedMessage(`frame kind ${kind} is out of place`);
    }
  }

  private onHello(bytes: Uint8Array): void {
    const { own, isKnown, registry, log, clock } = this.options;
    const hello = wellFormed('hello', () => helloCodec.decode(bytes));
    const refusal = judgeHello(hello, own, { isKnown, registry });
    const reply = helloReplyCodec.encode({
      accepted: refusal === undefined,
      code: refusal?.code ?? '',
      message: refusal?.message ?? '',
      nodeId: own.nodeId,
      directoryId: own.directoryId,
      clockMs: Math.floor(clock.wallMs()),
    });
    const frame = frameOf(FrameKind.hello, reply);
    if (refusal !== undefined) {
      log(
        'warn',
        {
          peer: hello.nodeId,
          cluster: hello.clusterId,
          address: this.socket.remoteAddress,
          code: refusal.code,
          reason: refusal.message,
        },
        'refused a peer',
      );
      this.refused = true;
      this.socket.end(frame);
      return;
    }
    this.parser.payloadBytesMax = frameBytesMax;
    this.peer = nodeId(hello.nodeId);
    this.purpose = hello.purpose;
    this.options.onWelcome(this);
    this.socket.write(frame);
  }

  private onMessages(peer: NodeId, rest: Buffer): void {
    const reader = new ByteReader(rest);
    const messages: GroupMessage[] = [];
    while (reader.left > 0) messages.push(decodeMessage(reader));
    this.options.count('framesIn');
    this.options.count('messagesIn', messages.length);
    this.options.receiver.onMessages(peer, messages);
  }

  private onPing(rest: Buffer): void {
    if (rest.byteLength !== pingBytes) throw new MalformedMessage('a ping of another length');
    if (this.socket.writableLength > unreadBytesMax)
      throw new MalformedMessage('pings whose answers nobody reads');
    const writer = new ByteWriter();
    writer.raw(rest);
    writer.u64(Math.floor(this.options.clock.wallMs()));
    this.socket.write(frameOf(FrameKind.pong, writer.view()));
  }

  private onSnapshotHead(peer: NodeId, rest: Buffer): void {
    const header = wellFormed('snapshot head', () => decodeHead(rest));
    const chunks = new ChunkQueue(this.socket);
    this.snapshot = chunks;
    const incoming: IncomingSnapshot = {
      header,
      node: peer,
      chunks,
      finish: ({ ok, reason = '' }) => {
        const writer = new ByteWriter();
        writer.bool(ok);
        writer.text(reason);
        chunks.discard();
        this.socket.end(frameOf(FrameKind.verdict, writer.view()));
      },
    };
    if (this.options.admitSnapshot(this)) this.options.receiver.onSnapshot(incoming);
    else incoming.finish({ ok: false, reason: 'too many snapshots are coming in at once' });
  }
}

/** Chunks between the socket and whoever takes them; a full queue stops the reading. */
class ChunkQueue implements AsyncIterable<Uint8Array> {
  private readonly chunks: Buffer[] = [];
  private ended = false;
  private failure: string | undefined;
  private discarding = false;
  private wake: () => void = () => undefined;
  private readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  /** Whoever takes the chunks is to move, or the sender has sent all and waits for the verdict. */
  get isOurTurn(): boolean {
    return !this.discarding && (this.ended || this.socket.isPaused());
  }

  push(chunk: Buffer): void {
    if (this.discarding) return;
    if (chunk.byteLength === 0) this.ended = true;
    else this.chunks.push(chunk);
    if (this.chunks.length >= chunksWaitingMax) this.socket.pause();
    this.wake();
  }

  /**
   * The verdict is spoken. What still comes is read and forgotten: on a paused socket the end of the
   * connection would never be seen, and the socket never be closed.
   */
  discard(): void {
    this.discarding = true;
    this.chunks.length = 0;
    this.socket.resume();
  }

  fail(reason: string): void {
    if (!this.ended) this.failure = reason;
    this.wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.chunks.shift();
      if (chunk !== undefined) {
        if (this.chunks.length < chunksWaitingMax / 2) this.socket.resume();
        yield chunk;
      } else if (this.ended) {
        return;
      } else if (this.failure !== undefined) {
        throw new SnapshotInterrupted(this.failure);
      } else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    }
  }
}

function decodeHead(bytes: Uint8Array): SnapshotHeader {
  const reader = new ByteReader(bytes);
  const [group, generation] = [groupId(reader.u32()), reader.u64()];
  const [from, to] = [replicaId(reader.u32()), replicaId(reader.u32())];
  const head = { group, generation, from, to, term: reader.u64() };
  return { ...head, snapshot: decodeSnapshotMeta(reader) };
}
