/**
 * What the log knows of one group: bounds, terms, memberships, hard state, and where the entries
 * are. Changed by records only, in the order they stand in the file, so that recovery and a
 * running log come to the same state.
 */
import assert from 'node:assert/strict';
import { EntryKind, decodeMembership, noReplica } from '../../raft/index.js';
import type { Entry, Generation, GroupId, HardState, LogIndex } from '../../raft/index.js';
import type { MembershipAt, ReplicaId, SnapshotMeta, Term, TermRun } from '../../raft/index.js';
import { FrameRuns, droppedSegment } from './frame-runs.js';
import type { FramePlace } from './frame-runs.js';
import type { GroupCheckpoint, GroupCreatedRecord } from './record.js';
import type { SegmentUse } from './segment-use.js';

export class GroupIndex {
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly runs: FrameRuns;
  generation: Generation;
  hardState: HardState;
  /** `lastIndex + 1` if the log is empty. */
  firstIndex: LogIndex;
  lastIndex: LogIndex;
  appliedDurable: LogIndex;
  /** The first begins at firstIndex - 1. */
  private termRuns: TermRun[];
  /** The first is in force at firstIndex - 1. */
  private memberships: MembershipAt[];

  constructor(state: GroupCheckpoint, use: SegmentUse) {
    this.group = state.group;
    this.replica = state.replica;
    this.generation = state.generation;
    this.hardState = state.hardState;
    this.firstIndex = state.firstIndex;
    this.lastIndex = state.lastIndex;
    this.appliedDurable = state.appliedDurable;
    this.termRuns = [...state.termRuns];
    this.memberships = [...state.memberships];
    this.runs = new FrameRuns(use);
    // Recovery starts with the oldest segment: what its checkpoint knows was written before it.
    if (this.firstIndex <= this.lastIndex) {
      this.runs.push(this.firstIndex, { segment: droppedSegment, offset: 0, length: 0 });
    }
  }

  /** A copy of the state, for a checkpoint. */
  checkpoint(): GroupCheckpoint {
    const { group, replica, generation, hardState, firstIndex, lastIndex, appliedDurable } = this;
    const termRuns = [...this.termRuns];
    const memberships = [...this.memberships];
    return {
      group,
      replica,
      generation,
      hardState,
      firstIndex,
      lastIndex,
      appliedDurable,
      termRuns,
      memberships,
    };
  }

  /** Term of an index in [firstIndex - 1, lastIndex]. */
  termAt(index: LogIndex): Term {
    assert(index >= this.firstIndex - 1 && index <= this.lastIndex, `no entry ${index}`);
    let i = this.termRuns.length - 1;
    while ((this.termRuns[i]?.from ?? 0) > index) i--;
    return this.termRuns[i]?.term ?? 0;
  }

  /** Entries replace what was at or above the first of them. */
  append(entries: readonly Entry[], place: FramePlace): void {
    const first = entries[0];
    if (first === undefined) return;
    assert(
      first.index >= this.firstIndex && first.index <= this.lastIndex + 1,
      `gap: entry ${first.index} in a log of [${this.firstIndex}, ${this.lastIndex}]`,
    );
    this.truncate(first.index);
    this.runs.push(first.index, place);
    for (const entry of entries) this.addEntry(entry);
  }

  /** The same entries, elsewhere. */
  relocate(entries: readonly Entry[], place: FramePlace): void {
    const from = entries[0]?.index;
    const last = entries.at(-1)?.index;
    assert(from !== undefined && last !== undefined, 'a relocation without entries');
    const inLog = from >= this.firstIndex && last <= this.lastIndex;
    assert(inLog, `relocated [${from}, ${last}] of [${this.firstIndex}, ${this.lastIndex}]`);
    const sameTerms = entries.every(({ index, term }) => this.termAt(index) === term);
    assert(sameTerms, `relocated [${from}, ${last}] has other terms than the log`);
    this.runs.relocate({ from, last, logLast: this.lastIndex }, place);
  }

  compact(mark: { readonly firstIndex: LogIndex; readonly appliedDurable: LogIndex }): void {
    const { firstIndex, appliedDurable } = mark;
    this.appliedDurable = Math.max(this.appliedDurable, appliedDurable);
    if (firstIndex <= this.firstIndex) return;
    assert(firstIndex <= this.lastIndex + 1, `compaction to ${firstIndex} leaves a gap`);
    const term = this.termAt(firstIndex - 1);
    this.firstIndex = firstIndex;
    if (firstIndex > this.lastIndex) this.runs.clear();
    else this.runs.dropBelow(firstIndex);
    const laterRuns = this.termRuns.filter((run) => run.from >= firstIndex);
    this.termRuns = [{ from: firstIndex - 1, term }, ...laterRuns];
    const inForce = this.memberships.filter((at) => at.index < firstIndex).length - 1;
    this.memberships = this.memberships.slice(Math.max(inForce, 0));
  }

  /** Rule D15: the state machine is at `snapshot` durably before this is written. */
  reset(snapshot: SnapshotMeta): void {
    this.runs.clear();
    this.firstIndex = snapshot.index + 1;
    this.lastIndex = snapshot.index;
    this.termRuns = [{ from: snapshot.index, term: snapshot.term }];
    this.memberships = [snapshot.membership];
    this.appliedDurable = Math.max(this.appliedDurable, snapshot.index);
  }

  private truncate(index: LogIndex): void {
    if (index > this.lastIndex) return;
    this.runs.truncate(index);
    this.lastIndex = index - 1;
    while ((this.termRuns.at(-1)?.from ?? 0) >= index) this.termRuns.pop();
    while ((this.memberships.at(-1)?.index ?? 0) >= index) this.memberships.pop();
  }

  private addEntry(entry: Entry): void {
    this.lastIndex = entry.index;
    const lastTerm = this.termRuns.at(-1)?.term ?? 0;
    // Once per entry: no message is built unless it is needed.
    if (entry.term < lastTerm) {
      assert.fail(`entry ${entry.index} has term ${entry.term} after ${lastTerm}`);
    }
    if (entry.term > lastTerm) this.termRuns.push({ from: entry.index, term: entry.term });
    if (entry.kind === EntryKind.membership) {
      this.memberships.push({ index: entry.index, membership: decodeMembership(entry.data) });
    }
  }
}

/** A log that never held anything: the first entry will be 1 (or come after a reset). */
export function emptyGroup(record: GroupCreatedRecord): GroupCheckpoint {
  const { group, replica, generation, membership } = record;
  return {
    group,
    replica,
    generation,
    hardState: { term: 0, vote: noReplica, commit: 0 },
    firstIndex: 1,
    lastIndex: 0,
    appliedDurable: 0,
    termRuns: [{ from: 0, term: 0 }],
    memberships: [{ index: 0, membership }],
  };
}
