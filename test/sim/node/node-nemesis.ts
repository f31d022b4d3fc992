/** Lets the faults of a plan happen, each about as often as the plan says, and ends them again. */
import { everyQuorum } from '../../../raft/invariants.js';
import type { SimRandom } from '../random.js';
import { electionTicks, nodeFaults, type NodeFault } from './plan.js';
import type { SimNode } from './sim-node.js';
import type { NodeWorld } from './sim-node.js';

/** Places of clients. */
export interface ClientPlaces {
  readonly places: readonly number[];
}

export class NodeNemesis {
  private readonly world: NodeWorld;
  private readonly random: SimRandom;
  private readonly clients: ClientPlaces;

  constructor(world: NodeWorld, clients: ClientPlaces, random: SimRandom) {
    this.world = world;
    this.clients = clients;
    this.random = random;
  }

  begin(): void {
    for (const fault of nodeFaults) {
      const everyMs = this.world.plan.faults.get(fault);
      if (everyMs !== undefined) this.again(fault, everyMs);
    }
    const { slowest } = this.world.plan.disk;
    const slow = this.random.pick(this.world.nodes);
    if (slowest > 1 && slow !== undefined) slow.slowness = slowest;
  }

  /** A process that ended comes back after some election timeouts. */
  restartSoon(node: SimNode): void {
    const { plan, timeline, coverage } = this.world;
    const ms = this.random.between(0, plan.restartElectionsMax * electionTicks * plan.tickMs);
    timeline.after(ms, () => {
      if (node.isRunning || node.isDestroyed) return;
      coverage.count('restart');
      node.start();
    });
  }

  private again(fault: NodeFault, everyMs: number): void {
    this.world.timeline.after(this.random.between(0.3, 1.7) * everyMs, () => {
      if (!this.world.isStormy) return;
      if (this.happens(fault)) {
        this.world.coverage.count(`fault: ${fault}`);
        this.world.trace.line(`fault: ${fault}`);
      }
      this.again(fault, everyMs);
    });
  }

  /** False: there was nobody whom it could have met. */
  private happens(fault: NodeFault): boolean {
    const running = this.world.nodes.filter((node) => node.isRunning);
    const node = this.random.pick(running);
    if (node === undefined) return false;
    switch (fault) {
      case 'kill':
      case 'power cut':
        node.crash(fault);
        return true;
      case 'power cut of all':
        for (const each of running) each.crash('power cut');
        return true;
      case 'pause':
        return this.pause(node);
      case 'partition':
        this.partition();
        return true;
      case 'one-way cut':
        return this.cutOneWay();
      case 'client cut off':
        return this.cutClientOff();
      case 'slow link':
        return this.slowLink();
      case 'slow disk':
        node.slowness = this.random.between(5, 60);
        this.later(200, 3000, () => (node.slowness = 1));
        return true;
      case 'sync error':
        node.failSync();
        return true;
      case 'no space':
        node.fillDisk();
        return true;
      case 'disk nearly full':
        node.isNearlyFull = true;
        this.later(300, 3000, () => (node.isNearlyFull = false));
        return true;
      case 'wall clock jump':
        node.jump(Math.round(this.random.between(-3000, 3000)));
        return true;
      case 'node lost for good':
        if (!this.isLosable(node)) return false;
        node.destroy();
        this.replaceSoon();
        return true;
      case 'flipped bit':
        return this.isLosable(node) && node.flipBit();
    }
  }

  private pause(node: SimNode): boolean {
    const { life } = node;
    if (life === undefined || life.isPaused) return false;
    life.pause();
    this.later(30, 3000, () => {
      life.resume();
    });
    return true;
  }

  private partition(): void {
    const nodes = this.random.shuffled(this.world.nodes);
    const size = this.random.integer(1, Math.max(1, nodes.length - 1));
    const pairs: [number, number][] = [];
    for (const one of nodes.slice(0, size))
      for (const other of nodes.slice(size))
        pairs.push([one.place, other.place], [other.place, one.place]);
    this.cut(pairs);
  }

  private cutOneWay(): boolean {
    const [one, other] = this.random.shuffled(this.world.nodes);
    if (one === undefined || other === undefined) return false;
    this.cut([[one.place, other.place]]);
    return true;
  }

  private cutClientOff(): boolean {
    const client = this.random.pick(this.clients.places);
    const node = this.random.pick(this.world.nodes);
    if (client === undefined || node === undefined) return false;
    const there: [number, number] = [client, node.place];
    const back: [number, number] = [node.place, client];
    this.cut(this.random.pick([[there], [back], [there, back]]) ?? [there]);
    return true;
  }

  private cut(pairs: readonly (readonly [number, number])[]): void {
    const { links } = this.world;
    for (const [from, to] of pairs) links.cut(from, to);
    this.later(100, 4000, () => {
      for (const [from, to] of pairs) links.mend(from, to);
    });
  }

  private slowLink(): boolean {
    const [one, other] = this.random.shuffled(this.world.nodes);
    if (one === undefined || other === undefined) return false;
    const { links } = this.world;
    links.slow(one.place, other.place, this.random.between(5, 100));
    this.later(300, 4000, () => {
      links.slow(one.place, other.place, 1);
    });
    return true;
  }

  /** Another node takes the place of one that was lost. */
  replaceSoon(): void {
    this.later(0, 2000, () => {
      this.world.coverage.count('node joined');
      this.world.join();
    });
  }

  /** Once in a run, and only where the others are a majority of everything. */
  private isLosable(node: SimNode): boolean {
    const { nodes, plan } = this.world;
    if (nodes.some((each) => each.isDestroyed || each.damage !== undefined)) return false;
    return plan.replication >= 3 && nodes.length === plan.nodes && this.isExpendable(node);
  }

  /** Every membership that somebody goes by has a majority without it. */
  private isExpendable(gone: SimNode): boolean {
    for (const { port } of this.world.nodes) {
      for (const group of port?.parts.foundations.host.allGroups() ?? []) {
        const { membership } = group.status().membership;
        const places = new Map(membership.members.map(({ id, node }) => [id, node]));
        if (!everyQuorum(membership, (id) => places.get(id) !== gone.id)) return false;
      }
    }
    return true;
  }

  private later(fromMs: number, toMs: number, act: () => void): void {
    this.world.timeline.after(this.random.tailed(fromMs, toMs), act);
  }
}
