/** What the leader of the metadata group does about shards that are being merged or split. */
import type { MetaCommand } from '../meta/commands.js';
import { isEnded, slotsLeft } from '../meta/migrations.js';
import { countSlots } from '../router/slot-spans.js';
import {
  shardRecordOf,
  type MigrationRecord,
  type OperationRecord,
  type Topology,
} from '../meta/topology.js';

interface Plan {
  /** As the commands so far will have made it. */
  readonly topology: Topology;
  /** False: refused, or it would change nothing. */
  run(command: MetaCommand): boolean;
  end(id: number, state: OperationRecord['state'], progress: string): void;
}

export function decideReshapes(plan: Plan): void {
  for (const operation of plan.topology.operations)
    if (operation.state === 'running' && operation.migrations !== undefined)
      decideReshape(plan, operation, operation.migrations);
}

function decideReshape(plan: Plan, operation: OperationRecord, ids: readonly number[]): void {
  const { id } = operation;
  const migrations = plan.topology.migrations.filter((each) => ids.includes(each.id));
  const stuck = migrations.find(({ state }) => state === 'cancelled' || state === 'failed');
  if (stuck !== undefined) {
    const why = stuck.reason === '' ? '' : `: ${stuck.reason}`;
    plan.end(id, 'failed', `migration ${stuck.id} ${wordFor(stuck)}${why}; what moved stays moved`);
  } else if (!migrations.every(isEnded)) {
    plan.end(id, 'running', progressOf(plan.topology, migrations));
  } else if (operation.kind === 'splitShard') {
    plan.end(id, 'done', 'all slots have moved');
  } else {
    finishMerge(plan, operation);
  }
}

function finishMerge(plan: Plan, { id, shard }: OperationRecord): void {
  if (shard === undefined) return;
  // Perhaps it was removed, and the leader that did it came no further.
  plan.run({ kind: 'removeShard', shard });
  if (shardRecordOf(plan.topology, shard) === undefined)
    plan.end(id, 'done', `all slots have moved, and shard ${shard} is removed`);
  else plan.end(id, 'failed', `shard ${shard} is in use again: merge it anew`);
}

function progressOf(topology: Topology, migrations: readonly MigrationRecord[]): string {
  const all = migrations.reduce((total, { slots }) => total + countSlots(slots), 0);
  const left = migrations.reduce((total, each) => total + slotsLeft(topology, each), 0);
  const parts = ['running', 'queued', 'paused', 'cancelling', 'failing'].flatMap((state) => {
    const count = migrations.filter((each) => each.state === state).length;
    return count === 0 ? [] : [`${count} ${state}`];
  });
  return `${all - left} of ${all} slots have moved; migrations: ${parts.join(', ')}`;
}

function wordFor({ state }: MigrationRecord): string {
  return state === 'failed' ? 'failed' : 'was cancelled';
}
