/**
 * The Raft log of one replica on its disk: what is durable, and the one batch that is being
 * written. A crash keeps a prefix of that batch, from nothing to all of it.
 */
import { EntryKind, decodeMembership, forceRecovery, newGroupState } from '../../raft/index.js';
import type {
  Entry,
  EntryId,
  Generation,
  HardState,
  LogIndex,
  Member,
  Membership,
  MembershipAt,
  Ready,
  SnapshotMeta,
  Term,
  TermRun,
} from '../../raft/index.js';
import type { DurableState } from '../../raft/invariants.js';
import type { SimRandom } from './random.js';

/** The part of a Ready that is written and synced together. */
export type PersistBatch = Pick<
  Ready,
  'hardState' | 'entries' | 'logReset' | 'messagesAfterPersist'
>;

/** What a crash left of the batch that was being written. */
export type CrashResidue = 'nothing was being written' | 'lost' | 'torn' | 'kept';

export class SimDisk implements DurableState {
  generation: Generation = 0;
  hardState: HardState;
  /** The place before the first entry, with the membership in force there. */
  private base: SnapshotMeta;
  /** Entries base.index + 1 and up, without gaps. */
  private entries: Entry[] = [];
  private writing: PersistBatch | undefined;

  constructor(membership: Membership) {
    this.hardState = newGroupState(membership).hardState;
    this.base = { index: 0, term: 0, membership: { index: 0, membership } };
  }

  get firstIndex(): LogIndex {
    return this.base.index + 1;
  }

  get lastIndex(): LogIndex {
    return this.base.index + this.entries.length;
  }

  /** The term of an index of the log or of its base; undefined elsewhere. */
  termAt(index: LogIndex): Term | undefined {
    if (index === this.base.index) return this.base.term;
    return this.entries[index - this.firstIndex]?.term;
  }

  /** Does this disk hold that entry, itself or behind the base of the log? */
  holds(place: EntryId): boolean {
    return place.index <= this.base.index || this.termAt(place.index) === place.term;
  }

  membershipAt(index: LogIndex): MembershipAt {
    for (let at = Math.min(index - this.base.index, this.entries.length) - 1; at >= 0; at--) {
      const entry = this.entries[at];
      if (entry?.kind === EntryKind.membership) {
        return { index: entry.index, membership: decodeMembership(entry.data) };
      }
    }
    return this.base.membership;
  }

  /** Hands a batch to the disk. Nothing of it is durable yet. */
  write(batch: PersistBatch): void {
    if (this.writing !== undefined) throw new Error('two persist batches at once');
    this.writing = batch;
  }

  /** The batch is durable now; returns what the completion has to name. */
  sync(): EntryId | undefined {
    const batch = this.writing;
    if (batch === undefined) throw new Error('nothing is being written');
    this.writing = undefined;
    return this.keep(batch, Infinity);
  }

  /** What `quorate recover apply` does to a replica that does not run (rule D07). */
  recover(member: Member, generation: Generation): void {
    const { lastIndex } = this;
    const state = { ...this, lastIndex, termRuns: this.termRuns(), restoring: false };
    const { hardState, entries } = forceRecovery(state, member, generation);
    this.generation = generation;
    this.write({ hardState, entries, logReset: undefined, messagesAfterPersist: [] });
    this.sync();
  }

  /** Power is lost while a batch may be on its way. */
  crash(random: SimRandom): CrashResidue {
    const batch = this.writing;
    this.writing = undefined;
    if (batch === undefined) return 'nothing was being written';
    const records = batch.entries.length + (hasHead(batch) ? 1 : 0);
    const kept = random.weighted([
      [0, 5],
      [records, 3],
      [random.integer(0, records), 2],
    ]);
    this.keep(batch, kept);
    if (kept === 0) return 'lost';
    return kept === records ? 'kept' : 'torn';
  }

  /**
   * Makes the first `records` records of a batch durable. As in the Raft log, hard state and log reset
   * are one record, which is there or not, and entries come after it.
   */
  private keep(batch: PersistBatch, records: number): EntryId | undefined {
    let left = records;
    let last: EntryId | undefined;
    if (hasHead(batch) && left-- > 0) last = this.keepHead(batch);
    for (const entry of batch.entries) {
      if (left-- <= 0) break;
      this.append(entry);
      last = { term: entry.term, index: entry.index };
    }
    return last;
  }

  private keepHead({ hardState, logReset }: PersistBatch): EntryId | undefined {
    if (hardState !== undefined) this.hardState = hardState;
    if (logReset === undefined) return undefined;
    this.resetLog(logReset);
    return { term: logReset.term, index: logReset.index };
  }

  private append(entry: Entry): void {
    const position = entry.index - this.firstIndex;
    if (position < 0 || position > this.entries.length) {
      throw new Error(`entry ${entry.index} does not fit ${this.firstIndex}..${this.lastIndex}`);
    }
    this.entries.length = position;
    this.entries.push(entry);
  }

  /** The log begins anew behind a restored state machine (rule D15). */
  resetLog(at: SnapshotMeta): void {
    this.base = { index: at.index, term: at.term, membership: at.membership };
    this.entries = [];
  }

  /** Drops entries up to and with `through`, which is durable in the state machine (rule D13). */
  compact(through: LogIndex): void {
    const term = this.termAt(through);
    if (term === undefined) throw new Error(`no entry ${through} to compact through`);
    const membership = this.membershipAt(through);
    this.entries = this.entries.slice(through - this.base.index);
    this.base = { index: through, term, membership };
  }

  /** Durable entries of [from, last], at least one if present, else up to `bytesMax` of data. */
  read(range: { from: LogIndex; last: LogIndex; bytesMax: number }): readonly Entry[] {
    if (range.from < this.firstIndex) return [];
    const found: Entry[] = [];
    let bytes = 0;
    for (let index = range.from; index <= range.last; index++) {
      const entry = this.entries[index - this.firstIndex];
      if (entry === undefined) break;
      bytes += entry.data.length;
      if (found.length > 0 && bytes > range.bytesMax) break;
      found.push(entry);
    }
    return found;
  }

  /** The last `count` entries. */
  tail(count: number): readonly Entry[] {
    return count === 0 ? [] : this.entries.slice(-count);
  }

  /** Memberships of the log, ascending; the first is the one at firstIndex - 1. */
  memberships(): readonly MembershipAt[] {
    const found: MembershipAt[] = [this.base.membership];
    for (const entry of this.entries) {
      if (entry.kind !== EntryKind.membership) continue;
      found.push({ index: entry.index, membership: decodeMembership(entry.data) });
    }
    return found;
  }

  termRuns(): readonly TermRun[] {
    const runs: TermRun[] = [{ from: this.base.index, term: this.base.term }];
    for (const entry of this.entries) {
      if (entry.term !== runs.at(-1)?.term) runs.push({ from: entry.index, term: entry.term });
    }
    return runs;
  }
}

function hasHead({ hardState, logReset }: PersistBatch): boolean {
  return hardState !== undefined || logReset !== undefined;
}
