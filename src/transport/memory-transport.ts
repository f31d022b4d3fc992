/**
 * The transport in memory, for tests and simulation: the same frames and the same codec as over TCP,
 * a network that can be cut, slowed and listened to, and no sockets.
 */
import type { NodeId } from '../../raft/index.js';
import { ByteReader } from '../bytes.js';
import type { Clock } from '../observe/clock.js';
import { FrameKind, FrameParser, FrameWriter } from './frame.js';
import { decodeMessage, encodeMessage } from './message-codec.js';
import {
  SnapshotInterrupted,
  type GroupMessage,
  type PeerState,
  type SnapshotHeader,
  type Transport,
  type TransportReceiver,
} from './transport.js';

/** What the network does with one message; `lose` is decided when it is sent. */
export type LinkFilter = (from: NodeId, to: NodeId, message: GroupMessage) => 'pass' | 'lose';

interface Transfer {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly end: (verdict: Verdict) => void;
}

type Verdict = { readonly ok: boolean; readonly reason: string };

const broken: Verdict = { ok: false, reason: 'the connection broke' };

export interface MemoryNetworkOptions {
  readonly clock: Clock;
  /** Time on the way of every frame, ms; 0: the next turn. */
  readonly delayMs?: number;
}

export class MemoryNetwork {
  /** Called for every message that is sent over a link which is up. */
  filter: LinkFilter = () => 'pass';
  /** Called with every snapshot chunk; it may wait, change it, or throw to break the transfer. */
  onChunk: (chunk: Uint8Array, to: NodeId) => Promise<Uint8Array> = (chunk) =>
    Promise.resolve(chunk);
  /** Frames delivered so far. */
  frames = 0;
  private readonly options: MemoryNetworkOptions;
  private readonly ends = new Map<NodeId, MemoryTransport>();
  private readonly transfers = new Set<Transfer>();
  /** Directed links that are cut. */
  private readonly cuts = new Set<string>();

  constructor(options: MemoryNetworkOptions) {
    this.options = options;
  }

  /** The transport of a node that starts anew; one that had its id before hears nothing any more. */
  attach(node: NodeId): MemoryTransport {
    const end = new MemoryTransport(this, node, this.options.clock);
    this.ends.set(node, end);
    return end;
  }

  /** Cuts or mends the way from one node to another; the way back stays as it is. */
  setLink(from: NodeId, to: NodeId, up: boolean): void {
    if (up) this.cuts.delete(linkName(from, to));
    else if (!this.cuts.has(linkName(from, to))) {
      this.cuts.add(linkName(from, to));
      this.ends.get(from)?.connectionChanged(to, false);
      this.breakTransfers();
    }
  }

  /** Cuts a node off, or brings it back. */
  setNode(node: NodeId, up: boolean): void {
    for (const other of this.ends.keys()) {
      if (other === node) continue;
      this.setLink(node, other, up);
      this.setLink(other, node, up);
    }
  }

  isUp(from: NodeId, to: NodeId): boolean {
    return this.ends.get(to)?.isOpen === true && !this.cuts.has(linkName(from, to));
  }

  nodes(): readonly NodeId[] {
    return [...this.ends.keys()];
  }

  /** Delivers the bytes of a frame unless the link, or the node behind it, is gone by then. */
  carry(from: NodeId, to: NodeId, frame: Buffer): void {
    const { clock, delayMs = 0 } = this.options;
    const arrive = (): void => {
      if (!this.isUp(from, to)) return;
      this.frames++;
      this.ends.get(to)?.onFrame(from, frame);
    };
    if (delayMs > 0) clock.after(delayMs, arrive);
    else clock.endOfTurn(arrive);
  }

