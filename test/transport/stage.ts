/**
 * What a transport test needs on its stage: nodes over real sockets on loopback, peers that speak
 * byte by byte, and a wire between two of them that can be cut, silenced and damaged.
 */
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { groupId, nodeId, replicaId, type Message, type NodeId } from '../../raft/index.js';
import { systemClock, type Clock } from '../../src/observe/clock.js';
import { FrameKind, FrameParser, frameOf, type Frame } from '../../src/transport/frame.js';
import {
  helloCodec,
  helloReplyCodec,
  type DirectoryRegistry,
  type Hello,
  type HelloReply,
} from '../../src/transport/handshake.js';
import type { ConnectionLimits, PeerAddress } from '../../src/transport/outgoing-connection.js';
import { TcpTransport } from '../../src/transport/tcp-transport.js';
import type {
  GroupMessage,
  IncomingSnapshot,
  TransportReceiver,
} from '../../src/transport/transport.js';

export const host = '127.0.0.1';
export const clusterId = 'c1';
export const directoryOf = (node: number): Buffer => Buffer.alloc(16, node);

/** Short enough for a test, long enough for a machine that is busy with others. */
export const quickLimits: ConnectionLimits = {
  queueBytesMax: 64 * 1024 * 1024,
  handshakeMsMax: 500,
  pingEveryMs: 25,
  silenceMsMax: 400,
  snapshotStallMsMax: 600,
  reconnectMsMin: 5,
  reconnectMsMax: 80,
};

/** Waits for a condition; fails with what it is about, and with the state, after ten seconds. */
export async function until(
  what: string,
  condition: () => boolean,
  state: () => unknown = () => '',
): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never: ${what} ${JSON.stringify(state())}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Sockets of this process, at both ends. */
export const openSockets = (): number =>
  process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;

export class TestReceiver implements TransportReceiver {
  readonly frames: (readonly GroupMessage[])[] = [];
  readonly connections: { readonly node: number; readonly connected: boolean }[] = [];
  readonly snapshots: IncomingSnapshot[] = [];
  onFrame: () => void = () => undefined;

  onMessages(_from: NodeId, messages: readonly GroupMessage[]): void {
    this.frames.push(messages);
    this.onFrame();
  }

  onSnapshot(incoming: IncomingSnapshot): void {
    this.snapshots.push(incoming);
  }

  onConnection(node: NodeId, connected: boolean): void {
    this.connections.push({ node, connected });
  }

  get messages(): readonly GroupMessage[] {
    return this.frames.flat();
  }

  /** How often the connection to some node broke. */
  get breaks(): number {
    return this.connections.filter(({ connected }) => !connected).length;
  }
}

/** Directory ids by node, in memory. */
export class TestRegistry implements DirectoryRegistry {
  readonly directories = new Map<number, Uint8Array>();
  full = false;

  known(node: number): Uint8Array | undefined {
    return this.directories.get(node);
  }

  remember(node: number, directoryId: Uint8Array): void {
    if (this.full) throw new Error('ENOSPC');
    this.directories.set(node, Buffer.from(directoryId));
  }
}

export interface NodeOptions {
  readonly port?: number;
  readonly limits?: Partial<ConnectionLimits>;
  readonly clock?: Clock;
  readonly clusterId?: string;
  readonly directoryId?: Uint8Array;
  readonly registry?: TestRegistry;
  /** Where its peers are; only these are known. One that is not there yet has port 1. */
  readonly peers?: Readonly<Record<number, number>>;
}

export class TestNode {
  readonly id: NodeId;
  readonly receiver = new TestReceiver();
  readonly registry: TestRegistry;
  readonly lines: { readonly level: string; readonly text: string }[] = [];
  readonly transport: TcpTransport;
  /** May be changed at any time: it holds from the next connection on. */
  readonly addresses: Map<NodeId, PeerAddress>;

  constructor(id: number, options: NodeOptions) {
    this.id = nodeId(id);
    this.registry = options.registry ?? new TestRegistry();
    this.addresses = new Map(
      Object.entries(options.peers ?? {}).map(([node, port]) => [
        nodeId(Number(node)),
        { host, port },
      ]),
    );
    this.transport = new TcpTransport({
      own: {
        clusterId: options.clusterId ?? clusterId,
        nodeId: this.id,
        directoryId: options.directoryId ?? directoryOf(id),
      },
      listen: { host, port: options.port ?? 0 },
      peers: this.addresses,
      clock: options.clock ?? systemClock,
      log: (level, fields, message) => {
        this.lines.push({ level, text: `${message} ${JSON.stringify(fields)}` });
      },
      registry: this.registry,
      limits: { ...quickLimits, ...options.limits },
    });
  }

  get port(): number {
    return this.transport.port;
  }

  isConnected(to: number): boolean {
    return this.transport.peers().some(({ node, connected }) => node === to && connected);
  }

  figure(name: string): number {
    return this.transport.statistics()[name] ?? 0;
  }

  send(to: number, group: number, message: Message): void {
    this.transport.send(nodeId(to), { group: groupId(group), generation: 0, message });
  }
}

/** One end of a peer connection, in the hands of the test. */
export class RawPeer {
  readonly frames: Frame[] = [];
  closed = false;
  readonly socket: Socket;
  private readonly parser = new FrameParser();

  constructor(socket: Socket, onFrame: (frame: Frame) => void = () => undefined) {
    this.socket = socket;
    socket.on('data', (piece) => {
      this.parser.push(piece, (frame) => {
        this.frames.push(frame);
        onFrame(frame);
      });
    });
    socket.on('error', () => undefined);
    socket.on('close', () => (this.closed = true));
  }

