/**
 * The connection this node opens to one peer, for Raft messages: opened again for ever when it
 * breaks, with growing pauses; probed for life, round trip and clock.
 */
import { connect, type Socket } from 'node:net';
import type { NodeId } from '../../raft/index.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import { ByteReader, ByteWriter } from '../bytes.js';
import {
  FrameKind,
  FrameParser,
  frameOf,
  FrameWriter,
  smallFrameBytesMax,
  type Frame,
} from './frame.js';
import {
  helloCodec,
  helloReplyCodec,
  judgeReply,
  peerProtocol,
  type DirectoryRegistry,
  type OwnIdentity,
} from './handshake.js';
import { encodeMessage, MalformedMessage, wellFormed } from './message-codec.js';
import type { GroupMessage } from './transport.js';

/**
 * A frame that is longer leaves at once: with the largest entry behind it, it stays below what a receiver
 * takes (32 + 256 < 320 MiB), however much there is to say.
 */
const frameBytesWanted = 32 * 1024 * 1024;

export interface PeerAddress {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionLimits {
  /** Unsent bytes of one connection; above it frames are dropped. */
  readonly queueBytesMax: number;
  readonly handshakeMsMax: number;
  readonly pingEveryMs: number;
  /** Without an answer for so long a connection is dead. */
  readonly silenceMsMax: number;
  /** A snapshot of which nothing moves for so long is given up, at both ends. */
  readonly snapshotStallMsMax: number;
  readonly reconnectMsMin: number;
  readonly reconnectMsMax: number;
}

export interface OutgoingOptions {
  readonly own: OwnIdentity;
  readonly node: NodeId;
  readonly address: () => PeerAddress;
  readonly clock: Clock;
  readonly limits: ConnectionLimits;
  readonly registry: DirectoryRegistry;
  readonly log: Log;
  readonly count: (name: string, by?: number) => void;
  readonly onConnection: (connected: boolean) => void;
  readonly onFrame?: ((bytes: number) => void) | undefined;
}

/** What a Hello says about this node, for either purpose. */
export function helloFrame(
  options: Pick<OutgoingOptions, 'own' | 'node' | 'clock'>,
  purpose: 'raft' | 'snapshot',
): Buffer {
  const { own, node, clock } = options;
  return frameOf(
    FrameKind.hello,
    helloCodec.encode({
      protocol: peerProtocol,
      clusterId: own.clusterId,
      nodeId: own.nodeId,
      toNodeId: node,
      directoryId: own.directoryId,
      purpose,
      clockMs: Math.floor(clock.wallMs()),
    }),
  );
}

export class OutgoingConnection {
  connected = false;
  roundTripUs = 0;
  clockOffsetMs: number | undefined;
  private socket: Socket | undefined;
  private parser = new FrameParser(smallFrameBytesMax);
  private readonly frame = new FrameWriter();
  private messages = 0;
  private pauseMs: number;
  /** Probes sent since the peer was last heard of. */
  private silentProbes = 0;
  private atLastProbe = { queued: 0, taken: 0 };
  private cancelReconnect: Cancel = () => undefined;
  private closed = false;
  private lastRefusal = '';
  private readonly options: OutgoingOptions;

  constructor(options: OutgoingOptions) {
    this.options = options;
    this.pauseMs = options.limits.reconnectMsMin;
    this.open();
  }

  /** Joins the frame that leaves next; false when there is no connection. */
  add(message: GroupMessage): boolean {
    if (!this.connected) return false;
    if (this.frame.size > frameBytesWanted) this.flush();
    if (this.frame.isEmpty) this.frame.begin(FrameKind.messages);
    encodeMessage(this.frame.payload, message);
    this.messages++;
    return true;
  }

  /** Sends what has been added, as one frame and with one write. */
  flush(): void {
    if (this.frame.isEmpty) return;
    const { limits, count } = this.options;
    const frame = this.frame.end();
    const messages = this.messages;
    this.messages = 0;
    if (
      this.socket === undefined ||
      !this.connected ||
      this.socket.writableLength > limits.queueBytesMax
    ) {
      // Raft sends again what matters.
      count('messagesDropped', messages);
      return;
    }
    count('framesOut');
    count('messagesOut', messages);
    count('bytesOut', frame.byteLength);
    this.options.onFrame?.(frame.byteLength);
    this.socket.write(frame);
  }

  get queuedBytes(): number {
    return this.socket?.writableLength ?? 0;
  }

