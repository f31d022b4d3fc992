/**
 * Who waits for an answer from one member: proposals by their place in the log, reads by the index
 * that has to be applied first. A waiter is told exactly once (rules D04 and D08).
 */
import type { EntryId, LogIndex, ReadState, Term } from '../../raft/index.js';
import type { WriteOutcome } from './history.js';

/** Told how a write ended, and at which index if it is `ok`. */
export type WriteEnd = (outcome: WriteOutcome, index: LogIndex) => void;

/** Told the index that a read was answered at; undefined: refused, nothing was read. */
export type ReadEnd = (index: LogIndex | undefined) => void;

interface WaitingRead {
  readonly index: LogIndex;
  /** Set for a read by lease: the term in which the lease must hold still at the answer. */
  readonly leaseTerm: Term | undefined;
  readonly end: ReadEnd;
}

export class WaitingClients {
  private readonly writes = new Map<LogIndex, { readonly term: Term; readonly end: WriteEnd }[]>();
  private readonly asked = new Map<string, ReadEnd>();
  private reads: WaitingRead[] = [];

  /** The proposal stands at that place, for now. */
  awaitEntry(place: EntryId, end: WriteEnd): void {
    const others = this.writes.get(place.index);
    if (others === undefined) this.writes.set(place.index, [{ term: place.term, end }]);
    else others.push({ term: place.term, end });
  }

  /** An entry is committed and applied: who proposed another one for its place knows it now. */
  applied(place: EntryId): void {
    const waiters = this.writes.get(place.index);
    if (waiters === undefined) return;
    this.writes.delete(place.index);
    for (const { term, end } of waiters) {
      if (term === place.term) end('ok', place.index);
      else end('notApplied', place.index);
    }
  }

  /** A snapshot was installed: what happened to proposals up to `index` cannot be known. */
  installed(index: LogIndex): void {
    for (const [at, waiters] of this.writes) {
      if (at > index) continue;
      this.writes.delete(at);
      for (const { end } of waiters) end('unknown', at);
    }
  }

  /** The core has been asked for a read index under this context. */
  awaitContext(context: string, end: ReadEnd): void {
    this.asked.set(context, end);
  }

  awaitApplied(read: WaitingRead): void {
    this.reads.push(read);
  }

  /** The core answers a context. */
  released(state: ReadState): void {
    const end = this.asked.get(state.context);
    if (end === undefined) throw new Error(`read ${state.context} answered twice or never asked`);
    this.asked.delete(state.context);
    if (state.index === undefined) end(undefined);
    else this.reads.push({ index: state.index, leaseTerm: undefined, end });
  }

  /** Answers what the applied index allows; returns how many reads had lost their lease. */
  answer(appliedIndex: LogIndex, leaseValid: (term: Term) => boolean): number {
    if (this.reads.length === 0) return 0;
    const due = this.reads.filter((read) => read.index <= appliedIndex);
    if (due.length === 0) return 0;
    this.reads = this.reads.filter((read) => read.index > appliedIndex);
    let leasesLost = 0;
    for (const read of due) {
      const valid = read.leaseTerm === undefined || leaseValid(read.leaseTerm);
      if (!valid) leasesLost++;
      read.end(valid ? appliedIndex : undefined);
    }
    return leasesLost;
  }

  /** The process is gone. */
  abandon(): void {
    const writes = [...this.writes.entries()];
    const reads = [...this.asked.values(), ...this.reads.map((read) => read.end)];
    this.writes.clear();
    this.asked.clear();
    this.reads = [];
    for (const [index, waiters] of writes) for (const { end } of waiters) end('unknown', index);
    for (const end of reads) end(undefined);
  }
}
