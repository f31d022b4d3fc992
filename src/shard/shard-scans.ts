/** Scans, page by page: slot after slot, each as of one moment. */
import { decodeSlotKey, KeyKind, kindRange } from '../../storage/index.js';
import { KvError } from '../errors.js';
import { behindKey, behindPrefix, type Segment } from '../router/pins.js';
import { slotCount, type Slot } from '../router/slot.js';
import type { KeyValue } from './command.js';
import { seenValue, type Freshness, type ReadGate, type ReadLevel } from './read-gate.js';
import { encodeCursor, startOf, type ScanPosition } from './scan-cursor.js';
import { hasMoved, notFounded, notServed, readError } from './shard-errors.js';
import type { ShardMachine } from './shard-machine.js';
import type { ReadSources } from './shard-reads.js';
import type { SlotPosition } from './slot-position.js';
import { isServing } from './slot-state.js';

/** Slots looked at in one page of a scan over everything: it may be without a break, if all are empty. */
const slotsPerPageMax = 2048;

export interface ScanPageRequest {
  readonly prefix: Uint8Array;
  /** Only this slot; undefined: all, in order. */
  readonly slot: Slot | undefined;
  /** Of an earlier page; undefined: from the beginning, or after `afterKey`. */
  readonly cursor: Uint8Array | undefined;
  readonly afterKey: Uint8Array | undefined;
  readonly bytesMax: number;
  readonly lengthMax: number;
  readonly keysOnly: boolean;
  readonly level: ReadLevel;
}

export interface ScanPage {
  readonly kvs: readonly KeyValue[];
  /** Goes on after this page. */
  readonly cursor: Uint8Array;
  readonly done: boolean;
  /** Of the slots that were looked at and ever written. */
  readonly positions: readonly SlotPosition[];
  readonly logTimeMs: number;
}

/** What a page found in one slot. */
interface SlotPage {
  readonly kvs: readonly KeyValue[];
  readonly bytes: number;
  readonly done: boolean;
  readonly last: Uint8Array | undefined;
  /** The latest expiry that hid a key; 0: none did. */
  readonly expiredAtMs: number;
}

const emptyPage: SlotPage = { kvs: [], bytes: 0, done: true, last: undefined, expiredAtMs: 0 };

export type ScanDone = (error: KvError | undefined, page: ScanPage | undefined) => void;

export class ShardScans {
  private readonly sources: ReadSources;
  private readonly machine: ShardMachine;
  private readonly gate: ReadGate;

  constructor(sources: ReadSources) {
    this.sources = sources;
    this.machine = sources.machine;
    this.gate = sources.gate;
  }

  scan(request: ScanPageRequest, done: ScanDone): void {
    let position: ScanPosition;
    try {
      position = startOf(request);
    } catch (error) {
      done(error instanceof KvError ? error : undefined, undefined);
      return;
    }
    this.gate.whenReadable(request.level, (error, freshness) => {
      if (error !== undefined) {
        done(error, undefined);
        return;
      }
      this.page(request, position, freshness).then(
        (page) => {
          if (page instanceof KvError) done(page, undefined);
          else done(undefined, page);
        },
        (failure: unknown) => {
          this.sources.onFatal(failure instanceof Error ? failure : new Error(String(failure)));
        },
      );
    });
  }

