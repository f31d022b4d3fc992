/**
 * Group commit. What is appended while nothing is under way is gathered until the end of the event
 * loop's turn; what is appended during a write is gathered for the next. One write with one sync
 * per turn, whatever the number of groups; completions in the order of the appends.
 *
 * Only this loop writes. The state is changed after the sync and before the completions, so that
 * it always mirrors what is durable, and a new segment's checkpoint can be taken from it between
 * two writes.
 */
import assert from 'node:assert/strict';
import { ByteSink } from './bytes.js';
import { beginFrame, endFrame } from './frame.js';
import type { LogState } from './log-state.js';
import { RecordKind, encodeRecord } from './record.js';
import type { LogRecord } from './record.js';
import { createSegment, segmentSeed } from './segment.js';
import type { SegmentSet } from './segment-set.js';

/** One synced write takes about this much from the queue: bounds the wait of those behind it. */
const turnBytesMax = 4_194_304;

/** Something to be made durable as a whole. */
export interface PendingWrite {
  /** None: a barrier, completed in its turn. */
  readonly records: readonly LogRecord[];
  /** Roughly, for the size of a turn. */
  readonly bytes: number;
  readonly onDurable: () => void;
  /** The log failed before this was durable. Whether it is on disk is unknown. */
  readonly onLost?: (error: Error) => void;
}

/** Records decided on when their turn begins, against the durable state. */
export interface LateWrite {
  readonly records: () => readonly LogRecord[];
  readonly onDurable: () => void;
  readonly onLost: (error: Error) => void;
}

export interface WriterOptions {
  readonly segments: SegmentSet;
  readonly state: LogState;
  /** Of the last write on disk. */
  readonly writeNumber: number;
  readonly segmentBytes: number;
  /** As in RaftLogSurroundings. */
  readonly schedule: (run: () => void) => void;
  /** After each turn: what is durable has changed. */
  readonly onTurn: () => void;
  readonly onWrite?: ((bytes: number) => () => void) | undefined;
  /** The first failure; nothing is written or completed after it. */
  readonly onFailure: (cause: unknown) => Error;
}

export class LogWriter {
  syncs = 0;
  writtenBytes = 0;
  lastWriteBytes = 0;

  private readonly options: WriterOptions;
  private readonly sink = new ByteSink(65_536);
  private queue: PendingWrite[] = [];
  private first: LateWrite | undefined;
  private writeNumber: number;
  private loop: Promise<void> | undefined;
  private failure: Error | undefined;

  constructor(options: WriterOptions) {
    this.options = options;
    this.writeNumber = options.writeNumber;
  }

  enqueue(write: PendingWrite): void {
    if (this.failure !== undefined) {
      write.onLost?.(this.failure);
      return;
    }
    this.queue.push(write);
    this.wake();
  }

  /** To be written before everything queued. One at a time. */
  enqueueFirst(write: LateWrite): void {
    assert(this.first === undefined, 'one relocation at a time');
    if (this.failure !== undefined) {
      write.onLost(this.failure);
      return;
    }
    this.first = write;
    this.wake();
  }

  /** Stops for good. Returns false if it had stopped already. */
  fail(cause: unknown): boolean {
    if (this.failure !== undefined) return false;
    const failure = this.options.onFailure(cause);
    this.failure = failure;
    const lost = this.queue;
    this.queue = [];
    this.first?.onLost(failure);
    this.first = undefined;
    for (const write of lost) write.onLost?.(failure);
    return true;
  }

  /** Resolves when no write is under way. */
  async idle(): Promise<void> {
    await this.loop;
  }

  private wake(): void {
    if (this.loop !== undefined) return;
    this.loop = new Promise((resolve) => {
      this.options.schedule(() => {
        void this.run().then(resolve);
      });
    });
  }

  /** Never rejects. */
  private async run(): Promise<void> {
    try {
      while (this.failure === undefined && (this.queue.length > 0 || this.first !== undefined)) {
        await this.turn();
      }
    } catch (error) {
      this.fail(error);
    }
    // In the same breath as the last look at the queue: what comes later starts a new loop.
    this.loop = undefined;
  }

  private async turn(): Promise<void> {
    if (this.options.segments.active.size >= this.options.segmentBytes) await this.roll();
    const first = this.takeFirst();
    const writes = this.takeQueued();
    const all = first === undefined ? writes : [first, ...writes];
    try {
      await this.writeAll(all);
    } catch (error) {
      this.fail(error);
      for (const write of all) write.onLost?.(this.failure ?? new Error('the Raft log failed'));
      return;
    }
    // A read may have met damage while the write was under way: nothing is acknowledged then.
    if (this.failure !== undefined) {
      for (const write of all) write.onLost?.(this.failure);
      return;
    }
    for (const write of all) write.onDurable();
    this.options.onTurn();
  }

  private takeFirst(): PendingWrite | undefined {
    const { first } = this;
    if (first === undefined) return undefined;
    const records = first.records();
    this.first = undefined;
    return { records, bytes: 0, onDurable: first.onDurable, onLost: first.onLost };
  }

  private takeQueued(): readonly PendingWrite[] {
    const { queue } = this;
    let count = 0;
    for (let bytes = 0; count < queue.length && bytes < turnBytesMax; count++) {
      bytes += queue[count]?.bytes ?? 0;
    }
    this.queue = queue.slice(count);
    return count === queue.length ? queue : queue.slice(0, count);
  }

  /** Durable and applied on return. */
  private async writeAll(writes: readonly PendingWrite[]): Promise<void> {
    const { segments, state } = this.options;
    const { active } = segments;
    const writeStart = active.size;
    const write = {
      seed: segmentSeed(active.id),
      writeStart,
      writeNumber: this.writeNumber + 1,
    };
    const records: LogRecord[] = [];
    const offsets: number[] = [];
    this.sink.clear(turnBytesMax);
    for (const { records: added } of writes) {
      for (const record of added) {
        const start = beginFrame(this.sink);
        encodeRecord(record, this.sink);
        const offset = writeStart + start;
        endFrame(this.sink, { start, offset, kind: RecordKind[record.kind] }, write);
        records.push(record);
        offsets.push(offset);
      }
    }
    if (records.length === 0) return;
    const durable = this.options.onWrite?.(this.sink.length);
    await active.file.writeDurably(this.sink.written(), writeStart);
    durable?.();
    this.wrote(this.sink.length);
    active.size = writeStart + this.sink.length;
    offsets.push(active.size);
    for (let i = 0; i < records.length; i++) {
      const record = records[i];
      const offset = offsets[i] ?? 0;
      const length = (offsets[i + 1] ?? 0) - offset;
      if (record !== undefined) state.apply(record, { segment: active.id, offset, length });
    }
  }

  private async roll(): Promise<void> {
    const { segments, state } = this.options;
    const next = await createSegment(segments, {
      id: segments.active.id + 1,
      writeNumber: this.writeNumber + 1,
      checkpoint: state.checkpoint(),
    });
    segments.add(next);
    this.wrote(next.size);
  }

  private wrote(bytes: number): void {
    this.writeNumber++;
    this.syncs++;
    this.writtenBytes += bytes;
    this.lastWriteBytes = bytes;
  }
}
