/**
 * When a replica may answer a read, and how far it has come: what reads and scans have in common.
 */
import type { Group, ReadOutcome } from '../group/group.js';
import type { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import { isPin } from '../router/pins.js';
import { slotOf, type Slot } from '../router/slot.js';
import { isExpired, keyValue } from './apply-run.js';
import type { CommandResult, KeyValue } from './command.js';
import { readError, tokenAhead } from './shard-errors.js';
import type { ShardMachine } from './shard-machine.js';
import { reaches, type SlotPosition } from './slot-position.js';
import { isServing } from './slot-state.js';
import { decodeValue } from './value-codec.js';

export type ReadLevel =
  | { readonly kind: 'linearizable' }
  | { readonly kind: 'lease' }
  | { readonly kind: 'stale'; readonly maxStalenessMs: number }
  /** At least as far as these positions, which may name more slots than are read (rule D24). */
  | {
      readonly kind: 'atLeast';
      readonly positions: ReadonlyMap<Slot, SlotPosition>;
      readonly maxStalenessMs: number;
    };

/** How a state came to be fresh enough; undefined: as it stands, since the level allows its age. */
export type Freshness = Extract<ReadOutcome, { kind: 'ready' }> | undefined;

export interface ReadGateOptions {
  readonly group: Group<CommandResult>;
  readonly machine: ShardMachine;
  readonly clock: Clock;
}

export class ReadGate {
  private readonly group: Group<CommandResult>;
  private readonly machine: ShardMachine;
  private readonly clock: Clock;

  constructor({ group, machine, clock }: ReadGateOptions) {
    this.group = group;
    this.machine = machine;
    this.clock = clock;
  }

  /** Calls back when the state is fresh enough for the level. */
  whenReadable(
    level: ReadLevel,
    done: (error: KvError | undefined, freshness: Freshness) => void,
  ): void {
    if (this.answersAlone(level)) {
      done(undefined, undefined);
      return;
    }
    // A replica that is too old, or behind a session, catches up by it, also for reads that follow.
    this.group.readIndex({ lease: level.kind === 'lease' }, (outcome) => {
      if (outcome.kind !== 'ready') done(readError(outcome.reason), undefined);
      else if (this.isBehind(level)) done(tokenAhead(), undefined);
      else done(undefined, outcome);
    });
  }

  /** A replica that has not caught up since it was started or restored never does. */
  private answersAlone(level: ReadLevel): boolean {
    if (level.kind !== 'stale' && level.kind !== 'atLeast') return false;
    const ageMs = this.clock.monotonicMs() - this.group.caughtUpAtMs;
    return ageMs <= level.maxStalenessMs && !this.isBehind(level) && !this.mayBeUnpinned(level);
  }

  /**
   * The session has seen a hash slot after a pin that is served here began, and that is all one can know
   * here: the hash slot is elsewhere. The pin may have gone back to it, or be another one by now.
   */
  private mayBeUnpinned(level: ReadLevel): boolean {
    if (level.kind !== 'atLeast') return false;
    return [...level.positions].some(([home, { epoch, revision }]) => {
      const { machine } = this;
      const pins = machine.pinsOf(home);
      if (pins.length === 0 || isServing(machine.slotState(home))) return false;
      const served = pins.map((pin) => machine.slotState(pin)).filter(isServing);
      return served.some(({ pins: [own] }) => {
        return own !== undefined && (epoch > own.epoch || revision > own.change);
      });
    });
  }

  private isBehind(level: ReadLevel): boolean {
    if (level.kind !== 'atLeast') return false;
    return [...level.positions.keys()].some((slot) => this.lacks(slot, level));
  }

  /** A slot that is not owned here is not judged: looking at it says so. */
  lacks(slot: Slot, level: ReadLevel): boolean {
    const wanted = level.kind === 'atLeast' ? level.positions.get(slot) : undefined;
    if (wanted === undefined) return false;
    const state = this.machine.slotState(slot);
    const { epoch, change: revision } = state;
    const { logTimeMs } = this.machine;
    return isServing(state) && !reaches({ epoch, revision, logTimeMs }, wanted);
  }

  /**
   * Not below anything that can have been seen of the slot by now. Of a pin also where its hash slot was
   * when it began: who has seen the pin must not be sent back to before it.
   */
  positionsOf(slot: Slot, logTimeMs: number): readonly SlotPosition[] {
    const { epoch, pins } = this.machine.slotState(slot);
    const position = { slot, epoch, revision: this.machine.newestChange(slot), logTimeMs };
    const [own] = isPin(slot) ? pins : [];
    if (own === undefined) return [position];
    const born = { epoch: own.epoch, revision: own.change, logTimeMs: 0 };
    return [position, { slot: slotOf(own.key), ...born }];
  }

  /** A snapshot has replaced the state since, or is about to. */
  replacedSince(loads: number): boolean {
    return this.machine.loads !== loads || this.group.caughtUpAtMs === Number.NEGATIVE_INFINITY;
  }
}

/** What a reader sees behind a key, and since when it is hidden by its expiry; 0: it is not. */
export function seenValue(
  key: Uint8Array,
  stored: Uint8Array | undefined,
  logTimeMs: number,
): { readonly kv: KeyValue | undefined; readonly expiredAtMs: number } {
  if (stored === undefined) return { kv: undefined, expiredAtMs: 0 };
  const value = decodeValue(stored);
  return isExpired(value, logTimeMs)
    ? { kv: undefined, expiredAtMs: value.expiresAtMs }
    : { kv: keyValue(key, value), expiredAtMs: 0 };
}
