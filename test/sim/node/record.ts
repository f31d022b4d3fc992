/**
 * What clients were told, and whether it can be so. Every write of a slot has a revision of its own, in
 * the order of the slot's log: so whatever is linearizable agrees with the order of the revisions, and
 * that is checked without a search. Whether the values agree, too, is searched for (linearizable.ts).
 */
import type { Timeline } from '../timeline.js';

/** `refused`: it was applied, and had no effect, since its condition was not met. `fail`: nor was it applied. */
export type Ending = 'open' | 'ok' | 'refused' | 'fail' | 'unknown';

export interface Operation {
  readonly client: number;
  readonly key: string;
  readonly kind: 'read' | 'put' | 'delete' | 'increment';
  readonly begunMs: number;
  endedMs: number;
  ending: Ending;
  /** Of a put: unique. Of a read: what was found; undefined: nothing. Of an increment: the sum. */
  value: string | undefined;
  /** Of a put: what the key must hold; null: nothing; undefined: whatever it likes. */
  readonly expected?: string | null;
  /** 0: not known, or nothing was found. */
  revision: number;
}

export class HistoryBroken extends Error {
  override readonly name = 'HistoryBroken';
}

export class ClientRecord {
  readonly operations: Operation[] = [];
  private readonly timeline: Timeline;

  constructor(timeline: Timeline) {
    this.timeline = timeline;
  }

  begin(
    client: number,
    key: string,
    kind: Operation['kind'],
    asked: Partial<Pick<Operation, 'value' | 'expected'>> = {},
  ): Operation {
    const operation: Operation = {
      client,
      key,
      kind,
      begunMs: this.timeline.now,
      endedMs: Infinity,
      ending: 'open',
      value: undefined,
      revision: 0,
      ...asked,
    };
    this.operations.push(operation);
    return operation;
  }

  end(operation: Operation, ending: Ending, revision = 0): void {
    operation.ending = ending;
    operation.revision = revision;
    // What is unknown may still happen.
    if (ending !== 'unknown') operation.endedMs = this.timeline.now;
  }

  /** Throws HistoryBroken. The last read of each key must have been answered. */
  checkRevisions(): void {
    for (const operations of this.byKey().values()) new KeyHistory(operations).check();
  }

  byKey(): ReadonlyMap<string, readonly Operation[]> {
    const keys = new Map<string, Operation[]>();
    for (const operation of this.operations) {
      const known = keys.get(operation.key);
      if (known === undefined) keys.set(operation.key, [operation]);
      else known.push(operation);
    }
    return keys;
  }
}

class KeyHistory {
  private readonly writes: readonly Operation[];
  private readonly reads: readonly Operation[];
  private readonly key: string;

  constructor(operations: readonly Operation[]) {
    this.key = operations[0]?.key ?? '';
    this.writes = operations.filter(({ kind }) => kind !== 'read');
    this.reads = operations.filter(({ kind, ending }) => kind === 'read' && ending === 'ok');
  }

  check(): void {
    const isCounter = this.writes.some(({ kind }) => kind === 'increment');
    if (isCounter) this.checkCounter();
    else this.matchReads();
    this.checkRevisions();
    this.checkOrder();
    this.checkAbsences();
    if (this.key.endsWith('list')) this.checkList();
  }

  /** A read shows what somebody wrote, and no write that surely had no effect. */
  private matchReads(): void {
    const byValue = new Map(this.writes.map((write) => [write.value, write]));
    for (const read of this.reads) {
      if (read.value === undefined) continue;
      const write = byValue.get(read.value);
      if (write === undefined) this.broken('a value that nobody wrote', read);
      if (isVoid(write.ending)) this.broken('a write that failed was read', write, read);
      if (write.begunMs >= read.endedMs) this.broken('read before it was written', write, read);
      // Now it is known what became of it, and where.
      if (write.revision === 0) write.revision = read.revision;
      else if (write.revision !== read.revision)
        this.broken('one write at two revisions', write, read);
    }
  }

  private checkRevisions(): void {
    const seen = new Map<number, Operation>();
    for (const write of this.writes) {
      if (write.revision === 0) continue;
      const twin = seen.get(write.revision);
      if (twin !== undefined) this.broken('two writes at one revision', twin, write);
      seen.set(write.revision, write);
    }
  }

