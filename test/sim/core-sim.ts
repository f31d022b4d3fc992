/**
 * A run of one seed over raft cores: a storm of faults while clients work, then everything heals
 * and the group must become whole again. Every check that fails ends the run with its reason.
 */
import { isMember, membershipOf, nodeId, replicaId } from '../../raft/index.js';
import type { Generation, Member, Membership, ReplicaId } from '../../raft/index.js';
import { everyQuorum } from '../../raft/invariants.js';
import { Convergence } from './convergence.js';
import { Coverage, covered } from './coverage.js';
import type { CoverageCounts } from './coverage.js';
import { GroupChecks } from './group-checks.js';
import { History } from './history.js';
import { Nemesis } from './nemesis.js';
import { Operator } from './operator.js';
import { SimRandom } from './random.js';
import { SimClient } from './sim-client.js';
import { SimMember } from './sim-member.js';
import { SimNetwork } from './sim-network.js';
import { drawSwarm } from './swarm.js';
import type { SwarmPlan } from './swarm.js';
import { Timeline } from './timeline.js';
import { Trace } from './trace.js';
import type { World } from './world.js';

export interface RunOptions {
  readonly seed: number;
  /** Virtual time of the storm; healing comes after it. */
  readonly seconds: number;
  /** Lines of text kept, 0 for none. */
  readonly traceLines: number;
  readonly print?: (line: string) => void;
}

export interface RunResult {
  readonly seed: number;
  /** Two runs of one seed have the same. */
  readonly hash: string;
  readonly coverage: CoverageCounts;
  /** Why the run failed, with the stack; undefined if it passed. */
  readonly failure: string | undefined;
  readonly lines: readonly string[];
}

/** Virtual time in which everything must be well again; a run ends as soon as it is. */
const healMaxMs = 30_000;

