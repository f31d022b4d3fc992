/**
 * One member: the core, its disk, its state machine, its clock, and the driver between them. The
 * driver does what `ready.ts` asks and nothing else, but everything takes time, and between any two
 * of its steps the power can go.
 */
import { RawNode } from '../../raft/index.js';
import type {
  Entry,
  Fetch,
  Generation,
  Member,
  Membership,
  RaftStatus,
  Ready,
  ReplicaId,
} from '../../raft/index.js';
import { describeMessage, persistLines } from '../../raft/describe.js';
import type { Coverage } from './coverage.js';
import type { CheckedMember, GroupChecks } from './group-checks.js';
import type { ReadEnd, WriteEnd } from './waiting-clients.js';
import { LocalClock } from './local-clock.js';
import type { SimRandom } from './random.js';
import { SimDisk } from './sim-disk.js';
import type { PersistBatch } from './sim-disk.js';
import { SimEngine } from './sim-engine.js';
import type { Arrival, Parcel } from './sim-network.js';
import { SimSnapshots } from './sim-snapshots.js';
import type { SnapshotOwner } from './sim-snapshots.js';
import type { SwarmPlan } from './swarm.js';
import type { Timeline } from './timeline.js';
import type { Trace } from './trace.js';
import { WaitingClients } from './waiting-clients.js';

/** What a member needs from the world around it. */
export interface Surroundings {
  readonly plan: SwarmPlan;
  readonly timeline: Timeline;
  readonly coverage: Coverage;
  readonly trace: Trace;
  readonly checks: GroupChecks;
  /** Would a probe from one to the other, and its answer, arrive? */
  readonly connected: (one: ReplicaId, other: ReplicaId) => boolean;
  readonly send: (parcel: Parcel, arrival?: Arrival) => void;
  /** The member lost power by itself, in the middle of a step. */
  readonly crashed: (member: SimMember) => void;
}

/** Thrown inside of a step to end it there. */
class PowerCut extends Error {}

/** More Readys than this after one input mean that the core asks for the same thing for ever. */
const readyRoundsMax = 200;
/** Messages that a stopped process finds when it goes on; more are lost, as in a full socket. */
const queuedMax = 2000;
/** However slow: a sync or an apply that takes longer belongs to a disk that hangs. */
const slowestMs = 2000;
/** How soon a hung sync notices that its disk works again. */
const hungPollMs = 50;

export class SimMember implements CheckedMember {
  readonly disk: SimDisk;
  readonly engine = new SimEngine();
  seen: RaftStatus | undefined;
  /** Times by which the disk and the apply loop are slower than planned; faults set them. */
  diskSlowness = 1;
  applySlowness = 1;
  /** No sync ends before this moment. */
  diskHungUntil = 0;
  /** The machine and its disk are gone for good. */
  isDestroyed = false;

  private node: RawNode | undefined;
  private readonly clock: LocalClock;
  private starts = 0;
  private paused = false;
  private isStepping = false;
  private queued: ((node: RawNode) => void)[] = [];
  private stepsToPowerCut = 0;
  private toApply: Entry[] = [];
  private isApplying = false;
  private readonly snapshots: SimSnapshots;
  private waiting = new WaitingClients();
  private contexts = 0;
  readonly id: ReplicaId;
  private readonly around: Surroundings;
  private readonly random: SimRandom;

  constructor(id: ReplicaId, membership: Membership, around: Surroundings, random: SimRandom) {
    this.id = id;
    this.around = around;
    this.random = random;

    this.disk = new SimDisk(membership);
    const { clockSkew, tickMs } = around.plan;
    const rate = 1 + random.between(-clockSkew, clockSkew);
    const offsetMs = random.between(0, 10_000);
    this.clock = new LocalClock({ offsetMs, rate, tickMs }, () => around.timeline.now);
    this.snapshots = new SimSnapshots({ ...around, random, member: this.asOwner() });
  }

  get isRunning(): boolean {
    return this.node !== undefined;
  }

  get isPaused(): boolean {
    return this.paused;
  }

  get isLeader(): boolean {
    return this.node?.isLeader === true;
  }

  /** Has it all that a member needs to lead the group on? */
  get isWhole(): boolean {
    return !this.isDestroyed && !this.engine.isDamaged && !this.engine.restoringMarker;
  }

  get core(): RawNode | undefined {
    return this.node;
  }

  /* ---- Life and death ------------------------------------------------------------------- */

