/**
 * Drives one migration, on the node that leads its source shard. It remembers nothing that matters: what
 * to do next is read off the slots' states at both ends, so whoever leads next goes on where this one
 * stopped, at any step. It only says steps; whether one counts is decided in the shards' logs.
 *
 * A few slots at a time go all the way: export, copy, freeze, last changes, seal, handover, activate,
 * told to the metadata group, collected.
 */
import type { GroupId } from '../../raft/index.js';
import { KvError } from '../errors.js';
import type { MetaCommand } from '../meta/commands.js';
import { slotsOf, spansOf } from '../router/slot-spans.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { Slot } from '../router/slot.js';
import {
  bareTerms,
  bytesOfParts,
  noTerms,
  type ChunkPart,
  type MigrationStep,
  type SlotStepKind,
  type SlotTerms,
} from '../shard/migration-step.js';
import { isServing, SlotOwnership, type SlotState } from '../shard/slot-state.js';
import type {
  MigrationFigures,
  MigrationOrder,
  SourceShard,
  StepAtTarget,
} from './migration-order.js';
import { FreezeWatch } from './freeze-watch.js';
import { MigrationCopy } from './migration-copy.js';
import { MigrationTarget, notYet } from './migration-target.js';
import { Courtesy, Throttle } from './throttle.js';

export interface MigrationDriverOptions {
  readonly id: number;
  readonly shard: SourceShard;
  readonly stepAtTarget: StepAtTarget;
  readonly clock: Clock;
  readonly log: Log;
  /** Undefined: nothing more is to be done about it. */
  readonly order: () => MigrationOrder | undefined;
  /** A command of the metadata group. Rejects with KvError. */
  readonly tell: (command: MetaCommand) => Promise<void>;
}

/**
 * Slots that go together, and are frozen at one time, after all of them were copied. Each batch costs eight
 * entries or more in three logs, one after the other; a larger one costs its slots a longer freeze as well: at
 * full load 110 ms (p99) for 128 of them, 132 for 256.
 */
const batchSlotsMax = 128;
const batchBytesMax = 2 * 1024 * 1024;
/** Slots in one command that ends an export or an import. */
const endingSlotsMax = 512;
const pauseMs = 200;
const patienceMs = 2000;

export class MigrationDriver {
  private readonly options: MigrationDriverOptions;
  private readonly throttle: Throttle;
  private readonly courtesy: Courtesy;
  private readonly target: MigrationTarget;
  private readonly copy: MigrationCopy;
  private readonly freezes: FreezeWatch;
  /** Leadership under which everything of the log was seen applied here; 0: not yet. */
  private caughtUp = 0;
  private progressMs: number;
  private closed = false;
  private wake: () => void = () => undefined;
  private bytes = 0;
  private records = 0;
  private trouble = '';

  constructor(options: MigrationDriverOptions) {
    this.options = options;
    this.throttle = new Throttle(options.clock);
    this.courtesy = new Courtesy(options.clock);
    this.target = new MigrationTarget(options);
    this.copy = new MigrationCopy({ id: options.id, shard: options.shard, target: this.target });
    this.freezes = new FreezeWatch(options.clock);
    this.progressMs = options.clock.monotonicMs();
  }

  get sourceId(): GroupId {
    return this.options.shard.id;
  }

  get figures(): MigrationFigures {
    const { bytes, records, trouble } = this;
    const freezes = this.freezes.ended;
    const { shard, id, order } = this.options;
    const left = [...slotsOf(order()?.slots ?? [])]
      .map((slot) => shard.slotState(slot))
      .filter((state) => isServing(state) && state.ended < id);
    const lag = this.copy.lag(this.slotsIn(SlotOwnership.exporting, SlotOwnership.frozen));
    return {
      slotsLeft: left.length,
      keysLeft: sumOf(left, 'keys'),
      bytesLeft: sumOf(left, 'bytes'),
      bytes,
      records,
      lag,
      freezes,
      trouble,
    };
  }

  close(): void {
    this.closed = true;
    this.wake();
  }

  /** The order may have changed: not to be found out only after a pause. */
  look(): void {
    this.wake();
  }

