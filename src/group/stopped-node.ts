/**
 * The replicas of a node that does not run, as its data directory has them: looked at, and recovered by
 * force (rule D07).
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  forceRecovery,
  nodeId,
  replicaId,
  type NodeId,
  type RestoredState,
} from '../../raft/index.js';
import {
  RaftLog,
  RocksEngine,
  replicaPrefix,
  type Engine,
  type LogWrite,
  type RecoveredGroup,
} from '../../storage/index.js';
import { recoverReplica, ReplicaDamaged, type Recovery } from './recover.js';
import type { PlannedRecovery, ReplicaListing } from './recovery-plan.js';

const MiB = 1024 * 1024;
/** No entries are looked at, and nothing is written but one entry for each group. */
const sizes = { segmentBytes: 64 * MiB, tailBytesMax: 0, heldSegmentsMax: 16 };

/** The plan does not fit what this node has: nothing was changed by it. */
export class RecoveryRefused extends Error {
  override readonly name = 'RecoveryRefused';
}

export type RecoveryVerdict = 'recovers' | 'done before';

export class StoppedNode {
  private readonly node: NodeId;
  private readonly log: RaftLog;
  private readonly engine: Engine;
  /** Rejects when the log fails; never resolves. */
  private readonly failed: Promise<never>;

  constructor(parts: {
    readonly node: number;
    readonly log: RaftLog;
    readonly engine: Engine;
    readonly failed: Promise<never>;
  }) {
    this.node = nodeId(parts.node);
    this.log = parts.log;
    this.engine = parts.engine;
    this.failed = parts.failed;
  }

  /**
   * Rejects with EngineLocked while the node runs, with RaftLogDamaged for a log that no node starts
   * with. What a start would repair (a write torn by a power cut) is repaired here as well.
   */
  static async open(directory: string, node: number): Promise<StoppedNode> {
    const state = join(directory, 'state');
    if (!existsSync(state)) {
      throw new RecoveryRefused(
        `${state} is missing: this node has no state (one with --engine memory keeps none)`,
      );
    }
    // First the engine, as a node does: its lock keeps a running one and this apart.
    const engine = await RocksEngine.open({ directory: state, memoryBytesMax: 16 * MiB });
    let fail: (error: Error) => void = () => undefined;
    const failed = new Promise<never>((_, reject) => {
      fail = reject;
    });
    // Whoever writes looks at it; when nobody does, it is nobody's failure.
    failed.catch(() => undefined);
    try {
      const at = join(directory, 'raft-log');
      const log = await RaftLog.open({ directory: at, ...sizes, onFailure: fail });
      return new StoppedNode({ node, log, engine, failed });
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.log.close();
    await this.engine.close();
  }

  /** Ascending by group. */
  async list(): Promise<readonly ReplicaListing[]> {
    const listings: ReplicaListing[] = [];
    for (const group of this.log.recovered) listings.push(await this.listing(group));
    return listings;
  }

  /**
   * Makes this node's replica the only voter of its group; durable on return. `dryRun`: only says what
   * would be done. Throws RecoveryRefused when the replica is not as the plan says.
   */
  async recover(plan: PlannedRecovery, dryRun: boolean): Promise<RecoveryVerdict> {
    const { group, replica, generation } = plan;
    const recovered = this.log.recovered.find((each) => each.group === group);
    const refuse = (why: string): never => {
      throw new RecoveryRefused(`group ${group}, replica ${replica}: ${why}: list, and plan anew`);
    };
    if (recovered?.replica !== replica || plan.node !== this.node)
      return refuse('this node has no such replica');
    if (recovered.generation === generation) return 'done before';
    const { lastIndex, lastTerm, usable, reason } = await this.listing(recovered);
    if (!usable) return refuse(reason);
    if (recovered.generation > generation)
      return refuse(`it is of generation ${recovered.generation} by now`);
    if (lastIndex !== plan.lastIndex || lastTerm !== plan.lastTerm)
      return refuse(`its log ends at ${lastIndex} of term ${lastTerm}, it has run since`);
    if (dryRun) return 'recovers';
    const { state, reset } = await this.restored(recovered);
    const member = { id: replicaId(replica), node: this.node };
    await this.append({
      group: recovered.group,
      reset,
      ...forceRecovery(state, member, generation),
    });
    return 'recovers';
  }

  private append(write: LogWrite): Promise<void> {
    const written = new Promise<void>((resolve) => {
      this.log.append(write, resolve);
    });
    return Promise.race([written, this.failed]);
  }

  private restored(recovered: RecoveredGroup): Promise<Recovery> {
    const { group, replica } = recovered;
    return recoverReplica(recovered, this.engine, replicaPrefix(group, replica));
  }

  private async listing(recovered: RecoveredGroup): Promise<ReplicaListing> {
    const { group, replica, generation } = recovered;
    try {
      const { state, reason = '' } = await this.restored(recovered);
      const usable = !state.restoring;
      return { group, replica, generation, node: this.node, ...standOf(state), usable, reason };
    } catch (error) {
      if (!(error instanceof ReplicaDamaged)) throw error;
      const stand = standOf({ ...recovered, appliedIndex: 0 });
      const reason = error.message;
      return { group, replica, generation, node: this.node, ...stand, usable: false, reason };
    }
  }
}

type Stand = Pick<
  RestoredState,
  'hardState' | 'lastIndex' | 'termRuns' | 'memberships' | 'appliedIndex'
>;

function standOf({
  hardState,
  lastIndex,
  termRuns,
  memberships,
  appliedIndex,
}: Stand): Pick<
  ReplicaListing,
  'term' | 'lastIndex' | 'lastTerm' | 'commitIndex' | 'appliedIndex' | 'majorities' | 'members'
> {
  const { incoming = [], outgoing = [], members = [] } = memberships.at(-1)?.membership ?? {};
  return {
    term: hardState.term,
    lastIndex,
    lastTerm: termRuns.at(-1)?.term ?? 0,
    commitIndex: Math.max(hardState.commit, appliedIndex),
    appliedIndex,
    majorities: [incoming, outgoing].filter((voters) => voters.length > 0),
    members: members.map(({ id, node }) => ({ replica: id, node })),
  };
}
