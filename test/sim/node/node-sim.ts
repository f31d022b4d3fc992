/**
 * A run of one seed over whole nodes: a cluster is made, clients work and operators operate while
 * faults happen, then everything heals and the cluster must become whole. Time is virtual; between two
 * events every promise that can be settled is settled, so a run is a function of its seed.
 */
import { Coverage, type CoverageCounts } from '../coverage.js';
import { SimRandom } from '../random.js';
import { Timeline } from '../timeline.js';
import { Trace } from '../trace.js';
import { Calls } from './calls.js';
import { linearized } from './linearizable.js';
import { Links } from './links.js';
import { NodeChecks } from './node-checks.js';
import { NodeClient } from './node-client.js';
import { NodeConvergence } from './node-convergence.js';
import { nodeCovered, type NodeCovered } from './node-coverage.js';
import { NodeNemesis } from './node-nemesis.js';
import { NodeOperator } from './node-operator.js';
import { Peers } from './peers.js';
import { drawNodePlan, type NodePlan } from './plan.js';
import { ClientRecord } from './record.js';
import { addressOf, SimNode } from './sim-node.js';
import type { NodeWorld } from './sim-node.js';

export interface NodeRunOptions {
  readonly seed: number;
  /** Virtual time of the storm. */
  readonly seconds: number;
  readonly traceLines: number;
  readonly print?: (line: string) => void;
}

export interface NodeRunResult {
  readonly seed: number;
  readonly hash: string;
  readonly coverage: CoverageCounts<NodeCovered>;
  readonly failure: string | undefined;
  readonly lines: readonly string[];
}

/** What happens in a run instead of a storm. */
export interface Script {
  play(): Promise<void>;
  /** Whatever the event has set free is settled. */
  afterEvent(): void;
}

export type NewScript = (world: NodeWorld, operator: NodeOperator) => Script;

/** A cluster must have been made within this time, ms; nothing goes wrong meanwhile. */
const birthMaxMs = 10_000;
/**
 * A leader of every group has to be there within this time, ms: whoever was held up by a slow disk or
 * by what was still on its way has come back by then, and elections are decided.
 */
const leadersMaxMs = 8000;
const healMaxMs = 90_000;
const concludeMaxMs = 60_000;
const scriptMaxMs = 600_000;

/** The event loop's own: whatever a run patches or replaces, a turn of it is one. */
const immediate = setImmediate;
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    immediate(resolve);
  });

/** Runs one seed from the beginning to the end. Does not reject. */
export function runNodeSim(options: NodeRunOptions): Promise<NodeRunResult> {
  return runPlan(drawNodePlan(options.seed), options);
}

/** Plays a script while clients work; then heals and checks like every run. Does not reject. */
export function runNodeScript(plan: NodePlan, newScript: NewScript): Promise<NodeRunResult> {
  return runPlan(plan, { seed: plan.seed, seconds: 0, traceLines: 100 }, newScript);
}

async function runPlan(
  plan: NodePlan,
  options: NodeRunOptions,
  newScript?: NewScript,
): Promise<NodeRunResult> {
  const sim = new NodeSim(plan, options, newScript);
  const onRejection = (error: unknown): void => {
    sim.fail(error);
  };
  process.on('unhandledRejection', onRejection);
  let failure: string | undefined;
  try {
    await sim.run(options.seconds * 1000);
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    await turn();
    process.removeListener('unhandledRejection', onRejection);
  }
  const { trace, coverage } = sim;
  const { seed } = options;
  return { seed, hash: trace.hash, coverage: coverage.counts, failure, lines: trace.last };
}

