/**
 * For machines where nobody may make namespaces: nodes on loopback, each behind two proxies that the
 * others are told to use. A link that is cut holds its bytes until it is healed, as TCP would bring them
 * then. Who has connected is found out from /proc.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { Transform, type TransformCallback } from 'node:stream';
import type { Link, Network, NodeAddresses } from './network.js';

const host = '127.0.0.1';

export class LoopbackNetwork implements Network {
  readonly kind = 'loopback';
  readonly cannotCut: string | undefined;
  readonly cannotLose = 'a proxy loses no packets: it needs namespaces (root, or unshare -Ur)';
  readonly cannotSlow: string | undefined;
  private readonly addresses = new Map<number, NodeAddresses>();
  private readonly processes = new Map<number, number>();
  private readonly servers: Server[] = [];
  private readonly sockets = new Set<Socket>();
  private readonly lanes = new Set<Lane>();
  private cuts = new Set<string>();
  private slow = { nodes: new Set<number>(), kilobitsPerSecond: 0 };
  private held = 0;

  private constructor() {
    const isLinux = process.platform === 'linux';
    this.cannotCut = isLinux
      ? undefined
      : 'who connects is found out from /proc, which is of Linux';
    this.cannotSlow = this.cannotCut;
  }

  static async open(nodes: readonly number[]): Promise<LoopbackNetwork> {
    const network = new LoopbackNetwork();
    for (const node of nodes) {
      const [client, peer, http] = await freeAddresses(3);
      if (client === undefined || peer === undefined || http === undefined)
        throw new Error('no free ports');
      const advertisedClient = await network.proxy(node, client);
      const advertisedPeer = await network.proxy(node, peer);
      network.addresses.set(node, { client, peer, http, advertisedClient, advertisedPeer });
    }
    return network;
  }

  addressesOf(node: number): NodeAddresses {
    const found = this.addresses.get(node);
    if (found === undefined) throw new RangeError(`there is no node ${node}`);
    return found;
  }

  commandOn(_node: number, command: readonly string[]): readonly string[] {
    return command;
  }

  runs(node: number, pid: number): void {
    this.processes.set(node, pid);
  }

  cut(links: readonly Link[]): Promise<void> {
    this.cuts = new Set(links.map(nameOf));
    for (const lane of this.lanes) lane.look();
    return Promise.resolve();
  }

  lose(): Promise<void> {
    return Promise.reject(new Error(this.cannotLose));
  }

  slowDown(nodes: readonly number[], kilobitsPerSecond: number): Promise<void> {
    this.slow = { nodes: new Set(nodes), kilobitsPerSecond };
    return Promise.resolve();
  }

  touched(): Promise<number> {
    return Promise.resolve(this.held);
  }

  close(): Promise<void> {
    for (const server of this.servers) server.close();
    for (const socket of this.sockets) socket.destroy();
    return Promise.resolve();
  }

  /** host:port of a proxy before `target`, a port of `node`. */
  private async proxy(node: number, target: string): Promise<string> {
    const server = createServer((incoming) => {
      this.join(incoming, node, target);
    });
    this.servers.push(server);
    return listening(server);
  }

  private join(incoming: Socket, to: number, target: string): void {
    const from = this.nodeOf(incoming);
    const [, port] = target.split(':');
    const outgoing = connect(Number(port), host);
    const there = this.lane({ from, to });
    const back = this.lane({ from: to, to: from });
    const end = (): void => {
      for (const lane of [there, back]) this.lanes.delete(lane);
      for (const socket of [incoming, outgoing]) {
        this.sockets.delete(socket);
        socket.destroy();
      }
    };
    for (const socket of [incoming, outgoing]) {
      this.sockets.add(socket.setNoDelay(true));
      // An end with an error is an end.
      socket.on('error', () => undefined).on('close', end);
    }
    incoming.pipe(there).pipe(outgoing);
    outgoing.pipe(back).pipe(incoming);
  }

  private lane(link: Link): Lane {
    const lane = new Lane({
      isCut: () => this.cuts.has(nameOf(link)),
      delayMs: (bytes) =>
        this.slow.nodes.has(link.from) ? (bytes * 8) / this.slow.kilobitsPerSecond : 0,
      onHeld: () => this.held++,
    });
    this.lanes.add(lane);
    return lane;
  }

  /** 0: none of the nodes, so one of the clients, whose links are never cut. */
  private nodeOf({ remotePort = 0 }: Socket): number {
    if (this.cannotCut !== undefined) return 0;
    const inode = inodeOf(remotePort);
    const owner = [...this.processes].find(([, pid]) => inode !== '' && owns(pid, inode));
    return owner?.[0] ?? 0;
  }
}

/** One direction of a connection. */
class Lane extends Transform {
  private readonly rules: {
    readonly isCut: () => boolean;
    readonly delayMs: (bytes: number) => number;
    readonly onHeld: () => void;
  };
  private waiting: (() => void) | undefined;

  constructor(rules: Lane['rules']) {
    super();
    this.rules = rules;
  }

  override _transform(piece: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const { isCut, delayMs, onHeld } = this.rules;
    const pass = (): void => {
      done(null, piece);
    };
    const ms = delayMs(piece.byteLength);
    if (isCut() || ms > 0) onHeld();
    if (isCut()) this.waiting = pass;
    else if (ms > 0) setTimeout(pass, ms);
    else pass();
  }

  /** What is cut may have changed. */
  look(): void {
    const { waiting } = this;
    if (waiting === undefined || this.rules.isCut()) return;
    this.waiting = undefined;
    waiting();
  }
}

const nameOf = ({ from, to }: Link): string => `${from}>${to}`;

/** Of the socket that is bound to this port of loopback at its own end; empty: there is none. */
function inodeOf(port: number): string {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (fields[1] === local) return fields[9] ?? '';
  }
  return '';
}

function owns(pid: number, inode: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(
      (descriptor) => linkOf(`/proc/${pid}/fd/${descriptor}`) === `socket:[${inode}]`,
    );
  } catch {
    // It has ended.
    return false;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

async function listening(server: Server): Promise<string> {
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return `${host}:${port}`;
}

/** Ports that were free a moment ago, all at one time. */
async function freeAddresses(count: number): Promise<readonly string[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const addresses = await Promise.all(servers.map(listening));
  for (const server of servers) {
    server.close();
    await once(server, 'close');
  }
  return addresses;
}
