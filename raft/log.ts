/**
 * One member's log as the algorithm sees it: a window of recent entries in memory, the terms of all
 * entries, and the pointers.
 *
 *   firstIndex - 1 <= appliedIndex <= commitIndex <= lastIndex
 *   firstIndex - 1 <= persistedIndex <= lastIndex
 *
 * commitIndex and persistedIndex have no order: a quorum of others may have committed what our own
 * disk has not synced yet. What is given out to be applied is bounded by both (rule D12).
 */
import { assert } from './assert.js';
import type { EntryId } from './ready.js';
import { TermRuns } from './term-runs.js';
import type { Entry, LogIndex, SnapshotMeta, Term, TermRun } from './types.js';

export interface LogState {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly termRuns: readonly TermRun[];
  readonly tail: readonly Entry[];
  readonly commitIndex: LogIndex;
  readonly appliedIndex: LogIndex;
}

/** Bytes an entry counts for in windows and limits: its data and a flat share for its head. */
export function entryBytes(entry: Entry): number {
  return entry.data.byteLength + 24;
}

export class RaftLog {
  firstIndex: LogIndex;
  lastIndex: LogIndex;
  /** Durable on this disk, as confirmed by `persisted`. */
  persistedIndex: LogIndex;
  commitIndex: LogIndex;
  appliedIndex: LogIndex;
  /** Handed out to be applied; not below appliedIndex. */
  applyingIndex: LogIndex;
  /** First entry not yet handed out to be persisted. */
  private nextToPersist: LogIndex;
  /**
   * Up to here the batch in flight still says what the log says. A truncation lowers it: what comes
   * in place of those entries is written by a *later* batch, and that write first removes what this
   * one wrote. So an entry that was truncated and came back in the same term (the ABA problem) is
   * durable only with the later batch.
   */
  private inFlightTo: LogIndex;
  private readonly terms: TermRuns;
  /** Entries windowFirst..lastIndex. */
  private window: Entry[];
  private windowFirst: LogIndex;
  private windowBytes = 0;
  private readonly windowBytesMax: number;

  constructor(state: LogState, windowBytesMax: number) {
    this.firstIndex = state.firstIndex;
    this.lastIndex = state.lastIndex;
    this.persistedIndex = state.lastIndex;
    this.commitIndex = state.commitIndex;
    this.appliedIndex = state.appliedIndex;
    this.applyingIndex = state.appliedIndex;
    this.nextToPersist = state.lastIndex + 1;
    this.inFlightTo = state.lastIndex;
    this.terms = new TermRuns(state.termRuns);
    this.window = [...state.tail];
    this.windowFirst = state.lastIndex + 1 - state.tail.length;
    for (const entry of state.tail) this.windowBytes += entryBytes(entry);
    this.windowBytesMax = windowBytesMax;
    this.check();
  }

  get lastTerm(): Term {
    return this.terms.lastTerm;
  }

  /** Undefined below the snapshot index and above the last index. */
  termAt(index: LogIndex): Term | undefined {
    if (index < this.firstIndex - 1 || index > this.lastIndex) return undefined;
    return this.terms.at(index);
  }

  matches(index: LogIndex, term: Term): boolean {
    return this.termAt(index) === term;
  }

