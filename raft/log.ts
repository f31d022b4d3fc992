/**
 * The log of one member as the algorithm sees it: its bounds, the terms of all its indexes, the
 * memberships it brought, and the recent entries. Bytes on disk are the driver's business.
 *
 * The pointers obey, always:
 *
 *     firstIndex - 1  <=  appliedIndex  <=  commitIndex    <=  lastIndex
 *     firstIndex - 1  <=  appliedIndex  <=  persistedIndex <=  lastIndex
 *
 * Commit and persisted have no order: a quorum of others may have an entry before our own disk has
 * it. Applied is bounded by both (rule D12): a state machine ahead of its own log would come back
 * from a crash with effects that the log cannot explain. The one exception from the first bound is
 * a member whose state machine was found damaged: it is behind the log until it is restored.
 */
import { assert } from './assert.js';
import { EntryWindow } from './entry-window.js';
import { MembershipHistory } from './membership-history.js';
import { decodeMembership } from './membership.js';
import type { RestoredState } from './restored-state.js';
import { TermRuns } from './term-runs.js';
import type { Entry, LogIndex, MembershipAt, SnapshotMeta, Term } from './types.js';
import { EntryKind } from './types.js';

export class RaftLog {
  private readonly terms: TermRuns;
  private readonly history: MembershipHistory;
  private readonly window: EntryWindow;
  private committed: LogIndex;
  private applied: LogIndex;
  private persisted: LogIndex;

  /**
   * What a start finds is all durable. The commit index is at least what was applied, whatever the
   * hard state says (rule D12), and at least the base: only committed entries are compacted. It is
   * at most the end of the log, because the hint may have reached the disk without its entries.
   */
  constructor(state: RestoredState) {
    const { firstIndex, lastIndex, appliedIndex, restoring } = state;
    this.terms = new TermRuns(state.termRuns, lastIndex);
    assert(
      this.terms.base === firstIndex - 1,
      'the first term run begins at the base of the log',
      this.terms.base,
      firstIndex,
    );
    this.history = new MembershipHistory(state.memberships);
    this.window = new EntryWindow(state.tail, lastIndex + 1);
    this.persisted = lastIndex;
    const known = Math.max(state.hardState.commit, firstIndex - 1, restoring ? 0 : appliedIndex);
    this.committed = Math.min(known, lastIndex);
    this.applied = restoring ? Math.min(appliedIndex, this.committed) : appliedIndex;
    if (!restoring) {
      // Behind the base (rule D13) or ahead of the log (D12): the driver has to repair that first.
      assert(
        appliedIndex >= firstIndex - 1 && appliedIndex <= lastIndex,
        'the state machine stands inside of its log',
        appliedIndex,
        firstIndex,
        lastIndex,
      );
    }
  }

  get firstIndex(): LogIndex {
    return this.terms.base + 1;
  }

  get lastIndex(): LogIndex {
    return this.terms.last;
  }

  get lastTerm(): Term {
    return this.terms.lastTerm;
  }

  get commitIndex(): LogIndex {
    return this.committed;
  }

  get appliedIndex(): LogIndex {
    return this.applied;
  }

  get persistedIndex(): LogIndex {
    return this.persisted;
  }

  /** Index of the oldest entry in memory; lastIndex + 1 if there is none. */
  get windowFirst(): LogIndex {
    return this.window.first;
  }

  /** The membership in force now (thesis §4.1: from append on). */
  get membership(): MembershipAt {
    return this.history.current;
  }

  /** The membership in force at `index` of the log; undefined below its base. */
  membershipAt(index: LogIndex): MembershipAt | undefined {
    return this.history.at(index);
  }

  /** Undefined outside [firstIndex - 1, lastIndex]. */
  termAt(index: LogIndex): Term | undefined {
    return this.terms.termAt(index);
  }

  /** Is that very entry here? By log matching, then so is everything before it. */
  has(index: LogIndex, term: Term): boolean {
    return this.terms.termAt(index) === term;
  }

  /** Is a log that ends in (index, term) at least as up to date as this one (paper §5.4.1)? */
  isUpToDate(last: { readonly index: LogIndex; readonly term: Term }): boolean {
    if (last.term !== this.lastTerm) return last.term > this.lastTerm;
    return last.index >= this.lastIndex;
  }