/** Runs one seed from the beginning to the end. Does not throw. */
export function runCoreSim(options: RunOptions): RunResult {
  const sim = new CoreSim(drawSwarm(options.seed), options);
  let failure: string | undefined;
  try {
    sim.run(options.seconds * 1000);
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const { trace, coverage } = sim;
  return {
    seed: options.seed,
    hash: trace.hash,
    coverage: coverage.counts,
    failure,
    lines: trace.last,
  };
}

export class CoreSim implements World {
  readonly timeline = new Timeline();
  readonly coverage = new Coverage(covered);
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly members = new Map<ReplicaId, SimMember>();
  readonly checks: GroupChecks;
  isStormy = true;
  generation: Generation = 0;
  private readonly histories = new Map<Generation, History>();
  private readonly random: SimRandom;
  private readonly nemesis: Nemesis;
  private readonly operator: Operator;
  readonly plan: SwarmPlan;

  constructor(plan: SwarmPlan, options: Pick<RunOptions, 'seed' | 'traceLines' | 'print'>) {
    this.plan = plan;

    const { timeline, coverage } = this;
    this.trace = new Trace(() => timeline.now, options.traceLines, options.print);
    // Not the numbers that the plan was drawn from.
    this.random = new SimRandom(options.seed ^ 0x5eed5eed);
    this.network = new SimNetwork(
      { timeline, coverage, trace: this.trace, deliver: (parcel) => this.receive(parcel) },
      plan.network,
      this.random.split(),
    );
    this.histories.set(0, new History(coverage));
    this.checks = new GroupChecks(plan.options, this.members, coverage, this.trace);
    const nemesisRandom = this.random.split();
    this.operator = new Operator(this, this.random.split());
    this.nemesis = new Nemesis(this, this.operator, nemesisRandom);
    coverage.count('seeds');
    if (plan.clockSkew > 0) coverage.count('skewed clocks');
  }

  run(stormMs: number): void {
    this.begin();
    this.timeline.run(stormMs);
    this.heal();
    new Convergence(this, this.checks).require(healMaxMs);
  }

  /** Starts the first members, the clients, the operator and the faults. */
  begin(): void {
    const { plan } = this;
    if (this.trace.isRead) this.trace.line(`plan ${describePlan(plan)}`);
    const named = (count: number, from: number): Member[] =>
      Array.from({ length: count }, (_, at) => memberOf(from + at));
    const membership = membershipOf(named(plan.voters, 1), named(plan.learners, 1 + plan.voters));
    for (const { id } of membership.members) this.addReplica(id, membership);
    if (plan.disk.slowest > 1) {
      const slow = this.random.pick([...this.members.values()]);
      if (slow !== undefined) slow.diskSlowness = plan.disk.slowest;
      this.coverage.count('slow disk');
    }
    for (let count = 0; count < plan.clients; count++) {
      new SimClient(this, this.random.split()).begin();
    }
    this.operator.begin();
    this.nemesis.begin();
  }

  leader(): SimMember | undefined {
    let best: SimMember | undefined;
    let bestTerm = 0;
    for (const member of this.members.values()) {
      const term = member.core?.term ?? 0;
      if (!member.isLeader || term <= bestTerm || member.generation < this.generation) continue;
      best = member;
      bestTerm = term;
    }
    return best;
  }

  historyOf(generation: Generation): History {
    const found = this.histories.get(generation);
    if (found === undefined) throw new Error(`nobody began generation ${generation}`);
    return found;
  }

  recover(survivor: SimMember, generation: Generation): boolean {
    const before = survivor.generation;
    if (!survivor.recover(memberOf(survivor.id), generation)) return false;
    const kept = this.checks.generationBegins(survivor, before);
    this.histories.set(generation, this.historyOf(before).after(kept));
    this.generation = Math.max(this.generation, generation);
    return true;
  }

  createReplica(): Member {
    const added = memberOf(this.members.size + 1);
    this.addReplica(added.id, membershipOf([]));
    return added;
  }

  isExpendable(gone: ReplicaId): boolean {
    const survives = (id: ReplicaId): boolean =>
      id !== gone && this.members.get(id)?.isWhole === true;
    for (const member of this.members.values()) {
      if (member.isDestroyed || member.generation < this.generation) continue;
      for (const { membership } of member.disk.memberships()) {
        if (!everyQuorum(membership, survives)) return false;
      }
      const running = member.core?.status().membership.membership;
      if (running !== undefined && !everyQuorum(running, survives)) return false;
    }
    return true;
  }

  /** The storm is over: everything that still exists works, and nothing new goes wrong. */
  private heal(): void {
    this.isStormy = false;
    this.trace.line('heals');
    this.network.heal();
    const removed = this.removedReplicas();
    for (const member of this.members.values()) {
      if (member.isDestroyed) continue;
      if (removed.has(member.id)) member.destroy();
      member.diskSlowness = 1;
      member.applySlowness = 1;
      member.diskHungUntil = 0;
      member.cutPowerAfter(0);
      member.resume();
      member.start();
      const { generation } = this;
      if (member.generation < generation) member.input((node) => node.learnGeneration(generation));
    }
  }

  /**
   * Only pre-vote and check-quorum together keep a removed replica from disturbing for ever (R22);
   * a group without them counts on the operator to destroy it.
   */
  private removedReplicas(): ReadonlySet<ReplicaId> {
    const { preVote, checkQuorum } = this.plan.options;
    const status = this.leader()?.core?.status();
    if ((preVote && checkQuorum) || status === undefined) return new Set();
    if (status.membership.index > status.commitIndex) return new Set();
    const present = new Set(status.membership.membership.members.map(({ id }) => id));
    // One that never was a member disturbs nobody, and may be what a paused leader is about to add.
    const removed = [...this.members.values()].filter(
      ({ id, disk }) =>
        !present.has(id) && disk.memberships().some(({ membership }) => isMember(membership, id)),
    );
    return new Set(removed.map(({ id }) => id));
  }

  private addReplica(id: ReplicaId, membership: Membership): void {
    const { plan, timeline, coverage, trace, checks, network } = this;
    const surroundings = {
      plan,
      timeline,
      coverage,
      trace,
      checks,
      connected: this.connected.bind(this),
      send: network.send.bind(network),
      crashed: (member: SimMember): void => this.nemesis.restartSoon(member),
    };
    const member = new SimMember(id, membership, surroundings, this.random.split());
    member.disk.generation = this.generation;
    this.members.set(id, member);
    member.start();
  }

  private connected(one: ReplicaId, other: ReplicaId): boolean {
    const { network, members } = this;
    const member = members.get(other);
    const runs = member?.isRunning === true && !member.isPaused;
    return runs && !network.isCut(one, other) && !network.isCut(other, one);
  }

  private receive(parcel: Parameters<SimMember['receive']>[0]): boolean {
    return this.members.get(parcel.message.to)?.receive(parcel) === true;
  }
}

/** Each replica lives on a node of its own. */
function memberOf(id: number): Member {
  return { id: replicaId(id), node: nodeId(id) };
}

function describePlan(plan: SwarmPlan): string {
  const faults = Object.fromEntries(plan.faults);
  const operations = Object.fromEntries(plan.operations);
  return JSON.stringify({ ...plan, faults, operations });
}
