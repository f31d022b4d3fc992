/**
 * Hands committed entries to the state machine, one batch at a time, and writes data and applied
 * index in one engine batch (R40). Makes the applied index durable now and then, and only that
 * durable index bounds the compaction of the Raft log.
 */
import {
  EntryKind,
  type Entry,
  type LogIndex,
  type SnapshotMeta,
  type Term,
} from '../../raft/index.js';
import { putAppliedMark } from '../../storage/index.js';
import type { GroupContext } from './group-context.js';
import type { ProposeOutcome } from './group.js';
import type { StateHashes } from './state-hashes.js';

/** The log position at a durable mark, to find where the kept part of the log begins. */
interface Milestone {
  readonly index: LogIndex;
  /** Bytes applied up to it, since the node started. */
  readonly bytes: number;
}

interface PlaceWaiter {
  readonly index: LogIndex;
  readonly term: Term;
  readonly done: (outcome: ProposeOutcome<undefined>) => void;
}

export class Applier<R> {
  appliedIndex: LogIndex;
  appliedEntries = 0;
  private running: Promise<void> | undefined;
  private appliedBytes = 0;
  private markedBytes = 0;
  private readonly milestones: Milestone[] = [];
  private placeWaiters: PlaceWaiter[] = [];
  private readonly driver: GroupContext<R>;
  private readonly hashes: StateHashes<R>;

  constructor(driver: GroupContext<R>, appliedIndex: LogIndex, hashes: StateHashes<R>) {
    this.driver = driver;
    this.appliedIndex = appliedIndex;
    this.hashes = hashes;
  }

  /** The core gives the next batch only when this one was reported as applied. */
  apply(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    // The durable mark of the batch before may still be under way.
    const run =
      this.running === undefined
        ? this.runAll(entries)
        : this.running.then(() => this.runAll(entries));
    this.running = run;
    this.driver.background(
      run.then(() => {
        if (this.running === run) this.running = undefined;
      }),
    );
  }

  idle(): Promise<void> {
    return this.running ?? Promise.resolve();
  }

  /** For a membership entry: `done` when the entry at its place is applied. */
  waitForPlace(
    place: { readonly term: Term; readonly index: LogIndex },
    done: PlaceWaiter['done'],
  ): void {
    this.placeWaiters.push({ ...place, done });
  }

  reset({ index }: SnapshotMeta): void {
    this.appliedIndex = index;
    this.milestones.length = 0;
    this.loseWaiters('snapshotInstalled');
  }

  /** What they wait for may still be applied elsewhere. */
  loseWaiters(reason: 'snapshotInstalled' | 'closed'): void {
    for (const { done } of this.placeWaiters.splice(0)) done({ kind: 'unknown', reason });
  }

  /** A batch ends with a command that asks for a hash: the engine then holds just what is to be hashed. */
  private async runAll(entries: readonly Entry[]): Promise<void> {
    let from = 0;
    for (let at = 0; at < entries.length; at++) {
      const entry = entries[at];
      if (entry?.kind !== EntryKind.command || !this.driver.machine.asksForHash(entry.data))
        continue;
      await this.run(entries.slice(from, at + 1), true);
      from = at + 1;
    }
    await this.run(from === 0 ? entries : entries.slice(from), false);
  }

  private async run(entries: readonly Entry[], hashed: boolean): Promise<void> {
    const { machine, surroundings, prefix } = this.driver;
    const { engine } = surroundings;
    const last = entries[entries.length - 1];
    if (last === undefined) return;
    const commands = entries.filter((entry) => entry.kind === EntryKind.command);
    const batch = engine.batch();
    const { results, clears } = await machine.apply(commands, batch);
    if (results.length !== commands.length) {
      throw new Error(
        `group ${this.driver.id}: ${results.length} results for ${commands.length} commands`,
      );
    }
    putAppliedMark(batch, prefix, last);
    // Nothing can have changed meanwhile: the next batch waits for this one, and so does an install.
    await engine.write(batch, { sync: false });
    machine.written();
    for (const range of clears) await engine.clear(range);
    // Before anybody hears that the index is applied, and would find no hash of it.
    if (hashed) this.hashes.take(last.index);
    this.count(entries, last.index);
    this.finishPlaces(last.index);
    this.driver.onApplied(entries, results);
    await this.maybeMark(last);
  }

  private count(entries: readonly Entry[], lastIndex: LogIndex): void {
    this.appliedIndex = lastIndex;
    this.appliedEntries += entries.length;
    for (const entry of entries) this.appliedBytes += entry.data.byteLength + 64;
  }

  private finishPlaces(applied: LogIndex): void {
    if (this.placeWaiters.length === 0) return;
    const due = this.placeWaiters.filter(({ index }) => index <= applied);
    this.placeWaiters = this.placeWaiters.filter(({ index }) => index > applied);
    for (const { index, term, done } of due) {
      if (this.driver.node.termAt(index) === term)
        done({ kind: 'applied', index, term, result: undefined });
      else done({ kind: 'notApplied', reason: 'overwritten' });
    }
  }

  /**
   * A small synced batch makes durable everything written before it (rule D14). It syncs on the
   * loop, so it comes every few MB and not more often.
   */
  private async maybeMark(last: Entry): Promise<void> {
    const { surroundings, prefix, id, node } = this.driver;
    const { durableMarkBytes, logKeptBytes } = surroundings.limits;
    if (this.appliedBytes - this.markedBytes < durableMarkBytes) return;
    this.markedBytes = this.appliedBytes;
    const mark = surroundings.engine.batch();
    putAppliedMark(mark, prefix, last);
    await surroundings.engine.write(mark, { sync: true });
    // An entry applied meanwhile? No: the next batch waits for this one.
    this.milestones.push({ index: last.index, bytes: this.appliedBytes });
    let keepFrom: Milestone | undefined;
    while ((this.milestones[0]?.bytes ?? Infinity) <= this.appliedBytes - logKeptBytes) {
      keepFrom = this.milestones.shift();
    }
    if (keepFrom === undefined || keepFrom.index + 1 <= node.firstIndex) return;
    surroundings.log.compact({
      group: id,
      firstIndex: keepFrom.index + 1,
      appliedDurable: last.index,
    });
    node.compacted(keepFrom.index + 1);
  }
}
