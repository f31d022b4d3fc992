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

/** Of one replica: any number on their way to others, at most one that comes. */
export class Snapshots<R> {
  readonly counts = { snapshotsSent: 0, snapshotsInstalled: 0 };
  private readonly driver: GroupContext<R>;
  /** Offered, and not yet asked for by the core. */
  private incoming: IncomingSnapshot | undefined;
  private installing: Promise<void> | undefined;

  constructor(driver: GroupContext<R>) {
    this.driver = driver;
  }

  /** Keeps what is offered until the core has said whether it wants it; false: refused. */
  hold(incoming: IncomingSnapshot): boolean {
    if (this.driver.closed || this.incoming !== undefined || this.installing !== undefined) {
      incoming.finish({ ok: false, reason: 'another snapshot is being installed' });
      return false;
    }
    this.incoming = incoming;
    return true;
  }

  /** The core has seen the offer: what it has not asked for by now is not wanted. */
  refuseUnwanted(): void {
    this.incoming?.finish({ ok: false, reason: 'not wanted' });
    this.incoming = undefined;
  }

  close(): void {
    this.incoming?.finish({ ok: false, reason: 'the node is stopping' });
  }

  /** Resolves when none is being installed. */
  async idle(): Promise<void> {
    await this.installing;
  }

  offer(to: ReplicaId): void {
    const node = this.driver.places.of(to);
    if (node === undefined) {
      this.driver.node.snapshotSent({ to, index: 0, ok: false });
      return;
    }
    this.counts.snapshotsSent++;
    this.driver.background(
      sendSnapshot(this.driver, { to, node }).then((result) => {
        // The term may have changed: the core ignores a result that it does not wait for.
        if (!this.driver.closed) this.driver.node.snapshotSent({ to, ...result });
        this.driver.surroundings.wake();
      }),
    );
  }

  restore(snapshot: SnapshotMeta): void {
    const { incoming } = this;
    this.incoming = undefined;
    if (incoming?.header.snapshot.index !== snapshot.index) {
      // The message came without its stream: nothing to install.
      this.driver.node.restored(snapshot, false);
      return;
    }
    this.driver.onInstalling();
    this.installing = installSnapshot(this.driver, snapshot, incoming)
      .then((ok) => {
        this.installing = undefined;
        if (this.driver.closed) {
          incoming.finish({ ok: false, reason: 'the replica is closed' });
          return;
        }
        this.onInstalled(snapshot, ok);
        incoming.finish(ok ? { ok } : { ok, reason: 'the install failed' });
      })
      .catch((error: unknown) => {
        this.driver.fatal(error);
      });
  }

  private onInstalled(snapshot: SnapshotMeta, ok: boolean): void {
    if (ok) {
      this.counts.snapshotsInstalled++;
      this.driver.onInstalled(snapshot);
    }
    this.driver.node.restored(snapshot, ok);
    this.driver.places.follow();
    this.driver.surroundings.wake();
  }
}

async function sendSnapshot<R>(
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
async function installSnapshot<R>(
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
