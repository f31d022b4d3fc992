/**
 * A small world for the decisions of the metadata leader: nodes that are there or not, shards that
 * follow the topology late and report late, one step a second. Topologies change by the real rules.
 */
import { expect } from 'chai';
import { nodeId, replicaId, type GroupId, type NodeId } from '../../raft/index.js';
import {
  decide,
  groupsInQuestion,
  type ShardReport,
  type Sight,
  type Situation,
} from '../../src/cluster/decisions.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import {
  metadataGroup,
  nodeOf,
  noCluster,
  type ShardRecord,
  type Topology,
} from '../../src/meta/topology.js';
import { after, apply, firstNode, initOf } from '../meta/clusters.js';
import { TopologyCheck } from '../meta/topology-check.js';

export const nodeCount = 8;
export const tickMs = 1_000;
export const replaceAfterMs = 8_000;
const replication = 3;
/** Ticks that a learner needs to catch up. */
const buildTicks = 3;
/** At most so many ticks old is what shards know of the topology, and what is known of them. */
export const delayMax = 2;

export type WorldEvent =
  | { readonly kind: 'stop' | 'start' | 'drain' | 'undrain' | 'remove'; readonly node: number }
  | { readonly kind: 'repairsMax'; readonly value: number }
  | { readonly kind: 'newLeader' }
  | { readonly kind: 'delay'; readonly ticks: number };

interface Members {
  readonly voters: ReadonlySet<number>;
  readonly learners: ReadonlySet<number>;
}

/** The Raft groups: who counts, without logs. */
class ShardModel {
  /** Oldest first; the last one is true. */
  readonly history: Members[];
  private readonly caughtUp = new Map<number, number>();

  constructor(record: Pick<ShardRecord, 'founders'>) {
    const voters = new Set<number>(record.founders.map(({ replica }) => replica));
    this.history = [{ voters, learners: new Set() }];
  }

  get members(): Members {
    const members = this.history.at(-1);
    if (members === undefined) throw new Error('a shard without members');
    return members;
  }

  /** As the membership keeper does: add, (promote,) then remove; one step, if it can commit. */
  step(wanted: readonly number[], issuedBelow: number, isLive: (id: number) => boolean): void {
    const { voters, learners } = this.members;
    this.history.push(this.members);
    if (this.history.length > delayMax + 1) this.history.shift();
    if (!majority(voters, isLive)) return;
    for (const id of learners)
      if (isLive(id)) this.caughtUp.set(id, (this.caughtUp.get(id) ?? 0) + 1);
    const next = this.next(wanted, issuedBelow, isLive);
    if (next === undefined || !majority(next.voters, isLive)) return;
    this.history[this.history.length - 1] = next;
  }

  private next(
    wanted: readonly number[],
    issuedBelow: number,
    isLive: (id: number) => boolean,
  ): Members | undefined {
    const { voters, learners } = this.members;
    const ready = [...learners].find(
      (id) => isLive(id) && (this.caughtUp.get(id) ?? 0) >= buildTicks,
    );
    if (ready !== undefined)
      return {
        voters: new Set([...voters, ready]),
        learners: new Set([...learners].filter((id) => id !== ready)),
      };
    if ([...voters, ...learners].some((id) => id >= issuedBelow)) return undefined;
    const missing = wanted.filter((id) => !voters.has(id) && !learners.has(id));
    if (missing.length > 0) {
      for (const id of missing) this.caughtUp.delete(id);
      return { voters, learners: new Set([...learners, ...missing]) };
    }
    if (!wanted.every((id) => voters.has(id))) return undefined;
    return { voters: new Set(wanted), learners: new Set() };
  }
}

function majority(voters: ReadonlySet<number>, isLive: (id: number) => boolean): boolean {
  return 2 * [...voters].filter(isLive).length > voters.size;
}

export class DecisionWorld {
  topology: Topology;
  /** How often each thing happened. */
  readonly happened: Map<string, number>;
  private readonly check = new TopologyCheck();
  private readonly shards = new Map<GroupId, ShardModel>();
  private readonly topologies: Topology[] = [];
  private readonly stoppedAtMs = new Map<number, number>();
  private readonly nodeOfReplica = new Map<number, number>();
  private readonly seen = new Map<NodeId, Sight>();
  private leadingSinceMs = 0;
  private nowMs = 0;
  private delay = 0;

  constructor(happened: Map<string, number>) {
    this.happened = happened;
    const hosts = ['a', 'a', 'b', 'b', 'c', 'd', 'e', 'f'];
    const nodes = hosts.map((host, at) => firstNode(at + 1, { labels: { host } }));
    this.topology = after(
      noCluster,
      initOf(nodes, { shards: 5, replication, nowMs: 0 }),
      { kind: 'setMetadata', nodes: [1, 3, 5] },
      { kind: 'setSetting', name: 'suspectAfterMs', value: 2_000 },
      { kind: 'setSetting', name: 'downAfterMs', value: 4_000 },
      { kind: 'setSetting', name: 'replaceAfterMs', value: replaceAfterMs },
    );
    for (const shard of this.topology.shards) this.shards.set(shard.id, new ShardModel(shard));
    this.shards.set(metadataGroup, new ShardModel({ founders: this.topology.metadata }));
  }