  /** Ends when nothing is left to be done, or somebody else leads. */
  async run(): Promise<void> {
    for (let order = this.order(); order !== undefined; order = this.order()) {
      const goesOn = (await this.attempt(() => this.tryOn(order))) === true;
      const silentMs = this.silentMs(order);
      if (goesOn && silentMs <= order.giveUpMs) continue;
      await this.attempt(() => this.thawLate(0));
      const trouble = this.trouble || 'changes are made faster than they can be brought over';
      const why = `no progress for ${Math.round(silentMs / 1000)} s: ${trouble}`;
      // The source goes on serving, and keeps what it has.
      if (silentMs > order.giveUpMs) await this.attempt(() => this.fail(why));
      if (this.order() !== undefined) await this.pause(pauseMs);
    }
  }

  /** How long a migration that could fail has got nowhere. */
  private silentMs({ goal, canFail }: MigrationOrder): number {
    const nowMs = this.options.clock.monotonicMs();
    if (goal !== 'go' || !canFail) this.progressMs = nowMs;
    return nowMs - this.progressMs;
  }

  /** Undefined: it could not be done just now. */
  private async attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      this.noteTrouble(error.message);
      // What was asked for may have been carried out, and not be applied here yet.
      if (error.outcome !== 'notApplied') this.caughtUp = 0;
      // Nothing is frozen before the target was heard of again.
      this.target.doubt();
      return undefined;
    }
  }

  private order(): MigrationOrder | undefined {
    return this.closed || !this.options.shard.isLeader ? undefined : this.options.order();
  }

  private async tryOn(order: MigrationOrder): Promise<boolean> {
    await this.catchUp(order);
    const goesOn = await this.advance(order);
    if (goesOn) this.trouble = '';
    return goesOn;
  }

  /**
   * A leader that was elected just now may not have applied all that its log holds: slots would look as
   * they no longer are. What it logs itself is applied behind all of that.
   */
  private async catchUp(order: MigrationOrder): Promise<void> {
    const { leadership } = this.options.shard;
    if (this.caughtUp === leadership) return;
    await this.atSource(order, 'exportBegin', []);
    this.caughtUp = leadership;
  }

  private moved(): void {
    this.progressMs = this.options.clock.monotonicMs();
  }

  private noteTrouble(message: string): void {
    const { id, log } = this.options;
    if (message !== this.trouble) log('warn', { migration: id, message }, 'a migration waits');
    this.trouble = message;
  }

  private async fail(reason: string): Promise<void> {
    const { id, log } = this.options;
    log('error', { migration: id, reason }, 'a migration fails');
    await this.tell({ kind: 'failMigration', id, reason });
  }

  private async tell(command: MetaCommand): Promise<void> {
    try {
      await this.options.tell(command);
    } catch (error) {
      // Without the metadata group nothing can end: to wait for it is no failure of the migration.
      this.moved();
      throw error;
    }
  }

  // ---- what is to be done next

  /** True: something has moved on, and more is to be done at once. */
  private async advance(order: MigrationOrder): Promise<boolean> {
    const given = this.slotsIn(SlotOwnership.handedOver);
    if (given.length > 0) return this.complete(order, given.slice(0, endingSlotsMax));
    if (order.goal === 'drop' || order.goal === 'settle') return this.drop(order);
    const frozen = this.slotsIn(SlotOwnership.frozen);
    if (frozen.length === 0) this.freezes.giveUp();
    else return this.handOver(order, frozen);
    const exporting = this.slotsIn(SlotOwnership.exporting);
    if (order.goal === 'pause') {
      await this.endLongPause(order, exporting);
      return false;
    }
    if (exporting.length > 0) return this.bringOver(order, exporting);
    return this.begin(order);
  }

  /** Slots of this migration in one of these states, in order. */
  private slotsIn(...ownerships: readonly SlotOwnership[]): Slot[] {
    const { shard, id } = this.options;
    return [...shard.slotsInMigration]
      .filter((slot) => {
        const { ownership, migration } = shard.slotState(slot);
        return migration?.id === id && ownerships.includes(ownership);
      })
      .sort((a, b) => a - b);
  }

  private async begin(order: MigrationOrder): Promise<boolean> {
    const { id, shard } = this.options;
    const batch: Slot[] = [];
    let bytes = 0;
    let stayed: Slot | undefined;
    for (const slot of slotsOf(order.slots)) {
      const state = shard.slotState(slot);
      if (state.ownership !== SlotOwnership.owned) continue;
      if (state.ended >= id) stayed ??= slot;
      else {
        bytes += state.bytes;
        const isFull = batch.length >= batchSlotsMax || bytes > batchBytesMax;
        if (batch.length > 0 && isFull) break;
        batch.push(slot);
      }
    }
    if (batch.length === 0) {
      if (stayed !== undefined && order.canFail)
        await this.fail(
          `slot ${stayed} was not handed over and stays: start another migration for it`,
        );
      return false;
    }
    this.target.forget();
    this.copy.begin();
    this.courtesy.begin(shard.operations);
    await this.atSource(order, 'exportBegin', bareTerms(batch));
    if (!batch.some((slot) => shard.slotState(slot).migration?.id === id)) {
      this.noteTrouble(`keys of slot ${batch[0] ?? ''} are on their way into a pin or back`);
      return false;
    }
    this.moved();
    return true;
  }

  // ---- copy

  private async bringOver(order: MigrationOrder, slots: readonly Slot[]): Promise<boolean> {
    if (!this.target.knowsAll(slots))
      return this.open(order, slots, await this.copy.nextParts(slots));
    const problem = this.target.problemWith(slots);
    if (problem !== undefined) {
      if (order.canFail) await this.fail(problem);
      return false;
    }
    const lag = this.copy.lag(slots);
    const copied = this.copy.isComplete(slots);
    if (copied && this.copy.isLeast(lag)) this.moved();
    if (copied && this.copy.isTimeToFreeze(lag)) {
      // While the rate was kept to it may have gone.
      return this.target.isThere ? this.freeze(order, slots) : this.open(order, slots);
    }
    const parts = await this.copy.nextParts(slots);
    if (copied) this.copy.noteRound(bytesOfParts(parts));
    if (parts.length > 0) await this.send(order, parts, slots, {});
    else await this.open(order, slots);
    if (!copied) this.moved();
    return true;
  }

  /** Makes room at the target, or finds out how far it is. */
  private async open(
    order: MigrationOrder,
    slots: readonly Slot[],
    parts: readonly ChunkPart[] = [],
  ): Promise<boolean> {
    const terms = slots.map((slot): SlotTerms => {
      const { epoch, migration, pins, lastPin } = this.options.shard.slotState(slot);
      return { ...noTerms, slot, epoch, change: migration?.from ?? 0, pins, lastPin };
    });
    await this.send(order, parts, slots, { before: [this.step('importBegin', terms)] });
    return true;
  }

  private async send(
    order: MigrationOrder,
    parts: readonly ChunkPart[],
    slots: readonly Slot[],
    {
      before = [],
      after = [],
    }: Readonly<Partial<Record<'before' | 'after', readonly MigrationStep[]>>>,
  ): Promise<void> {
    const bytes = bytesOfParts(parts);
    const { id } = this.options;
    const chunk: MigrationStep = { kind: 'chunk', id, peer: this.sourceId, parts };
    const steps = parts.length === 0 ? [] : [chunk];
    await this.atTarget(order, [...before, ...steps, ...after], slots);
    this.bytes += bytes;
    this.records += parts.reduce((sum, { records }) => sum + records.length, 0);
    // Frozen slots are not held up by it: they are few, and somebody waits.
    if (!this.freezes.isOn) await this.keepToRate(bytes);
  }

  /** What is ordered meanwhile counts at once. Time spent here is no silence. */
  private async keepToRate(bytes: number): Promise<void> {
    const { clock } = this.options;
    const sinceMs = clock.monotonicMs();
    this.throttle.add(bytes);
    for (let order = this.order(); order?.goal === 'go'; order = this.order()) {
      const ms = this.throttle.waitMs(order.bytesPerSecond);
      if (ms === 0) break;
      await this.pause(ms);
    }
    const waitedMs = clock.monotonicMs() - sinceMs;
    this.progressMs += waitedMs;
    this.courtesy.rested(waitedMs);
  }

  // ---- freeze and handover

  private async freeze(order: MigrationOrder, slots: readonly Slot[]): Promise<boolean> {
    // If it is never heard of, they stand still from here on as far as is known.
    this.freezes.begin();
    await this.atSource(order, 'freeze', bareTerms(slots));
    this.freezes.begin();
    return true;
  }

  private async handOver(order: MigrationOrder, slots: readonly Slot[]): Promise<boolean> {
    const { shard } = this.options;
    this.freezes.notice();
    if (await this.thawLate(order.freezeMsMax)) return false;
    // Somebody else froze them: how far is the target?
    if (!this.target.knowsAll(slots)) return this.open(order, slots);
    if (!slots.every((slot) => this.isReady(slot))) {
      const parts = await this.copy.nextParts(slots);
      const seal = this.step(
        'seal',
        slots.map((slot): SlotTerms => {
          const { change, migration } = shard.slotState(slot);
          return { ...noTerms, slot, change, logTimeMs: migration?.logTimeMs ?? 0 };
        }),
      );
      await this.send(order, parts, slots, { after: [seal] });
      const wrong = this.target.problemWith(slots);
      if (wrong === undefined) return true;
      // The metadata group may be slow to take it: nobody is to wait for that.
      await this.thawLate(0);
      if (order.canFail) await this.fail(wrong);
      return false;
    }
    const terms = slots.map((slot): SlotTerms => {
      const { change, keys, sum, migration } = this.target.state(slot) ?? shard.slotState(slot);
      return { ...noTerms, slot, change, keys, sum, logTimeMs: migration?.logTimeMs ?? 0 };
    });
    const { differing = [] } = await this.atSource(order, 'handover', terms);
    if (differing.length > 0) await this.noteDifferent(order, differing);
    return true;
  }

  /** It has all that the source had when it froze, and knows of this very freeze. */
  private isReady(slot: Slot): boolean {
    const report = this.target.state(slot);
    const { change, migration } = this.options.shard.slotState(slot);
    return (
      report?.ownership === SlotOwnership.ready &&
      report.change === change &&
      report.migration?.logTimeMs === migration?.logTimeMs
    );
  }

  private async noteDifferent(order: MigrationOrder, slots: readonly Slot[]): Promise<void> {
    const { log, id } = this.options;
    const reason = `the copy of slots ${slots.join(', ')} differs from the original: a bug, please report it`;
    log('error', { migration: id, slots }, reason);
    if (order.canFail) await this.fail(reason);
  }

  /** Frozen for longer than this: the source serves again, and the copy goes on (rule D32). */
  private async thawLate(freezeMsMax: number): Promise<boolean> {
    const { shard, id, log } = this.options;
    const frozen = this.slotsIn(SlotOwnership.frozen);
    const { ms } = this.freezes;
    if (frozen.length === 0 || ms <= freezeMsMax) return false;
    log('warn', { migration: id, slots: frozen.length, ms }, 'a freeze took too long: given up');
    const peer = shard.slotState(frozen[0] ?? (0 as Slot)).migration?.peer ?? 0;
    await shard.step({ kind: 'thaw', id, peer, slots: bareTerms(frozen) });
    this.freezes.giveUp();
    this.copy.beginRounds();
    return true;
  }

  // ---- after the handover

  /** Only the target can serve now: it is told so until it does; then the source lets go (rule D32). */
  private async complete(order: MigrationOrder, slots: readonly Slot[]): Promise<boolean> {
    const { shard, id, clock } = this.options;
    const states = slots.map((slot) => ({ slot, ...shard.slotState(slot) }));
    // The map was told by whoever heard it of the target, which may be gone by now.
    if (states.every(({ slot, epoch }) => order.epochOf(slot) >= epoch)) {
      await this.atSource(order, 'collect', bareTerms(slots));
      return true;
    }
    const terms = states.map(({ slot, change, epoch }): SlotTerms => ({
      ...noTerms,
      slot,
      change,
      epoch,
    }));
    await this.atTarget(order, [this.step('activate', terms)], slots);
    const late = states.find(({ slot, epoch }) => {
      const report = this.target.state(slot);
      return report === undefined || report.epoch < epoch;
    });
    if (late !== undefined) throw notActivated(late.slot);
    this.freezes.end();
    const [keys, bytes] = [sumOf(states, 'keys'), sumOf(states, 'bytes')];
    const nowMs = Math.floor(clock.wallMs());
    const moved = {
      id,
      slots: spansOf(slots),
      keys,
      bytes,
      freezeMs: this.freezes.untoldMs,
      nowMs,
    };
    if (order.goal !== 'settle') await this.tell({ kind: 'moveSlots', ...moved });
    await this.atSource(order, 'collect', bareTerms(slots));
    this.freezes.told();
    await this.letClientsGoFirst();
    this.moved();
    return true;
  }

  /** No slot is on its way just now: where clients are busy, as long again is theirs alone. */
  private async letClientsGoFirst(): Promise<void> {
    const { clock, shard } = this.options;
    const untilMs = clock.monotonicMs() + this.courtesy.restMs(shard.operations);
    while (clock.monotonicMs() < untilMs && this.order()?.goal === 'go')
      await this.pause(untilMs - clock.monotonicMs());
  }

  // ---- the end of it before its time

  /** First the source, whose log decides; then what the target has of it goes (R73). */
  private async drop(order: MigrationOrder): Promise<boolean> {
    const { shard, id, clock } = this.options;
    const here = [...slotsOf(order.slots)];
    const open = here.filter((slot) => {
      const { ownership, ended } = shard.slotState(slot);
      return ended < id && ownership !== SlotOwnership.absent;
    });
    for (const some of piecesOf(open)) await this.atSource(order, 'endExport', bareTerms(some));
    this.freezes.giveUp();
    // A handover that was under way in the log came first: it counts.
    if (this.slotsIn(SlotOwnership.handedOver).length > 0) return true;
    const stayed = here.filter((slot) => {
      const { ownership, ended, migration } = shard.slotState(slot);
      return ended >= id && ownership === SlotOwnership.owned && migration?.id !== id;
    });
    for (const some of piecesOf(stayed))
      await this.atTarget(order, [this.step('endImport', bareTerms(some))], some);
    if (order.goal === 'drop')
      await this.tell({ kind: 'endMigration', id, nowMs: Math.floor(clock.wallMs()) });
    return false;
  }

  /**
   * Every change to a slot on its way goes into the source's change index, and stays there until the slot
   * has left or the migration has ended: a pause that is forgotten would fill the disk.
   */
  private async endLongPause(order: MigrationOrder, slots: readonly Slot[]): Promise<void> {
    const changes = slots.reduce((sum, slot) => {
      const { change, migration } = this.options.shard.slotState(slot);
      return sum + change - (migration?.from ?? change);
    }, 0);
    if (!order.canFail || changes <= order.pausedChangesMax) return;
    await this.fail(
      `paused while ${changes} changes were made to slots on their way, and ${order.pausedChangesMax} ` +
        'are kept: start another migration for what the source still has',
    );
  }

  // ---- steps

  private step(kind: SlotStepKind, slots: readonly SlotTerms[]): MigrationStep {
    return { kind, id: this.options.id, peer: this.sourceId, slots };
  }

  private atSource(
    { target: peer }: MigrationOrder,
    kind: SlotStepKind,
    slots: readonly SlotTerms[],
  ): ReturnType<SourceShard['step']> {
    return this.options.shard.step({ kind, id: this.options.id, peer, slots });
  }

  private async atTarget(
    { target, freezeMsMax }: MigrationOrder,
    steps: readonly MigrationStep[],
    slots: readonly Slot[],
  ): Promise<void> {
    // Once handed over no slot can be given back: then the limit says nothing of how long to wait.
    const isFrozen = this.freezes.isOn && this.slotsIn(SlotOwnership.frozen).length > 0;
    const leftMs = isFrozen ? freezeMsMax - this.freezes.ms : patienceMs;
    const withinMs = Math.min(patienceMs, Math.max(1, leftMs));
    await this.target.step(target, steps, slots, withinMs);
  }

  private pause(ms: number): Promise<void> {
    if (ms <= 0 || this.closed) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.options.clock.after(ms, () => {
        this.wake = () => undefined;
        resolve();
      });
      this.wake = () => {
        cancel();
        this.wake = () => undefined;
        resolve();
      };
    });
  }
}

function notActivated(slot: Slot): KvError {
  return notYet(`the target has not activated slot ${slot} yet`);
}

function sumOf(states: readonly SlotState[], what: 'keys' | 'bytes'): number {
  return states.reduce((sum, state) => sum + state[what], 0);
}

function* piecesOf(slots: readonly Slot[]): Generator<readonly Slot[]> {
  for (let at = 0; at < slots.length; at += endingSlotsMax)
    yield slots.slice(at, at + endingSlotsMax);
}
