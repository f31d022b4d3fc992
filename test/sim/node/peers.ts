/**
 * The transport between simulated nodes: the frames and the codec of the real one, over links that
 * lose, delay and reorder. A broken connection is noticed after a while, as over TCP.
 */
import type { NodeId } from '../../../raft/index.js';
import { ByteReader } from '../../../src/bytes.js';
import type { PeerTransport } from '../../../src/machine.js';
import { FrameKind, FrameParser, FrameWriter } from '../../../src/transport/frame.js';
import { decodeMessage, encodeMessage } from '../../../src/transport/message-codec.js';
import type { TcpTransportOptions } from '../../../src/transport/tcp-transport.js';
import {
  SnapshotInterrupted,
  type GroupMessage,
  type PeerState,
  type SnapshotHeader,
  type TransportReceiver,
} from '../../../src/transport/transport.js';
import type { Timeline } from '../timeline.js';
import type { Life } from './life.js';
import type { Links } from './links.js';

type Verdict = { readonly ok: boolean; readonly reason: string };

const broken: Verdict = { ok: false, reason: 'the connection broke' };
const lookEveryMs = 50;

export interface PeersOptions {
  readonly timeline: Timeline;
  readonly links: Links;
  /** A silent connection is given up after this long. */
  readonly silenceMs: number;
  /** A message leaves a node. */
  readonly onSend: (from: NodeId, message: GroupMessage) => void;
  readonly count: (what: 'snapshot sent' | 'snapshot broken') => void;
}

/** All transports that are open. */
export class Peers {
  readonly options: PeersOptions;
  readonly open = new Map<NodeId, SimTransport>();

  constructor(options: PeersOptions) {
    this.options = options;
    this.look();
  }

  transport(options: TcpTransportOptions, life: Life): PeerTransport {
    const transport = new SimTransport(this, options, life);
    life.onEnd(() => {
      if (this.open.get(options.own.nodeId) === transport) this.open.delete(options.own.nodeId);
      for (const each of this.open.values()) each.lost(options.own.nodeId);
    });
    return transport;
  }

  /** Who is there is connected soon, who is silent not for long any more. */
  private look(): void {
    const { timeline } = this.options;
    for (const each of this.open.values()) each.look(timeline.now);
    timeline.after(lookEveryMs, () => {
      this.look();
    });
  }

  canTalk(from: NodeId, to: NodeId): boolean {
    const { links } = this.options;
    return this.open.has(to) && !links.isCut(from, to) && !links.isCut(to, from);
  }
}

class SimTransport implements PeerTransport {
  receiver: TransportReceiver | undefined;
  readonly life: Life;
  private readonly peersOf: Peers;
  private readonly own: NodeId;
  private readonly onFrame: (bytes: number) => void;
  private addresses: ReadonlyMap<NodeId, unknown>;
  private readonly frames = new Map<NodeId, FrameWriter>();
  /** When each connected node was last heard of. */
  private readonly heardMs = new Map<NodeId, number>();
  private readonly transfers = new Map<(verdict: Verdict) => void, NodeId>();
  private flushScheduled = false;

  constructor(peers: Peers, { own, peers: addresses, onFrame }: TcpTransportOptions, life: Life) {
    this.peersOf = peers;
    this.own = own.nodeId;
    this.addresses = addresses;
    this.life = life;
    this.onFrame = onFrame ?? ((): void => undefined);
  }

  start(receiver: TransportReceiver): Promise<void> {
    this.receiver = receiver;
    this.peersOf.open.set(this.own, this);
    return Promise.resolve();
  }

  follow(addresses: ReadonlyMap<NodeId, unknown>): void {
    this.addresses = addresses;
  }

  look(now: number): void {
    const { silenceMs } = this.peersOf.options;
    for (const node of this.addresses.keys()) {
      if (node === this.own) continue;
      const known = this.heardMs.get(node);
      const talks = this.peersOf.canTalk(this.own, node);
      if (talks) this.heardMs.set(node, now);
      if (talks && known === undefined) this.tell(node, true);
      if (!talks && known !== undefined && now - known > silenceMs) this.lost(node);
    }
    for (const node of this.heardMs.keys()) if (!this.addresses.has(node)) this.lost(node);
  }

  /** The other end is gone, or was silent for too long. */
  lost(node: NodeId): void {
    if (!this.heardMs.delete(node)) return;
    for (const [end, to] of [...this.transfers]) if (to === node) end(broken);
    this.tell(node, false);
  }

  isConnected(node: NodeId): boolean {
    return this.heardMs.has(node);
  }

