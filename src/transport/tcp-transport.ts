/**
 * The transport over TCP: to each peer one connection for Raft messages that this node opened, from
 * each peer one that it opened, and one more for each snapshot on its way.
 */
import { createServer, type AddressInfo, type Server } from 'node:net';
import type { GroupId, Message, NodeId } from '../../raft/index.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { DirectoryRegistry, OwnIdentity } from './handshake.js';
import { IncomingConnection } from './incoming-connection.js';
import {
  OutgoingConnection,
  type ConnectionLimits,
  type OutgoingOptions,
  type PeerAddress,
} from './outgoing-connection.js';
import { SnapshotSender, type SnapshotResult } from './snapshot-sender.js';
import type { PeerState, SnapshotHeader, Transport, TransportReceiver } from './transport.js';

export const defaultConnectionLimits: ConnectionLimits = {
  queueBytesMax: 64 * 1024 * 1024,
  handshakeMsMax: 3000,
  pingEveryMs: 500,
  silenceMsMax: 3000,
  reconnectMsMin: 50,
  reconnectMsMax: 1000,
};

/** Snapshots coming in at once, all groups together: each holds some MiB and writes at full speed. */
const snapshotsInMax = 4;

export interface TcpTransportOptions {
  readonly own: OwnIdentity;
  readonly listen: PeerAddress;
  /** Every other node. */
  readonly peers: ReadonlyMap<NodeId, PeerAddress>;
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: DirectoryRegistry;
  readonly limits?: ConnectionLimits;
}

export class TcpTransport implements Transport {
  private readonly options: TcpTransportOptions;
  private readonly limits: ConnectionLimits;
  private readonly server: Server;
  private readonly outgoing = new Map<NodeId, OutgoingConnection>();
  private readonly incoming = new Set<IncomingConnection>();
  private readonly receiving = new Set<IncomingConnection>();
  private readonly senders = new Set<SnapshotSender>();
  private readonly counts: Record<string, number> = {
    framesOut: 0,
    messagesOut: 0,
    bytesOut: 0,
    framesIn: 0,
    messagesIn: 0,
    bytesIn: 0,
    messagesDropped: 0,
    malformed: 0,
  };
  private flushScheduled = false;
  private stopProbing: Cancel = () => undefined;

  constructor(options: TcpTransportOptions) {
    this.options = options;
    this.limits = options.limits ?? defaultConnectionLimits;
    this.server = createServer();
  }

  async start(receiver: TransportReceiver): Promise<void> {
    const { clock, peers, own } = this.options;
    await this.listen(receiver);
    for (const node of peers.keys()) {
      if (node === own.nodeId) continue;
      const options = this.outgoingOptions(node, (connected) => {
        receiver.onConnection(node, connected);
      });
      this.outgoing.set(node, new OutgoingConnection(options));
    }
    this.stopProbing = clock.every(this.limits.pingEveryMs, () => {
      for (const connection of this.outgoing.values()) connection.probe();
    });
  }

  /** The port it listens on. */
  get port(): number {
    // A TCP server that listens has an AddressInfo, never a path.
    return (this.server.address() as AddressInfo).port;
  }

  send(to: NodeId, group: GroupId, message: Message): void {
    if (this.outgoing.get(to)?.add(group, message) !== true) {
      this.count('messagesDropped');
      return;
    }
    if (this.flushScheduled) return;
    this.flushScheduled = true;
    this.options.clock.endOfTurn(() => {
      this.flushScheduled = false;
      for (const connection of this.outgoing.values()) connection.flush();
    });
  }

  async sendSnapshot(
    to: NodeId,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<SnapshotResult> {
    const sender = new SnapshotSender(this.outgoingOptions(to, () => undefined));
    this.senders.add(sender);
    try {
      return await sender.send(header, chunks);
    } finally {
      this.senders.delete(sender);
    }
  }

  peers(): readonly PeerState[] {
    return [...this.outgoing].map(([node, { connected, roundTripUs, clockOffsetMs }]) => ({
      node,
      connected,
      roundTripUs,
      clockOffsetMs,
    }));
  }

  statistics(): Readonly<Record<string, number>> {
    let queuedBytes = 0;
    for (const connection of this.outgoing.values()) queuedBytes += connection.queuedBytes;
    return { ...this.counts, queuedBytes };
  }

  async close(): Promise<void> {
    this.stopProbing();
    for (const connection of this.outgoing.values()) {
      connection.flush();
      connection.close();
    }
    for (const sender of this.senders) sender.abort();
    const closed = new Promise<void>((resolve) => {
      this.server.close(() => {
        resolve();
      });
    });
    for (const connection of this.incoming) connection.destroy();
    await closed;
  }

  private outgoingOptions(
    node: NodeId,
    onConnection: (connected: boolean) => void,
  ): OutgoingOptions {
    const { own, peers, clock, registry, log } = this.options;
    return {
      own,
      node,
      clock,
      registry,
      log,
      limits: this.limits,
      onConnection,
      count: (name, by) => {
        this.count(name, by);
      },
      address: () => {
        const address = peers.get(node);
        if (address === undefined) throw new Error(`node ${node} has no peer address`);
        return address;
      },
    };
  }

  private listen(receiver: TransportReceiver): Promise<void> {
    const { own, peers, registry, clock, log, listen } = this.options;
    this.server.on('connection', (socket) => {
      const connection = new IncomingConnection(socket, {
        own,
        registry,
        receiver,
        clock,
        log,
        isKnown: (node) => [...peers.keys()].some((peer) => peer === node),
        handshakeMsMax: this.limits.handshakeMsMax,
        count: (name, by) => {
          this.count(name, by);
        },
        admitSnapshot: (asking) => {
          if (this.receiving.size >= snapshotsInMax) return false;
          this.receiving.add(asking);
          return true;
        },
      });
      this.incoming.add(connection);
      socket.on('close', () => {
        this.incoming.delete(connection);
        this.receiving.delete(connection);
      });
    });
    return new Promise((resolve, reject) => {
      this.server.once('error', (error: NodeJS.ErrnoException) => {
        reject(
          error.code === 'EADDRINUSE'
            ? new Error(
                `peer address ${listen.host}:${listen.port} is in use by another process: stop it, or choose ` +
                  'another port with --peer-address (and in --initial-cluster)',
                { cause: error },
              )
            : error,
        );
      });
      this.server.listen({ ...listen }, resolve);
    });
  }

  private count(name: string, by = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + by;
  }
}