  happen(event: WorldEvent): void {
    this.change(event);
    // However short a visit is: it was seen.
    this.look();
  }

  private change(event: WorldEvent): void {
    switch (event.kind) {
      case 'stop':
        if (this.isUp(event.node)) this.stoppedAtMs.set(event.node, this.nowMs);
        return;
      case 'start':
        if (nodeOf(this.topology, event.node)?.state !== 'removed')
          this.stoppedAtMs.delete(event.node);
        return;
      case 'newLeader':
        // What is known of the time before must not count, even where it is known.
        this.leadingSinceMs = this.nowMs;
        return;
      case 'delay':
        this.delay = event.ticks;
        return;
      case 'repairsMax':
        this.run({ kind: 'setSetting', name: 'repairsMax', value: event.value });
        return;
      case 'drain':
      case 'undrain':
        this.run({ kind: event.kind, node: event.node, nowMs: this.nowMs });
        return;
      case 'remove':
        this.run({ kind: 'removeNode', node: event.node, force: true, nowMs: this.nowMs });
        if (nodeOf(this.topology, event.node)?.state === 'removed')
          this.stoppedAtMs.set(event.node, -Infinity);
    }
  }

  tick(): void {
    this.nowMs += tickMs;
    this.topologies.push(this.topology);
    if (this.topologies.length > delayMax + 1) this.topologies.shift();
    const { shards, next } = this.topologies.at(-1 - this.delay) ?? this.topology;
    for (const { id, replicas } of shards) {
      for (const { replica, node } of replicas) this.nodeOfReplica.set(replica, node);
      const wanted = replicas.map(({ replica }) => replica);
      this.shards.get(id)?.step(wanted, next.replica, (each) => this.isLive(each));
    }
    this.stepMetadata();
    if (majority(this.membersOf(metadataGroup).voters, (each) => this.isLive(each))) this.decide();
    else this.leadingSinceMs = this.nowMs + tickMs;
  }

  /** Its leader has the newest topology, and acts as long as there is one. */
  private stepMetadata(): void {
    const { metadata, next } = this.topology;
    for (const { replica, node } of metadata) this.nodeOfReplica.set(replica, node);
    const wanted = metadata.map(({ replica }) => replica);
    this.shards.get(metadataGroup)?.step(wanted, next.replica, (each) => this.isLive(each));
  }

  /** What must be so in the end, when all nodes are back but those that stay away for ever. */
  expectWhole(): void {
    for (const { id, replicas } of this.topology.shards) {
      const what = `shard ${id}`;
      expect(replicas.length, what).to.equal(replication);
      for (const { node } of replicas) {
        expect(this.isUp(node), `${what}: node ${node} is there`).to.equal(true);
        expect(nodeOf(this.topology, node)?.state, `${what}: node ${node}`).to.equal('up');
      }
      const { voters, learners } = this.membersOf(id);
      expect([...voters], what).to.have.members(replicas.map(({ replica }) => replica));
      expect(learners.size, what).to.equal(0);
    }
    const { metadata } = this.topology;
    const nodes = metadata.map(({ node }) => nodeOf(this.topology, node));
    expect(nodes.map((node) => node?.state)).to.deep.equal(['up', 'up', 'up', 'up', 'up']);
    expect(new Set(nodes.map((node) => node?.labels['host'])).size, 'hosts').to.equal(5);
    const { voters, learners } = this.membersOf(metadataGroup);
    expect([...voters, ...learners]).to.have.members(metadata.map(({ replica }) => replica));
    expect(learners.size).to.equal(0);
    expect(this.topology.operations.filter(({ state }) => state === 'running')).to.deep.equal([]);
    expect(decide(this.situation()), 'all is done').to.deep.equal([]);
  }

  private decide(): void {
    this.look();
    const situation = this.situation();
    const commands = decide(situation);
    for (const command of commands) {
      this.expectReason(command);
      expect(this.run(command), `${JSON.stringify(command)} changes something`).to.equal(true);
      this.expectBounds(command);
    }
    const again = decide({ ...situation, topology: this.topology });
    expect(again, 'once applied, nothing more').to.deep.equal([]);
  }

  private run(command: MetaCommand): boolean {
    const { topology, result } = apply(this.topology, command);
    const changed = result.kind === 'done' && result.changed;
    if (!changed) return false;
    this.topology = topology;
    this.check.check(topology);
    const what = command.kind === 'endOperation' ? command.state : command.kind;
    this.happened.set(what, (this.happened.get(what) ?? 0) + 1);
    return true;
  }

