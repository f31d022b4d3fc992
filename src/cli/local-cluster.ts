/**
 * A cluster of node processes on this machine: for `quorate dev`, the demo, the tests and the
 * benchmark. Every node is a real process with its own data directory and ports.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdirSync, openSync, closeSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { extname, join } from 'node:path';
import { once } from 'node:events';
import type { StatusReply } from '../../proto/messages.js';
import { QuorateClient } from '../client/index.js';
import { slotCount } from '../router/slot.js';

const host = '127.0.0.1';
/** Each node takes three ports in a row: client, peer, HTTP; nodes are ten apart. */
const portStep = 10;
const pollMs = 50;
/** Below the ports that the system gives to connections that go out. */
const portMin = 10_000;
const portMax = 32_000;
/** Ports that this process has given out: none is given twice, also before anybody listens on it. */
const givenPorts = new Set<number>();

export interface LocalNode {
  readonly node: number;
  readonly clientAddress: string;
  readonly peerAddress: string;
  readonly httpAddress: string;
  readonly directory: string;
  /** What the process wrote to standard error: its log. */
  readonly logFile: string;
  /** Not one of the first nodes: it joined them. */
  readonly joins: boolean;
}

export interface LocalClusterOptions {
  readonly nodes: number;
  /** Data directories go below it; created if missing. */
  readonly directory: string;
  /** First client port; 0: any free ports. */
  readonly basePort: number;
  /** 1 if absent. */
  readonly shards?: number;
  /** Replicas of each shard; as many as there are nodes, up to 3, if absent. */
  readonly replicas?: number;
  /** Options for every node, by flag: { 'tick-ms': '10' }. */
  readonly flags?: Readonly<Record<string, string>>;
  /** Until it serves; 30 s if absent. Many shards take longer. */
  readonly startMsMax?: number;
  /** More arguments for node itself, e.g. --cpu-prof. */
  readonly execArguments?: readonly string[];
  /** Beside this process's own. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/** Chooses ports and a directory. */
async function prepareNode(
  options: LocalClusterOptions,
  node: number,
  joins: boolean,
): Promise<LocalNode> {
  const base = options.basePort === 0 ? 0 : options.basePort + (node - 1) * portStep;
  const ports = base === 0 ? await freePorts(3) : [base, base + 1, base + 2];
  const directory = join(options.directory, `node-${node}`);
  mkdirSync(directory, { recursive: true });
  const [client, peer, http] = ports.map((port) => `${host}:${port}`);
  return {
    node,
    clientAddress: client ?? '',
    peerAddress: peer ?? '',
    httpAddress: http ?? '',
    directory,
    logFile: join(options.directory, `node-${node}.log`),
    joins,
  };
}

/** Throws when a node stops by itself: the end of its log is in the message. */
export class LocalCluster {
  readonly nodes: LocalNode[];
  private readonly options: LocalClusterOptions;
  private readonly processes = new Map<number, ChildProcess>();
  private readonly client: QuorateClient;

  private constructor(nodes: LocalNode[], options: LocalClusterOptions) {
    this.nodes = nodes;
    this.options = options;
    this.client = new QuorateClient({ endpoints: nodes.map((node) => node.clientAddress) });
  }

  /** Starts every node and makes a cluster of them, if they are none yet; resolves when it serves. */
  static async start(options: LocalClusterOptions): Promise<LocalCluster> {
    const cluster = await LocalCluster.prepare(options);
    for (const { node } of cluster.nodes) cluster.startNode(node);
    try {
      await cluster.init();
      await cluster.waitUntilReady(options.startMsMax ?? 30_000);
    } catch (error) {
      try {
        // A node that has stopped says why; what the others say of it is less.
        cluster.assertRunning();
      } finally {
        await cluster.stop();
      }
      throw error;
    }
    return cluster;
  }

  private async init(): Promise<void> {
    const { nodes, shards = 1, replicas = Math.min(nodes, 3) } = this.options;
    const before = await this.client.topology({ timeoutMs: 30_000 });
    if (before.version > 0) return;
    await this.client.initCluster({ shards, replicas }, { timeoutMs: 30_000 });
  }

  /** Chooses ports and directories, and starts nothing. */
  static async prepare(options: LocalClusterOptions): Promise<LocalCluster> {
    const nodes: LocalNode[] = [];
    for (let node = 1; node <= options.nodes; node++) {
      nodes.push(await prepareNode(options, node, false));
    }
    return new LocalCluster(nodes, options);
  }

  /**
   * One more node, which joins the running cluster and is given the next id. Resolves when its process
   * runs; it serves a little later.
   */
  async addNode(extraFlags: Readonly<Record<string, string>> = {}): Promise<LocalNode> {
    const added = await prepareNode(this.options, this.nodes.length + 1, true);
    this.nodes.push(added);
    this.startNode(added.node, extraFlags);
    return added;
  }

  get endpoints(): readonly string[] {
    return this.nodes.map((node) => node.clientAddress);
  }

  node(id: number): LocalNode {
    const found = this.nodes.find((node) => node.node === id);
    if (found === undefined) throw new RangeError(`no node ${id}: there are ${this.nodes.length}`);
    return found;
  }

  pid(id: number): number | undefined {
    return this.processes.get(id)?.pid;
  }