  carrySnapshot(
    from: NodeId,
    to: NodeId,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<Verdict> {
    const receiver = this.isUp(from, to) ? this.ends.get(to)?.receiver : undefined;
    if (receiver === undefined) return Promise.resolve({ ok: false, reason: 'no connection' });
    return new Promise((resolve) => {
      const transfer: Transfer = {
        from,
        to,
        end: (verdict) => {
          this.transfers.delete(transfer);
          resolve(verdict);
        },
      };
      this.transfers.add(transfer);
      receiver.onSnapshot({
        header,
        node: from,
        chunks: this.chunksOnTheWay(from, to, chunks),
        finish: ({ ok, reason = '' }) => {
          transfer.end({ ok, reason });
        },
      });
    });
  }

  /** A node went away, or a link was cut: the snapshots on their way there are lost. */
  breakTransfers(): void {
    for (const { from, to, end } of [...this.transfers]) {
      if (!this.isUp(from, to) || !this.isUp(to, from)) end(broken);
    }
  }

  private async *chunksOnTheWay(
    from: NodeId,
    to: NodeId,
    chunks: AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      const arrived = await this.onChunk(chunk, to);
      if (!this.isUp(from, to)) throw new SnapshotInterrupted(broken.reason);
      yield arrived;
    }
  }
}

const linkName = (from: NodeId, to: NodeId): string => `${from}>${to}`;

export class MemoryTransport implements Transport {
  receiver: TransportReceiver | undefined;
  private readonly network: MemoryNetwork;
  private readonly node: NodeId;
  private readonly clock: Clock;
  private readonly parser = new FrameParser();
  /** The frame that leaves next, for each peer. */
  private readonly frames = new Map<NodeId, FrameWriter>();
  private readonly counts = { framesOut: 0, messagesOut: 0, messagesIn: 0, messagesDropped: 0 };
  private flushScheduled = false;

  constructor(network: MemoryNetwork, node: NodeId, clock: Clock) {
    this.network = network;
    this.node = node;
    this.clock = clock;
  }

  get isOpen(): boolean {
    return this.receiver !== undefined;
  }

  async start(receiver: TransportReceiver): Promise<void> {
    this.receiver = receiver;
    return Promise.resolve();
  }

  send(to: NodeId, message: GroupMessage): void {
    if (!this.isOpen || !this.network.isUp(this.node, to)) {
      this.counts.messagesDropped++;
    } else if (this.network.filter(this.node, to, message) === 'pass') {
      encodeMessage(this.frameTo(to).payload, message);
      this.counts.messagesOut++;
    }
  }

  sendSnapshot(
    to: NodeId,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<Verdict> {
    return this.network.carrySnapshot(this.node, to, header, chunks);
  }

  peers(): readonly PeerState[] {
    return this.network
      .nodes()
      .filter((node) => node !== this.node)
      .map((node) => ({
        node,
        connected: this.network.isUp(this.node, node),
        roundTripUs: 0,
        clockOffsetMs: 0,
      }));
  }

  statistics(): Readonly<Record<string, number>> {
    return { ...this.counts };
  }

  /** The process is gone, or stops: nothing comes out of it and nothing goes in any more. */
  async close(): Promise<void> {
    this.receiver = undefined;
    this.frames.clear();
    this.network.breakTransfers();
    return Promise.resolve();
  }

  /** Bytes from the network. */
  onFrame(from: NodeId, bytes: Buffer): void {
    this.parser.push(bytes, ({ rest }) => {
      const reader = new ByteReader(rest);
      const messages: GroupMessage[] = [];
      while (reader.left > 0) messages.push(decodeMessage(reader));
      this.counts.messagesIn += messages.length;
      this.receiver?.onMessages(from, messages);
    });
  }

  connectionChanged(to: NodeId, connected: boolean): void {
    this.receiver?.onConnection(to, connected);
  }

  private frameTo(to: NodeId): FrameWriter {
    let frame = this.frames.get(to);
    if (frame === undefined) {
      frame = new FrameWriter();
      frame.begin(FrameKind.messages);
      this.frames.set(to, frame);
      this.scheduleFlush();
    }
    return frame;
  }

  private scheduleFlush(): void {
    if (this.flushScheduled) return;
    this.flushScheduled = true;
    this.clock.endOfTurn(() => {
      this.flushScheduled = false;
      const frames = [...this.frames];
      this.frames.clear();
      for (const [to, frame] of frames) {
        this.counts.framesOut++;
        this.network.carry(this.node, to, frame.end());
      }
    });
  }
}
