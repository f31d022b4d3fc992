/**
 * Nodes as processes of the `quorate` program, with real data directories. Nothing here retries or
 * restarts: a node that ends by itself is noted, and counts against the run unless it was expected.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { QuorateClient, type StatusReply } from '../src/client/index.js';
import type { Network } from './network.js';
import { tiedToThis, within } from './shell.js';

export interface ClusterOptions {
  readonly nodes: number;
  readonly shards: number;
  readonly replicas: number;
  readonly network: Network;
  /** The compiled `quorate` program. */
  readonly program: string;
  /** Logs of the nodes. */
  readonly logs: string;
  /** Where a node's data is. */
  readonly directoryOf: (node: number) => string;
  /** Options of every node, by flag. */
  readonly flags: Readonly<Record<string, string>>;
  /** More of the environment of every node. */
  readonly environmentOf: (node: number) => Readonly<Record<string, string>>;
}

/** A node that ended without a signal of this run. */
export interface UnexpectedEnd {
  readonly node: number;
  readonly how: string;
  readonly atMs: number;
}

export class Cluster {
  readonly ids: readonly number[];
  readonly network: Network;
  /** For what operators do. */
  readonly admin: QuorateClient;
  readonly unexpected: UnexpectedEnd[] = [];
  private readonly options: ClusterOptions;
  private readonly processes = new Map<number, ChildProcess>();
  /** Nodes that may end by themselves just now: a fault makes them. */
  private readonly doomed = new Set<number>();

  constructor(options: ClusterOptions) {
    this.options = options;
    this.network = options.network;
    this.ids = Array.from({ length: options.nodes }, (_, n) => n + 1);
    this.admin = new QuorateClient({ endpoints: this.endpoints });
  }

  /** Starts all nodes and makes one cluster of them. Rejects when it does not serve within 60 s. */
  async start(): Promise<void> {
    const { shards, replicas } = this.options;
    for (const node of this.ids) this.startNode(node);
    await this.admin.topology({ timeoutMs: 45_000 });
    await this.admin.initCluster({ shards, replicas }, { timeoutMs: 45_000 });
    if (!(await within(60_000, () => this.isWhole(), 200)))
      throw new Error(`the cluster does not serve:\n${await this.describe()}`);
  }

  get endpoints(): readonly string[] {
    return this.ids.map((node) => this.network.addressesOf(node).client);
  }

  directoryOf(node: number): string {
    return this.options.directoryOf(node);
  }

  logOf(node: number): string {
    return join(this.options.logs, `node-${node}.log`);
  }

