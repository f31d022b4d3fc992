/**
 * All groups of a node: one ticker, one pass over the groups that have something to do at the end of
 * each turn, and the door through which messages of other nodes come in.
 */
import { randomBytes } from 'node:crypto';
import {
  membershipOf,
  newGroupState,
  noReplica,
  type Generation,
  type GroupId,
  type Member,
  type NodeId,
  type RaftOptions,
  type ReplicaId,
  type RestoredState,
  type SnapshotMeta,
} from '../../raft/index.js';
import { replicaPrefix, replicaRange, type Engine, type RaftLog } from '../../storage/index.js';
import type { Cancel, Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { GroupMessage, IncomingSnapshot, Transport } from '../transport/transport.js';
import { Driver } from './driver.js';
import type { DriverSurroundings, GroupLimits } from './group-context.js';
import type { Group } from './group.js';
import { recoverReplica } from './recover.js';
import { clearRemovedReplicas } from './removed-replicas.js';
import type { StateMachine } from './state-machine.js';

export type RaftSettings = Omit<RaftOptions, 'id' | 'seed' | 'silentTicks'>;

export interface HostOptions {
  readonly node: NodeId;
  readonly log: RaftLog;
  readonly engine: Engine;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly tickMs: number;
  readonly raft: RaftSettings;
  readonly limits: GroupLimits;
  readonly logLine: Log;
  /** Unsigned 32-bit; every group draws its own from it. */
  readonly seed: number;
  /** What the contexts of reads begin with: another at each start (rule D08). Drawn if left out. */
  readonly readContexts?: string;
  /** The node must stop; called once. */
  readonly onFatal: (error: Error) => void;
}

export interface GroupOptions<R> {
  readonly id: GroupId;
  /** This node's replica. */
  readonly replica: ReplicaId;
  /** The first voters of the group: only used when the replica is new. */
  readonly firstMembers: readonly Member[];
  /** Of the group as it is now; 0 if left out. Only used when the replica is new (rule D07). */
  readonly generation?: Generation;
  /** `prefix`: where the machine's keys live in the engine. */
  readonly createMachine: (prefix: Uint8Array) => StateMachine<R>;
}

/** What the host needs of a group, whatever its state machine returns. */
export type HostedGroup = Pick<
  Driver<unknown>,
  | 'id'
  | 'replica'
  | 'generation'
  | 'isLeader'
  | 'tick'
  | 'sleeps'
  | 'step'
  | 'onSnapshot'
  | 'onDisconnected'
  | 'pump'
  | 'close'
  | 'idle'
  | 'transferLeadership'
  | 'status'
  | 'figures'
  | 'hash'
  | 'hashAt'
  | 'leaderNode'
>;

export class Host {
  /** The generation that a group has by what this node was told; 0 if it was not told. */
  generationOf: (group: GroupId) => Generation = () => 0;
  private readonly options: HostOptions;
  private readonly groups = new Map<GroupId, HostedGroup>();
  private readonly awake = new Set<HostedGroup>();
  /** Those to whom time means something: all that do not sleep. */
  private readonly ticking = new Set<HostedGroup>();
  private passScheduled = false;
  /** Undefined while everybody sleeps, and before the start. */
  private stopTicker: Cancel | undefined;
  private running = false;
  private failed = false;
  /** Nodes with a live connection, as of the last tick. */
  private readonly connected = new Set<NodeId>();
  private readonly readContexts: string;
  private readonly dropped = { unknownGroup: 0, otherReplica: 0 };

  constructor(options: HostOptions) {
    this.options = options;
    this.readContexts = options.readContexts ?? randomBytes(8).toString('hex');
  }

  /**
   * Opens or creates this node's replica of a group. Rejects with ReplicaDamaged when log and engine
   * contradict each other, and when the replica id was removed before (rule D01).
   */
  async addGroup<R>(options: GroupOptions<R>): Promise<Group<R>> {
    const { id, replica } = options;
    const { raft, seed } = this.options;
    const prefix = replicaPrefix(id, replica);
    const machine = options.createMachine(prefix);
    const { state, isNew, needsSnapshot } = await this.restore(options, prefix);
    if (!needsSnapshot) await machine.load();
    // Two drivers of one replica would apply its log twice, and vote twice in a term.
    if (this.groups.has(id)) throw new Error(`group ${id}: its replica here is open already`);
    const driver = new Driver<R>({
      id,
      replica,
      prefix,
      machine,
      state,
      raft: {
        ...raft,
        id: replica,
        seed: (seed ^ Math.imul(id + 1, 0x9e3779b1)) >>> 0,
        // A vote forgotten in a restart may stand in a lease: keep silent for as long (rule D03).
        silentTicks: isNew ? 0 : raft.electionTicks,
      },
      campaignsAtBirth: isNew && options.firstMembers[0]?.id === replica,
      surroundings: this.surroundings(() => {
        this.wake(driver);
      }),
    });
    this.groups.set(id, driver);
    this.wake(driver);
    return driver;
  }

  /**
   * Drops this node's replica of a group for ever: whoever waits for it learns that it is closed, and
   * no replica with this id, or a lower one, is created here again (rule D01).
   */
  async removeGroup(id: GroupId): Promise<void> {
    const driver = this.groups.get(id);
    if (driver === undefined) return;
    const { log, engine, logLine } = this.options;
    this.groups.delete(id);
    driver.close();
    // Nothing writes any more: neither a batch being applied nor a snapshot being installed.
    await driver.idle();
    // The durable floor first: after a crash in between, `start` finds by it what is left to clear.
    await log.removeGroup(id);
    await engine.clear(replicaRange(replicaPrefix(id, driver.replica)));
    logLine('info', { group: id, replica: driver.replica }, 'replica removed');
  }

  /** The highest replica id of the group that was removed here, or `noReplica`. */
  removedFloor(id: GroupId): ReplicaId {
    return this.options.log.removedFloor(id);
  }

  /** Begins to listen, to tick and to work. Rejects when the peer port is taken. */
  async start(): Promise<void> {
    const { transport, log, engine, logLine } = this.options;
    // All groups are open: what recovery found of them need not stay in memory.
    log.forgetRecovered();
    const cleared = await clearRemovedReplicas(engine, (group) => log.removedFloor(group));
    if (cleared > 0) logLine('info', { cleared }, 'cleared what was left of removed replicas');
    await transport.start({
      onMessages: (from, messages) => {
        this.onMessages(from, messages);
      },
      onSnapshot: (incoming) => {
        this.onSnapshot(incoming);
      },
      onConnection: (node, connected) => {
        this.startTicking();
        if (connected) return;
        for (const group of this.groups.values()) group.onDisconnected(node);
      },
    });
    this.running = true;
    this.startTicking();
  }

  private startTicking(): void {
    const { clock, tickMs } = this.options;
    if (!this.running) return;
    this.stopTicker ??= clock.every(tickMs, () => {
      this.tick();
    });
  }

  /** A group that sleeps costs nothing, until it is woken or a connection comes or goes. */
  private tick(): void {
    const all = this.lookAtConnections();
    for (const group of all ? this.groups.values() : this.ticking) {
      group.tick();
      if (group.sleeps) this.ticking.delete(group);
    }
    if (this.ticking.size > 0) return;
    this.stopTicker?.();
    this.stopTicker = undefined;
  }

  /** True when a node came or went since the last look. */
  private lookAtConnections(): boolean {
    let changed = false;
    for (const { node, connected } of this.options.transport.peers()) {
      if (connected === this.connected.has(node)) continue;
      changed = true;
      if (connected) this.connected.add(node);
      else this.connected.delete(node);
    }
    return changed;
  }

  allGroups(): readonly HostedGroup[] {
    return [...this.groups.values()];
  }

  /** Queues of the groups and their limits, for metrics: the longest of all groups. */
  queues(): readonly { queue: string; length: number; limit: number }[] {
    const { proposalsMax, readsMax } = this.options.limits;
    let [proposals, reads] = [0, 0];
    for (const group of this.groups.values()) {
      const { proposalsWaiting = 0, readsWaiting = 0 } = group.figures();
      proposals = Math.max(proposals, proposalsWaiting);
      reads = Math.max(reads, readsWaiting);
    }
    return [
      { queue: 'shard_proposals', length: proposals, limit: proposalsMax },
      { queue: 'shard_reads', length: reads, limit: readsMax },
    ];
  }

  statistics(): Readonly<Record<string, number>> {
    return { groups: this.groups.size, ...this.dropped };
  }

  /** Stops everything. The log and the engine stay open. */
  async close(): Promise<void> {
    this.running = false;
    this.stopTicker?.();
    for (const group of this.groups.values()) group.close();
    await this.options.transport.close();
    await Promise.all([...this.groups.values()].map((group) => group.idle()));
  }

  /** Hands leadership of every group to somebody else; gives up after `graceMs`. */
  async handOver(graceMs: number): Promise<void> {
    const { clock } = this.options;
    const deadline = clock.monotonicMs() + graceMs;
    const leading = (): HostedGroup[] =>
      [...this.groups.values()].filter((group) => group.isLeader);
    const asked = leading().filter((group) => group.transferLeadership(noReplica));
    while (asked.some((group) => group.isLeader) && clock.monotonicMs() < deadline) {
      await new Promise<void>((resolve) => {
        clock.after(this.options.tickMs, resolve);
      });
    }
    // One more turn: proposals under way learn their outcome from the next leader.
    await new Promise<void>((resolve) => {
      clock.after(
        asked.length > 0 ? this.options.tickMs * this.options.raft.heartbeatTicks : 0,
        resolve,
      );
    });
  }

  private async restore<R>(
    { id, replica, firstMembers, generation = 0 }: GroupOptions<R>,
    prefix: Uint8Array,
  ): Promise<{ state: RestoredState; isNew: boolean; needsSnapshot: boolean }> {
    const { log, engine, logLine } = this.options;
    const recovered = log.recovered.find((group) => group.group === id);
    if (recovered === undefined) {
      const membership = membershipOf(firstMembers);
      await log.createGroup({ group: id, replica, membership, generation });
      return { state: newGroupState(membership, generation), isNew: true, needsSnapshot: false };
    }
    if (recovered.replica !== replica) {
      throw new Error(
        `group ${id}: this node's Raft log belongs to replica ${recovered.replica}, configured is ${replica}: ` +
          'a replica id is never used again',
      );
    }
    const { state, reset, reason } = await recoverReplica(recovered, engine, prefix);
    if (reason !== undefined)
      logLine('warn', { group: id, reason }, 'this replica needs a snapshot from its leader');
    if (reset !== undefined) await this.finishReset(id, reset);
    return { state, isNew: false, needsSnapshot: state.restoring };
  }

  /** A crash came between the install of a snapshot and the reset of the log (rule D15). */
  private finishReset(group: GroupId, reset: SnapshotMeta): Promise<void> {
    return new Promise((resolve) => {
      this.options.log.append({ group, reset }, resolve);
    });
  }

  private surroundings(wake: () => void): DriverSurroundings {
    const { log, engine, transport, clock, tickMs, logLine, limits } = this.options;
    return {
      log,
      engine,
      transport,
      clock,
      tickMs,
      logLine,
      limits,
      wake,
      onFatal: (error) => {
        if (this.failed) return;
        this.failed = true;
        this.options.onFatal(error);
      },
      readContexts: this.readContexts,
      isConnected: (node) => node === this.options.node || this.connected.has(node),
      clockMedianMs: (nodes) => this.clockMedianMs(nodes),
    };
  }

  private clockMedianMs(nodes: readonly NodeId[]): number {
    const { clock, transport, node } = this.options;
    const now = clock.wallMs();
    const offsets = new Map(transport.peers().map((peer) => [peer.node, peer.clockOffsetMs]));
    const known = nodes
      .map((each) => (each === node ? 0 : offsets.get(each)))
      .filter((offset) => offset !== undefined);
    known.sort((a, b) => a - b);
    // Of an even number the lower one: with one voter of three away, a clock that is ahead must not
    // take log time with it, which never goes back. One that is behind does no harm.
    return now + (known[(known.length - 1) >> 1] ?? 0);
  }

  private wake(driver: HostedGroup): void {
    this.awake.add(driver);
    this.ticking.add(driver);
    this.startTicking();
    if (this.passScheduled) return;
    this.passScheduled = true;
    this.options.clock.endOfTurn(() => {
      this.pass();
    });
  }

  private pass(): void {
    this.passScheduled = false;
    const groups = [...this.awake];
    this.awake.clear();
    for (const group of groups) group.pump();
  }

  /** A replica is created by an order, never by a message (rule D01): unknown ones are dropped. */
  private onMessages(from: NodeId, messages: readonly GroupMessage[]): void {
    for (const { group, generation, message } of messages) {
      const driver = this.groups.get(group);
      if (driver !== undefined && message.to === driver.replica) {
        driver.step(from, { generation, message });
        continue;
      }
      if (driver === undefined) this.dropped.unknownGroup++;
      else this.dropped.otherReplica++;
      if (generation < this.generationOf(group)) this.answerOutdated(from, { group, message });
    }
  }

  /**
   * What the replica that was here would answer to a lower generation (rule D07): the survivor of a
   * recovery may have moved on since, and the old majority knows no other place where to ask.
   */
  private answerOutdated(node: NodeId, { group, message }: Omit<GroupMessage, 'generation'>): void {
    const generation = this.generationOf(group);
    const { from: to, to: from, term } = message;
    const answer = { type: 'heartbeatReply', from, to, term, round: 0 } as const;
    this.options.transport.send(node, { group, generation, message: answer });
  }

  private onSnapshot(incoming: IncomingSnapshot): void {
    const driver = this.groups.get(incoming.header.group);
    if (driver?.replica === incoming.header.to) driver.onSnapshot(incoming);
    else incoming.finish({ ok: false, reason: 'no such replica on this node' });
  }
}
