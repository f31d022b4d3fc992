/**
 * One member's log as the algorithm sees it: a window of recent entries in memory, the terms of all
 * entries, and the pointers.
 *
 *   firstIndex - 1 <= appliedIndex <= commitIndex <= lastIndex
 *   firstIndex - 1 <= persistedIndex <= lastIndex
 *
 * commitIndex and persistedIndex have no order: a quorum of others may have committed what our own
 * disk has not synced yet. What is given out to be applied is bounded by both (rule D12).
 *
 * Log matching (paper §5.3, figure 3): two logs with the same term at an index are equal up to it. So
 * one comparison of (index, term) decides about everything below, and content is never compared. It
 * holds because a leader gives out each (term, index) once, and because entries are only ever taken
 * behind one that matches.
 *
 * No I/O: entries below the window are asked for by the caller, but the *terms* of all of them are
 * here, and they are all that elections and consistency checks need.
 */
import { assert } from './assert.js';
import type { EntryId } from './ready.js';
import { TermRuns } from './term-runs.js';
import type { Entry, LogIndex, SnapshotMeta, Term, TermRun } from './types.js';

/** What a restart finds: the pointers, and as much of the log's end as the driver cared to read. */
export interface LogState {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly termRuns: readonly TermRun[];
  /** The last entries, contiguous up to `lastIndex`; may be empty. */
  readonly tail: readonly Entry[];
  readonly commitIndex: LogIndex;
  readonly appliedIndex: LogIndex;
}

/**
 * Bytes an entry counts for in windows and limits: its data and a flat share of 24 for its head, about
 * what index, term, kind and length take on disk. So a flood of empty entries is bounded, too.
 */
export function entryBytes(entry: Entry): number {
  return entry.data.byteLength + 24;
}

/** Throws RaftInvariantError, and nothing else, when its pointers are asked to do the impossible. */
export class RaftLog {
  /** First index present. What lies below is compacted: only the term of the one before is known. */
  firstIndex: LogIndex;
  /** `firstIndex - 1` when empty. */
  lastIndex: LogIndex;
  /** Durable on this disk, as confirmed by `persisted`. Falls only by truncation. */
  persistedIndex: LogIndex;
  /** A quorum has everything up to here, for ever. Rises only; restored from a hint and may be low. */
  commitIndex: LogIndex;
  /** The state machine has everything up to here. Rises only. */
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
  /** Entries windowFirst..lastIndex. Everything that is not durable yet is in here, whatever its size. */
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

  /** Of an empty log: that of its snapshot; 0 of one that never had anything. */
  get lastTerm(): Term {
    return this.terms.lastTerm;
  }

  /** Undefined below the snapshot index and above the last index. */
  termAt(index: LogIndex): Term | undefined {
    if (index < this.firstIndex - 1 || index > this.lastIndex) return undefined;
    return this.terms.at(index);
  }

  /** Equal up to `index` with any log that has (index, term): the consistency check of §5.3. */
  matches(index: LogIndex, term: Term): boolean {
    return this.termAt(index) === term;
  }

  /**
   * Is a log ending at (lastIndex, lastTerm) at least as up to date as this one? (paper §5.4.1) Terms
   * before length: a long tail of an old term may be uncommitted, all of it. Not by commit indexes:
   * a follower's may be behind what it was acknowledged for.
   */
  isUpToDate(lastIndex: LogIndex, lastTerm: Term): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
  }

  /**
   * The highest index at or below `index` whose term is at most `term`: where a log that has
   * (index, term) may still agree with ours (paper §5.3, conflict hints). Terms never fall along a
   * log, so above that place the two cannot agree: one of them has a term that the other lacks there.
   * O(terms in the log); never below firstIndex - 1.
   */
  lastAtOrBelowTerm(index: LogIndex, term: Term): LogIndex {
    let at = Math.min(index, this.lastIndex);
    while (at >= this.firstIndex && this.terms.at(at) > term) at = this.terms.startOf(at) - 1;
    return Math.max(at, this.firstIndex - 1);
  }

  /**
   * Adds entries that follow directly, or replace everything from their first index on. Whoever calls
   * this has checked that the entry before matches, and that there is a conflict to replace.
   */
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

  /** Appended and not yet in any batch; what is in the batch in flight does not count. */
  get hasUnpersisted(): boolean {
    return this.nextToPersist <= this.lastIndex;
  }

  /**
   * Hands out everything not yet handed out to be persisted. The next call must follow `persisted`: a
   * second batch out at once would make `inFlightTo` say too much of the first.
   */
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

  /**
   * The caller knows that a quorum has it, and that *this* log agrees up to there. Going back is no
   * harm to the truth, but a sign that somebody computed it from another log.
   */
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

  /** Between what was applied before and what was handed out: anything else is a driver's mistake. */
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

  /**
   * Entries from..last as far as they are in the window and within `bytesMax`; at least one, or an
   * entry larger than the limit could never be sent. 'belowWindow' when `from` has left memory: then
   * they are durable, and the caller fetches them.
   */
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

  /**
   * Entries below `firstIndex` are gone from disk (paper §7). The term of the last one of them stays
   * known, for the consistency check of the append that begins right behind it.
   */
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

  /**
   * The state machine was restored from a snapshot: the log begins anew after it (paper, figure 13,
   * step 7). Allowed only from the commit index on: nothing committed may be thrown away but for an
   * image that contains it.
   */
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

  /** Of the window alone; where the log begins is not its business. */
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

  /** What a restart gives: anything else is damage that recovery should have found. */
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
