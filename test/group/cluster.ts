/**
 * Nodes in one process: real drivers, cores and Raft logs over simulated disks, engines and network.
 * Time moves by ticks that the test gives.
 */
import { groupId, nodeId, replicaId, type GroupId, type NodeId } from '../../raft/index.js';
import { MemoryEngine, RaftLog, type RecoveredGroup } from '../../storage/index.js';
import type { GroupLimits } from '../../src/group/group-context.js';
import type { Group, ProposeOutcome, ReadOutcome } from '../../src/group/group.js';
import { Host, type RaftSettings } from '../../src/group/host.js';
import { MemoryNetwork, type MemoryTransport } from '../../src/transport/memory-transport.js';
import {
  randomFrom,
  SimulatedDisk,
  type RandomNumber,
} from '../storage/raft-log/simulated-disk.js';
import { ManualClock } from '../support/manual-clock.js';
import { Ledger, type LedgerResult } from './ledger.js';

export const tickMs = 10;
const KiB = 1024;

export const quickRaft: RaftSettings = {
  electionTicks: 10,
  heartbeatTicks: 2,
  leaseTicks: 0,
  preVote: true,
  checkQuorum: true,
  entryBytesMax: 256 * KiB,
  messageBytesMax: 64 * KiB,
  inflightMessagesMax: 32,
  inflightBytesMax: 256 * KiB,
  uncommittedBytesMax: 1024 * KiB,
  windowBytesMax: 16 * KiB,
  stalledTicksMax: 60,
  quietTicks: 0,
  promoteLagMax: 10,
};

export const smallLimits: GroupLimits = {
  proposalsMax: 1000,
  readsMax: 1000,
  durableMarkBytes: 8 * KiB,
  logKeptBytes: 16 * KiB,
};

export interface ClusterOptions {
  readonly nodes?: number;
  /** Groups 1 to this number, each with a replica on each node. */
  readonly groups?: number;
  readonly raft?: Partial<RaftSettings>;
  readonly limits?: Partial<GroupLimits>;
  readonly seed?: number;
}

/** What runs while a node is up. */
interface Running {
  readonly host: Host;
  readonly log: RaftLog;
  readonly transport: MemoryTransport;
  readonly groups: ReadonlyMap<GroupId, Group<LedgerResult>>;
}

export class ClusterNode {
  readonly id: NodeId;
  readonly disk = new SimulatedDisk();
  engine = new MemoryEngine();
  readonly ledgers = new Map<GroupId, Ledger>();
  /** Why it stopped, if it stopped by itself. */
  fatal: Error | undefined;
  running: Running | undefined;
  private readonly cluster: Cluster;

  constructor(cluster: Cluster, id: NodeId) {
    this.cluster = cluster;
    this.id = id;
  }

  group(id = groupId(1)): Group<LedgerResult> {
    const group = this.running?.groups.get(id);
    if (group === undefined) throw new Error(`node ${this.id} does not run group ${id}`);
    return group;
  }

  ledger(id = groupId(1)): Ledger {
    const ledger = this.ledgers.get(id);
    if (ledger === undefined) throw new Error(`node ${this.id} has no ledger of group ${id}`);
    return ledger;
  }

  async start(): Promise<void> {
    const { cluster, engine } = this;
    const { clock, options, network } = cluster;
    this.fatal = undefined;
    const stop = (error: Error): void => {
      this.fatal ??= error;
      this.kill();
    };
    const log = await this.openLog(this.disk, stop);
    const transport = network.attach(this.id);
    const host = new Host({
      node: this.id,
      log,
      engine,
      transport,
      clock,
      tickMs,
      raft: { ...quickRaft, ...options.raft },
      limits: { ...smallLimits, ...options.limits },
      logLine: () => undefined,
      seed: cluster.random(),
      onFatal: stop,
    });
    const groups = new Map<GroupId, Group<LedgerResult>>();
    for (const id of cluster.groupIds()) groups.set(id, await this.addGroup(host, id));
    await host.start();
    this.running = { host, log, transport, groups };
  }

  private openLog(disk: SimulatedDisk, onFailure: (error: Error) => void): Promise<RaftLog> {
    return RaftLog.open(
      {
        directory: '/raft',
        segmentBytes: 64 * KiB,
        tailBytesMax: 64 * KiB,
        heldSegmentsMax: 4,
        onFailure,
      },
      {
        disk: disk.mount(),
        schedule: (run) => {
          this.cluster.clock.endOfTurn(run);
        },
      },
    );
  }

  /** What a restart would find of the first group in the log, now. */
  async recoverableLog(): Promise<RecoveredGroup> {
    const log = await this.openLog(this.disk.copy(), () => undefined);
    const [recovered] = log.recovered;
    if (recovered === undefined) throw new Error(`node ${this.id} has an empty log`);
    return recovered;
  }

  private addGroup(host: Host, id: GroupId): Promise<Group<LedgerResult>> {
    return host.addGroup<LedgerResult>({
      id,
      replica: replicaId(this.id),
      firstMembers: this.cluster.nodeIds().map((node) => ({ id: replicaId(node), node })),
      createMachine: (prefix) => {
        const ledger = new Ledger(this.engine, prefix);
        this.ledgers.set(id, ledger);
        return ledger;
      },
    });
  }

  /** kill -9: whatever was written is there. */
  kill(): void {
    this.stop();
    this.disk.kill();
    this.engine = this.engine.crash(this.engine.unsyncedLength);
  }

