/**
 * Proposals that wait for their entry to be applied, by (term, index); and what is told to those
 * that are lost (rule D04).
 */
import type { LogIndex, RawNode, Term } from '../../raft/index.js';
import type { ProposeOutcome } from './group.js';

type Done<R> = (outcome: ProposeOutcome<R>) => void;

interface Waiter<R> {
  readonly term: Term;
  readonly done: Done<R>;
}

export class Proposals<R> {
  /** In the order of their indexes: entries are appended and applied in order. */
  private readonly waiting = new Map<LogIndex, Waiter<R>>();
  /** What became of those that were appended here, since the start. */
  readonly outcomes = { applied: 0, overwritten: 0, unknown: 0 };
  /** Tick at which waiters of a lost leadership give up; undefined while leading. */
  private giveUpTick: number | undefined;

  get length(): number {
    return this.waiting.size;
  }

  add(place: { readonly term: Term; readonly index: LogIndex }, done: Done<R>): void {
    // Two waiters at one index: the first one's entry was truncated, but its fate elsewhere is open.
    const before = this.waiting.get(place.index);
    if (before !== undefined) this.outcomes.unknown++;
    before?.done({ kind: 'unknown', reason: 'steppedDown' });
    this.waiting.set(place.index, { term: place.term, done });
  }

  /** The entry at (term, index) was applied here. */
  applied(term: Term, index: LogIndex, result: R): void {
    const waiter = this.waiting.get(index);
    if (waiter === undefined) return;
    this.waiting.delete(index);
    // An entry of another term is committed at its index: the proposal's own can never be.
    if (waiter.term === term) {
      this.outcomes.applied++;
      waiter.done({ kind: 'applied', index, term, result });
    } else this.overwritten(waiter);
  }

  /** For entries without a result of their own (no-ops, membership): only their place counts. */
  passed(term: Term, index: LogIndex): void {
    const waiter = this.waiting.get(index);
    if (waiter === undefined || waiter.term === term) return;
    this.waiting.delete(index);
    this.overwritten(waiter);
  }

  private overwritten({ done }: Waiter<R>): void {
    this.outcomes.overwritten++;
    done({ kind: 'notApplied', reason: 'overwritten' });
  }

  /**
   * Leadership is lost. The next leader may well commit what is under way, and then the outcome is
   * known after all: wait until `giveUpTick` before it is called unknown.
   */
  steppedDown(giveUpTick: number): void {
    this.giveUpTick ??= giveUpTick;
  }

  leading(): void {
    this.giveUpTick = undefined;
  }

  tick(now: number): void {
    if (this.giveUpTick === undefined || now < this.giveUpTick) return;
    this.giveUpTick = undefined;
    this.loseAll('steppedDown');
  }

  loseAll(reason: 'steppedDown' | 'snapshotInstalled' | 'closed'): void {
    const waiters = [...this.waiting.values()];
    this.waiting.clear();
    this.outcomes.unknown += waiters.length;
    for (const { done } of waiters) done({ kind: 'unknown', reason });
  }
}

type Refused = Exclude<ReturnType<RawNode['propose']>, { kind: 'appended' }>;

/** Of a proposal that was not appended. */
export function reasonOf(
  verdict: Refused,
): Extract<ProposeOutcome<unknown>, { kind: 'notApplied' }>['reason'] {
  if (verdict.kind === 'notLeader') return 'notLeader';
  return verdict.reason;
}
