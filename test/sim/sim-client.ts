/**
 * A client: one operation after the other, against the member that it believes to lead or against
 * any. What takes too long is given up, which says nothing about its outcome.
 */
import type { ReplicaId } from '../../raft/index.js';
import { noReplica } from '../../raft/index.js';
import { commandOf } from './history.js';
import type { SimRandom } from './random.js';
import type { SimMember } from './sim-member.js';
import type { World } from './world.js';

const patienceMs = 1500;

export class SimClient {
  private believed: ReplicaId = noReplica;
  /** Counts operations, so that the answer to one given up is not taken for the present one. */
  private operation = 0;
  private readonly world: World;
  private readonly random: SimRandom;

  constructor(world: World, random: SimRandom) {
    this.world = world;
    this.random = random;
  }

  begin(): void {
    this.thinkThenAct();
  }

  private thinkThenAct(): void {
    const { timeline, plan } = this.world;
    timeline.after(this.random.tailed(0.5, plan.thinkMaxMs), () => {
      if (this.world.isStormy) this.act();
    });
  }

  private act(): void {
    const target = this.target();
    if (target === undefined) {
      this.thinkThenAct();
      return;
    }
    const operation = ++this.operation;
    const next = (): void => {
      if (operation !== this.operation) return;
      this.operation++;
      this.thinkThenAct();
    };
    this.world.timeline.after(patienceMs, next);
    if (this.random.chance(this.world.plan.readShare)) this.read(target, next);
    else this.write(target, next);
  }

  private write(target: SimMember, next: () => void): void {
    const burst = this.random.integer(1, this.world.plan.burstMax);
    for (let count = 1; count < burst; count++) this.propose(target, () => undefined);
    this.propose(target, next);
  }

  private propose(target: SimMember, next: () => void): void {
    const { generation } = target;
    const history = this.world.historyOf(generation);
    const write = history.beginWrite();
    const size = this.random.integer(4, this.world.plan.payloadMax);
    target.propose(commandOf(write.value, size), (outcome, index) => {
      history.writeEnds(write, outcome, index);
      if (outcome === 'ok') this.readFromDeposed();
      if (outcome === 'ok' && generation < this.world.generation)
        this.world.coverage.count('write ok in an older generation');
      if (outcome === 'notApplied') this.believed = target.seen?.leader ?? noReplica;
      next();
    });
  }

  private read(target: SimMember, next: () => void): void {
    const history = this.world.historyOf(target.generation);
    const read = history.beginRead();
    target.read((index) => {
      if (index !== undefined) history.readEnds(read, index);
      next();
    });
  }

  /**
   * Reads from whoever leads without knowing that another was elected since. Such moments are short,
   * and nowhere else can a read be stale: so none goes by in which something was acknowledged.
   */
  private readFromDeposed(): void {
    const leader = this.world.leader();
    for (const member of this.world.members.values()) {
      if (member.isLeader && member !== leader) this.read(member, () => undefined);
    }
  }

  /** Mostly the leader as far as this client knows, and often enough somebody else. */
  private target(): SimMember | undefined {
    const leader = this.world.leader();
    const known = this.world.members.get(this.believed);
    if (known?.isRunning === true && this.random.chance(0.7)) return known;
    if (leader !== undefined && this.random.chance(0.7)) {
      this.believed = leader.id;
      return leader;
    }
    const running = [...this.world.members.values()].filter((member) => member.isRunning);
    const target = this.random.pick(running);
    if (target?.seen !== undefined && target.seen.leader !== noReplica) {
      this.believed = target.seen.leader;
    }
    return target;
  }
}
