/**
 * What may be appended to a group: checked against everything appended before, durable or not, so
 * that a bug of the caller stops the node before it reaches the file.
 */
import assert from 'node:assert/strict';
import { noReplica } from '../../raft/index.js';
import type { Entry, Generation, HardState, LogIndex, ReplicaId } from '../../raft/index.js';
import { entryBytes } from './record.js';
import type { AppendRecord, GroupCheckpoint } from './record.js';
import type { LogWrite } from './types.js';

/** A frame holds entries up to this, or one larger entry: what a read of one entry has to verify. */
const frameBytesMax = 1_048_576;

/** A group as its appends leave it. */
export class GroupAdmission {
  readonly replica: ReplicaId;
  /** Writes with entries or a reset that are not durable yet. */
  underWay = 0;
  private generation: Generation;
  private firstIndex: LogIndex;
  private lastIndex: LogIndex;
  private hardState: Pick<HardState, 'term' | 'vote'>;

  constructor(state: GroupCheckpoint) {
    this.replica = state.replica;
    this.generation = state.generation;
    this.firstIndex = state.firstIndex;
    this.lastIndex = state.lastIndex;
    this.hardState = state.hardState;
  }

  /** Throws on a write that does not follow from what was appended before. */
  admit(write: LogWrite): void {
    if (write.generation !== undefined) this.admitGeneration(write.generation);
    if (write.reset !== undefined) {
      this.firstIndex = write.reset.index + 1;
      this.lastIndex = write.reset.index;
    }
    if (write.entries !== undefined && write.entries.length > 0) this.admitEntries(write.entries);
    if (write.hardState !== undefined) this.admitHardState(write.hardState);
  }

  /** False when there is nothing to compact. Throws when the mark would cut what is needed. */
  admitCompaction(mark: {
    readonly firstIndex: LogIndex;
    readonly appliedDurable: LogIndex;
  }): boolean {
    const { firstIndex, appliedDurable } = mark;
    assert(
      firstIndex <= appliedDurable + 1,
      `compaction to ${firstIndex}, but only ${appliedDurable} is applied durably`,
    );
    if (firstIndex <= this.firstIndex) return false;
    assert(
      firstIndex <= this.lastIndex + 1,
      `compaction to ${firstIndex} of a log that ends at ${this.lastIndex}`,
    );
    this.firstIndex = firstIndex;
    return true;
  }

  private admitGeneration(generation: Generation): void {
    const before = this.generation;
    assert(generation > before, `generations rise: ${generation} after ${before}`);
    this.generation = generation;
  }

  private admitEntries(entries: readonly Entry[]): void {
    const first = entries[0]?.index ?? 0;
    const last = entries.at(-1)?.index ?? 0;
    if (last !== first + entries.length - 1) {
      assert.fail(`${entries.length} entries from ${first} to ${last} are not contiguous`);
    }
    if (first < this.firstIndex || first > this.lastIndex + 1) {
      assert.fail(`entry ${first} appended to a log of [${this.firstIndex}, ${this.lastIndex}]`);
    }
    this.lastIndex = last;
  }

  private admitHardState({ term, vote }: HardState): void {
    const before = this.hardState;
    if (term < before.term) assert.fail(`the term goes back from ${before.term} to ${term}`);
    if (term === before.term && before.vote !== noReplica && vote !== before.vote) {
      assert.fail(`a second vote in term ${term}: ${before.vote}, then ${vote}`);
    }
    this.hardState = { term, vote };
  }
}

/**
 * The records of a write, each of which fits a frame. Usually one. When a power cut keeps only the
 * first of several, the replica has the new term and a prefix of the entries: as if less had been
 * appended.
 */
export function recordsOf(write: LogWrite, replica: ReplicaId): readonly AppendRecord[] {
  const { group, generation, reset, hardState, entries = [] } = write;
  const head: AppendRecord = {
    kind: 'append',
    group,
    replica,
    generation,
    reset,
    hardState,
    entries,
  };
  const cuts = cutsOf(entries);
  if (cuts.length === 0) return [head];
  const nothing = { generation: undefined, reset: undefined, hardState: undefined };
  const later = { kind: 'append', group, replica, ...nothing } as const;
  return [0, ...cuts].map((from, i) => {
    const part = entries.slice(from, cuts[i]);
    return i === 0 ? { ...head, entries: part } : { ...later, entries: part };
  });
}

/** Positions at which a new frame begins. */
function cutsOf(entries: readonly Entry[]): readonly number[] {
  const cuts: number[] = [];
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i];
    const added = entry === undefined ? 0 : entryBytes(entry);
    if (bytes > 0 && bytes + added > frameBytesMax) {
      cuts.push(i);
      bytes = 0;
    }
    bytes += added;
  }
  return cuts;
}
