/**
 * What one member of a scenario keeps across a crash: hard state, log, and the image of its state
 * machine. Everything in here is durable; what a driver has not synced yet does not get in.
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
  Message,
  Ready,
  RestoredState,
  SnapshotMeta,
  Term,
  TermRun,
} from '../../raft/index.js';
import { describePayload } from '../../raft/describe.js';

/** The part of a Ready that is written and synced together. */
export type PersistBatch = Pick<
  Ready,
  'hardState' | 'entries' | 'logReset' | 'messagesAfterPersist'
>;

/** A state machine that only remembers what it was given: the commands, in order. */
export interface Image {
  readonly at: SnapshotMeta;
  readonly commands: readonly string[];
}

export class ScenarioDisk {
  generation: Generation = 0;
  hardState: HardState;
  /** The place before the first entry, with the membership in force there. */
  base: SnapshotMeta;
  /** Entries base.index + 1 and up, without gaps. */
  entries: Entry[] = [];
  image: Image;
  /** The images after each applied entry, so that an unsynced engine can lose its end. */
  private readonly olderImages: Image[] = [];
  /** Rule D15: set while an image is being replaced. */
  restoring = false;

  constructor(membership: Membership) {
    const initial = newGroupState(membership);
    this.hardState = initial.hardState;
    this.base = { index: 0, term: 0, membership: { index: 0, membership } };
    this.image = { at: this.base, commands: [] };
  }

  get firstIndex(): LogIndex {
    return this.base.index + 1;
  }

  get lastIndex(): LogIndex {
    return this.base.index + this.entries.length;
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

  membershipAt(index: LogIndex): MembershipAt {
    const known = this.memberships().filter((candidate) => candidate.index <= index);
    return known.at(-1) ?? this.base.membership;
  }

  /** The term of an index of the log or of its base; undefined elsewhere. */
  termAt(index: LogIndex): Term | undefined {
    if (index === this.base.index) return this.base.term;
    return this.entries[index - this.firstIndex]?.term;
  }

  /** Writes and syncs one batch; returns what the completion has to name. */
  write(batch: PersistBatch): EntryId | undefined {
    if (batch.hardState !== undefined) this.hardState = batch.hardState;
    let last: EntryId | undefined;
    if (batch.logReset !== undefined) {
      this.resetLog(batch.logReset);
      last = { term: batch.logReset.term, index: batch.logReset.index };
    }
    for (const entry of batch.entries) {
      const position = entry.index - this.firstIndex;
      if (position < 0 || position > this.entries.length) {
        throw new Error(`entry ${entry.index} leaves a gap: ${this.firstIndex}..${this.lastIndex}`);
      }
      this.entries.length = position;
      this.entries.push(entry);
      last = { term: entry.term, index: entry.index };
    }
    return last;
  }

  private resetLog(at: SnapshotMeta): void {
    this.base = at;
    this.entries = [];
  }

  /** Persisted entries of [from, last], at least one if present, else up to `bytesMax` of data. */
  read(range: { from: LogIndex; last: LogIndex; bytesMax: number }): readonly Entry[] {
    if (range.from < this.firstIndex) return [];
    const found: Entry[] = [];
    let bytes = 0;
    for (const entry of this.entries.slice(range.from - this.firstIndex)) {
      if (entry.index > range.last) break;
      bytes += entry.data.length;
      if (found.length > 0 && bytes > range.bytesMax) break;
      found.push(entry);
    }
    return found;
  }

  apply(entry: Entry): void {
    if (entry.index !== this.image.at.index + 1) {
      throw new Error(`entry ${entry.index} applied after ${this.image.at.index}`);
    }
    this.olderImages.push(this.image);
    const commands =
      entry.kind === EntryKind.command
        ? [...this.image.commands, describePayload(entry.data)]
        : this.image.commands;
    const membership = this.membershipAt(entry.index);
    this.image = { at: { index: entry.index, term: entry.term, membership }, commands };
  }

  /** The engine forgets what it applied after `index`, as after a power cut (rules D12 and D13). */
  rewindImage(index: LogIndex): void {
    while (this.image.at.index > index) {
      const older = this.olderImages.pop();
      if (older === undefined) throw new Error(`no image at ${index}`);
      this.image = older;
    }
  }

  install(image: Image): void {
    this.olderImages.length = 0;
    this.image = image;
    this.restoring = false;
  }

  /** Drops entries up to and with `through`. */
  compact(through: LogIndex): void {
    const term = this.termAt(through);
    if (term === undefined) throw new Error(`no entry ${through} to compact through`);
    const membership = this.membershipAt(through);
    this.entries = this.entries.slice(through - this.base.index);
    this.base = { index: through, term, membership };
  }

  /** What a start finds here. `tailMax` bounds the entries that the core gets into its window. */
  restored(tailMax: number): RestoredState {
    const { index, term } = this.image.at;
    if (index < this.base.index) {
      // The engine lost what the compacted log cannot give back: a damaged replica (rule D13).
      this.restoring = true;
    } else if (!this.restoring && this.termAt(index) !== term) {
      // The image was installed, but the crash came before the log was reset (rule D15).
      this.resetLog(this.image.at);
    }
    return {
      generation: this.generation,
      hardState: this.hardState,
      firstIndex: this.firstIndex,
      lastIndex: this.lastIndex,
      termRuns: this.termRuns(),
      memberships: this.memberships(),
      tail: tailMax === 0 ? [] : this.entries.slice(-tailMax),
      appliedIndex: this.image.at.index,
      restoring: this.restoring,
    };
  }

  /** What `quorate recover apply` does to a replica that does not run (rule D07). */
  recover(member: Member, generation: Generation): void {
    const { hardState, entries } = forceRecovery(this.restored(0), member, generation);
    this.generation = generation;
    const messagesAfterPersist: Message[] = [];
    this.write({ hardState, entries, logReset: undefined, messagesAfterPersist });
  }

  private termRuns(): readonly TermRun[] {
    const runs: TermRun[] = [{ from: this.base.index, term: this.base.term }];
    for (const entry of this.entries) {
      if (entry.term !== runs.at(-1)?.term) runs.push({ from: entry.index, term: entry.term });
    }
    return runs;
  }
}
