/**
 * A shard as a service: writes stamped with log time and proposed, reads at the level that was asked
 * for, scans page by page.
 */
import type { LogIndex, NodeId } from '../../raft/index.js';
import { KeyKind, kindRange, type Engine } from '../../storage/index.js';
import { KvError } from '../errors.js';
import type { Group, ReadOutcome } from '../group/group.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import { slotCount, type Slot } from '../router/slot.js';
import { slotOf } from '../router/slot.js';
import { isExpired, keyValue } from './apply-run.js';
import { encodeFound, encodeHash, encodeWrites, type SlotSpan } from './command-codec.js';
import type { CommandResult, KeyValue, Write } from './command.js';
import { ExpirySweep } from './expiry-sweep.js';
import { LogTime } from './log-time.js';
import { encodeCursor, startOf } from './scan-cursor.js';
import {
  notFounded,
  readError,
  sessionMsMax,
  tokenAhead,
  tooFarAhead,
  writeError,
  wrongShard,
} from './shard-errors.js';
import type { ShardMachine } from './shard-machine.js';
import { reaches, type SlotPosition } from './slot-position.js';
import { decodeValue, SlotOwnership } from './value-codec.js';
import { decodeSlotKey } from '../../storage/index.js';

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

/** A command's results, and how far its slots have come with it. */
export interface Written extends CommandResult {
  /** Asked in the callback: later it may tell of more than the command has seen. */
  readonly positionOf: (slot: Slot) => SlotPosition;
}

export interface ReadResult {
  /** In the order of the keys. */
  readonly values: readonly (KeyValue | undefined)[];
  /** Of the slots of the keys, in their order; not below anything that `values` shows. */
  readonly positions: readonly SlotPosition[];
  /** The shard's time now. */
  readonly logTimeMs: number;
}

export interface ScanPageRequest {
  readonly prefix: Uint8Array;
  readonly slot: Slot | undefined;
  readonly cursor: Uint8Array | undefined;
  readonly afterKey: Uint8Array | undefined;
  readonly bytesMax: number;
  readonly lengthMax: number;
  readonly keysOnly: boolean;
  readonly level: ReadLevel;
}

export interface ScanPage {
  readonly kvs: readonly KeyValue[];
  readonly cursor: Uint8Array;
  readonly done: boolean;
  /** Of the slots that were looked at and ever written. */
  readonly positions: readonly SlotPosition[];
  readonly logTimeMs: number;
}

/** The little a shard needs of the call it works for. */
export interface ShardCall {
  readonly deadlineMs: number;
  /** Set before the command is proposed: from then on a deadline has an unknown outcome. */
  mayHaveApplied: boolean;
}

export interface ShardOptions {
  readonly group: Group<CommandResult>;
  readonly machine: ShardMachine;
  readonly clock: Clock;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
  /** The slots the shard is to be born with; undefined: this node has not heard of them yet. */
  readonly birthSlots: () => readonly SlotSpan[] | undefined;
}

const sessionSlackMs = 10_000;
/** Slots looked at in one page of a scan over everything: an empty one costs some 10 us. */
const slotsPerPageMax = 2048;

interface ReadyRead {
  readonly keys: readonly Uint8Array[];
  readonly outcome: Extract<ReadOutcome, { kind: 'ready' }> | undefined;
  readonly done: ReadDone;
}

/** One key of a read, with the epoch of its slot before the engine is asked. */
interface Look {
  readonly key: Uint8Array;
  readonly slot: Slot;
  readonly epoch: number;
}

export class Shard {
  private readonly group: Group<CommandResult>;
  private readonly machine: ShardMachine;
  private readonly engine: Engine;
  private readonly clock: Clock;
  private readonly time: LogTime;
  private readonly onFatal: (error: Error) => void;
  private readonly expiry: ExpirySweep;
  private readonly birthSlots: ShardOptions['birthSlots'];
  private founding = false;
  /** From when log time has begun: an elected leader is told so a little later. */
  private leading = false;
  /** Reads whose index is reached in this turn: answered with one look at the engine. */
  private readyReads: ReadyRead[] = [];

