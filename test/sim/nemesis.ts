/**
 * The faults of a run: each kind that the seed has strikes at random moments, at random or at the
 * leader, and ends by itself after a while. Several may be at work at once.
 */
import type { MessageType, ReplicaId } from '../../raft/index.js';
import { ForcedRecovery } from './forced-recovery.js';
import type { Operator } from './operator.js';
import type { SimRandom } from './random.js';
import type { SimMember } from './sim-member.js';
import type { FaultKind } from './swarm.js';
import type { World } from './world.js';

const messageTypes: readonly MessageType[] = [
  'vote',
  'voteReply',
  'preVote',
  'preVoteReply',
  'append',
  'appendReply',
  'heartbeat',
  'heartbeatReply',
  'snapshot',
  'timeoutNow',
  'readIndex',
  'readIndexReply',
];

type Pair = readonly [ReplicaId, ReplicaId];

export class Nemesis {
  private readonly world: World;
  private readonly random: SimRandom;
  private readonly recovery: ForcedRecovery;

  constructor(world: World, operator: Operator, random: SimRandom) {
    this.world = world;
    this.random = random;
    const restartSoon = (member: SimMember): void => this.restartSoon(member);
    this.recovery = new ForcedRecovery({ world, operator, random, restartSoon });
  }

  begin(): void {
    for (const [kind, everyMs] of this.world.plan.faults) this.repeat(kind, everyMs);
  }

  /** A member lost power: it comes back after 0 to some election timeouts. */
  restartSoon(member: SimMember): void {
    const { plan, timeline, coverage } = this.world;
    const electionMs = plan.options.electionTicks * plan.tickMs;
    const fast = this.random.chance(0.4);
    const delayMs = fast
      ? this.random.between(0, 5)
      : this.random.tailed(0, plan.restartElectionsMax * electionMs);
    timeline.after(delayMs, () => {
      if (member.isRunning || member.isDestroyed) return;
      coverage.count(fast ? 'fast restart' : 'restart');
      member.start();
    });
  }

  private repeat(kind: FaultKind, everyMs: number): void {
    this.world.timeline.after(this.random.between(0.1, 1.9) * everyMs, () => {
      if (!this.world.isStormy) return;
      this.strike(kind);
      this.repeat(kind, everyMs);
    });
  }

  private strike(kind: FaultKind): void {
    const target = this.target();
    if (target === undefined) return;
    if (this.world.trace.isRead) this.world.trace.line(`fault: ${kind}, near ${target.id}`);
    switch (kind) {
      case 'crash':
        return this.crash(target, false);
      case 'engineDamage':
        return this.crash(target, this.world.isExpendable(target.id));
      case 'crashMidStep':
        return target.cutPowerAfter(this.random.integer(1, 30));
      case 'crashAll':
        return this.crashAll();
      case 'pause':
        return this.pause(target);
      case 'partition':
        return this.partition(target);
      case 'oneWayCut':
        return this.cutOneWay(target);
      case 'slowLink':
        return this.slowLink(target);
      case 'lostType':
        return this.loseType();
      case 'slowDisk':
      case 'slowApply':
      case 'hungDisk':
        return this.slowDown(target, kind);
      case 'replace':
        return this.replace(target);
      case 'lostMajority':
        return this.recovery.strike();
    }
  }

  private crash(target: SimMember, damage: boolean): void {
    target.crash(damage);
    this.restartSoon(target);
  }

  private crashAll(): void {
    this.world.coverage.count('crash of all');
    for (const member of this.running) this.crash(member, false);
  }

  private pause(target: SimMember): void {
    this.world.coverage.count('pause');
    target.pause();
    this.ends(() => target.resume());
  }

  /** Two sides, one alone, or two halves that only one member sees both of. */
  private partition(target: SimMember): void {
    this.world.coverage.count('partition');
    const ids = this.random.shuffled([...this.world.members.keys()]);
    const others = ids.filter((id) => id !== target.id);
    const half = this.random.integer(0, others.length);
    const pairs = this.random.weighted<readonly Pair[]>([
      [between([target.id], others), 3],
      [between([target.id, ...others.slice(0, half)], others.slice(half)), 4],
      [between(others.slice(0, half), others.slice(half)), 2],
    ]);
    this.cutFor([...pairs, ...pairs.map(([from, to]): Pair => [to, from])]);
  }

  private cutOneWay(target: SimMember): void {
    this.world.coverage.count('one-way cut');
    const others = [...this.world.members.keys()].filter((id) => id !== target.id);
    const some = this.random.shuffled(others).slice(0, this.random.integer(1, others.length));
    const outwards = this.random.chance(0.5);
    this.cutFor(outwards ? between([target.id], some) : between(some, [target.id]));
  }

  private cutFor(pairs: readonly Pair[]): void {
    const { network } = this.world;
    for (const [from, to] of pairs) network.cut(from, to);
    this.ends(() => {
      for (const [from, to] of pairs) network.mend(from, to);
    });
  }

  private slowLink(target: SimMember): void {
    const { network, coverage, members } = this.world;
    const other = this.random.pick([...members.keys()].filter((id) => id !== target.id));
    if (other === undefined) return;
    coverage.count('slow link');
    const [from, to] = this.random.chance(0.5) ? [target.id, other] : [other, target.id];
    network.slow(from, to, this.random.between(3, 50));
    this.ends(() => network.slow(from, to, 1));
  }

  private loseType(): void {
    const type = this.random.pick(messageTypes);
    if (type === undefined) return;
    this.world.network.loseType(type, this.random.between(0.3, 1));
    this.ends(() => this.world.network.loseType(type, 0));
  }

  private slowDown(target: SimMember, kind: 'slowDisk' | 'slowApply' | 'hungDisk'): void {
    const { coverage, timeline } = this.world;
    if (kind === 'hungDisk') {
      coverage.count('hung disk');
      target.diskHungUntil = timeline.now + this.random.between(500, 5000);
      return;
    }
    coverage.count(kind === 'slowDisk' ? 'slow disk' : 'slow apply');
    const times = this.random.between(5, 100);
    if (kind === 'slowDisk') target.diskSlowness *= times;
    else target.applySlowness *= times;
    this.ends(() => {
      if (kind === 'slowDisk') target.diskSlowness /= times;
      else target.applySlowness /= times;
    });
  }

  /** The machine burns with its disk; the operator will replace the replica under a new id. */
  private replace(target: SimMember): void {
    if (!this.world.isExpendable(target.id)) return;
    this.world.coverage.count('replica replaced');
    target.destroy();
  }

  /** Faults last from some milliseconds to some election timeouts. */
  private ends(act: () => void): void {
    this.world.timeline.after(this.random.tailed(20, 5000), act);
  }

  private target(): SimMember | undefined {
    const leader = this.world.leader();
    if (leader !== undefined && this.random.chance(this.world.plan.leaderBias)) return leader;
    return this.random.pick(this.running);
  }

  private get running(): SimMember[] {
    return [...this.world.members.values()].filter((member) => member.isRunning);
  }
}

function between(ones: readonly ReplicaId[], others: readonly ReplicaId[]): Pair[] {
  return ones.flatMap((one) => others.map((other): Pair => [one, other]));
}