  /** Is a log ending at (lastIndex, lastTerm) at least as up to date as this one? (paper §5.4.1) */
  isUpToDate(lastIndex: LogIndex, lastTerm: Term): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
  }

  /**
   * The highest index at or below `index` whose term is at most `term`: where a log that has
   * (index, term) may still agree with ours (paper §5.3, conflict hints).
   */
  lastAtOrBelowTerm(index: LogIndex, term: Term): LogIndex {
    let at = Math.min(index, this.lastIndex);
    while (at >= this.firstIndex && this.terms.at(at) > term) at = this.terms.startOf(at) - 1;
    return Math.max(at, this.firstIndex - 1);
  }

  /** Adds entries that follow directly, or replace everything from their first index on. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    assert(
      first.index <= this.lastIndex + 1,
      () => `log gap: ${first.index} after ${this.lastIndex}`,
    );
    if (first.index <= this.lastIndex) this.truncate(first.index);
    for (const entry of entries) {
      assert(
        entry.index === this.lastIndex + 1,
        () => `entries are contiguous: ${entry.index} after ${this.lastIndex}`,
      );
      this.terms.append(entry.index, entry.term);
      this.window.push(entry);
      this.windowBytes += entryBytes(entry);
      this.lastIndex = entry.index;
    }
  }

  /** Truncating a committed entry would lose an acknowledged write: a broken invariant, never input. */
  private truncate(index: LogIndex): void {
    assert(
      index > this.commitIndex,
      () => `truncation at ${index} of an entry committed up to ${this.commitIndex}`,
    );
    this.terms.truncate(index);
    while (this.window.length > 0 && this.windowFirst + this.window.length > index) {
      const dropped = this.window.pop();
      if (dropped !== undefined) this.windowBytes -= entryBytes(dropped);
    }
    this.lastIndex = index - 1;
    this.windowFirst = Math.min(this.windowFirst, index);
    this.persistedIndex = Math.min(this.persistedIndex, index - 1);
    this.nextToPersist = Math.min(this.nextToPersist, index);
    this.inFlightTo = Math.min(this.inFlightTo, index - 1);
  }

  get hasUnpersisted(): boolean {
    return this.nextToPersist <= this.lastIndex;
  }

  /** Hands out everything not yet handed out to be persisted. */
  takeUnpersisted(): readonly Entry[] {
    if (!this.hasUnpersisted) return [];
    const entries = this.window.slice(this.nextToPersist - this.windowFirst);
    assert(
      entries[0]?.index === this.nextToPersist,
      () => `entry ${this.nextToPersist} left the window unpersisted`,
    );
    this.nextToPersist = this.lastIndex + 1;
    this.inFlightTo = this.lastIndex;
    return entries;
  }

  /** The batch in flight is durable, and with it what it has in common with the log of now. */
  persisted({ index }: EntryId): void {
    this.persistedIndex = Math.max(this.persistedIndex, Math.min(index, this.inFlightTo));
    assert(
      this.persistedIndex <= this.lastIndex,
      () => `persisted ${this.persistedIndex} beyond the last index ${this.lastIndex}`,
    );
    this.evict();
  }

  commitTo(index: LogIndex): void {
    assert(
      index <= this.lastIndex,
      () => `commit ${index} beyond the last index ${this.lastIndex}`,
    );
    assert(
      index >= this.commitIndex,
      () => `commit goes back from ${this.commitIndex} to ${index}`,
    );
    this.commitIndex = index;
  }

  /** Last index that may be handed out to be applied now. */
  get appliable(): LogIndex {
    return Math.min(this.commitIndex, this.persistedIndex);
  }

  appliedTo(index: LogIndex): void {
    assert(
      index >= this.appliedIndex && index <= this.applyingIndex,
      () => `applied ${index} outside [${this.appliedIndex}, ${this.applyingIndex}]`,
    );
    this.appliedIndex = index;
    this.evict();
  }

  /** The last index that left the window: durable here, and read by a fetch. */
  get lastBelowWindow(): LogIndex {
    return this.windowFirst - 1;
  }

  /** Entries from..last as far as they are in the window and within `bytesMax` (at least one). */
  entries(from: LogIndex, last: LogIndex, bytesMax: number): readonly Entry[] | 'belowWindow' {
    if (from < this.windowFirst) return 'belowWindow';
    let bytes = 0;
    let end = from - this.windowFirst;
    const stop = Math.min(last, this.lastIndex) - this.windowFirst;
    for (; end <= stop; end++) {
      const entry = this.window[end];
      if (entry === undefined) break;
      bytes += entryBytes(entry);
      if (bytes > bytesMax && end > from - this.windowFirst) break;
    }
    return this.window.slice(from - this.windowFirst, end);
  }

  /** Entries below `firstIndex` are gone from disk. */
  compact(firstIndex: LogIndex): void {
    assert(
      firstIndex <= this.appliedIndex + 1,
      () => `compaction to ${firstIndex} beyond applied ${this.appliedIndex}`,
    );
    if (firstIndex <= this.firstIndex) return;
    this.terms.compact(firstIndex - 1);
    this.firstIndex = firstIndex;
    this.dropBelow(firstIndex);
  }

  /** The state machine was restored from a snapshot: the log begins anew after it. */
  reset({ index, term }: SnapshotMeta): void {
    assert(
      index >= this.commitIndex,
      () => `reset to ${index} below the commit index ${this.commitIndex}`,
    );
    this.terms.reset(index, term);
    this.window = [];
    this.windowBytes = 0;
    this.windowFirst = index + 1;
    this.firstIndex = index + 1;
    this.lastIndex = index;
    this.commitIndex = index;
    this.appliedIndex = index;
    this.applyingIndex = index;
    this.persistedIndex = index;
    this.nextToPersist = index + 1;
    // Nothing that is being written belongs to the new log.
    this.inFlightTo = index;
  }

  /** The state machine was restored to `index`, which this log has: nothing up to it is applied again. */
  skipTo(index: LogIndex): void {
    assert(
      index <= this.lastIndex,
      () => `skip to ${index} beyond the last index ${this.lastIndex}`,
    );
    this.commitIndex = Math.max(this.commitIndex, index);
    this.appliedIndex = Math.max(this.appliedIndex, index);
    this.applyingIndex = this.appliedIndex;
    // Durable in the state machine itself, whatever the batch in flight comes to (rule D15).
    this.persistedIndex = Math.max(this.persistedIndex, index);
  }

  /**
   * Drops old entries from memory: those on disk (where a fetch finds them) and committed (so that
   * none of them can change). Not only those applied: a follower that catches up commits much
   * faster than its state machine follows, and memory has to stay bounded all the same.
   */
  private evict(): void {
    const keep = Math.min(this.persistedIndex, this.nextToPersist - 1, this.commitIndex);
    let first = this.windowFirst;
    let bytes = this.windowBytes;
    while (bytes > this.windowBytesMax && first <= keep) {
      const entry = this.window[first - this.windowFirst];
      if (entry === undefined) break;
      bytes -= entryBytes(entry);
      first++;
    }
    // In larger steps: shifting an array for each entry would cost its whole length.
    if (first - this.windowFirst >= 64 || bytes * 2 < this.windowBytes) this.dropBelow(first);
  }

  private dropBelow(index: LogIndex): void {
    const count = Math.min(index - this.windowFirst, this.window.length);
    if (count <= 0) {
      if (this.window.length === 0)
        this.windowFirst = Math.max(this.windowFirst, this.lastIndex + 1);
      return;
    }
    for (const entry of this.window.splice(0, count)) this.windowBytes -= entryBytes(entry);
    this.windowFirst += count;
  }

  private check(): void {
    const { firstIndex, lastIndex, commitIndex, appliedIndex } = this;
    assert(
      firstIndex >= 1 && lastIndex >= firstIndex - 1,
      () => `log bounds ${firstIndex}..${lastIndex}`,
    );
    assert(
      appliedIndex >= firstIndex - 1 && appliedIndex <= commitIndex && commitIndex <= lastIndex,
      () =>
        `pointers: first ${firstIndex} applied ${appliedIndex} commit ${commitIndex} last ${lastIndex}`,
    );
  }
}
