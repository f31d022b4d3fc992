/** Reads of single keys: all that become possible in one turn share one look at the engine. */
import type { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { Slot } from '../router/slot.js';
import type { KeyValue } from './command.js';
import { seenValue, type Freshness, type ReadGate, type ReadLevel } from './read-gate.js';
import { hasMoved, notFounded, notServed, readError } from './shard-errors.js';
import type { ShardMachine } from './shard-machine.js';
import type { SlotLoad } from './slot-load.js';
import type { SlotPosition } from './slot-position.js';
import { isServing, type SlotState } from './slot-state.js';

export interface ReadResult {
  /** In the order of the keys; of a key that is refused it means nothing. */
  readonly values: readonly (KeyValue | undefined)[];
  /** Keys, by their place, whose slots are not served here, or not just now. */
  readonly refused: ReadonlyMap<number, KvError>;
  /**
   * Of the slot of a key, by the key's place; not below anything that `values` shows. Asked in the
   * callback: later it may tell of more than the read has seen.
   */
  readonly positionsAt: (place: number) => readonly SlotPosition[];
  /** The shard's time now; 0 on a replica that does not lead. */
  readonly logTimeMs: number;
}

export type ReadDone = (error: KvError | undefined, result: ReadResult | undefined) => void;

interface AskedRead {
  readonly keys: readonly Uint8Array[];
  readonly level: ReadLevel;
  readonly done: ReadDone;
}

interface ReadyRead {
  readonly keys: readonly Uint8Array[];
  readonly freshness: Freshness;
  readonly done: ReadDone;
}

/** One key of a read, with where it was before the engine is asked. States are never changed in place. */
interface Look {
  readonly key: Uint8Array;
  readonly slot: Slot;
  readonly state: SlotState;
}

/** What reads and scans of a shard work on. */
export interface ReadSources {
  readonly machine: ShardMachine;
  readonly gate: ReadGate;
  readonly load: SlotLoad;
  readonly endOfTurn: Clock['endOfTurn'];
  /** The shard's time now, ms; 0 on a replica that does not lead. */
  readonly nowMs: () => number;
  readonly onFatal: (error: Error) => void;
}

export class ShardReads {
  private readonly sources: ReadSources;
  private readonly machine: ShardMachine;
  private readonly gate: ReadGate;
  /** Reads whose index is reached in this turn: answered with one look at the engine. */
  private ready: ReadyRead[] = [];
  /** Of this turn, that need not ask the group if the state here is fresh enough. */
  private readonly toJudge: AskedRead[] = [];

  constructor(sources: ReadSources) {
    this.sources = sources;
    this.machine = sources.machine;
    this.gate = sources.gate;
  }

  read(keys: readonly Uint8Array[], level: ReadLevel, done: ReadDone): void {
    const read = { keys, level, done };
    // Reads that ask the group are all told in one go. One that perhaps need not comes alone, by its own
    // socket, and others of this turn are about to.
    if (level.kind === 'linearizable' || level.kind === 'lease') this.whenReadable(read);
    else if (this.toJudge.push(read) === 1) this.sources.endOfTurn(() => void this.judgeAll());
  }

  /**
   * In one breath with the look at the slots: one that comes here between the two may lack what the
   * session has seen (rule D24).
   */
  private async judgeAll(): Promise<void> {
    for (const read of this.toJudge.splice(0)) this.whenReadable(read);
    await this.answerReady();
  }

  private whenReadable({ keys, level, done }: AskedRead): void {
    this.gate.whenReadable(level, (error, freshness) => {
      if (error !== undefined) {
        done(error, undefined);
        return;
      }
      this.ready.push({ keys, freshness, done });
      if (this.ready.length === 1) queueMicrotask(() => void this.answerReady());
    });
  }

  private async answerReady(): Promise<void> {
    const reads = this.ready;
    if (reads.length === 0) return;
    this.ready = [];
    this.sources.load.turn();
    const { loads } = this.machine;
    try {
      const looks = reads.flatMap(({ keys }) => keys.map((key) => this.lookAt(key)));
      const stored = await this.machine.engine.getMany(
        looks.map(({ slot, key, state }) => this.machine.valueKey(slot, key, state)),
      );
      // Meanwhile a slot may have been frozen, moved and deleted: it is checked again, and so is a
      // lease (rules D23, R30). A snapshot that is being installed leaves a part of the state.
      const replaced = this.gate.replacedSince(loads);
      let at = 0;
      for (const read of reads) {
        const from = at;
        at += read.keys.length;
        if (replaced) read.done(readError('restoring'), undefined);
        else if (!this.machine.isFounded) read.done(notFounded(), undefined);
        else this.answer(read, looks.slice(from, at), stored.slice(from, at));
      }
    } catch (error) {
      this.sources.onFatal(error instanceof Error ? error : new Error(String(error)));
    }
  }

  private lookAt(key: Uint8Array): Look {
    const slot = this.machine.slotOf(key);
    this.sources.load.count(slot);
    return { key, slot, state: this.machine.slotState(slot) };
  }

  /** Why a key was perhaps not where it was looked for; undefined: it was. */
  private refusalOf({ key, slot, state: before }: Look): KvError | undefined {
    // Nothing has happened to the slot, and while it serves, its own state says what is pinned.
    if (this.machine.slotState(slot) === before && isServing(before)) return undefined;
    const now = this.machine.slotOf(key);
    const state = this.machine.slotState(now);
    if (!isServing(state) || (now === slot && state.epoch !== before.epoch))
      return notServed(state, now);
    // It may have been pinned meanwhile, and come back since: then the hash slot had a later pin.
    return now === slot && state.lastPin === before.lastPin ? undefined : hasMoved();
  }

  private answer(
    { freshness, done }: ReadyRead,
    looks: readonly Look[],
    stored: readonly (Uint8Array | undefined)[],
  ): void {
    const refused = new Map<number, KvError>();
    for (const [n, look] of looks.entries()) {
      const refusal = this.refusalOf(look);
      if (refusal !== undefined) refused.set(n, refusal);
    }
    const whole = refused.size === looks.length ? refused.get(0) : undefined;
    if (whole !== undefined) {
      done(whole, undefined);
    } else if (freshness?.stillValid() === false) {
      done(readError('noQuorum'), undefined);
    } else {
      const { logTimeMs } = this.machine;
      const seen = looks.map(({ key }, n) => seenValue(key, stored[n], logTimeMs));
      const values = seen.map(({ kv }) => kv);
      const positionsAt = (place: number): readonly SlotPosition[] => {
        const look = looks[place];
        if (look === undefined)
          throw new RangeError(`a read of ${looks.length} keys, not ${place}`);
        return this.gate.positionsOf(look.slot, seen[place]?.expiredAtMs ?? 0);
      };
      done(undefined, { values, refused, positionsAt, logTimeMs: this.sources.nowMs() });
    }
  }
}