  start(): void {
    if (this.node !== undefined || this.isDestroyed) return;
    this.snapshots.recover();
    this.starts++;
    const { options, tickMs } = this.around.plan;
    const { disk, engine } = this;
    const node = new RawNode(
      {
        ...options,
        id: this.id,
        seed: this.random.bits(),
        silentTicks: this.starts === 1 ? 0 : options.silentTicks,
      },
      {
        generation: disk.generation,
        hardState: disk.hardState,
        firstIndex: disk.firstIndex,
        lastIndex: disk.lastIndex,
        termRuns: disk.termRuns(),
        memberships: disk.memberships(),
        tail: disk.tail(this.random.integer(0, disk.lastIndex - disk.firstIndex + 1)),
        // Half overwritten, the state machine stands nowhere.
        appliedIndex: engine.restoringMarker ? disk.firstIndex - 1 : engine.state.index,
        restoring: engine.restoringMarker,
      },
    );
    this.node = node;
    this.clock.skipDue();
    if (this.trace.isRead) this.trace.line(`${this.id} starts at ${this.describeDisk()}`);
    this.around.checks.started(this, node);
    this.scheduleTick(this.starts, tickMs);
    this.input(() => undefined);
    this.scheduleFlush(this.starts);
  }

  get generation(): Generation {
    return this.disk.generation;
  }

  /**
   * Forced recovery (rule D07) of a member that is down: it becomes the only voter. False: its state
   * is of no use to anybody, and nothing was done.
   */
  recover(self: Member, generation: Generation): boolean {
    if (this.node !== undefined) throw new Error(`member ${this.id} runs`);
    this.snapshots.recover();
    if (this.engine.restoringMarker) return false;
    this.disk.recover(self, generation);
    this.trace.line(`${this.id} is recovered by force in generation ${generation}`);
    return true;
  }

  /** Power is lost now. `damage`: the engine loses what was durable, too. */
  crash(damage = false): void {
    if (this.node === undefined) return;
    const { coverage } = this.around;
    coverage.count('crash');
    if (this.snapshots.isRestoring && this.engine.restoringMarker)
      coverage.count('crash in mid install');
    const residue = this.disk.crash(this.random);
    if (residue === 'lost') coverage.count('write lost');
    if (residue === 'torn') coverage.count('torn write');
    if (residue === 'kept') coverage.count('write kept but not reported');
    if (this.engine.crash(this.random)) coverage.count('engine rolled back');
    if (damage) {
      this.engine.damage();
      coverage.count('engine damaged');
    }
    this.trace.line(`${this.id} crashes: batch ${residue}`);
    this.forget();
  }

  /** The machine is gone with its disk. What it had made durable stays known to the checks. */
  destroy(): void {
    this.isDestroyed = true;
    this.trace.line(`${this.id} is destroyed`);
    if (this.node !== undefined) this.forget();
  }

  private forget(): void {
    const { waiting } = this;
    this.node = undefined;
    this.seen = undefined;
    this.paused = false;
    this.queued = [];
    this.stepsToPowerCut = 0;
    this.toApply = [];
    this.isApplying = false;
    this.snapshots.forget();
    this.waiting = new WaitingClients();
    waiting.abandon();
  }

  /** The power goes in the middle of one of the next steps. */
  cutPowerAfter(steps: number): void {
    this.stepsToPowerCut = steps;
  }

  pause(): void {
    if (this.node !== undefined) this.paused = true;
  }

