/** What faults, operators and clients see of a run. */
import type { Generation, Member, ReplicaId } from '../../raft/index.js';
import type { Coverage } from './coverage.js';
import type { History } from './history.js';
import type { SimMember } from './sim-member.js';
import type { SimNetwork } from './sim-network.js';
import type { SwarmPlan } from './swarm.js';
import type { Timeline } from './timeline.js';
import type { Trace } from './trace.js';

export interface World {
  readonly plan: SwarmPlan;
  readonly timeline: Timeline;
  readonly network: SimNetwork;
  readonly coverage: Coverage;
  readonly trace: Trace;
  /** All replicas that ever were, by id; the destroyed ones too. */
  readonly members: ReadonlyMap<ReplicaId, SimMember>;
  /** Faults and operations happen; false once the run heals. */
  readonly isStormy: boolean;
  /** The newest that a member was recovered in; 0: none was (rule D07). */
  readonly generation: Generation;
  /** What clients of members of this generation were told. */
  historyOf(generation: Generation): History;
  /** See `SimMember.recover`; the member is down. */
  recover(survivor: SimMember, generation: Generation): boolean;
  /** The leader of the newest generation, and there of the highest term, among the running members. */
  leader(): SimMember | undefined;
  /** Creates and starts a replica that knows nothing, under an id that nobody had. */
  createReplica(): Member;
  /** Could `gone` lose its state without taking the majority from any configuration in use? */
  isExpendable(gone: ReplicaId): boolean;
}