  constructor({ group, machine, clock, log, onFatal, birthSlots }: ShardOptions) {
    this.birthSlots = birthSlots;
    this.group = group;
    this.machine = machine;
    this.engine = machine.engine;
    this.clock = clock;
    this.onFatal = onFatal;
    this.time = new LogTime(clock, (jumpMs) => {
      log(
        'error',
        { group: group.id, jumpMs },
        "the median of the voters' clocks is far from the log's time: check the clocks",
      );
    });
    this.expiry = new ExpirySweep({
      group,
      machine,
      clock,
      onFatal,
      nowMs: () => this.time.now(machine.logTimeMs),
      found: () => {
        this.found();
      },
    });
    machine.onLeading = ({ leading, clockMedianMs }) => {
      if (leading) this.time.begin(machine.logTimeMs, clockMedianMs);
      this.leading = leading;
      this.expiry.lead(leading);
    };
  }

  get isLeader(): boolean {
    return this.group.isLeader;
  }

  get leaderNode(): NodeId | undefined {
    return this.group.leaderNode;
  }

  get keys(): number {
    return this.machine.keys;
  }

  get slots(): number {
    return this.machine.ownedSlots;
  }

  /**
   * The shard's time now, as well as this replica can tell: applied log time stands still while
   * nobody writes. Clients reckon the last moment of their writes from it.
   */
  get nowMs(): number {
    const { logTimeMs } = this.machine;
    return this.leading
      ? this.time.now(logTimeMs)
      : Math.max(logTimeMs, Math.floor(this.clock.wallMs()));
  }

  close(): void {
    this.expiry.close();
  }

  // ---- writes

  /** All of them in one command, each with a result of its own. */
  write(
    writes: readonly Write[],
    call: ShardCall,
    done: (error: KvError | undefined, result: Written | undefined) => void,
  ): void {
    if (!this.leading) {
      // Elected, but without a time of its own yet: a stamp of the old log time could be years late.
      done(writeError({ kind: 'notApplied', reason: 'notLeader' }), undefined);
      return;
    }
    if (!this.machine.isFounded) {
      done(notFounded(), undefined);
      return;
    }
    const logTimeMs = this.time.now(this.machine.logTimeMs);
    const stamped = writes.map((write) => this.stampSession(write, logTimeMs));
    const wrong = stamped.find(
      (write) => (write.session?.notAfterMs ?? 0) > logTimeMs + sessionMsMax + sessionSlackMs,
    );
    if (wrong?.session !== undefined) {
      done(tooFarAhead(wrong.session, logTimeMs), undefined);
      return;
    }
    call.mayHaveApplied = true;
    this.group.propose(encodeWrites(stamped, logTimeMs), (outcome) => {
      if (outcome.kind === 'applied') {
        const { result } = outcome;
        const positionOf = (slot: Slot): SlotPosition => this.positionOf(slot, result.logTimeMs);
        done(undefined, { ...result, positionOf });
        return;
      }
      if (outcome.kind === 'notApplied') call.mayHaveApplied = false;
      done(writeError(outcome), undefined);
    });
  }

  private stampSession(write: Write, logTimeMs: number): Write {
    const { session } = write;
    if (session === undefined || session.notAfterMs !== 0) return write;
    return { ...write, session: { ...session, notAfterMs: logTimeMs + sessionMsMax } };
  }

  /** Calls back with the index at which every replica takes the hash of its state. */
  takeHash(done: (error: KvError | undefined, index: LogIndex) => void): void {
    if (!this.leading) {
      done(writeError({ kind: 'notApplied', reason: 'notLeader' }), 0);
      return;
    }
    this.group.propose(encodeHash(this.time.now(this.machine.logTimeMs)), (outcome) => {
      if (outcome.kind === 'applied') done(undefined, outcome.index);
      else done(writeError(outcome), 0);
    });
  }

  // ---- reads

  read(keys: readonly Uint8Array[], level: ReadLevel, _call: ShardCall, done: ReadDone): void {
    this.whenReadable(level, (error, outcome) => {
      if (error !== undefined) {
        done(error, undefined);
        return;
      }
      this.readyReads.push({ keys, outcome, done });
      if (this.readyReads.length === 1) queueMicrotask(() => void this.answerReads());
    });
  }

  /** Calls back when the state is fresh enough for the level; without outcome: as it stands. */
  private whenReadable(
    level: ReadLevel,
    done: (
      error: KvError | undefined,
      outcome: Extract<ReadOutcome, { kind: 'ready' }> | undefined,
    ) => void,
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
    return ageMs <= level.maxStalenessMs && !this.isBehind(level);
  }

  private isBehind(level: ReadLevel): boolean {
    if (level.kind !== 'atLeast') return false;
    return [...level.positions.keys()].some((slot) => this.lacks(slot, level));
  }