  /** The power goes: of the unsynced writes, any sectors of the log and a first part of the engine's. */
  cutPower(random: RandomNumber): void {
    this.stop();
    this.disk.cutPower(random);
    this.engine = this.engine.crash(random() % (this.engine.unsyncedLength + 1));
  }

  private stop(): void {
    const { running } = this;
    this.running = undefined;
    // The ticker stops and the network forgets the node; what is under way ends nowhere.
    if (running !== undefined) void running.host.close();
  }
}

export class Cluster {
  readonly clock = new ManualClock();
  readonly options: ClusterOptions;
  readonly network: MemoryNetwork;
  readonly nodes: readonly ClusterNode[];
  readonly random: RandomNumber;

  private constructor(options: ClusterOptions) {
    this.options = options;
    this.random = randomFrom(options.seed ?? 1);
    this.network = new MemoryNetwork({ clock: this.clock });
    this.nodes = this.nodeIds().map((id) => new ClusterNode(this, id));
  }

  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(options);
    for (const node of cluster.nodes) await node.start();
    return cluster;
  }

  nodeIds(): readonly NodeId[] {
    return Array.from({ length: this.options.nodes ?? 3 }, (_, i) => nodeId(i + 1));
  }

  groupIds(): readonly GroupId[] {
    return Array.from({ length: this.options.groups ?? 1 }, (_, i) => groupId(i + 1));
  }

  node(id: number): ClusterNode {
    const node = this.nodes[id - 1];
    if (node === undefined) throw new Error(`there is no node ${id}`);
    return node;
  }

  async tick(ticks = 1): Promise<void> {
    for (let i = 0; i < ticks; i++) {
      this.clock.jump(tickMs);
      await this.clock.settle();
    }
  }

  /** Ticks until the condition holds; throws with `what` when it does not within `ticksMax`. */
  async until(what: string, condition: () => boolean, ticksMax = 400): Promise<void> {
    await this.clock.settle();
    for (let i = 0; i < ticksMax; i++) {
      if (condition()) return;
      await this.tick();
    }
    throw new Error(`not within ${ticksMax} ticks: ${what}${this.fatalities()}`);
  }

  /** The node that leads a group at the highest term, once there is one that all others follow. */
  async leader(group = groupId(1)): Promise<ClusterNode> {
    let found: ClusterNode | undefined;
    await this.until(`group ${group} has a leader`, () => {
      found = this.nodes
        .filter((node) => node.running !== undefined && node.group(group).isLeader)
        .sort((a, b) => b.group(group).term - a.group(group).term)[0];
      return found !== undefined;
    });
    if (found === undefined) throw new Error('unreachable');
    return found;
  }

  followers(leader: ClusterNode): readonly ClusterNode[] {
    return this.nodes.filter((node) => node !== leader && node.running !== undefined);
  }

  /** Writes through the leader, as often as it takes, and gives back the node that did it. */
  async write(text: string, group = groupId(1)): Promise<ClusterNode> {
    const leader = await this.leader(group);
    const outcome = await this.outcome(propose(leader, text, group));
    if (outcome.kind !== 'applied') throw new Error(`"${text}" became ${JSON.stringify(outcome)}`);
    return leader;
  }

  async writeMany(prefix: string, count: number, bytes = 0, group = groupId(1)): Promise<string[]> {
    const leader = await this.leader(group);
    const texts = Array.from({ length: count }, (_, i) => `${prefix}${i}`.padEnd(bytes, '.'));
    // In portions: what is proposed in one turn is applied, and made durable, in one batch.
    for (let at = 0; at < count; at += 5) {
      const outcomes = texts.slice(at, at + 5).map((text) => propose(leader, text, group));
      for (const outcome of outcomes) {
        const { kind } = await this.outcome(outcome);
        if (kind !== 'applied') throw new Error(`a write became ${kind}`);
      }
    }
    return texts;
  }

  /** Ticks until a promise has settled. */
  async outcome<T>(promise: Promise<T>, ticksMax = 400): Promise<T> {
    let settled = false;
    const mark = (): void => {
      settled = true;
    };
    promise.then(mark, mark);
    await this.until('an outcome', () => settled, ticksMax);
    return promise;
  }

  /** Every running replica of the group has applied as much as the leader. */
  async converge(group = groupId(1)): Promise<void> {
    const leader = await this.leader(group);
    await this.until('all replicas have caught up', () => {
      const { appliedIndex } = leader.group(group);
      return this.nodes.every(
        (node) => node.running === undefined || node.group(group).appliedIndex === appliedIndex,
      );
    });
  }

  close(): void {
    for (const node of this.nodes) node.kill();
  }

  private fatalities(): string {
    return this.nodes
      .filter(({ fatal }) => fatal !== undefined)
      .map(({ id, fatal }) => `\n  node ${id} stopped: ${fatal?.stack ?? ''}`)
      .join('');
  }
}

export function propose(
  node: ClusterNode,
  text: string,
  group = groupId(1),
): Promise<ProposeOutcome<LedgerResult>> {
  return new Promise((resolve) => {
    node.group(group).propose(Buffer.from(text), resolve);
  });
}

export function readIndex(
  node: ClusterNode,
  { lease = false } = {},
  group = groupId(1),
): Promise<ReadOutcome> {
  return new Promise((resolve) => {
    node.group(group).readIndex({ lease }, resolve);
  });
}

/** Runs with a cluster and stops its nodes afterwards. */
export async function withCluster(
  options: ClusterOptions,
  run: (cluster: Cluster) => Promise<void>,
): Promise<void> {
  const cluster = await Cluster.start(options);
  try {
    await run(cluster);
  } finally {
    cluster.close();
  }
}