  send(kind: number, rest: Uint8Array = Buffer.alloc(0)): void {
    this.socket.write(frameOf(kind as FrameKind, rest));
  }

  hello(fields: Partial<Hello> = {}): void {
    const hello = {
      protocol: 3,
      clusterId,
      nodeId: 2,
      toNodeId: 1,
      directoryId: directoryOf(2),
      purpose: 'raft',
      clockMs: Date.now(),
      ...fields,
    };
    this.send(FrameKind.hello, helloCodec.encode(hello));
  }

  /** The first frame, once it is there. */
  async reply(): Promise<HelloReply> {
    await until('a reply to the hello', () => this.frames.length > 0 || this.closed);
    return helloReplyCodec.decode(this.frames[0]?.rest ?? Buffer.alloc(0));
  }
}

/** Listens like node 2, and does what a test wants of a bad peer. */
export class FakePeer {
  readonly server: Server;
  readonly peers: RawPeer[] = [];
  reply: Partial<HelloReply> = {};
  /** Answers hellos, and then probes. */
  greets = true;
  answers = true;

  constructor() {
    this.server = createServer((socket) => {
      const peer = new RawPeer(socket, (frame) => {
        this.onFrame(peer, frame);
      });
      this.peers.push(peer);
    });
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  private onFrame(peer: RawPeer, { kind, rest }: Frame): void {
    const reply: HelloReply = {
      accepted: true,
      code: '',
      message: '',
      nodeId: 2,
      directoryId: directoryOf(2),
      clockMs: 0,
      ...this.reply,
    };
    if (kind === FrameKind.hello && this.greets)
      peer.send(FrameKind.hello, helloReplyCodec.encode(reply));
    if (kind === FrameKind.ping && this.answers)
      peer.send(FrameKind.pong, Buffer.concat([rest, Buffer.alloc(8)]));
  }
}

/** A wire to a port; what goes towards it passes through `damage`. */
export class Wire {
  readonly server: Server;
  damage: (piece: Buffer) => Buffer = (piece) => piece;
  /** Nothing arrives any more in either direction, and nobody is told. */
  silent = false;
  private readonly ends = new Set<Socket>();

  constructor(toPort: () => number) {
    this.server = createServer((near) => {
      const far = connect({ host, port: toPort() });
      this.join(near, far, (piece) => this.damage(piece));
      this.join(far, near, (piece) => piece);
    });
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Breaks all connections that run over it. */
  cut(): void {
    for (const end of this.ends) end.destroy();
  }

  private join(from: Socket, to: Socket, through: (piece: Buffer) => Buffer): void {
    this.ends.add(from);
    from.on('error', () => undefined);
    from.on('close', () => {
      this.ends.delete(from);
      if (!this.silent) to.destroy();
    });
    from.on('data', (piece) => {
      if (this.silent) return;
      // No further than the far end takes it: a wire stores nothing.
      if (!to.write(through(piece))) {
        from.pause();
        to.once('drain', () => from.resume());
      }
    });
  }
}

/** Everything of one test, closed together. */
export class Stage {
  private readonly closings: (() => Promise<unknown>)[] = [];

  async node(id: number, options: NodeOptions = {}): Promise<TestNode> {
    const node = new TestNode(id, options);
    this.closings.push(() => node.transport.close());
    await node.transport.start(node.receiver);
    return node;
  }

  /** Nodes 1 and 2, connected both ways. */
  async pair(limits: Partial<ConnectionLimits> = {}): Promise<readonly [TestNode, TestNode]> {
    const one = await this.node(1, { limits, peers: { 2: 1 } });
    const two = await this.node(2, { limits, peers: { 1: one.port } });
    one.addresses.set(two.id, { host, port: two.port });
    await until('both are connected', () => one.isConnected(2) && two.isConnected(1));
    return [one, two];
  }

  async rawPeer(port: number): Promise<RawPeer> {
    const socket = connect({ host, port, noDelay: true });
    this.closings.push(() => Promise.resolve(socket.destroy()));
    const peer = new RawPeer(socket);
    await until('connected', () => !socket.connecting);
    return peer;
  }

  async fakePeer(): Promise<FakePeer> {
    const fake = new FakePeer();
    await this.listen(fake.server, () => {
      for (const { socket } of fake.peers) socket.destroy();
    });
    return fake;
  }

  async wire(toPort: () => number): Promise<Wire> {
    const wire = new Wire(toPort);
    await this.listen(wire.server, () => {
      wire.cut();
    });
    return wire;
  }

  async close(): Promise<void> {
    for (const closing of this.closings.reverse()) await closing();
  }

  private async listen(server: Server, cut: () => void): Promise<void> {
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    this.closings.push(async () => {
      cut();
      await new Promise((resolve) => server.close(resolve));
    });
  }
}

/** A heartbeat whose commit index tells it from others. */
export function numbered(commit: number): Message {
  const [from, to] = [replicaId(1), replicaId(2)];
  return { type: 'heartbeat', from, to, term: 1, commit, round: 0, quiet: false };
}

/** An append of one entry of so many bytes. */
export function bulky(bytes: number, index = 1): Message {
  const entry = { index, term: 1, kind: 1, data: Buffer.alloc(bytes, index) } as const;
  const [from, to] = [replicaId(1), replicaId(2)];
  return {
    type: 'append',
    from,
    to,
    term: 1,
    prevIndex: index - 1,
    prevTerm: 1,
    commit: 0,
    entries: [entry],
  };
}

export const numberOf = ({ message }: GroupMessage): number =>
  message.type === 'heartbeat' ? message.commit : -1;

export const endOfTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
