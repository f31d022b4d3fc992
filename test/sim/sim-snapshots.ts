/**
 * Images of one member's state machine: sent to others, received and installed, kept for later; and
 * the compaction of the log that makes them necessary. What the driver does for rules D13 to D15.
 */
import type { LogIndex, RawNode, ReplicaId, SnapshotMeta } from '../../raft/index.js';
import type { Coverage } from './coverage.js';
import type { CheckedMember, GroupChecks } from './group-checks.js';
import type { SimRandom } from './random.js';
import type { Image } from './sim-engine.js';
import type { Arrival, Parcel } from './sim-network.js';
import type { SwarmPlan } from './swarm.js';
import type { Trace } from './trace.js';

/** Images that have arrived and wait for the core's order; the oldest goes first. */
const imagesMax = 3;

/** The member whose images these are, as far as they may touch it. */
export interface SnapshotOwner {
  readonly checked: CheckedMember;
  readonly input: (act: (node: RawNode) => void) => void;
  /** Does something later, unless the process has died in between. */
  readonly later: (delayMs: number, act: () => void) => void;
  /** Between two steps of the driver: the power may go here. */
  readonly step: () => void;
  readonly send: (parcel: Omit<Parcel, 'generation'>, arrival?: Arrival) => void;
  readonly syncMs: () => number;
  /** Tells one run of the process from the next. */
  readonly startsSoFar: () => number;
  readonly dropUnapplied: () => void;
  readonly installed: (index: LogIndex) => void;
  readonly losePower: () => void;
}

export class SimSnapshots {
  /** From the core's order to its end, well or not. */
  isRestoring = false;
  private images: Image[] = [];
  private cachedImage: Image | undefined;
  private readonly plan: SwarmPlan;
  private readonly coverage: Coverage;
  private readonly checks: GroupChecks;
  private readonly trace: Trace;
  private readonly random: SimRandom;
  private readonly member: SnapshotOwner;

  constructor(around: {
    readonly plan: SwarmPlan;
    readonly coverage: Coverage;
    readonly checks: GroupChecks;
    readonly trace: Trace;
    readonly random: SimRandom;
    readonly member: SnapshotOwner;
  }) {
    this.plan = around.plan;
    this.coverage = around.coverage;
    this.checks = around.checks;
    this.trace = around.trace;
    this.random = around.random;
    this.member = around.member;
  }

  /** The process is gone, and with it everything that was not on its disk. */
  forget(): void {
    this.isRestoring = false;
    this.images = [];
    this.cachedImage = undefined;
  }

  /** What a start makes of what it finds, before the core sees it (rules D12, D13, D15). */
  recover(): void {
    const { id, disk, engine } = this.member.checked;
    const { index, term } = engine.state;
    if (index > disk.hardState.commit) this.coverage.count('applied ahead of the hard state');
    if (index < disk.firstIndex - 1) {
      engine.restoringMarker = true;
      return;
    }
    engine.isDamaged = false;
    if (engine.restoringMarker || disk.termAt(index) === term) return;
    const membership = engine.imageMembership;
    if (membership === undefined) {
      throw new Error(`D12: member ${id} applied (${index}, ${term}), not in its own log`);
    }
    disk.resetLog({ index, term, membership });
    this.coverage.count('log reset finished at start');
  }

  /** Bytes that came beside a message. */
  arrived(image: Image): void {
    this.images.push(image);
    if (this.images.length > imagesMax) this.images.shift();
  }

  /* ---- Sending -------------------------------------------------------------------------- */

  sendSoon(to: ReplicaId): void {
    const { member } = this;
    member.later(this.random.tailed(1, 300), () => member.input((node) => this.send(node, to)));
  }

  private send(node: RawNode, to: ReplicaId): void {
    const { member } = this;
    const image = this.imageToSend();
    if (image === undefined) return;
    const { index, term } = image.state;
    const meta: SnapshotMeta = { index, term, membership: image.membership };
    const message = node.snapshotMessage(to, meta);
    if (message === undefined) return;
    this.coverage.count('snapshot sent');
    const start = member.startsSoFar();
    member.send({ message, image }, (arrived) => {
      if (member.startsSoFar() !== start) return;
      member.input((running) => running.snapshotSent({ to, index, ok: arrived }));
    });
  }