  /**
   * Called regularly: probes the connection, and cuts one that is dead. Probes are counted, not
   * time: after a stall of this process the answers are still waiting to be read.
   */
  probe(): void {
    const { clock, limits } = this.options;
    if (!this.connected || this.socket === undefined) return;
    const queued = this.socket.writableLength;
    const taken = this.socket.bytesWritten - queued;
    // A full send buffer has made room: the peer takes bytes, and the probes wait behind others.
    if (this.atLastProbe.queued > 0 && taken > this.atLastProbe.taken) this.silentProbes = 0;
    this.atLastProbe = { queued, taken };
    if (++this.silentProbes > Math.ceil(limits.silenceMsMax / limits.pingEveryMs)) {
      this.socket.destroy(new Error(`no answer for ${limits.silenceMsMax} ms`));
      return;
    }
    const writer = new ByteWriter();
    writer.u64(Math.floor(clock.monotonicMs() * 1000));
    this.socket.write(frameOf(FrameKind.ping, writer.view()));
  }

  close(): void {
    this.closed = true;
    this.cancelReconnect();
    this.socket?.destroy();
  }

  private open(): void {
    if (this.closed) return;
    const { clock, limits } = this.options;
    const { host, port } = this.options.address();
    const socket = connect({ host, port, noDelay: true });
    this.socket = socket;
    this.parser = new FrameParser(smallFrameBytesMax);
    const cancel = clock.after(limits.handshakeMsMax, () => {
      if (!this.connected)
        socket.destroy(new Error(`no handshake within ${limits.handshakeMsMax} ms`));
    });
    socket.on('connect', () => {
      socket.write(helloFrame(this.options, 'raft'));
    });
    socket.on('data', (piece) => {
      this.onData(socket, piece);
    });
    socket.on('error', (error) => {
      this.options.log(
        'debug',
        { peer: this.options.node, error: error.message },
        'peer connection failed',
      );
    });
    socket.on('close', () => {
      cancel();
      this.onClose();
    });
  }

  private onData(socket: Socket, piece: Buffer): void {
    this.silentProbes = 0;
    try {
      this.parser.push(piece, (frame) => {
        this.onFrame(socket, frame);
      });
    } catch (error) {
      // What the receiver throws is a bug of this node, which must not go on.
      if (!(error instanceof MalformedMessage)) throw error;
      this.options.count('malformed');
      this.options.log(
        'warn',
        { peer: this.options.node, error: error.message },
        'peer sent a damaged frame',
      );
      socket.destroy();
    }
  }

  private onFrame(socket: Socket, { kind, rest }: Frame): void {
    if (kind === FrameKind.hello && !this.connected) this.onReply(socket, rest);
    else if (kind === FrameKind.pong && this.connected) this.onPong(rest);
    else if (!socket.destroyed) throw new MalformedMessage(`frame kind ${kind} is out of place`);
  }

  private onReply(socket: Socket, bytes: Uint8Array): void {
    const { node, registry, log } = this.options;
    const reply = wellFormed('hello reply', () => helloReplyCodec.decode(bytes));
    const wrong = judgeReply(reply, node, registry);
    if (wrong !== undefined) {
      const { code, message: reason } = wrong;
      // Once for each reason: it is tried again for ever.
      if (code !== this.lastRefusal)
        log('error', { peer: node, code, reason }, 'peer refused, or is not who it should be');
      this.lastRefusal = code;
      this.pauseMs = this.options.limits.reconnectMsMax;
      socket.destroy();
      return;
    }
    this.connected = true;
    this.lastRefusal = '';
    this.pauseMs = this.options.limits.reconnectMsMin;
    this.atLastProbe = { queued: 0, taken: 0 };
    log('info', { peer: node }, 'connected to peer');
    this.options.onConnection(true);
    this.probe();
  }

  private onPong(rest: Buffer): void {
    const { clock } = this.options;
    const reader = new ByteReader(rest);
    const [sentUs, peerMs] = wellFormed('pong', () => [reader.u64(), reader.u64()]);
    this.roundTripUs = Math.max(0, Math.round(clock.monotonicMs() * 1000 - sentUs));
    this.clockOffsetMs = peerMs - (clock.wallMs() - this.roundTripUs / 2000);
  }

  private onClose(): void {
    const { clock, limits, log, node } = this.options;
    const was = this.connected;
    this.connected = false;
    this.socket = undefined;
    if (this.closed) return;
    if (was) {
      log('warn', { peer: node }, 'connection to peer lost');
      this.options.onConnection(false);
    }
    // Between half and all of the pause, so that nodes do not knock in step.
    const pause = this.pauseMs * (0.5 + Math.random() / 2);
    this.pauseMs = Math.min(this.pauseMs * 2, limits.reconnectMsMax);
    this.cancelReconnect = clock.after(pause, () => {
      this.open();
    });
  }
}
