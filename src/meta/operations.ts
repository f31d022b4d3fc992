/**
 * Operations: what has been begun and takes its time. The acting leader of the metadata group drives
 * them; here is only what is to be, how far it is, and how it ended.
 */
import type { GroupId, NodeId } from '../../raft/index.js';
import type { CommandOf } from './commands.js';
import { changed, refused, unchanged, withNode, withShard, type Effect } from './effect.js';
import { cancelled, openMigrations, withMigration } from './migrations.js';
import {
  nodeOf,
  shardRecordOf,
  type NodeRecord,
  type OperationRecord,
  type Replacement,
  type Topology,
} from './topology.js';

/** Ended operations that are kept to be looked at. */
const endedMax = 100;
const progressLengthMax = 512;

type Fresh = Pick<
  OperationRecord,
  'kind' | 'what' | 'node' | 'to' | 'replacement' | 'shard' | 'migrations'
>;

/** With `result` it is written down as done already. */
export function openOperation(
  topology: Topology,
  fresh: Fresh,
  nowMs: number,
  result?: string,
): { readonly topology: Topology; readonly id: number } {
  const id = topology.next.operation;
  const operation: OperationRecord = {
    ...fresh,
    id,
    state: result === undefined ? 'running' : 'done',
    progress: result ?? '',
    sinceMs: nowMs,
  };
  const next = { ...topology.next, operation: id + 1 };
  const operations = withoutOldest([...topology.operations, operation]);
  return { topology: { ...topology, operations, next }, id };
}

export function applyEndOperation(topology: Topology, command: CommandOf<'endOperation'>): Effect {
  const { id, state, nowMs } = command;
  const operation = topology.operations.find((each) => each.id === id);
  if (operation === undefined)
    return refused(
      'unknownOperation',
      `there is no operation ${id}: it never was, or ended long ago (the last ${endedMax} are kept)`,
    );
  if (operation.state !== 'running') {
    return operation.state === state
      ? unchanged({ operation: id })
      : refused(
          'operationEnded',
          `operation ${id} (${operation.what}) ended as ${operation.state}: begin it anew if needed`,
        );
  }
  const progress = cut(command.progress);
  if (operation.state === state && operation.progress === progress)
    return unchanged({ operation: id });
  const ended = withOperation(topology, { ...operation, state, progress });
  return changed(afterwards(ended, { ...operation, progress }, state, nowMs), { operation: id });
}

/** What the end of an operation brings about. */
function afterwards(
  topology: Topology,
  { replacement, kind, node, migrations, progress }: OperationRecord,
  state: OperationRecord['state'],
  nowMs: number,
): Topology {
  const givenUp = state === 'failed' || state === 'cancelled';
  if (replacement !== undefined && givenUp) return takenBack(topology, replacement);
  // A drain that failed goes on to keep new replicas away; only who cancels it wants the node back.
  if (kind === 'drainNode' && node !== undefined && state === 'cancelled')
    return undrained(topology, node, nowMs);
  // One that failed leaves the rest of its slots on their way: they are as good there.
  if (migrations !== undefined && state === 'cancelled')
    return cancelAll(topology, { migrations, reason: progress, nowMs });
  return topology;
}

function cancelAll(
  topology: Topology,
  {
    migrations,
    reason,
    nowMs,
  }: {
    readonly migrations: readonly number[];
    readonly reason: string;
    readonly nowMs: number;
  },
): Topology {
  return openMigrations(topology)
    .filter(({ id }) => migrations.includes(id))
    .reduce((next, each) => withMigration(next, cancelled(each, reason, nowMs)), topology);
}

/** The merge or the split of a shard that is under way: there is never more than one. */
export function runningReshape(topology: Topology, id: GroupId): OperationRecord | undefined {
  return topology.operations.find(({ shard, state }) => state === 'running' && shard === id);
}

/**
 * The replica that was to be replaced is whole still: it leaves its Raft group only with the change
 * that makes its successor a voter. So a node that comes back in time costs nothing (rule D06).
 */
function takenBack(topology: Topology, { shard: id, from, to }: Replacement): Topology {
  const shard = shardRecordOf(topology, id);
  if (shard === undefined) return topology;
  const replicas = shard.replicas.map((each) => (each.replica === to.replica ? from : each));
  return withShard(topology, { ...shard, replicas });
}

export function runningDrain(topology: Topology, id: NodeId): OperationRecord | undefined {
  return topology.operations.find(
    ({ kind, state, node }) => kind === 'drainNode' && state === 'running' && node === id,
  );
}

/** The node takes replicas again. */
export function undrained(topology: Topology, id: NodeId, nowMs: number): Topology {
  const node = nodeOf(topology, id);
  if (node?.state !== 'draining') return topology;
  const up: NodeRecord = { ...node, state: 'up', stateSinceMs: nowMs };
  return withNode(topology, up);
}

export function endDrain(
  topology: Topology,
  id: NodeId,
  { state, progress }: Pick<OperationRecord, 'state' | 'progress'>,
): Topology {
  const running = runningDrain(topology, id);
  return running === undefined
    ? topology
    : withOperation(topology, { ...running, state, progress });
}

/** A node is gone by force: what was to come from it stays where it goes, what was to go to it not. */
export function endReplacementsOf(topology: Topology, id: NodeId): Topology {
  let next = topology;
  for (const operation of topology.operations) {
    const { state, replacement } = operation;
    if (state !== 'running' || replacement === undefined) continue;
    const { from, to } = replacement;
    if (from.node !== id && to.node !== id) continue;
    const progress = `node ${id} was removed by force`;
    const stays = from.node === id;
    next = withOperation(next, { ...operation, state: stays ? 'done' : 'failed', progress });
    if (!stays) next = takenBack(next, replacement);
  }
  return next;
}

/** The shard has other members by now, or none: nothing is taken back. */
export function endReplacementOf(
  topology: Topology,
  id: GroupId,
  end: Pick<OperationRecord, 'state' | 'progress'>,
): Topology {
  return topology.operations
    .filter(({ state, replacement }) => state === 'running' && replacement?.shard === id)
    .reduce((next, operation) => withOperation(next, { ...operation, ...end }), topology);
}

function withOperation(topology: Topology, operation: OperationRecord): Topology {
  const operations = topology.operations.map((each) =>
    each.id === operation.id ? operation : each,
  );
  return { ...topology, operations: withoutOldest(operations) };
}

/** By id, which is the order in which they were begun. */
function withoutOldest(operations: readonly OperationRecord[]): readonly OperationRecord[] {
  const ended = operations.filter(({ state }) => state !== 'running');
  if (ended.length <= endedMax) return operations;
  const oldest = new Set(ended.slice(0, ended.length - endedMax));
  return operations.filter((each) => !oldest.has(each));
}

function cut(progress: string): string {
  return progress.length <= progressLengthMax ? progress : progress.slice(0, progressLengthMax);
}