  /** A slot that is not owned here is not judged: looking at it says so. */
  private lacks(slot: Slot, level: ReadLevel): boolean {
    const wanted = level.kind === 'atLeast' ? level.positions.get(slot) : undefined;
    if (wanted === undefined) return false;
    const { ownership, epoch, change: revision } = this.machine.slotState(slot);
    const { logTimeMs } = this.machine;
    return ownership === SlotOwnership.owned && !reaches({ epoch, revision, logTimeMs }, wanted);
  }

  /** Not below anything that can have been seen of the slot by now. */
  private positionOf(slot: Slot, logTimeMs: number): SlotPosition {
    const { epoch } = this.machine.slotState(slot);
    return { slot, epoch, revision: this.machine.newestChange(slot), logTimeMs };
  }

  private async answerReads(): Promise<void> {
    const reads = this.readyReads;
    this.readyReads = [];
    const { loads } = this.machine;
    try {
      const looks = reads.flatMap(({ keys }) => keys.map((key) => this.lookAt(key)));
      const stored = await this.engine.getMany(
        looks.map(({ slot, key }) => this.machine.valueKey(slot, key)),
      );
      // Meanwhile a slot may have been frozen, moved and deleted: it is checked again, and so is a
      // lease (rules D23, R30). A snapshot that is being installed leaves a part of the state.
      const replaced = this.replacedSince(loads);
      let at = 0;
      for (const read of reads) {
        const from = at;
        at += read.keys.length;
        if (replaced) read.done(readError('restoring'), undefined);
        else if (!this.machine.isFounded) read.done(notFounded(), undefined);
        else this.answer(read, looks.slice(from, at), stored.slice(from, at));
      }
    } catch (error) {
      this.onFatal(error instanceof Error ? error : new Error(String(error)));
    }
  }

  private lookAt(key: Uint8Array): Look {
    const slot = slotOf(key);
    return { key, slot, epoch: this.machine.slotState(slot).epoch };
  }

  private answer(
    { outcome, done }: ReadyRead,
    looks: readonly Look[],
    stored: readonly (Uint8Array | undefined)[],
  ): void {
    const owned = looks.every(({ slot, epoch }) => {
      const state = this.machine.slotState(slot);
      return state.ownership === SlotOwnership.owned && state.epoch === epoch;
    });
    if (!owned) {
      done(wrongShard(), undefined);
    } else if (outcome?.stillValid() === false) {
      done(readError('noQuorum'), undefined);
    } else {
      const { logTimeMs } = this.machine;
      const seen = looks.map(({ key }, n) => seenValue(key, stored[n], logTimeMs));
      const values = seen.map(({ kv }) => kv);
      const positions = looks.map(({ slot }, n) =>
        this.positionOf(slot, seen[n]?.expiredAtMs ?? 0),
      );
      done(undefined, { values, positions, logTimeMs: this.nowMs });
    }
  }

  /** A snapshot has replaced the state since, or is about to. */
  private replacedSince(loads: number): boolean {
    return this.machine.loads !== loads || this.group.caughtUpAtMs === Number.NEGATIVE_INFINITY;
  }

  // ---- scans

  scan(
    request: ScanPageRequest,
    _call: ShardCall,
    done: (error: KvError | undefined, page: ScanPage | undefined) => void,
  ): void {
    let position: { slot: Slot; after: Uint8Array | undefined };
    try {
      position = startOf(request);
    } catch (error) {
      done(error instanceof KvError ? error : undefined, undefined);
      return;
    }
    this.whenReadable(request.level, (error, outcome) => {
      if (error !== undefined) {
        done(error, undefined);
        return;
      }
      this.page(request, position, outcome).then(
        (page) => {
          if (page instanceof KvError) done(page, undefined);
          else done(undefined, page);
        },
        (failure: unknown) => {
          this.onFatal(failure instanceof Error ? failure : new Error(String(failure)));
        },
      );
    });
  }

