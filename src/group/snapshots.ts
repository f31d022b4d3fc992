/**
 * State machine images to and from other replicas. The order of an install is rule D15's: synced
 * mark -> data -> one synced batch (applied mark, mark removed) -> synced reset of the Raft log
 * (by the core's next Ready) -> acknowledgement.
 */
import type { LogIndex, NodeId, ReplicaId, SnapshotMeta } from '../../raft/index.js';
import {
  exportSnapshot,
  importSnapshot,
  putInstalled,
  putRestoringMark,
  SnapshotDamaged,
} from '../../storage/index.js';
import { SnapshotInterrupted, type IncomingSnapshot } from '../transport/transport.js';
import type { GroupContext } from './group-context.js';

export async function sendSnapshot<R>(
  driver: GroupContext<R>,
  { to, node }: { readonly to: ReplicaId; readonly node: NodeId },
): Promise<{ readonly index: LogIndex; readonly ok: boolean }> {
  const { surroundings, machine } = driver;
  // Between two batches, so that view and applied index belong together.
  await driver.applierIdle();
  const index = driver.appliedIndex;
  const term = driver.node.termAt(index);
  // Leadership may be lost, or the log reset, while we waited: then nobody wants this any more.
  if (term === undefined || !driver.isLeader) return { index: 0, ok: false };
  const snapshot: SnapshotMeta = { index, term, membership: driver.node.membershipAt(index) };
  const chunks = exportSnapshot(surroundings.engine, machine.range);
  const { generation } = driver.node;
  const { id: group, replica: from, term: inTerm } = driver;
  const header = { group, generation, from, to, term: inTerm, snapshot };
  try {
    const { ok, reason } = await surroundings.transport.sendSnapshot(node, header, chunks);
    surroundings.logLine(
      ok ? 'info' : 'warn',
      { group: driver.id, to, index, reason },
      ok ? 'snapshot sent' : 'snapshot not taken',
    );
    return { index, ok };
  } finally {
    await chunks.discard();
  }
}

/** False when the stream broke: the mark stays, and another snapshot is asked for. */
export async function installSnapshot<R>(
  driver: GroupContext<R>,
  snapshot: SnapshotMeta,
  incoming: IncomingSnapshot,
): Promise<boolean> {
  const { surroundings, machine, prefix, id } = driver;
  const { engine, logLine } = surroundings;
  // A batch that is being applied belongs to the old state: it must not land on the new one.
  await driver.applierIdle();
  const begin = engine.batch();
  putRestoringMark(begin, prefix, snapshot);
  await engine.write(begin, { sync: true });
  try {
    await importSnapshot(engine, { prefix, range: machine.range }, incoming.chunks);
  } catch (error) {
    if (!(error instanceof SnapshotDamaged) && !(error instanceof SnapshotInterrupted)) throw error;
    logLine(
      'warn',
      { group: id, index: snapshot.index, reason: error.message },
      'snapshot was cut or damaged: another one is needed',
    );
    return false;
  }
  const end = engine.batch();
  putInstalled(end, prefix, snapshot);
  await engine.write(end, { sync: true });
  await machine.load();
  logLine('info', { group: id, index: snapshot.index, term: snapshot.term }, 'snapshot installed');
  return true;
}
