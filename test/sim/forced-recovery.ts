/**
 * A majority is lost for good, and an operator goes on with a survivor (rule D07). Some of the lost are
 * not lost at all: they run on and serve, or come back with their disks, as the operator's manual asks
 * not to happen. And now and then a second operator knows nothing of the first one.
 */
import type { Operator } from './operator.js';
import type { SimRandom } from './random.js';
import type { SimMember } from './sim-member.js';
import type { World } from './world.js';

/** The topology tells those of an older generation within this time, ms. */
const toldWithinMs = 6000;

interface Surroundings {
  readonly world: World;
  readonly operator: Pick<Operator, 'rebuild'>;
  readonly random: SimRandom;
  readonly restartSoon: (member: SimMember) => void;
}

export class ForcedRecovery {
  private readonly around: Surroundings;

  constructor(around: Surroundings) {
    this.around = around;
  }

  strike(): void {
    const { world, random, operator, restartSoon } = this.around;
    const present = [...world.members.values()].filter(
      ({ isDestroyed, generation, disk }) =>
        !isDestroyed && generation === world.generation && disk.lastIndex > 0,
    );
    const lost = present.filter(() => random.chance(0.6));
    const left = present.filter((member) => !lost.includes(member));
    for (const member of left) member.crash();
    const operators = random.chance(0.3) && left.length > 1 ? 2 : 1;
    const shares = operators === 1 ? [left] : [left.slice(0, 1), left.slice(1)];
    const done = shares.filter((share) => this.recover(share)).length;
    if (done > 1) world.coverage.count('forced recovery by two operators');
    for (const member of left) restartSoon(member);
    if (done === 0) return;
    for (const member of lost) this.lose(member);
    world.timeline.after(random.between(0, toldWithinMs), () => this.tell());
    operator.rebuild();
  }

  /** With the newest log among those that this operator knows of, if its state is of use. */
  private recover(known: readonly SimMember[]): boolean {
    const { world } = this.around;
    const lastTerm = ({ disk }: SimMember): number => disk.termAt(disk.lastIndex) ?? 0;
    const newestFirst = known.toSorted(
      (a, b) => lastTerm(b) - lastTerm(a) || b.disk.lastIndex - a.disk.lastIndex,
    );
    const generation = world.generation + 1;
    const isDone = newestFirst.some((member) => world.recover(member, generation));
    if (isDone) world.coverage.count('forced recovery');
    return isDone;
  }

  private lose(member: SimMember): void {
    const { world, random } = this.around;
    const fate = random.integer(0, 2);
    if (fate === 0) member.destroy();
    if (fate !== 1) return;
    member.crash();
    world.timeline.after(random.tailed(100, 8000), () => member.start());
  }

  /** Their nodes hear of the topology that names another generation, and drop them some time. */
  private tell(): void {
    const { world, random } = this.around;
    if (!world.isStormy) return;
    for (const member of world.members.values()) {
      if (member.generation >= world.generation || !member.isRunning) continue;
      world.coverage.count('old generation told by the topology');
      member.input((node) => node.learnGeneration(world.generation));
      if (random.chance(0.5)) member.destroy();
    }
  }
}
