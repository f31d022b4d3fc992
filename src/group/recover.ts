/**
 * What a replica is after a restart, put together from the Raft log and the state engine, which may
 * have kept different amounts of the past.
 */
import type { RestoredState, SnapshotMeta } from '../../raft/index.js';
import {
  readAppliedMark,
  readInstalledMark,
  readRestoringMark,
  type AppliedMark,
  type Engine,
  type RecoveredGroup,
} from '../../storage/index.js';

/** The state engine has applied entries that the Raft log does not know: one of them lost data. */
export class ReplicaDamaged extends Error {
  override readonly name = 'ReplicaDamaged';
}

export interface Recovery {
  readonly state: RestoredState;
  /** The log must begin anew here before anything else (a crash came between install and reset). */
  readonly reset: SnapshotMeta | undefined;
  /** For the log of the node: why the replica needs a snapshot, if it does. */
  readonly reason: string | undefined;
}

/** Throws ReplicaDamaged when log and engine contradict one another. */
export async function recoverReplica(
  recovered: RecoveredGroup,
  engine: Engine,
  prefix: Uint8Array,
): Promise<Recovery> {
  const applied = await readAppliedMark(engine, prefix);
  const restoring = await readRestoringMark(engine, prefix);
  if (restoring !== undefined) {
    // Half a state is in the engine: keep the log, and wait for another snapshot (rule D15).
    return withoutState(
      recovered,
      `the install of a snapshot at ${restoring.index} was interrupted`,
    );
  }
  if (applied.index < Math.max(recovered.firstIndex - 1, recovered.appliedDurable)) {
    const gap =
      `the engine has applied ${applied.index}, the log was compacted up to ${recovered.firstIndex - 1} ` +
      `relying on ${recovered.appliedDurable}`;
    return withoutState(recovered, `the engine lost data: ${gap} (rule D13)`);
  }
  if (termAt(recovered, applied.index) === applied.term) {
    return { state: stateOf(recovered, applied.index, false), reset: undefined, reason: undefined };
  }
  const installed = await readInstalledMark(engine, prefix);
  if (installed?.index === applied.index && installed.term === applied.term) {
    return { state: afterReset(recovered, installed), reset: installed, reason: undefined };
  }
  throw new ReplicaDamaged(
    `group ${recovered.group}, replica ${recovered.replica}: the state engine has applied entry ` +
      `${applied.index} of term ${applied.term}, which the Raft log (${recovered.firstIndex} to ` +
      `${recovered.lastIndex}) does not have: one of them was lost or replaced. Remove this node's data ` +
      'directory and add the node anew: the other replicas have the data',
  );
}

function withoutState(recovered: RecoveredGroup, reason: string): Recovery {
  return { state: stateOf(recovered, recovered.firstIndex - 1, true), reset: undefined, reason };
}

function stateOf(
  recovered: RecoveredGroup,
  appliedIndex: number,
  restoring: boolean,
): RestoredState {
  const { group: _, replica: _replica, appliedDurable: _durable, ...state } = recovered;
  return { ...state, appliedIndex, restoring };
}

function afterReset(recovered: RecoveredGroup, snapshot: SnapshotMeta): RestoredState {
  const { index, term, membership } = snapshot;
  const hardTerm = Math.max(recovered.hardState.term, term);
  return {
    generation: recovered.generation,
    hardState: { ...recovered.hardState, term: hardTerm, commit: index },
    firstIndex: index + 1,
    lastIndex: index,
    termRuns: [{ from: index, term }],
    memberships: [membership],
    tail: [],
    appliedIndex: index,
    restoring: false,
  };
}

function termAt(recovered: RecoveredGroup, index: AppliedMark['index']): number | undefined {
  if (index < recovered.firstIndex - 1 || index > recovered.lastIndex) return undefined;
  return recovered.termRuns.findLast((run) => run.from <= index)?.term;
}