  /** Starts the process of a node; its data directory is as it was left. */
  startNode(
    id: number,
    extraFlags: Readonly<Record<string, string>> = {},
    extraEnvironment: Readonly<Record<string, string>> = {},
  ): ChildProcess {
    const { environment } = this.options;
    const node = this.node(id);
    const log = openSync(node.logFile, 'a');
    const child = spawn(
      process.execPath,
      [
        ...(this.options.execArguments ?? process.execArgv),
        mainFile(),
        ...this.argumentsOf(node, extraFlags),
      ],
      {
        stdio: ['ignore', 'ignore', log],
        env: { ...process.env, ...environment, ...extraEnvironment },
      },
    );
    closeSync(log);
    this.processes.set(id, child);
    return child;
  }

  /** SIGKILL: no chance to flush or say goodbye. Resolves when the process is gone. */
  kill(id: number): Promise<void> {
    return this.end(id, 'SIGKILL');
  }

  /** SIGTERM: the node hands over and closes. Resolves when the process is gone. */
  terminate(id: number): Promise<void> {
    return this.end(id, 'SIGTERM');
  }

  /** Stops every process that still runs, gently first. */
  async stop(): Promise<void> {
    await Promise.all([...this.processes.keys()].map((id) => this.terminate(id)));
    this.client.close();
  }

  async status(id: number): Promise<StatusReply | undefined> {
    try {
      return await this.client.status(this.node(id).clientAddress, { timeoutMs: 2000 });
    } catch {
      // Not up (yet, or any more): that is an answer here.
      return undefined;
    }
  }

  /** The node that leads a group, as it says itself; undefined while there is none. */
  async leader(group: number): Promise<number | undefined> {
    const replies = await Promise.all(this.nodes.map((node) => this.status(node.node)));
    let best: { node: number; term: number } | undefined;
    for (const reply of replies) {
      const found = reply?.groups.find(
        (status) => status.groupId === group && status.role === 'leader',
      );
      if (reply === undefined || found === undefined) continue;
      if (best === undefined || found.term > best.term)
        best = { node: reply.nodeId, term: found.term };
    }
    return best?.node;
  }

  /** Waits until `done` says so. Rejects at the deadline with `what` and each node's state. */
  async waitFor(what: string, timeoutMs: number, done: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await done())) {
      this.assertRunning();
      if (performance.now() > deadline) {
        throw new Error(`${what}: not within ${timeoutMs} ms\n${await this.describe()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /** Every running node answers, every group has a leader, and the leaders have all slots. */
  waitUntilReady(timeoutMs: number): Promise<void> {
    return this.waitFor('cluster ready', timeoutMs, async () => {
      const replies = await Promise.all([...this.processes.keys()].map((id) => this.status(id)));
      const groups = replies.flatMap((reply) => reply?.groups ?? []);
      const leading = groups.filter(({ role }) => role === 'leader');
      const led = new Set(leading.map(({ groupId }) => groupId));
      return (
        replies.every((reply) => reply !== undefined) &&
        groups.every(({ groupId }) => led.has(groupId)) &&
        leading.reduce((sum, { slots }) => sum + slots, 0) === slotCount
      );
    });
  }

  /** The last lines of a node's log. */
  logTail(id: number, lines = 10): string {
    return readFileSync(this.node(id).logFile, 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-lines)
      .join('\n');
  }

  private async end(id: number, signal: NodeJS.Signals): Promise<void> {
    const child = this.processes.get(id);
    this.processes.delete(id);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    // A node that does not stop when asked is not waited for longer than this.
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await gone;
    clearTimeout(timer);
  }

  /** Throws, with the end of its log, if a node has stopped by itself. */
  assertRunning(): void {
    for (const [id, { exitCode, signalCode }] of this.processes) {
      if (exitCode === null && signalCode === null) continue;
      const how = signalCode ?? `exit code ${exitCode}`;
      throw new Error(`node ${id} stopped with ${how}:\n${this.logTail(id)}`);
    }
  }

  private argumentsOf(node: LocalNode, extraFlags: Readonly<Record<string, string>>): string[] {
    const first = this.nodes.filter(({ joins }) => !joins);
    const place: Record<string, string> = node.joins
      ? { join: first.map((member) => member.clientAddress).join(',') }
      : {
          'node-id': String(node.node),
          'initial-cluster': first
            .map((member) => `${member.node}=${member.peerAddress}/${member.clientAddress}`)
            .join(','),
        };
    const flags: Record<string, string> = {
      'cluster-id': 'local',
      'data-directory': node.directory,
      'client-address': node.clientAddress,
      'peer-address': node.peerAddress,
      'http-address': node.httpAddress,
      ...place,
      ...this.options.flags,
      ...extraFlags,
    };
    return Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  }

  private async describe(): Promise<string> {
    const lines = await Promise.all(
      this.nodes.map(async ({ node }) => {
        const reply = await this.status(node);
        const groups = reply?.groups.map(
          (group) =>
            `group ${group.groupId} ${group.role} term ${group.term} applied ${group.appliedIndex}`,
        );
        return `node ${node}: ${groups?.join('; ') ?? 'no answer'}`;
      }),
    );
    return lines.join('\n');
  }
}

/** The server's entry beside this file, compiled or not. */
function mainFile(): string {
  return join(import.meta.dirname, `../main${extname(import.meta.filename)}`);
}

/** Ports that were free a moment ago. */
async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(portMin, portMax);
    if (givenPorts.has(port) || !(await isPortFree(port))) continue;
    givenPorts.add(port);
    ports.push(port);
  }
  return ports;
}

/** Is the port free on loopback at this moment? */
export async function isPortFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => {
      resolve(false);
    });
    server.listen(port, host, () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}
