/**
 * The operator: changes of membership, transfers of leadership, campaigns out of turn. It orders
 * what it orders from whoever believes to lead, with what it saw there before.
 */
import { noReplica } from '../../raft/index.js';
import type { Member, MembershipChange, RawNode, ReplicaId } from '../../raft/index.js';
import type { Covered } from './coverage.js';
import type { SimRandom } from './random.js';
import type { SimMember } from './sim-member.js';
import type { OperationKind } from './swarm.js';
import type { World } from './world.js';

/** More replicas than this ever are more than a run of some seconds can make use of. */
const replicasMax = 14;
/** So many voters a group gets again that was recovered by force. */
const rebuiltVoters = 3;

export class Operator {
  /** Replicas that were created for a change that may not have come about. */
  private readonly spare: Member[] = [];
  /** Ids that stood in a membership once: when removed, they are never added again (rule D01). */
  private readonly everMember = new Set<ReplicaId>();
  private readonly world: World;
  private readonly random: SimRandom;

  constructor(world: World, random: SimRandom) {
    this.world = world;
    this.random = random;
  }

  begin(): void {
    for (const [kind, everyMs] of this.world.plan.operations) this.repeat(kind, everyMs);
  }

  /** After a forced recovery the survivor is alone, until it is given company. */
  rebuild(): void {
    this.world.timeline.after(this.random.between(50, 500), () => {
      if (!this.world.isStormy) return;
      const leader = this.world.leader();
      const status = leader?.core?.status();
      if (status !== undefined && status.membership.membership.incoming.length >= rebuiltVoters)
        return;
      leader?.input((node) => {
        const { membership, index: basedOn } = node.status().membership;
        const added = this.newcomer(membership.members.map(({ id }) => id));
        if (added === undefined) return;
        node.proposeMembership({ basedOn, addVoters: [added], addLearners: [], remove: [] });
      });
      this.rebuild();
    });
  }

  private repeat(kind: OperationKind, everyMs: number): void {
    this.world.timeline.after(this.random.between(0.2, 1.8) * everyMs, () => {
      if (!this.world.isStormy) return;
      this.operate(kind);
      this.repeat(kind, everyMs);
    });
  }

  private operate(kind: OperationKind): void {
    switch (kind) {
      case 'membership':
        this.retire();
        return this.changeMembership();
      case 'transfer':
        return this.transfer();
      case 'campaign':
        return this.anybody()?.input((node) => node.campaign());
    }
  }

  private changeMembership(): void {
    const leader = this.believedLeader();
    if (leader === undefined) return;
    leader.input((node) => {
      const planned = this.plan(node);
      if (planned === undefined) return;
      const verdict = node.proposeMembership(planned.change);
      if (this.world.trace.isRead) {
        this.world.trace.line(`${leader.id} ${planned.intent}: ${JSON.stringify(verdict)}`);
      }
      if (verdict.kind !== 'appended') return;
      this.world.coverage.count(planned.intent);
      if (planned.change.remove.includes(leader.id)) this.world.coverage.count('leader removed');
    });
  }

  private plan(
    node: RawNode,
  ): { readonly change: MembershipChange; readonly intent: Covered } | undefined {
    const { membership, index } = node.status().membership;
    const none = { addVoters: [], addLearners: [], remove: [] };
    // Now and then an order that rests on an older membership: it has to be refused (rule D06).
    const basedOn = this.random.chance(0.05) ? Math.max(0, index - 1) : index;
    const voters = membership.incoming;
    const removable = this.removable([...voters, ...membership.learners]);
    const added = this.newcomer(membership.members.map((member) => member.id));
    const remove = removable === undefined ? [] : [removable];
    switch (this.random.integer(0, 3)) {
      case 0:
        if (added === undefined) return undefined;
        return { change: { ...none, basedOn, addLearners: [added] }, intent: 'learner added' };
      case 1:
        if (added === undefined) return undefined;
        return { change: { ...none, basedOn, addVoters: [added] }, intent: 'voter added' };
      case 2:
        if (voters.length <= 1 || removable === undefined) return undefined;
        return { change: { ...none, basedOn, remove }, intent: 'voter removed' };
      default:
        if (added === undefined || removable === undefined) return undefined;
        return {
          change: { basedOn, addVoters: [added], addLearners: [], remove },
          intent: 'voter added',
        };
    }
  }

  /** Anybody, but rather one that is dead. */
  private removable(ids: readonly ReplicaId[]): ReplicaId | undefined {
    const dead = ids.filter((id) => this.world.members.get(id)?.isDestroyed === true);
    return dead.length > 0 ? this.random.pick(dead) : this.random.pick(ids);
  }

  /** A replica that is in no membership yet: one made for an order that failed, or a new one. */
  private newcomer(present: readonly ReplicaId[]): Member | undefined {
    const free = this.spare.filter(({ id }) => {
      const replica = this.world.members.get(id);
      const isUsable =
        replica?.isDestroyed === false && replica.generation === this.world.generation;
      return isUsable && !present.includes(id);
    });
    const unused = free.filter(({ id }) => !this.everMember.has(id));
    for (const id of present) this.everMember.add(id);
    const reused = this.random.pick(unused);
    if (reused !== undefined) return reused;
    if (this.world.members.size >= replicasMax) return undefined;
    const created = this.world.createReplica();
    this.spare.push(created);
    return created;
  }

  private transfer(): void {
    const leader = this.believedLeader();
    if (leader === undefined) return;
    const others = [...this.world.members.keys()].filter((id) => id !== leader.id);
    const to = this.random.chance(0.2) ? noReplica : (this.random.pick(others) ?? noReplica);
    leader.input((node) => {
      if (node.transferLeadership(to)) this.world.coverage.count('transfer begun');
    });
  }

  /** Destroys replicas whose removal is committed, sooner or later: they may disturb meanwhile. */
  private retire(): void {
    const status = this.world.leader()?.core?.status();
    if (status === undefined || status.membership.index > status.commitIndex) return;
    const present = new Set(status.membership.membership.members.map(({ id }) => id));
    for (const id of this.everMember) {
      if (!present.has(id) && this.random.chance(0.4)) this.world.members.get(id)?.destroy();
    }
  }

  /** Mostly the true leader, sometimes one that has been deposed and does not know. */
  private believedLeader(): SimMember | undefined {
    const leaders = [...this.world.members.values()].filter((member) => member.isLeader);
    return this.random.chance(0.8) ? this.world.leader() : this.random.pick(leaders);
  }

  private anybody(): SimMember | undefined {
    return this.random.pick([...this.world.members.values()].filter((member) => member.isRunning));
  }
}
