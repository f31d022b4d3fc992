/**
 * What clients were told, and whether it can be true.
 *
 * The state machine is a list that only grows, and every write has a value of its own. So
 * linearizability needs no search: a write stands at its index, a read sees all up to the applied
 * index that it was answered at, and the rule is that nothing may come out below what somebody had
 * been told before it began.
 *
 * All of this holds within a generation (rule D07): `after` begins the history of the next one.
 */
import { EntryKind } from '../../raft/index.js';
import type { Entry, LogIndex } from '../../raft/index.js';
import type { Coverage } from './coverage.js';

/** How a write ended, as far as its proposer can know (rule D04). */
export type WriteOutcome = 'ok' | 'notApplied' | 'unknown';

/** An operation that was begun; `floor` is what somebody had been told by then. */
export interface Begun {
  readonly floor: LogIndex;
}

export interface BegunWrite extends Begun {
  readonly value: number;
}

export class History {
  private toldUpTo: LogIndex = 0;
  /** The last value given out, in all histories of a run. */
  private readonly values: { last: number };
  /** Values that may be found: of writes begun in this generation, or kept from an earlier one. */
  private readonly possible = new Set<number>();
  private readonly acknowledged = new Map<number, LogIndex>();
  private readonly refuted = new Set<number>();
  private readonly coverage: Coverage;

  constructor(coverage: Coverage, values = { last: 0 }) {
    this.coverage = coverage;
    this.values = values;
  }

  /**
   * Of the next generation: nothing is left of what was told but what stands in `kept`, the log of its
   * survivor from index 1 on. What was acknowledged and is not there is lost, and never comes back.
   */
  after(kept: readonly Entry[]): History {
    const next = new History(this.coverage, this.values);
    const found = new Map<number, LogIndex>();
    for (const { kind, data, index } of kept)
      if (kind === EntryKind.command) found.set(valueOf(data), index);
    for (const value of found.keys()) next.possible.add(value);
    for (const [value, index] of this.acknowledged) {
      if (found.get(value) === index) next.acknowledged.set(value, index);
      else this.coverage.count('acknowledged write lost by a recovery');
    }
    for (const value of this.refuted) if (!found.has(value)) next.refuted.add(value);
    next.toldUpTo = Math.min(this.toldUpTo, kept.length);
    return next;
  }

  beginWrite(): BegunWrite {
    const value = ++this.values.last;
    this.possible.add(value);
    return { floor: this.toldUpTo, value };
  }

  beginRead(): Begun {
    return { floor: this.toldUpTo };
  }

  get acknowledgedCount(): number {
    return this.acknowledged.size;
  }

  /** A write was applied at `index` as its proposer proposed it, or surely never will be. */
  writeEnds(write: BegunWrite, outcome: WriteOutcome, index: LogIndex): void {
    switch (outcome) {
      case 'ok':
        this.coverage.count('write ok');
        if (index <= write.floor) {
          throw new Error(`write ${write.value} took effect at ${index}, before it began`);
        }
        this.acknowledged.set(write.value, index);
        this.told(index);
        return;
      case 'notApplied':
        this.coverage.count('write not applied');
        this.refuted.add(write.value);
        return;
      case 'unknown':
        this.coverage.count('write unknown');
    }
  }

  /** A read was answered from the state after `index`. */
  readEnds(read: Begun, index: LogIndex): void {
    if (index < read.floor) {
      throw new Error(`stale read: answered at ${index}, ${read.floor} was told before it began`);
    }
    this.told(index);
  }

  /** The whole list at the end against everything that was told. */
  check(applied: readonly Entry[]): void {
    const found = new Map<number, LogIndex>();
    for (const entry of applied) {
      if (entry.kind !== EntryKind.command) continue;
      const value = valueOf(entry.data);
      const other = found.get(value);
      if (other !== undefined) {
        throw new Error(`write ${value} is there twice, at ${other} and ${entry.index}`);
      }
      if (!this.possible.has(value))
        throw new Error(`write ${value} stands at ${entry.index}, and is of another generation`);
      found.set(value, entry.index);
    }
    for (const [value, index] of this.acknowledged) {
      if (found.get(value) !== index) {
        throw new Error(
          `lost write ${value}: ok at ${index}, found at ${found.get(value) ?? 'no'}`,
        );
      }
    }
    for (const value of this.refuted) {
      const index = found.get(value);
      if (index !== undefined) throw new Error(`write ${value} "not applied" stands at ${index}`);
    }
  }

  private told(index: LogIndex): void {
    if (index > this.toldUpTo) this.toldUpTo = index;
  }
}

/** The command that appends `value`, padded to `size` bytes if it is smaller. */
export function commandOf(value: number, size: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(4, size));
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

export function valueOf(command: Uint8Array): number {
  return new DataView(command.buffer, command.byteOffset).getUint32(0);
}