  /** D06: a node that comes back in time costs nothing, and neither does a new leader. */
  private expectReason(command: MetaCommand): void {
    if (command.kind === 'addReplica') this.expectQuorum(command.shard);
    if (command.kind === 'setMetadata') this.expectSafeMetadata(command.nodes);
    if (command.kind === 'endOperation' && command.state === 'done') this.expectLeft(command.id);
    if (command.kind !== 'replaceReplica') return;
    this.expectQuorum(command.shard);
    if (nodeOf(this.topology, command.from)?.state === 'draining') return;
    const awayMs = this.nowMs - (this.stoppedAtMs.get(command.from) ?? this.nowMs);
    expect(awayMs, `node ${command.from} was away`).to.be.at.least(replaceAfterMs);
    expect(this.nowMs - this.leadingSinceMs).to.be.at.least(replaceAfterMs);
  }

  /** With the operation's end the old replica's node drops it: it must not count any more. */
  private expectLeft(operation: number): void {
    const { replacement, node } = this.topology.operations.find(({ id }) => id === operation) ?? {};
    if (replacement === undefined) {
      expect(
        this.metadataNodes(),
        'a drained node has no replica of the metadata group',
      ).to.not.include(node);
      return;
    }
    const { voters, learners } = this.membersOf(replacement.shard);
    expect([...voters, ...learners]).to.not.include(replacement.from.replica);
    expect([...voters]).to.include(replacement.to.replica);
  }

  /** Only who is lost or drained goes; all others are there, a majority with one voter more. */
  private expectSafeMetadata(nodes: readonly number[]): void {
    const present = this.topology.metadata.map(({ node }) => node);
    const shrinks = nodes.length < present.length;
    for (const node of present) {
      const awayMs = this.nowMs - (this.stoppedAtMs.get(node) ?? this.nowMs);
      const isLost = awayMs >= replaceAfterMs || nodeOf(this.topology, node)?.state === 'draining';
      if (!nodes.includes(node)) expect(isLost || shrinks, `node ${node} is lost`).to.equal(true);
      else expect(isLost || this.isUp(node), `node ${node} is there`).to.equal(true);
    }
    if (shrinks) expect(nodes.length, 'it shrinks to 3').to.equal(3);
    // Those that vote now need not be those that are named: one of them may still be on its way.
    this.expectQuorum(metadataGroup);
    const live = nodes.filter((node) => this.isUp(node)).length;
    expect(2 * live, 'the metadata group can decide in the end').to.be.greaterThan(nodes.length);
  }

  /** Also with one voter more there is a majority. */
  private expectQuorum(shard: number): void {
    const { voters } = this.membersOf(shard);
    const live = [...voters].filter((id) => this.isLive(id)).length;
    expect(2 * (live + 1), `group ${shard} can decide`).to.be.greaterThan(voters.size + 1);
  }

  private expectBounds({ kind }: MetaCommand): void {
    if (kind !== 'replaceReplica') return;
    const running = this.topology.operations.filter(
      ({ state, replacement }) => state === 'running' && replacement !== undefined,
    );
    expect(running.length).to.be.at.most(this.topology.settings['repairsMax'] ?? 0);
  }

  private look(): void {
    for (const { id } of this.topology.nodes) {
      if (this.isUp(id)) this.seen.set(id, { connected: true });
      else if (this.seen.get(id)?.connected !== false)
        this.seen.set(id, { connected: false, sinceMs: this.nowMs });
    }
  }

  /** Reports as the Controller gets them: of shards in question that have a leader, and old. */
  private situation(): Situation {
    const { topology, seen, nowMs, leadingSinceMs } = this;
    const metadataNodes = this.metadataNodes().map(nodeId);
    const surroundings = { topology, seen, nowMs, metadataNodes, leadingSinceMs };
    const reports = new Map<GroupId, ShardReport>();
    for (const id of groupsInQuestion(surroundings)) {
      const { history, members } = this.shardOf(id);
      if (id === metadataGroup) {
        reports.set(id, {
          voters: [...members.voters].map(replicaId),
          learners: [...members.learners].map(replicaId),
        });
        continue;
      }
      if (!majority(members.voters, (each) => this.isLive(each))) continue;
      const { voters, learners } = history.at(-1 - this.delay) ?? members;
      reports.set(id, {
        voters: [...voters].map(replicaId),
        learners: [...learners].map(replicaId),
      });
    }
    return { ...surroundings, reports, wallMs: nowMs };
  }

  private metadataNodes(): readonly number[] {
    const { voters, learners } = this.membersOf(metadataGroup);
    return [...voters, ...learners].flatMap((id) => this.nodeOfReplica.get(id) ?? []);
  }

  private membersOf(shard: number): Members {
    return this.shardOf(shard).members;
  }

  private shardOf(id: number): ShardModel {
    const found = [...this.shards].find(([shard]) => shard === id)?.[1];
    if (found === undefined) throw new Error(`no shard ${id}`);
    return found;
  }

  private isUp(node: number): boolean {
    return !this.stoppedAtMs.has(node);
  }

  private isLive(replica: number): boolean {
    const node = this.nodeOfReplica.get(replica);
    return node !== undefined && this.isUp(node);
  }
}