  /** Goes on where it was stopped, with all that has come meanwhile. */
  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    const { queued } = this;
    this.queued = [];
    for (const act of queued) this.input(act);
  }

  /* ---- Inputs --------------------------------------------------------------------------- */

  /** One event: ticks that are due, the input, and everything that follows without I/O. */
  input(act: (node: RawNode) => void): void {
    const { node } = this;
    if (node === undefined) return;
    if (this.paused) {
      this.queued.push(act);
      return;
    }
    if (this.isStepping) {
      // What a client does with an answer: a part of the step that brought it, also when power is cut.
      act(node);
      return;
    }
    this.isStepping = true;
    try {
      const wasQuiet = node.isQuiet;
      for (let due = this.clock.takeDue(this.ticksMax); due > 0; due--) node.tick();
      act(node);
      this.work(node);
      if (node.isQuiet && !wasQuiet) this.around.coverage.count('group fell quiet');
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
      this.around.coverage.count('crash in mid step');
      // What the core decided in this step is true, though nobody here will know of it.
      this.around.checks.afterEvent(this, node);
      this.crash();
      this.around.crashed(this);
      return;
    } finally {
      this.isStepping = false;
    }
    if (this.node === node) this.around.checks.afterEvent(this, node);
  }

  /** Enough for every timeout of the core to pass at once. */
  private get ticksMax(): number {
    return 2 * this.around.plan.options.electionTicks;
  }

  receive(parcel: Parcel): boolean {
    if (this.node === undefined || this.queued.length >= queuedMax) return false;
    this.input((node) => {
      const { message, generation, image } = parcel;
      if (this.trace.isRead) this.trace.line(describeMessage(message));
      if (generation === node.generation) {
        if (image !== undefined) this.snapshots.arrived(image);
        node.step(message, generation);
        return;
      }
      const before = node.status();
      node.step(message, generation);
      this.around.checks.crossed(before, node.status());
    });
    return true;
  }

  private scheduleTick(start: number, waitMs: number): void {
    const { timeline, plan } = this.around;
    const lateMs = this.random.chance(0.2) ? this.random.tailed(0, plan.tickMs / 2) : 0;
    timeline.after(waitMs + lateMs, () => {
      if (this.starts !== start || this.node === undefined) return;
      if (!this.paused) this.input((node) => this.watchOthers(node));
      this.scheduleTick(start, this.clock.untilNextMs);
    });
  }

  /** In a quiet group only the driver can notice that a member may be lost (rule D05). */
  private watchOthers(node: RawNode): void {
    if (!node.isQuiet) return;
    const away = node.membership.membership.members.some(
      ({ id }) => id !== this.id && !this.around.connected(this.id, id),
    );
    if (!away) return;
    this.around.coverage.count('quiet group woken');
    node.wake();
  }

  /** Proposes a command; `end` is told how it ended, unless the process never gets to it. */
  propose(command: Uint8Array, end: WriteEnd): void {
    this.input((node) => {
      const verdict = node.propose(command);
      if (verdict.kind === 'appended') {
        this.waiting.awaitEntry(verdict, end);
        return;
      }
      const overloaded = verdict.kind === 'refused' && verdict.reason === 'overloaded';
      this.around.coverage.count(overloaded ? 'write overloaded' : 'write refused');
      end('notApplied', 0);
    });
  }

  /** Reads on this member, by whatever way its core offers. */
  read(end: ReadEnd): void {
    this.input((node) => {
      this.contexts++;
      const context = `${this.id}.${this.starts}.${this.contexts}`;
      const verdict = node.readIndex(context);
      switch (verdict.kind) {
        case 'pending':
          this.waiting.awaitContext(context, this.counting(end, node.isLeader));
          return;
        case 'lease': {
          const { index, term } = verdict;
          const byLease: ReadEnd = (at) => {
            if (at !== undefined) this.around.coverage.count('read ok by lease');
            end(at);
          };
          this.waiting.awaitApplied({ index, leaseTerm: term, end: byLease });
          this.answerReads(node);
          return;
        }
        case 'notLeader':
        case 'refused':
          this.around.coverage.count('read refused');
          end(undefined);
      }
    });
  }

  private counting(end: ReadEnd, onLeader: boolean): ReadEnd {
    return (at) => {
      const { coverage } = this.around;
      if (at === undefined) coverage.count('read refused');
      else coverage.count(onLeader ? 'read ok on leader' : 'read ok on follower');
      end(at);
    };
  }

  /* ---- What the core wants -------------------------------------------------------------- */

  private work(node: RawNode): void {
    for (let round = 0; node.hasReady(); round++) {
      if (round === readyRoundsMax) throw new Error(`member ${this.id} is never done`);
      this.take(node, node.ready());
    }
    this.answerReads(node);
  }

  private take(node: RawNode, ready: Ready): void {
    for (const message of ready.messages) this.send({ message, image: undefined });
    const { hardState, entries, logReset, messagesAfterPersist } = ready;
    const isEmpty = hardState === undefined && entries.length === 0 && logReset === undefined;
    if (!isEmpty || messagesAfterPersist.length > 0) {
      this.persist(node, { hardState, entries, logReset, messagesAfterPersist }, isEmpty);
    }
    if (ready.committed.length > 0) {
      // The commit itself is judged before anything that follows from it.
      this.around.checks.afterEvent(this, node);
      this.toApply.push(...ready.committed);
      this.applySoon(node);
    }
    for (const state of ready.readStates) this.waiting.released(state);
    for (const fetch of ready.fetches) this.fetch(fetch);
    for (const to of ready.snapshotsWanted) this.snapshots.sendSoon(to);
    if (ready.restore !== undefined) this.snapshots.beginRestore(ready.restore);
  }

  private send(parcel: Omit<Parcel, 'generation'>, arrival?: Arrival): void {
    this.step();
    this.around.checks.sent(this, parcel.message);
    if (this.around.plan.freezeMessages) Object.freeze(parcel.message);
    this.around.send({ ...parcel, generation: this.disk.generation }, arrival);
  }

  /** Between two steps of the driver: the power may go here. */
  private step(): void {
    if (this.stepsToPowerCut > 0 && --this.stepsToPowerCut === 0) throw new PowerCut();
  }

  private persist(node: RawNode, batch: PersistBatch, isEmpty: boolean): void {
    this.step();
    this.around.checks.written(this, batch);
    this.disk.write(batch);
    if (isEmpty) {
      // Nothing to sync, and nothing unsynced before it: one batch is in flight at a time.
      this.persisted(node, batch);
      return;
    }
    if (this.trace.isRead) {
      this.trace.line(`${this.id} writes ${persistLines(batch).join(', ')}`);
    }
    this.later(this.syncMs(), () => this.syncEnds(batch));
  }

  private syncEnds(batch: PersistBatch): void {
    const hungMs = this.diskHungUntil - this.around.timeline.now;
    if (hungMs > 0) {
      this.later(Math.min(hungMs, hungPollMs), () => this.syncEnds(batch));
      return;
    }
    // The disk works on while the process is stopped: durable now, reported when it goes on.
    const last = this.disk.sync();
    this.input((node) => this.reportPersisted(node, batch, last));
  }

  private persisted(node: RawNode, batch: PersistBatch): void {
    this.reportPersisted(node, batch, this.disk.sync());
  }

  private reportPersisted(
    node: RawNode,
    batch: PersistBatch,
    last: ReturnType<SimDisk['sync']>,
  ): void {
    for (const message of batch.messagesAfterPersist) {
      if (message.to === this.id) node.step(message, node.generation);
      else this.send({ message, image: undefined });
    }
    this.step();
    node.persisted(last);
  }

  private syncMs(): number {
    const { syncMinMs, syncMaxMs } = this.around.plan.disk;
    return Math.min(this.random.tailed(syncMinMs, syncMaxMs) * this.diskSlowness, slowestMs);
  }

  private applySoon(node: RawNode): void {
    if (this.isApplying || this.engine.restoringMarker || this.toApply.length === 0) return;
    const { delayMaxMs } = this.around.plan.apply;
    if (delayMaxMs === 0 && this.applySlowness === 1) {
      this.applyNow(node);
      return;
    }
    this.isApplying = true;
    const delayMs = this.random.tailed(0.1, Math.max(1, delayMaxMs)) * this.applySlowness;
    this.later(Math.min(delayMs, slowestMs), () =>
      this.input((running) => {
        this.isApplying = false;
        // Installing a snapshot takes the engine away from the apply loop.
        if (!this.engine.restoringMarker) this.applyNow(running);
      }),
    );
  }

  private applyNow(node: RawNode): void {
    const entries = this.toApply;
    this.toApply = [];
    for (const entry of entries) {
      this.step();
      const state = this.engine.apply(entry);
      this.around.checks.applied(this, entry, state);
      this.waiting.applied(entry);
    }
    const last = entries.at(-1);
    if (last !== undefined) node.applied(last.index);
  }

  private answerReads(node: RawNode): void {
    if (this.engine.restoringMarker) return;
    const lost = this.waiting.answer(this.engine.state.index, (term) => node.leaseValid(term));
    for (let count = 0; count < lost; count++)
      this.around.coverage.count('lease lost while waiting');
  }

  private fetch(fetch: Fetch): void {
    this.around.coverage.count('entries fetched');
    if (fetch.last > this.disk.lastIndex) {
      throw new Error(`member ${this.id} fetches ${fetch.last} of ${this.disk.lastIndex}`);
    }
    this.later(this.random.tailed(0.05, 20), () => {
      const entries = this.disk.read(fetch);
      this.input((node) => node.entriesFetched(fetch, entries));
    });
  }

  /* ---- Small things --------------------------------------------------------------------- */

  /** Does something later, unless the process has died in between. */
  private later(delayMs: number, act: () => void): void {
    const start = this.starts;
    this.around.timeline.after(delayMs, () => {
      if (this.starts === start && this.node !== undefined) act();
    });
  }

  private scheduleFlush(start: number): void {
    const { timeline, plan } = this.around;
    timeline.after(this.random.between(0.5, 1.5) * plan.apply.flushEveryMs, () => {
      if (this.starts !== start || this.node === undefined) return;
      this.input((node) => this.snapshots.flush(node));
      this.scheduleFlush(start);
    });
  }

  /** What the snapshots may do to this member, and nobody else. */
  private asOwner(): SnapshotOwner {
    return {
      checked: this,
      input: (act) => this.input(act),
      later: (delayMs, act) => this.later(delayMs, act),
      step: () => this.step(),
      send: (parcel, arrival) => this.send(parcel, arrival),
      syncMs: () => this.syncMs(),
      startsSoFar: () => this.starts,
      dropUnapplied: () => {
        this.toApply = [];
      },
      installed: (index) => this.waiting.installed(index),
      losePower: () => {
        this.crash();
        this.around.crashed(this);
      },
    };
  }

  private get trace(): Trace {
    return this.around.trace;
  }

  private describeDisk(): string {
    const { disk, engine } = this;
    const { term, vote, commit } = disk.hardState;
    return (
      `term=${term} vote=${vote} commit=${commit} log=${disk.firstIndex}..${disk.lastIndex} ` +
      `applied=${engine.state.index}${engine.restoringMarker ? ' restoring' : ''}`
    );
  }
}
