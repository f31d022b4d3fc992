/**
 * The term of any index without I/O: one run per leader change, however long the log is.
 *
 * Invariant: runs ascend strictly in `from` and in `term`; the first covers the index before the
 * log's first entry (the snapshot's), the last reaches to the last index.
 *
 * Terms never fall along a log (a leader appends in its own term only, and no term comes back), so a
 * log of a billion entries and a hundred elections is a hundred runs: with them in memory, every
 * consistency check and every vote is decided without the disk.
 */
import { assert } from './assert.js';
import type { LogIndex, Term, TermRun } from './types.js';

/** Bounds are the caller's: it knows where the log begins and ends, the runs do not. */
export class TermRuns {
  private readonly runs: TermRun[];

  /** `runs`: at least one, ascending; copied. Throws RaftInvariantError for none. */
  constructor(runs: readonly TermRun[]) {
    assert(runs.length > 0, () => 'term runs: at least the run of the snapshot index');
    this.runs = [...runs];
  }

  get lastTerm(): Term {
    return this.lastRun().term;
  }

  /**
   * For an index within [first run's from, last index]; the caller checks the bounds. Throws RangeError
   * below; above the last index the answer is the last term, which nothing backs.
   */
  at(index: LogIndex): Term {
    // The question is nearly always about the newest run or two.
    for (let n = this.runs.length - 1; n >= 0; n--) {
      const run = this.runs[n];
      if (run !== undefined && run.from <= index) return run.term;
    }
    throw new RangeError(`term runs: index ${index} lies before the first run`);
  }

  /** First index of the run that holds `index`. */
  startOf(index: LogIndex): LogIndex {
    for (let n = this.runs.length - 1; n >= 0; n--) {
      const run = this.runs[n];
      if (run !== undefined && run.from <= index) return run.from;
    }
    throw new RangeError(`term runs: index ${index} lies before the first run`);
  }

  /** The entry after the last one. Costs nothing but at a change of term. */
  append(index: LogIndex, term: Term): void {
    const last = this.lastRun();
    assert(term >= last.term, () => `terms never fall along a log: ${term} after ${last.term}`);
    if (term > last.term) this.runs.push({ from: index, term });
  }

  /** Forgets everything at and above `index`, which lies above the first run's from: the base stays. */
  truncate(index: LogIndex): void {
    while (this.runs.length > 1 && this.lastRun().from >= index) this.runs.pop();
  }

  /** Forgets everything below `index`, which becomes the start of the first run. */
  compact(index: LogIndex): void {
    const term = this.at(index);
    let drop = 0;
    while (drop + 1 < this.runs.length && (this.runs[drop + 1]?.from ?? Infinity) <= index) drop++;
    this.runs.splice(0, drop + 1, { from: index, term });
  }

  /** The log is empty after a snapshot at (index, term). */
  reset(index: LogIndex, term: Term): void {
    this.runs.splice(0, this.runs.length, { from: index, term });
  }

  private lastRun(): TermRun {
    const run = this.runs[this.runs.length - 1];
    assert(run !== undefined, () => 'term runs are never empty');
    return run;
  }
}