  /** Whoever begins after another one has ended comes behind it in the order of revisions. */
  private checkOrder(): void {
    const known = [...this.writes, ...this.reads].filter(({ revision }) => revision > 0);
    const ends = known
      .filter(({ ending }) => ending === 'ok')
      .sort((a, b) => a.endedMs - b.endedMs);
    let last: Operation | undefined;
    let at = 0;
    for (const operation of known.toSorted((a, b) => a.begunMs - b.begunMs)) {
      for (
        let end = ends[at];
        end !== undefined && end.endedMs < operation.begunMs;
        end = ends[++at]
      )
        if (end.revision > (last?.revision ?? 0)) last = end;
      if (last === undefined) continue;
      const { kind, revision } = operation;
      if (kind === 'read' ? revision < last.revision : revision <= last.revision)
        this.broken(kind === 'read' ? 'a stale read' : 'a write went back', last, operation);
    }
  }

  /** Nothing was found: then nothing was written before, or it may have been deleted, or expired. */
  private checkAbsences(): void {
    if (this.key.endsWith('ttl')) return;
    const deletes = this.writes.filter(({ kind, ending }) => kind === 'delete' && !isVoid(ending));
    for (const read of this.reads) {
      if (read.value !== undefined) continue;
      const before = [...this.writes, ...this.reads].filter(
        ({ ending, endedMs, revision }) =>
          ending === 'ok' && revision > 0 && endedMs < read.begunMs,
      );
      const last = before.sort((a, b) => b.revision - a.revision)[0];
      if (last === undefined || last.kind === 'delete') continue;
      const mayBeDeleted = deletes.some(
        ({ begunMs, revision }) =>
          begunMs < read.endedMs && (revision === 0 || revision > last.revision),
      );
      if (!mayBeDeleted) this.broken('an acknowledged write is lost', last, read);
    }
  }

  /** Each acknowledged increment counts once, and one of unknown outcome at most once. */
  private checkCounter(): void {
    const done = this.writes
      .filter(({ ending }) => ending === 'ok')
      .sort((a, b) => a.revision - b.revision);
    const unknown = this.writes.filter(({ ending }) => ending === 'unknown' || ending === 'open');
    let counted = 0;
    let sum = 0;
    for (const increment of done) {
      const value = Number(increment.value);
      counted += 1;
      if (value <= sum || value < counted || value > counted + unknown.length)
        this.broken(
          `a counter of ${value} behind ${counted} increments and ${unknown.length} unknown`,
          increment,
        );
      sum = value;
    }
    for (const read of this.reads) {
      const value = Number(read.value ?? 0);
      if (value > done.length + unknown.length) this.broken('too much was counted', read);
    }
    const last = this.reads.toSorted((a, b) => a.endedMs - b.endedMs).at(-1);
    if (last !== undefined && last.begunMs > Math.max(...done.map(({ endedMs }) => endedMs), 0))
      if (Number(last.value ?? 0) < done.length) this.broken('an increment is lost', last);
  }

  /** Lists only grow, and nothing is in them twice. */
  private checkList(): void {
    let before: readonly string[] = [];
    for (const read of this.reads.toSorted((a, b) => a.revision - b.revision)) {
      if (read.value === undefined) continue;
      const list = read.value.split(',');
      if (new Set(list).size !== list.length) this.broken('an element is there twice', read);
      if (before.some((element, at) => list[at] !== element))
        this.broken(`the list was ${before.join(',')} before`, read);
      before = list;
    }
    for (const { ending, value } of this.writes) {
      const element = value?.split(',').at(-1) ?? '';
      if (ending === 'ok' && !before.includes(element))
        throw new HistoryBroken(`${this.key}: element ${element} is lost: ${before.join(',')}`);
      if (isVoid(ending) && before.includes(element))
        throw new HistoryBroken(`${this.key}: element ${element} failed, and is there`);
    }
  }

  private broken(what: string, ...operations: readonly Operation[]): never {
    const lines = operations.map((each) => JSON.stringify({ ...each, value: short(each.value) }));
    throw new HistoryBroken(`${this.key}: ${what}\n  ${lines.join('\n  ')}`);
  }
}

/** It surely had no effect. */
function isVoid(ending: Ending): boolean {
  return ending === 'fail' || ending === 'refused';
}

function short(value: string | undefined): string | undefined {
  return value?.slice(0, 40);
}