  /** See `TermRuns.lastNotAbove`. */
  lastNotAbove(place: { readonly index: LogIndex; readonly term: Term }): LogIndex {
    return this.terms.lastNotAbove(place);
  }

  /** Entries in memory; `from` is not below `windowFirst`. */
  entries(range: {
    readonly from: LogIndex;
    readonly last: LogIndex;
    readonly bytesMax: number;
  }): readonly Entry[] {
    return this.window.slice(range);
  }

  /** Payload bytes of [from, last] that are in memory. */
  bytesOf(from: LogIndex, last: LogIndex): number {
    return this.window.bytesOf(from, last);
  }

  /** Appends the entry after the last one. A membership is in force from here on. */
  append(entry: Entry): void {
    assert(entry.index === this.lastIndex + 1, 'the log has no gaps', entry.index, this.lastIndex);
    this.terms.append(entry.term);
    this.window.push(entry);
    if (entry.kind !== EntryKind.membership) return;
    this.history.append({ index: entry.index, membership: decodeMembership(entry.data) });
  }

  /** Drops `index` and everything after it. What is committed is never dropped (paper, figure 3). */
  truncateFrom(index: LogIndex): void {
    assert(index > this.committed, 'committed entries are never truncated', index, this.committed);
    this.terms.truncateFrom(index);
    this.window.truncateFrom(index);
    this.history.truncateFrom(index);
    // The disk still has the old entries until the next batch replaces them; they count no more.
    this.persisted = Math.min(this.persisted, index - 1);
  }

  /** The entries up to `index` are durable here. Lower values than before change nothing. */
  persistTo(index: LogIndex): void {
    assert(index <= this.lastIndex, 'persisted <= last', index, this.lastIndex);
    this.persisted = Math.max(this.persisted, index);
  }

  /** Advances the commit index. Lower values change nothing: it never goes back. */
  commitTo(index: LogIndex): void {
    assert(index <= this.lastIndex, 'commit <= last', index, this.lastIndex);
    this.committed = Math.max(this.committed, index);
  }

  applyTo(index: LogIndex): void {
    assert(index <= this.committed, 'applied <= commit', index, this.committed);
    assert(index <= this.persisted, 'applied <= persisted (D12)', index, this.persisted);
    this.applied = Math.max(this.applied, index);
  }

  /** The log on disk begins at `firstIndex` now. Nothing unapplied may be gone (rule D14). */
  compact(firstIndex: LogIndex): void {
    if (firstIndex <= this.firstIndex) return;
    assert(
      firstIndex <= this.applied + 1,
      'only applied entries are compacted',
      firstIndex,
      this.applied,
    );
    this.terms.compactTo(firstIndex - 1);
    this.history.compactTo(firstIndex - 1);
    this.window.dropBelow(firstIndex);
  }

  /**
   * The state machine stands at `snapshot` now, restored from another member.
   *
   * If the log has the snapshot's entry it is equal up to there, and is kept: entries after it may
   * have been acknowledged to the leader, who counts on them. If it does not, nothing of this log
   * above the commit index was acknowledged to a leader that still counts, and it begins anew.
   * Returns whether it begins anew.
   */
  restoreTo(snapshot: SnapshotMeta): boolean {
    const { index, term, membership } = snapshot;
    const keeps = this.has(index, term);
    if (!keeps) {
      assert(index > this.committed, 'a committed log is not reset', index, this.committed);
      this.terms.reset(index, term);
      this.history.reset(membership);
      this.window.restart(index + 1);
    }
    this.committed = Math.max(this.committed, index);
    // Durable in the state machine itself, and so beyond the reach of a crash.
    this.persisted = keeps ? Math.max(this.persisted, index) : index;
    this.applied = Math.max(this.applied, index);
    return !keeps;
  }

  /**
   * Drops old entries from memory. What is uncommitted stays, because it may be asked for by every
   * follower; so does what is not yet on the disk, from where alone it could be fetched.
   */
  evict(bytesMax: number): void {
    this.window.evict(bytesMax, Math.min(this.committed, this.persisted));
  }
}