class NodeSim implements NodeWorld {
  readonly timeline = new Timeline();
  readonly coverage = new Coverage<NodeCovered>(nodeCovered);
  readonly trace: Trace;
  readonly links: Links;
  readonly calls: Calls;
  readonly peers: Peers;
  readonly nodes: SimNode[] = [];
  readonly plan: NodePlan;
  isStormy = false;
  private readonly random: SimRandom;
  private readonly record: ClientRecord;
  private readonly clients: readonly NodeClient[];
  private readonly checks: NodeChecks;
  private readonly nemesis: NodeNemesis;
  private readonly operator: NodeOperator;
  private readonly convergence: NodeConvergence;
  private readonly touchedNodes = new Set<SimNode>();
  private readonly script: Script | undefined;
  private failure: { readonly error: unknown } | undefined;

  constructor(plan: NodePlan, options: NodeRunOptions, newScript?: NewScript) {
    this.plan = plan;
    const { timeline, coverage } = this;
    this.trace = new Trace(() => timeline.now, options.traceLines, options.print);
    this.random = new SimRandom(options.seed ^ 0x5eed5eed);
    const random = this.random.split();
    const count = (what: NodeCovered): void => {
      coverage.count(what);
    };
    this.links = new Links({ timeline, plan: plan.links, random, count });
    const { links } = this;
    this.calls = new Calls({ timeline, links, random: this.random.split(), count });
    const { silenceMs } = plan;
    this.peers = new Peers({
      timeline,
      links,
      silenceMs,
      count,
      onSend: (from, message) => {
        const node = this.nodes.find(({ id, isRunning }) => id === from && isRunning);
        if (node !== undefined) this.guard(() => this.checks.sent(node, message));
      },
    });
    this.checks = new NodeChecks(this);
    this.record = new ClientRecord(timeline);
    this.operator = new NodeOperator(this, this.random.split());
    this.convergence = new NodeConvergence(this, this.operator);
    this.script = newScript?.(this, this.operator);
    this.clients = Array.from(
      { length: plan.clients },
      (_, n) => new NodeClient(this, n, this.record, this.random.split()),
    );
    const clients = { places: this.clients.map(({ place }) => place) };
    this.nemesis = new NodeNemesis(this, clients, this.random.split());
    coverage.count('seeds');
    if (plan.skew > 0) coverage.count('skewed clocks');
    if (plan.leases) coverage.count('leases');
  }

  async run(stormMs: number): Promise<void> {
    const { plan, trace } = this;
    if (trace.isRead)
      trace.line(
        `plan ${JSON.stringify({ ...plan, faults: [...plan.faults], operations: [...plan.operations] })}`,
      );
    for (let place = 1; place <= plan.nodes; place++) this.addNode(place, []);
    await this.until('the cluster is made', birthMaxMs, this.operator.init());
    await this.while(birthMaxMs, 'leaders of a new cluster', () => this.convergence.leaderless());
    trace.line('storm');
    this.isStormy = true;
    const work = Promise.all(this.clients.map((client) => client.work()));
    this.operator.begin();
    this.nemesis.begin();
    if (this.script === undefined) await this.pass(stormMs);
    else await this.until('the script', scriptMaxMs, this.script.play());
    this.heal();
    await this.while(leadersMaxMs, 'leaders after everything healed', () =>
      this.convergence.leaderless(),
    );
    await this.until('the clients end', healMaxMs, work);
    await this.until('the operator settles', healMaxMs, this.operator.settle());
    await this.while(healMaxMs, 'whole again', () => this.convergence.missing());
    await this.until('new writes in every slot', concludeMaxMs, this.conclude());
    await this.while(healMaxMs, 'still whole', () => this.convergence.missing());
    await this.until('equal states', healMaxMs, this.convergence.requireEqual());
    this.countEnded();
    this.record.checkRevisions();
    for (const decision of linearized(this.record)) this.coverage.count(`history ${decision}`);
  }

  fail(error: unknown): void {
    this.failure ??= { error };
  }

  touched(node: SimNode): void {
    this.touchedNodes.add(node);
  }

  started(node: SimNode): void {
    if (node.overlooksDamage)
      this.fail(new Error(`node ${node.id} has read ${node.damage?.path} and not seen its damage`));
    this.guard(() => this.checks.started(node));
    this.trace.line(`node ${node.id} serves`);
  }

