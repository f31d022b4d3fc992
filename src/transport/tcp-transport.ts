/**
 * The transport over TCP: to each peer one connection for Raft messages that this node opened, from
 * each peer one that it opened, and one more for each snapshot on its way.
 */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { NodeId } from '../../raft/index.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { DirectoryRegistry, OwnIdentity } from './handshake.js';
import { IncomingConnection, type IncomingOptions } from './incoming-connection.js';
import {
  OutgoingConnection,
  type ConnectionLimits,
  type OutgoingOptions,
  type PeerAddress,
} from './outgoing-connection.js';
import { SnapshotSender, type SnapshotResult } from './snapshot-sender.js';
import type {
  GroupMessage,
  PeerState,
  SnapshotHeader,
  Transport,
  TransportReceiver,
} from './transport.js';

export const defaultConnectionLimits: ConnectionLimits = {
  queueBytesMax: 64 * 1024 * 1024,
  handshakeMsMax: 3000,
  pingEveryMs: 500,
  silenceMsMax: 3000,
  snapshotStallMsMax: 30_000,
  reconnectMsMin: 50,
  reconnectMsMax: 1000,
};

/** Snapshots coming in at once, all groups together: each holds some MiB and writes at full speed. */
const snapshotsInMax = 4;

/** Connections that have not said yet who they are; above it the oldest of them goes. */
const strangersMax = 256;

export interface TcpTransportOptions {
  readonly own: OwnIdentity;
  readonly listen: PeerAddress;
  /** Every other node. */
  readonly peers: ReadonlyMap<NodeId, PeerAddress>;
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: DirectoryRegistry;
  readonly limits?: ConnectionLimits;
  /** For metrics: the size of each frame that is sent. */
  readonly onFrame?: (bytes: number) => void;
}

export class TcpTransport implements Transport {
  private readonly options: TcpTransportOptions;
  private readonly limits: ConnectionLimits;
  private readonly server: Server;
  private readonly outgoing = new Map<NodeId, OutgoingConnection>();
  private readonly incoming = new Set<IncomingConnection>();
  private readonly strangers = new Set<IncomingConnection>();
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
  private addresses: ReadonlyMap<NodeId, PeerAddress>;
  private receiver: TransportReceiver | undefined;
  private stopProbing: Cancel = () => undefined;

  constructor(options: TcpTransportOptions) {
    this.options = options;
    this.addresses = options.peers;
    this.limits = options.limits ?? defaultConnectionLimits;
    this.server = createServer();
  }

  async start(receiver: TransportReceiver): Promise<void> {
    const { clock } = this.options;
    await this.listen(receiver);
    this.receiver = receiver;
    this.follow(this.addresses);
    this.stopProbing = clock.every(this.limits.pingEveryMs, () => {
      for (const connection of this.outgoing.values()) connection.probe();
      for (const connection of this.incoming) connection.probe();
    });
  }

  /** From now on these are all the other nodes: connects to new ones, leaves those that are gone. */
  follow(peers: ReadonlyMap<NodeId, PeerAddress>): void {
    this.addresses = peers;
    const { receiver } = this;
    if (receiver === undefined) return;
    for (const [node, connection] of this.outgoing) {
      if (peers.has(node)) continue;
      connection.close();
      this.outgoing.delete(node);
    }
    for (const node of peers.keys()) {
      if (node === this.options.own.nodeId || this.outgoing.has(node)) continue;
      const options = this.outgoingOptions(node, (connected) => {
        receiver.onConnection(node, connected);
      });
      this.outgoing.set(node, new OutgoingConnection(options));
    }
  }

  /** The port it listens on. */
  get port(): number {
    // A TCP server that listens has an AddressInfo, never a path.
    return (this.server.address() as AddressInfo).port;
  }

  send(to: NodeId, message: GroupMessage): void {
    if (this.outgoing.get(to)?.add(message) !== true) {
      this.count('messagesDropped');
      return;
    }
    if (this.flushScheduled) return;
    this.flushScheduled = true;
    // Not a turn later: the answers to clients would leave first, and the next command wait for them.
    queueMicrotask(() => {
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

  /** Queues and their limits, for metrics; of those that each peer has, the longest. */
  queues(): readonly { queue: string; length: number; limit: number }[] {
    const queued = [...this.outgoing.values()].map((connection) => connection.queuedBytes);
    return [
      {
        queue: 'peer_send_bytes',
        length: Math.max(0, ...queued),
        limit: this.limits.queueBytesMax,
      },
      { queue: 'snapshots_receiving', length: this.receiving.size, limit: snapshotsInMax },
      { queue: 'peer_handshakes', length: this.strangers.size, limit: strangersMax },
    ];
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
    const { own, clock, registry, log, onFrame } = this.options;
    return {
      own,
      onFrame,
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
        const address = this.addresses.get(node);
        if (address === undefined) throw new Error(`node ${node} has no peer address`);
        return address;
      },
    };
  }

  private incomingOptions(receiver: TransportReceiver): IncomingOptions {
    const { own, registry, clock, log } = this.options;
    const { handshakeMsMax, pingEveryMs, silenceMsMax, snapshotStallMsMax } = this.limits;
    return {
      own,
      registry,
      receiver,
      clock,
      log,
      handshakeMsMax,
      isKnown: (node) => [...this.addresses.keys()].some((peer) => peer === node),
      // The peer cuts a silent connection itself: twice its patience, so that it comes first.
      silentProbesMax: {
        raft: Math.ceil((2 * silenceMsMax) / pingEveryMs),
        snapshot: Math.ceil(snapshotStallMsMax / pingEveryMs),
      },
      count: (name, by) => {
        this.count(name, by);
      },
      onWelcome: (connection) => {
        this.strangers.delete(connection);
      },
      admitSnapshot: (asking) => {
        if (this.receiving.size >= snapshotsInMax) return false;
        this.receiving.add(asking);
        return true;
      },
    };
  }

  private accept(socket: Socket, options: IncomingOptions): void {
    const connection = new IncomingConnection(socket, options);
    this.incoming.add(connection);
    this.strangers.add(connection);
    socket.on('close', () => {
      this.incoming.delete(connection);
      this.strangers.delete(connection);
      this.receiving.delete(connection);
    });
    const [oldest] = this.strangers;
    if (this.strangers.size > strangersMax) oldest?.destroy();
  }

  private listen(receiver: TransportReceiver): Promise<void> {
    const options = this.incomingOptions(receiver);
    this.server.on('connection', (socket) => {
      this.accept(socket, options);
    });
    return new Promise((resolve, reject) => {
      // Stays: a connection that cannot be accepted (no file descriptors) must not end the process.
      this.server.on('error', (error) => {
        this.options.log('error', { error: error.message }, 'the peer port has trouble');
        reject(listenError(this.options.listen, error));
      });
      this.server.listen({ ...this.options.listen }, resolve);
    });
  }

  private count(name: string, by = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + by;
  }
}

function listenError({ host, port }: PeerAddress, error: NodeJS.ErrnoException): Error {
  const text =
    error.code === 'EADDRINUSE'
      ? `peer address ${host}:${port} is in use by another process: stop it, or choose another port with ` +
        '--peer-address (and in --initial-cluster)'
      : `cannot listen on peer address ${host}:${port} (${error.message}): check --peer-address`;
  return new Error(text, { cause: error });
}