  private async page(
    request: ScanPageRequest,
    start: { slot: Slot; after: Uint8Array | undefined },
    outcome: Extract<ReadOutcome, { kind: 'ready' }> | undefined,
  ): Promise<ScanPage | KvError> {
    const kvs: KeyValue[] = [];
    const positions: SlotPosition[] = [];
    const { logTimeMs, loads } = this.machine;
    let { slot, after } = start;
    let bytes = 0;
    let end: { slot: Slot; after: Uint8Array | undefined } | undefined;
    const lastSlot = request.slot ?? slotCount - 1;
    for (let looked = 0; end === undefined; looked++) {
      const state = this.machine.slotState(slot);
      if (state.ownership !== SlotOwnership.owned || this.lacks(slot, request.level)) {
        if (!this.machine.isFounded) return notFounded();
        if (looked === 0) return wrongShard();
        // From here on another shard has it, or it has only just come and lags behind the session.
        end = { slot, after: undefined };
        break;
      }
      const room = {
        bytesMax: request.bytesMax - bytes,
        lengthMax: request.lengthMax - kvs.length,
      };
      const found = await this.scanSlot(request, slot, after, room, logTimeMs);
      // A slot may have left while it was read (D23); a lease may have run out.
      if (this.machine.slotState(slot).epoch !== state.epoch) return wrongShard();
      kvs.push(...found.kvs);
      bytes += found.bytes;
      const position = this.positionOf(slot, found.expiredAtMs);
      if (position.revision > 0) positions.push(position);
      if (!found.done) end = { slot, after: found.last };
      else if (slot >= lastSlot) break;
      else {
        slot = (slot + 1) as Slot;
        after = undefined;
        if (
          bytes >= request.bytesMax ||
          kvs.length >= request.lengthMax ||
          looked >= slotsPerPageMax
        )
          end = { slot, after };
      }
    }
    if (this.replacedSince(loads)) return readError('restoring');
    if (outcome?.stillValid() === false) return readError('noQuorum');
    return {
      kvs,
      cursor: end === undefined ? new Uint8Array() : encodeCursor(end),
      done: end === undefined,
      positions,
      logTimeMs: this.nowMs,
    };
  }

  private async scanSlot(
    { prefix, keysOnly }: ScanPageRequest,
    slot: Slot,
    after: Uint8Array | undefined,
    { bytesMax, lengthMax }: { bytesMax: number; lengthMax: number },
    logTimeMs: number,
  ): Promise<SlotPage> {
    const place = { slot, instance: this.machine.slotState(slot).instance };
    const range = kindRange(this.machine.prefix, place, KeyKind.value, prefix);
    const start =
      after === undefined
        ? range.start
        : laterOf(range.start, justBehind(this.machine.valueKey(slot, after)));
    const kvs: KeyValue[] = [];
    let bytes = 0;
    let last = after;
    let expiredAtMs = 0;
    if (Buffer.compare(start, range.end) >= 0) return { kvs, bytes, done: true, last, expiredAtMs };
    // Keys too: an expired key counts like any other, so that a page has its bound.
    const view = this.engine.iterate({
      start,
      end: range.end,
      pageBytesMax: Math.max(1, bytesMax),
      pageLengthMax: lengthMax,
    });
    try {
      for (let page = await view.next(); page.length > 0; page = await view.next()) {
        for (const { key, value: stored } of page) {
          const { userKey } = decodeSlotKey(key);
          last = userKey;
          bytes += key.byteLength + stored.byteLength;
          const { kv, expiredAtMs: hiddenMs } = seenValue(userKey, stored, logTimeMs);
          expiredAtMs = Math.max(expiredAtMs, hiddenMs);
          if (kv !== undefined) kvs.push(keysOnly ? { ...kv, value: new Uint8Array() } : kv);
          if (bytes >= bytesMax || kvs.length >= lengthMax)
            return { kvs, bytes, done: false, last, expiredAtMs };
        }
      }
      return { kvs, bytes, done: true, last, expiredAtMs };
    } finally {
      await view.close();
    }
  }

  // ---- birth

  /** Whichever leader comes first says it; the first entry counts (rule D30). */
  private found(): void {
    const slots = this.birthSlots();
    if (slots === undefined || this.founding) return;
    this.founding = true;
    this.group.propose(encodeFound(slots, this.time.now(this.machine.logTimeMs)), () => {
      this.founding = false;
    });
  }
}

/** What a page found in one slot. */
interface SlotPage {
  readonly kvs: KeyValue[];
  readonly bytes: number;
  readonly done: boolean;
  readonly last: Uint8Array | undefined;
  /** The latest expiry that hid a key; 0: none did. */
  readonly expiredAtMs: number;
}

export type ReadDone = (error: KvError | undefined, result: ReadResult | undefined) => void;

/** The smallest key greater than `key`. */
function justBehind(key: Uint8Array): Uint8Array {
  return Buffer.concat([key, Buffer.from([0])]);
}

function laterOf(a: Uint8Array, b: Uint8Array): Uint8Array {
  return Buffer.compare(a, b) >= 0 ? a : b;
}

/** What a reader sees behind a key, and since when it is hidden by its expiry; 0: it is not. */
function seenValue(
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
