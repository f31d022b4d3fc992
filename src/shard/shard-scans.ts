/** Scans, page by page: slot after slot, each as of one moment. */
import { decodeSlotKey, KeyKind, kindRange } from '../../storage/index.js';
import { KvError } from '../errors.js';
import { slotCount, type Slot } from '../router/slot.js';
import type { KeyValue } from './command.js';
import { seenValue, type Freshness, type ReadGate, type ReadLevel } from './read-gate.js';
import { encodeCursor, startOf, type ScanPosition } from './scan-cursor.js';
import { notFounded, readError, notServed } from './shard-errors.js';
import type { ShardMachine } from './shard-machine.js';
import type { ReadSources } from './shard-reads.js';
import type { SlotPosition } from './slot-position.js';
import { isServing } from './slot-state.js';

/** Slots looked at in one page of a scan over everything: an empty one costs some 10 us. */
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
  readonly kvs: KeyValue[];
  readonly bytes: number;
  readonly done: boolean;
  readonly last: Uint8Array | undefined;
  /** The latest expiry that hid a key; 0: none did. */
  readonly expiredAtMs: number;
}

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
    let { slot, after } = start;
    let bytes = 0;
    let end: ScanPosition | undefined;
    const lastSlot = request.slot ?? slotCount - 1;
    for (let looked = 0; end === undefined; looked++) {
      const state = this.machine.slotState(slot);
      if (!isServing(state) || this.gate.lacks(slot, request.level)) {
        if (!this.machine.isFounded) return notFounded();
        if (looked === 0) return notServed(state);
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
      const now = this.machine.slotState(slot);
      if (!isServing(now) || now.epoch !== state.epoch) return notServed(now);
      kvs.push(...found.kvs);
      bytes += found.bytes;
      const position = this.gate.positionOf(slot, found.expiredAtMs);
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
    if (this.gate.replacedSince(loads)) return readError('restoring');
    if (freshness?.stillValid() === false) return readError('noQuorum');
    return {
      kvs,
      cursor: end === undefined ? new Uint8Array() : encodeCursor(end),
      done: end === undefined,
      positions,
      logTimeMs: this.sources.nowMs(),
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
    const view = this.machine.engine.iterate({
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
}

/** The smallest key greater than `key`. */
function justBehind(key: Uint8Array): Uint8Array {
  return Buffer.concat([key, Buffer.from([0])]);
}

function laterOf(a: Uint8Array, b: Uint8Array): Uint8Array {
  return Buffer.compare(a, b) >= 0 ? a : b;
}
