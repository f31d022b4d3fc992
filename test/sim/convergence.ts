/**
 * What must become true once all faults have ended (liveness): one leader soon, a new write taken,
 * no joint configuration left over, everybody in the group with the same state, and every write
 * that was acknowledged in it exactly once. Without this phase a lost write is a false alarm.
 */
import type { RaftStatus } from '../../raft/index.js';
import type { GroupChecks } from './group-checks.js';
import { commandOf } from './history.js';
import type { BegunWrite } from './history.js';
import type { SimMember } from './sim-member.js';
import type { World } from './world.js';

/** A leader has to be there within this time. */
const leaderWithinMs = 5000;
const attemptEveryMs = 100;

export class Convergence {
  private newWriteDone = false;
  private newReadDone = false;
  private readonly world: World;
  private readonly checks: GroupChecks;

  constructor(world: World, checks: GroupChecks) {
    this.world = world;
    this.checks = checks;
  }

  /** Lets time pass until all is well, about `limitMs` at most; throws what is still missing then. */
  require(limitMs: number): void {
    const { timeline } = this.world;
    const end = timeline.now + limitMs;
    const { options, tickMs } = this.world.plan;
    // Without pre-vote whoever cannot win disturbs those who can: that takes some elections more.
    const elections = options.preVote ? 5 : 12;
    const withinMs = Math.max(leaderWithinMs, elections * options.electionTicks * tickMs);
    // Messages of a leader that is none any more keep others waiting for it as long as they arrive.
    const heardOut = Math.max(timeline.now, this.world.network.lastArrivalMs);
    timeline.run(Math.min(end, heardOut + withinMs), () => this.world.leader() !== undefined);
    if (this.world.leader() === undefined) {
      throw new Error(`no leader ${withinMs} ms after everything healed: ${this.state()}`);
    }
    this.attempt();
    timeline.run(end, () => this.missing() === undefined);
    const missing = this.missing();
    if (missing !== undefined) throw new Error(`never whole again: ${missing}: ${this.state()}`);
    const { generation } = this.world;
    this.world.historyOf(generation).check(this.checks.of(generation).invariants.applied);
  }

  /** New writes and reads until one of each was answered. */
  private attempt(): void {
    if (this.newWriteDone && this.newReadDone) return;
    const leader = this.world.leader();
    const history = this.world.historyOf(this.world.generation);
    if (leader !== undefined && !this.newWriteDone) {
      const write: BegunWrite = history.beginWrite();
      leader.propose(commandOf(write.value, 4), (outcome, index) => {
        history.writeEnds(write, outcome, index);
        if (outcome === 'ok') this.newWriteDone = true;
      });
    }
    if (leader !== undefined && !this.newReadDone) {
      const read = history.beginRead();
      leader.read((index) => {
        if (index === undefined) return;
        history.readEnds(read, index);
        this.newReadDone = true;
      });
    }
    this.world.timeline.after(attemptEveryMs, () => this.attempt());
  }

  /** What is not well yet, in words. */
  private missing(): string | undefined {
    if (!this.newWriteDone) return 'no new write was acknowledged';
    if (!this.newReadDone) return 'no new read was answered';
    for (const { id, isLeader, generation } of this.world.members.values())
      if (isLeader && generation < this.world.generation)
        return `member ${id} leads generation ${generation}, which is over`;
    const leader = this.world.leader();
    const status = leader?.seen;
    if (leader === undefined || status === undefined) return 'there is no leader';
    const { membership } = status.membership;
    if (membership.outgoing.length > 0) return 'a joint configuration was never left';
    if (status.appliedIndex < status.lastIndex) return 'the leader has not applied its log';
    for (const { id } of membership.members) {
      const member = this.world.members.get(id);
      if (member === undefined || member.isDestroyed) continue;
      const lag = lagOf(member, leader);
      if (lag !== undefined) return lag;
    }
    return undefined;
  }

  private state(): string {
    const parts: string[] = [];
    for (const { id, seen, isDestroyed } of this.world.members.values()) {
      if (!isDestroyed) parts.push(`${id} ${seen === undefined ? 'down' : summary(seen)}`);
    }
    return parts.join('; ');
  }
}

function lagOf(member: SimMember, leader: SimMember): string | undefined {
  const { state, restoringMarker } = member.engine;
  if (restoringMarker) return `member ${member.id} is still restoring`;
  if (state.index !== leader.engine.state.index) {
    return `member ${member.id} stands at ${state.index}, the leader at ${leader.engine.state.index}`;
  }
  if (state.hash !== leader.engine.state.hash) {
    throw new Error(`members ${member.id} and ${leader.id} differ at ${state.index}`);
  }
  return undefined;
}

function summary(seen: RaftStatus): string {
  const { role, term, leader, commitIndex, lastIndex, appliedIndex, restoring } = seen;
  return (
    `${role} term=${term} leader=${leader} commit=${commitIndex} last=${lastIndex} ` +
    `applied=${appliedIndex}${restoring ? ' restoring' : ''}`
  );
}