  crashed(node: SimNode): void {
    this.trace.line(`node ${node.id} is down`);
    this.checks.crashed(node);
    if (!node.isDestroyed) this.nemesis.restartSoon(node);
  }

  logged(
    node: SimNode,
    level: string,
    fields: Readonly<Record<string, unknown>>,
    message: string,
  ): void {
    const { coverage, trace } = this;
    if (trace.isRead) trace.line(`node ${node.id} ${level} ${message} ${JSON.stringify(fields)}`);
    if (message === 'hashed its state') {
      const { group, index, hash } = fields;
      this.guard(() => this.checks.hashed(group as never, Number(index), String(hash)));
    } else if (message === 'snapshot installed') coverage.count('snapshot installed');
    else if (message === 'replica removed') coverage.count('replica removed from its node');
    else if (message === 'changed the members of a group') coverage.count('members changed');
  }

  damageFound(): void {
    this.coverage.count('damage found');
    this.nemesis.replaceSoon();
  }

  join(): SimNode {
    const first = this.nodes.slice(0, this.plan.nodes).filter((node) => !node.isDestroyed);
    return this.addNode(
      this.nodes.length + 1,
      first.map(({ place }) => addressOf(place)),
    );
  }

  private addNode(place: number, joins: readonly string[]): SimNode {
    const node = new SimNode(this, place, joins, this.random.split());
    this.nodes.push(node);
    node.start();
    return node;
  }

  private heal(): void {
    this.isStormy = false;
    this.trace.line('heals');
    this.links.heal();
    for (const node of this.nodes) {
      node.slowness = 1;
      node.isNearlyFull = false;
      node.failNextSync = false;
      node.disk.bytesMax = Infinity;
      node.life?.resume();
      // Started again, it reads all of its log.
      if (node.hasDamage) node.crash('kill');
      if (!node.isRunning) node.start();
    }
  }

  private async conclude(): Promise<void> {
    for (const tag of this.plan.tags) await this.clients[0]?.conclude(tag);
  }

  private countEnded(): void {
    for (const { kind, state } of this.operator.topology.operations) {
      if (state !== 'done') continue;
      if (kind === 'splitShard') this.coverage.count('shard split to the end');
      if (kind === 'mergeShard') this.coverage.count('shard merged to the end');
    }
    for (const { state } of this.operator.topology.migrations) {
      if (state === 'done') this.coverage.count('migration done');
      if (state === 'failed') this.coverage.count('migration failed');
      if (state === 'cancelled') this.coverage.count('migration cancelled by the source');
    }
  }

  private async pass(ms: number): Promise<void> {
    const end = this.timeline.now + ms;
    while (this.timeline.step(end)) await this.settle();
  }

  /** Time passes until there is nothing missing; throws what is when it takes too long. */
  private async while(ms: number, what: string, missing: () => string | undefined): Promise<void> {
    const end = this.timeline.now + ms;
    const lookEveryMs = 50;
    for (;;) {
      const now = missing();
      if (now === undefined) return;
      if (this.timeline.now >= end)
        throw new Error(`${what}: not within ${ms} ms: ${now}: ${this.convergence.state()}`);
      await this.pass(lookEveryMs);
    }
  }

  private async until(what: string, ms: number, work: Promise<unknown>): Promise<void> {
    let isOver = false;
    work.then(
      () => (isOver = true),
      (error: unknown) => {
        this.fail(error);
      },
    );
    await turn();
    await this.while(ms, what, () => (isOver ? undefined : 'it is not over'));
  }

  /** Every promise that the event has set free, then the checks. */
  private async settle(): Promise<void> {
    await turn();
    for (const node of this.touchedNodes) this.checks.afterEvent(node);
    this.touchedNodes.clear();
    if (this.isStormy) this.script?.afterEvent();
    if (this.failure === undefined) return;
    const { error } = this.failure;
    throw error;
  }

  private guard(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.fail(error);
    }
  }
}
