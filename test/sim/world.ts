/** What faults, operators and clients see of a run. */
import type { Member, ReplicaId } from '../../raft/index.js';
import type { Coverage } from './coverage.js';
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
  /** The leader of the highest term among the running members, if there is one. */
  leader(): SimMember | undefined;
  /** Creates and starts a replica that knows nothing, under an id that nobody had. */
  createReplica(): Member;
  /** Could `gone` lose its state without taking the majority from any configuration in use? */
  isExpendable(gone: ReplicaId): boolean;
}