  isRunning(node: number): boolean {
    const child = this.processes.get(node);
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  startNode(node: number, environment: Readonly<Record<string, string>> = {}): void {
    if (this.isRunning(node)) throw new Error(`node ${node} runs already`);
    mkdirSync(this.directoryOf(node), { recursive: true });
    const variables = { ...this.options.environmentOf(node), ...environment };
    const assigned = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
    const server = [process.execPath, this.options.program, 'server', ...this.argumentsOf(node)];
    const [program = '', ...args] = tiedToThis(
      this.network.commandOn(node, ['env', ...assigned, ...server]),
    );
    const log = openSync(this.logOf(node), 'a');
    // A group of its own: what the run is told (Ctrl-C) is not for the nodes.
    const child = spawn(program, args, { stdio: ['ignore', log, log], detached: true });
    closeSync(log);
    this.processes.set(node, child);
    if (child.pid !== undefined) this.network.runs(node, child.pid);
    child.once('exit', (code, signal) => {
      if (this.processes.get(node) !== child || this.doomed.has(node)) return;
      this.unexpected.push({ node, how: signal ?? `exit code ${code}`, atMs: performance.now() });
    });
  }

  /** SIGKILL. Resolves when the process is gone. */
  async kill(node: number): Promise<void> {
    await this.end(node, 'SIGKILL');
  }

  async terminate(node: number): Promise<void> {
    await this.end(node, 'SIGTERM');
  }

  signal(node: number, signal: NodeJS.Signals): void {
    if (this.isRunning(node)) this.processes.get(node)?.kill(signal);
  }

  /** Whether it may end by itself from now on. */
  expectEnd(node: number, may: boolean): void {
    if (may) this.doomed.add(node);
    else this.doomed.delete(node);
  }

  pidOf(node: number): number | undefined {
    return this.processes.get(node)?.pid;
  }

  exitCodeOf(node: number): number | null | undefined {
    return this.processes.get(node)?.exitCode;
  }

  async stop(): Promise<void> {
    await Promise.all(this.ids.map((node) => this.terminate(node)));
    this.admin.close();
  }

  /** At once, for exits in a hurry. */
  killAll(): void {
    for (const child of this.processes.values()) child.kill('SIGKILL');
  }

  async status(node: number): Promise<StatusReply | undefined> {
    if (!this.isRunning(node)) return undefined;
    try {
      const { client } = this.network.addressesOf(node);
      return await this.admin.status(client, { timeoutMs: 2000 });
    } catch {
      // Paused, or starting: no answer is an answer here.
      return undefined;
    }
  }

  async statuses(): Promise<readonly StatusReply[]> {
    const replies = await Promise.all(this.ids.map((node) => this.status(node)));
    return replies.filter((reply) => reply !== undefined);
  }

  /** Leaders by group, as those of the highest term say themselves. */
  async leaders(): Promise<ReadonlyMap<number, number>> {
    const terms = new Map<number, number>();
    const leaders = new Map<number, number>();
    for (const { nodeId, groups } of await this.statuses()) {
      for (const { groupId, role, term } of groups) {
        if (role !== 'leader' || term <= (terms.get(groupId) ?? 0)) continue;
        terms.set(groupId, term);
        leaders.set(groupId, nodeId);
      }
    }
    return leaders;
  }

  /** Every node answers and every group has a leader. */
  async isWhole(): Promise<boolean> {
    const replies = await this.statuses();
    const leaders = await this.leaders();
    const groups = new Set(replies.flatMap((reply) => reply.groups.map(({ groupId }) => groupId)));
    const shards = replies.length === 0 ? 0 : groups.size;
    return (
      replies.length === this.ids.length &&
      shards >= Math.min(2, 1 + this.options.shards) &&
      [...groups].every((group) => leaders.has(group))
    );
  }

  async describe(): Promise<string> {
    const lines = await Promise.all(
      this.ids.map(async (node) => {
        const reply = await this.status(node);
        const groups = reply?.groups.map(
          ({ groupId, role, term, appliedIndex }) =>
            `${groupId} ${role} term ${term} applied ${appliedIndex}`,
        );
        const state = this.isRunning(node) ? 'no answer' : 'not running';
        return `node ${node}: ${groups?.join('; ') ?? state}`;
      }),
    );
    return lines.join('\n');
  }

  private async end(node: number, signal: NodeJS.Signals): Promise<void> {
    const child = this.processes.get(node);
    if (child === undefined || !this.isRunning(node)) return;
    // Its end is not its own doing.
    this.processes.delete(node);
    const gone = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), 15_000);
    await gone;
    clearTimeout(timer);
  }

  private argumentsOf(node: number): readonly string[] {
    const first = this.ids.map((id) => {
      const { advertisedPeer, advertisedClient } = this.network.addressesOf(id);
      return `${id}=${advertisedPeer}/${advertisedClient}`;
    });
    const { client, peer, http } = this.network.addressesOf(node);
    const flags = {
      'cluster-id': 'jepsen',
      'node-id': String(node),
      'initial-cluster': first.join(','),
      'data-directory': this.directoryOf(node),
      'client-address': client,
      'peer-address': peer,
      'http-address': http,
      ...this.options.flags,
    };
    return Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  }
}