  /** The present state, or one kept from before that still reaches the log. */
  private imageToSend(): Image | undefined {
    const { disk, engine } = this.member.checked;
    const cached = this.cachedImage;
    const first = disk.firstIndex;
    if (cached !== undefined && cached.state.index >= first - 1 && this.random.chance(0.5)) {
      return cached;
    }
    if (engine.restoringMarker) return undefined;
    const { state } = engine;
    if (state.index < first - 1) return undefined;
    return { state, membership: disk.membershipAt(state.index) };
  }

  /* ---- Installing ----------------------------------------------------------------------- */

  /** Rule D15: marker, data, mark with the new applied index; then the core resets the log. */
  beginRestore(wanted: SnapshotMeta): void {
    const { id } = this.member.checked;
    const image = this.images.find(
      ({ state }) => state.index === wanted.index && state.term === wanted.term,
    );
    if (image === undefined) throw new Error(`restore of ${wanted.index}, which never arrived`);
    if (this.isRestoring) throw new Error(`member ${id} restores two snapshots at once`);
    this.isRestoring = true;
    const meta = { index: wanted.index, term: wanted.term, membership: wanted.membership };
    if (this.random.chance(this.plan.installCrash)) this.crashDuringInstall();
    if (this.trace.isRead) this.trace.line(`${id} begins to restore ${meta.index}`);
    this.member.later(this.random.tailed(0.1, 50), () =>
      this.member.input((node) => this.overwrite(node, image, meta)),
    );
  }

  /** At any moment from the order to the durable reset of the log. */
  private crashDuringInstall(): void {
    this.member.later(this.random.tailed(0, 400), () => this.member.losePower());
  }

  private overwrite(node: RawNode, image: Image, meta: SnapshotMeta): void {
    const { member } = this;
    if (this.random.chance(0.05)) {
      // Bytes that do not match their checksum: nothing has been touched yet.
      this.coverage.count('snapshot refused');
      this.isRestoring = false;
      node.restored(meta, false);
      return;
    }
    member.step();
    member.checked.engine.restoringMarker = true;
    member.dropUnapplied();
    member.later(member.syncMs() + this.random.tailed(0.1, 200), () =>
      member.input((running) => this.install(running, image, meta)),
    );
  }

  private install(node: RawNode, image: Image, meta: SnapshotMeta): void {
    const { member } = this;
    member.step();
    this.checks.installed(member.checked, image, meta);
    member.checked.engine.install(image);
    this.isRestoring = false;
    this.coverage.count('snapshot installed');
    if (this.trace.isRead) this.trace.line(`${member.checked.id} installed ${meta.index}`);
    member.installed(meta.index);
    member.step();
    node.restored(meta, true);
  }

  /* ---- The durable mark and log compaction ---------------------------------------------- */

  /** Only what the engine has durably may leave the log (rule D14). */
  flush(node: RawNode): void {
    const { disk, engine } = this.member.checked;
    if (engine.restoringMarker || this.isRestoring) return;
    engine.flush();
    if (this.random.chance(0.5)) {
      const { state } = engine;
      if (state.index >= disk.firstIndex - 1 && disk.termAt(state.index) === state.term) {
        this.cachedImage = { state, membership: disk.membershipAt(state.index) };
      }
    }
    this.compact(node, engine.durableIndex - this.plan.apply.keepEntries);
  }

  private compact(node: RawNode, through: LogIndex): void {
    const { id, disk } = this.member.checked;
    if (through < disk.firstIndex) return;
    // A log reset that is not durable yet makes the log on disk another one than the core's.
    const term = disk.termAt(through);
    if (term === undefined || term !== node.termAt(through)) return;
    this.coverage.count('log compacted');
    if (this.trace.isRead) this.trace.line(`${id} compacts through ${through}`);
    disk.compact(through);
    node.compacted(through + 1);
  }
}