  send(to: NodeId, message: GroupMessage): void {
    if (!this.heardMs.has(to)) return;
    this.peersOf.options.onSend(this.own, message);
    let frame = this.frames.get(to);
    if (frame === undefined) {
      frame = new FrameWriter();
      frame.begin(FrameKind.messages);
      this.frames.set(to, frame);
    }
    encodeMessage(frame.payload, message);
    if (this.flushScheduled) return;
    this.flushScheduled = true;
    this.life.endOfTurn(() => {
      this.flush();
    });
  }

  sendSnapshot(
    to: NodeId,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<Verdict> {
    const target = this.peersOf.open.get(to);
    if (target?.receiver === undefined || !this.heardMs.has(to))
      return Promise.resolve({ ok: false, reason: 'no connection' });
    this.peersOf.options.count('snapshot sent');
    const { links } = this.peersOf.options;
    const broke = this.breakage(target);
    return new Promise((resolve) => {
      const end = (verdict: Verdict): void => {
        if (!this.transfers.delete(end)) return;
        broke.happens();
        if (verdict === broken) this.peersOf.options.count('snapshot broken');
        resolve(verdict);
      };
      this.transfers.set(end, to);
      const coming = target.chunksFrom(this, chunks, broke.promise);
      const finish = ({ ok, reason = '' }: { ok: boolean; reason?: string }): void => {
        links.carrySurely(to, this.own, () => {
          this.life.enter(() => {
            end({ ok, reason });
          });
        });
      };
      links.carrySurely(this.own, to, () => {
        target.life.enter(() => {
          target.receiver?.onSnapshot({ header, node: this.own, chunks: coming, finish });
        });
      });
    });
  }

  /** The end of a connection, as the receiver of a snapshot hears of it. */
  private breakage(target: SimTransport): {
    readonly promise: Promise<never>;
    readonly happens: () => void;
  } {
    const { timeline } = this.peersOf.options;
    let reject: (error: Error) => void = () => undefined;
    const promise = new Promise<never>((_, fail) => {
      reject = fail;
    });
    // Nobody may be reading.
    promise.catch(() => undefined);
    const happens = (): void => {
      timeline.after(1, () => {
        target.life.enter(() => {
          reject(new SnapshotInterrupted(broken.reason));
        });
      });
    };
    this.life.onEnd(happens);
    return { promise, happens };
  }

  peers(): readonly PeerState[] {
    return [...this.addresses.keys()]
      .filter((node) => node !== this.own)
      .map((node) => {
        const connected = this.heardMs.has(node);
        const theirs = this.peersOf.open.get(node)?.life.wallMs();
        const clockOffsetMs =
          connected && theirs !== undefined ? theirs - this.life.wallMs() : undefined;
        return { node, connected, roundTripUs: 0, clockOffsetMs };
      });
  }

  queues(): readonly { queue: string; length: number; limit: number }[] {
    return [];
  }

  statistics(): Readonly<Record<string, number>> {
    return {};
  }

  close(): Promise<void> {
    this.receiver = undefined;
    return Promise.resolve();
  }

  private tell(node: NodeId, connected: boolean): void {
    this.life.enter(() => {
      this.receiver?.onConnection(node, connected);
    });
  }

  private flush(): void {
    this.flushScheduled = false;
    const frames = [...this.frames];
    this.frames.clear();
    const { links } = this.peersOf.options;
    for (const [to, writer] of frames) {
      const frame = writer.end();
      this.onFrame(frame.byteLength);
      // Of a connection: whoever comes up there later hears nothing of it.
      const target = this.peersOf.open.get(to);
      if (target === undefined) continue;
      links.carry(this.own, to, () => {
        target.life.enter(() => {
          target.take(this.own, frame);
        });
      });
    }
  }

  private take(from: NodeId, frame: Buffer): void {
    new FrameParser().push(frame, ({ rest }) => {
      const reader = new ByteReader(rest);
      const messages: GroupMessage[] = [];
      while (reader.left > 0) messages.push(decodeMessage(reader));
      this.receiver?.onMessages(from, messages);
    });
  }

  /** As they arrive here; each takes its time. */
  private async *chunksFrom(
    sender: SimTransport,
    chunks: AsyncIterable<Uint8Array>,
    broke: Promise<never>,
  ): AsyncGenerator<Uint8Array> {
    const { links } = this.peersOf.options;
    const iterator = chunks[Symbol.asyncIterator]();
    for (;;) {
      const next = await Promise.race([iterator.next(), broke]);
      if (next.done === true) return;
      const arrived = new Promise<void>((resolve) => {
        links.carrySurely(sender.own, this.own, () => {
          this.life.enter(resolve);
        });
      });
      await Promise.race([arrived, broke]);
      yield next.value;
    }
  }
}
