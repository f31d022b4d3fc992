/**
 * Where a group's entries are: one run per frame, ascending by index, in columns of numbers. A run
 * reaches up to the next one's first index; the last one up to the end of the log. A frame with
 * many entries costs the same 20 bytes as one with a single entry.
 */
import assert from 'node:assert/strict';
import type { LogIndex } from '../../raft/index.js';
import type { SegmentUse } from './segment-use.js';

/** A frame in a file. */
export interface FramePlace {
  /** Segment id; `droppedSegment` while recovery has not met the relocated copy. */
  readonly segment: number;
  readonly offset: number;
  /** Header and payload, bytes. */
  readonly length: number;
}

/** Stands for a segment that is gone: recovery begins behind it and must find a copy (rule D10). */
export const droppedSegment = 0;

export class FrameRuns {
  private readonly use: SegmentUse;
  private from = new Float64Array(8);
  private segment = new Uint32Array(8);
  private offset = new Uint32Array(8);
  private bytes = new Uint32Array(8);
  /** Rows [start, end) are in use: dropping a prefix moves nothing. */
  private start = 0;
  private end = 0;

  constructor(use: SegmentUse) {
    this.use = use;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** First index of run `i`, counted from 0. */
  fromAt(i: number): LogIndex {
    return this.from[this.rowOf(i)] ?? 0;
  }

  placeAt(i: number): FramePlace {
    const row = this.rowOf(i);
    return {
      segment: this.segment[row] ?? 0,
      offset: this.offset[row] ?? 0,
      length: this.bytes[row] ?? 0,
    };
  }

  segmentAt(i: number): number {
    return this.segment[this.rowOf(i)] ?? 0;
  }

  /** The run that holds `index`: the last that does not begin above it; -1 if all do. */
  find(index: LogIndex): number {
    let low = this.start;
    let high = this.end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.from[middle] ?? 0) <= index) low = middle + 1;
      else high = middle;
    }
    return low - this.start - 1;
  }

  /** A run after all others. */
  push(from: LogIndex, place: FramePlace): void {
    assert(this.length === 0 || this.fromAt(this.length - 1) < from, 'runs must ascend');
    if (this.end === this.from.length) this.makeRoom();
    this.setRow(this.end, from, place);
    this.end++;
    this.use.add(place.segment, place.length);
  }

  /** Drops what is at or above `index`. */
  truncate(index: LogIndex): void {
    while (this.end > this.start && (this.from[this.end - 1] ?? 0) >= index) {
      this.end--;
      this.releaseRow(this.end);
    }
  }

  /** Drops what is below `index`, which is in the log or just behind its end. */
  dropBelow(index: LogIndex): void {
    while (this.end - this.start > 1 && (this.from[this.start + 1] ?? 0) <= index) {
      this.releaseRow(this.start);
      this.start++;
    }
    if (this.end > this.start && (this.from[this.start] ?? 0) < index)
      this.from[this.start] = index;
  }

  clear(): void {
    this.truncate(0);
  }

  /**
   * The entries [from, last] stand at `place` as well, and from now on are read there. What the
   * runs around them still hold stays theirs. `logLast`: last index of the log.
   */
  relocate(
    range: { readonly from: LogIndex; readonly last: LogIndex; readonly logLast: LogIndex },
    place: FramePlace,
  ): void {
    const { from, last, logLast } = range;
    const first = this.find(from);
    const final = this.find(last);
    assert(first >= 0 && final >= first && last <= logLast, `[${from}, ${last}] is not in the log`);
    const finalLast = final + 1 < this.length ? this.fromAt(final + 1) - 1 : logLast;
    const rows: [LogIndex, FramePlace][] = [[from, place]];
    if (this.fromAt(first) < from) rows.unshift([this.fromAt(first), this.placeAt(first)]);
    if (last < finalLast) rows.push([last + 1, this.placeAt(final)]);
    this.replace(first, final - first + 1, rows);
  }

  /** Puts `rows` where `count` runs from run `i` on were. */
  private replace(i: number, count: number, rows: readonly [LogIndex, FramePlace][]): void {
    for (const [, place] of rows) this.use.add(place.segment, place.length);
    for (let row = this.rowOf(i); row < this.start + i + count; row++) this.releaseRow(row);
    while (this.end + rows.length - count > this.from.length) this.makeRoom();
    const target = this.start + i + rows.length;
    const source = this.start + i + count;
    for (const column of [this.from, this.segment, this.offset, this.bytes]) {
      column.copyWithin(target, source, this.end);
    }
    this.end += rows.length - count;
    rows.forEach(([from, place], k) => {
      this.setRow(this.start + i + k, from, place);
    });
  }

  private rowOf(i: number): number {
    if (i < 0 || i >= this.length) assert.fail(`no run ${i} of ${this.length}`);
    return this.start + i;
  }

  private setRow(row: number, from: LogIndex, place: FramePlace): void {
    this.from[row] = from;
    this.segment[row] = place.segment;
    this.offset[row] = place.offset;
    this.bytes[row] = place.length;
  }

  private releaseRow(row: number): void {
    this.use.release(this.segment[row] ?? 0, this.bytes[row] ?? 0);
  }

  /** Moves the rows to the front when half of the space before them is free; doubles otherwise. */
  private makeRoom(): void {
    const capacity = this.from.length;
    const size = this.start > capacity / 2 ? capacity : capacity * 2;
    const { start, end } = this;
    this.from = movedTo(new Float64Array(size), this.from.subarray(start, end));
    this.segment = movedTo(new Uint32Array(size), this.segment.subarray(start, end));
    this.offset = movedTo(new Uint32Array(size), this.offset.subarray(start, end));
    this.bytes = movedTo(new Uint32Array(size), this.bytes.subarray(start, end));
    this.end -= start;
    this.start = 0;
  }
}

function movedTo<A extends Float64Array | Uint32Array>(target: A, rows: A): A {
  target.set(rows);
  return target;
}