  private async page(
    request: ScanPageRequest,
    start: ScanPosition,
    freshness: Freshness,
  ): Promise<ScanPage | KvError> {
    const kvs: KeyValue[] = [];
    const positions: SlotPosition[] = [];
    const { logTimeMs, loads } = this.machine;
    let { slot: home, from } = start;
    let bytes = 0;
    let end: ScanPosition | undefined;
    const lastSlot = request.slot ?? slotCount - 1;
    for (let looked = 0; end === undefined; looked++) {
      const segment = this.machine.segmentOf(home, from);
      const { slot } = segment;
      const state = this.machine.slotState(slot);
      if (!isServing(state) || this.gate.lacks(slot, request.level)) {
        if (!this.machine.isFounded) return notFounded();
        if (looked === 0) return notServed(state, slot);
        // From here on another shard has it, or it has only just come and lags behind the session.
        end = { slot: home, from };
        break;
      }
      const room = {
        bytesMax: request.bytesMax - bytes,
        lengthMax: request.lengthMax - kvs.length,
      };
      const { lastPin } = this.machine.slotState(home);
      // Of an empty slot the state says so, as of the same moment; looking costs some 30 us.
      const found =
        state.keys === 0
          ? emptyPage
          : await this.scanSegment(request, segment, from, room, logTimeMs);
      // A slot may have left while it was read (D23), and keys may have been pinned or unpinned; a lease
      // may have run out.
      const now = this.machine.slotState(slot);
      if (!isServing(now) || now.epoch !== state.epoch) return notServed(now, slot);
      const isSame = isSegment(segment, this.machine.segmentOf(home, from));
      if (!isSame || this.machine.slotState(home).lastPin !== lastPin) return hasMoved();
      kvs.push(...found.kvs);
      bytes += found.bytes;
      positions.push(
        ...this.gate.positionsOf(slot, found.expiredAtMs).filter(({ revision }) => revision > 0),
      );
      if (!found.done) {
        end = { slot: home, from: found.last === undefined ? from : behindKey(found.last) };
        break;
      }
      if (goesOn(segment, request.prefix)) {
        // Another view would show a write to both sides of the border by half.
        end = { slot: home, from: segment.end ?? from };
        break;
      }
      if (home >= lastSlot) break;
      home = (home + 1) as Slot;
      from = request.prefix;
      if (bytes >= request.bytesMax || kvs.length >= request.lengthMax || looked >= slotsPerPageMax)
        end = { slot: home, from };
    }
    if (this.gate.replacedSince(loads)) return readError('restoring');
    if (freshness?.stillValid() === false) return readError('noQuorum');
    return {
      kvs,
      cursor: end === undefined ? new Uint8Array() : encodeCursor(withoutPrefix(end, request)),
      done: end === undefined,
      positions,
      logTimeMs: this.sources.nowMs(),
    };
  }

  private async scanSegment(
    { prefix, keysOnly }: ScanPageRequest,
    { slot, end: behind }: Segment,
    from: Uint8Array,
    { bytesMax, lengthMax }: { bytesMax: number; lengthMax: number },
    logTimeMs: number,
  ): Promise<SlotPage> {
    const place = { slot, instance: this.machine.slotState(slot).instance };
    const all = kindRange(this.machine.prefix, place, KeyKind.value, prefix);
    const start =
      from.byteLength === 0 ? all.start : laterOf(all.start, this.machine.valueKey(slot, from));
    const end =
      behind === undefined ? all.end : earlierOf(all.end, this.machine.valueKey(slot, behind));
    const range = { start, end };
    const kvs: KeyValue[] = [];
    let bytes = 0;
    let last: Uint8Array | undefined;
    let expiredAtMs = 0;
    if (Buffer.compare(start, end) >= 0) return { kvs, bytes, done: true, last, expiredAtMs };
    // Keys too: an expired key counts like any other, so that a page has its bound.
    const view = this.machine.engine.iterate({
      ...range,
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
}

/** The beginning of a slot has one form, whatever the prefix. */
function withoutPrefix({ slot, from }: ScanPosition, { prefix }: ScanPageRequest): ScanPosition {
  return { slot, from: Buffer.compare(from, prefix) <= 0 ? new Uint8Array() : from };
}

function isSegment(a: Segment, b: Segment): boolean {
  if (a.slot !== b.slot || a.end === undefined || b.end === undefined)
    return a.slot === b.slot && a.end === b.end;
  return Buffer.compare(a.end, b.end) === 0;
}

/** Keys with the prefix may follow in the same hash slot. */
function goesOn({ end }: Segment, prefix: Uint8Array): boolean {
  if (end === undefined) return false;
  const behind = behindPrefix(prefix);
  return behind.byteLength === 0 || Buffer.compare(end, behind) < 0;
}

function earlierOf(a: Uint8Array, b: Uint8Array): Uint8Array {
  return Buffer.compare(a, b) <= 0 ? a : b;
}

function laterOf(a: Uint8Array, b: Uint8Array): Uint8Array {
  return Buffer.compare(a, b) >= 0 ? a : b;
}
