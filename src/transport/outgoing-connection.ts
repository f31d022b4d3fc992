/**
 * The connection this node opens to one peer, for Raft messages: opened again for ever when it
 * breaks, with growing pauses; probed for life, round trip and clock.
 */
import { connect, type Socket } from 'node:net';
import type { GroupId, Message, NodeId } from '../../raft/index.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import { ByteReader, ByteWriter } from '../bytes.js';
import { FrameKind, FrameParser, frameOf, FrameWriter, type Frame } from './frame.js';
import {
  helloCodec,
  helloReplyCodec,
  judgeDirectory,
  peerProtocol,
  type DirectoryRegistry,
  type OwnIdentity,
} from './handshake.js';
import { encodeMessage } from './message-codec.js';

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
  private parser = new FrameParser();
  private readonly frame = new FrameWriter();
  private messages = 0;
  private pauseMs: number;
  private lastHeardMs = 0;
  private closed = false;
  private lastRefusal = '';
  private readonly options: OutgoingOptions;

  constructor(options: OutgoingOptions) {
    this.options = options;
    this.pauseMs = options.limits.reconnectMsMin;
    this.open();
  }

  /** Joins the frame of this turn; false when there is no connection. */
  add(group: GroupId, message: Message): boolean {
    if (!this.connected) return false;
    if (this.frame.isEmpty) this.frame.begin(FrameKind.messages);
    encodeMessage(this.frame.payload, { group, message });
    this.messages++;
    return true;
  }

  /** Sends the frame of this turn with one write. */
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
    this.socket.write(frame);
  }

  get queuedBytes(): number {
    return this.socket?.writableLength ?? 0;
  }

  /** Called regularly: probes the connection, and cuts one that is dead. */
  probe(): void {
    const { clock, limits } = this.options;
    if (!this.connected || this.socket === undefined) return;
    const now = clock.monotonicMs();
    if (now - this.lastHeardMs > limits.silenceMsMax) {
      this.socket.destroy(new Error(`no answer for ${limits.silenceMsMax} ms`));
      return;
    }
    const writer = new ByteWriter();
    writer.u64(Math.floor(now * 1000));
    this.socket.write(frameOf(FrameKind.ping, writer.view()));
  }

  close(): void {
    this.closed = true;
    this.socket?.destroy();
  }

  private open(): void {
    if (this.closed) return;
    const { clock, limits } = this.options;
    const { host, port } = this.options.address();
    const socket = connect({ host, port, noDelay: true });
    this.socket = socket;
    this.parser = new FrameParser();
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
    this.lastHeardMs = this.options.clock.monotonicMs();
    try {
      this.parser.push(piece, (frame) => {
        this.onFrame(socket, frame);
      });
    } catch (error) {
      this.options.count('malformed');
      this.options.log(
        'warn',
        { peer: this.options.node, error: String(error) },
        'peer sent a damaged frame',
      );
      socket.destroy();
    }
  }

  private onFrame(socket: Socket, { kind, rest }: Frame): void {
    if (kind === FrameKind.hello) this.onReply(socket, rest);
    else if (kind === FrameKind.pong && this.connected) this.onPong(new ByteReader(rest));
  }

  private onReply(socket: Socket, bytes: Uint8Array): void {
    const { node, registry, log } = this.options;
    const reply = helloReplyCodec.decode(bytes);
    const wrong = reply.accepted
      ? judgeDirectory(reply.nodeId, reply.directoryId, registry)
      : reply;
    if (wrong !== undefined || reply.nodeId !== node) {
      const code = wrong?.code ?? 'OTHER_NODE';
      // Once for each reason: it is tried again for ever.
      if (code !== this.lastRefusal)
        log(
          'error',
          { peer: node, code, reason: wrong?.message },
          'peer refused, or is not who it should be',
        );
      this.lastRefusal = code;
      this.pauseMs = this.options.limits.reconnectMsMax;
      socket.destroy();
      return;
    }
    this.connected = true;
    this.lastRefusal = '';
    this.pauseMs = this.options.limits.reconnectMsMin;
    log('info', { peer: node }, 'connected to peer');
    this.options.onConnection(true);
    this.probe();
  }

  private onPong(reader: ByteReader): void {
    const { clock } = this.options;
    this.roundTripUs = Math.max(0, Math.round(clock.monotonicMs() * 1000 - reader.u64()));
    this.clockOffsetMs = reader.u64() - (clock.wallMs() - this.roundTripUs / 2000);
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
    clock.after(pause, () => {
      this.open();
    });
  }
}
