/**
 * From files to state, and proof that nothing is missing.
 *
 * What the disk may do at a power cut: lose or tear any part of the last write, lose the name of a
 * segment whose creation was not yet synced, keep the name of one being dropped. Everything else is
 * damage: then this throws and touches nothing. Repairs come after the whole proof.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { ByteSink } from './bytes.js';
import type { Disk } from './disk.js';
import { RaftLogDamaged } from './failure.js';
import type { Frame } from './frame.js';
import { droppedSegment } from './frame-runs.js';
import { LogState } from './log-state.js';
import { decodeRecord, encodeRecord } from './record.js';
import type { LogRecord } from './record.js';
import { scanSegment } from './scan.js';
import type { SegmentScan } from './scan.js';
import { createSegment, segmentIdOf, segmentName } from './segment.js';
import type { Segment } from './segment.js';
import { SegmentSet } from './segment-set.js';

export interface RecoveredLog {
  readonly segments: SegmentSet;
  readonly state: LogState;
  /** Of the last write on disk. */
  readonly writeNumber: number;
}

/** The log in `directory`; a new one if there is none. Everything in it is durable on return. */
export async function recoverLog(disk: Disk, directory: string): Promise<RecoveredLog> {
  await disk.makeDirectory(directory);
  const recovery = new Recovery(disk, directory);
  try {
    return await recovery.run();
  } catch (error) {
    await recovery.abandon();
    throw error;
  }
}

/** The last write on disk: the only one that may never have been synced. */
interface LastWrite {
  readonly start: number;
  readonly bytes: Buffer;
}

class Recovery {
  private readonly disk: Disk;
  private readonly directory: string;
  private readonly state = new LogState();
  private readonly opened: Segment[] = [];
  private writeNumber = 0;
  private writeStart = 0;
  private lastWrite: LastWrite = { start: 0, bytes: Buffer.alloc(0) };
  /** A last segment whose creation was never completed, so that nothing was acknowledged in it. */
  private unfinished: Segment | undefined;

  constructor(disk: Disk, directory: string) {
    this.disk = disk;
    this.directory = directory;
  }

  async run(): Promise<RecoveredLog> {
    const ids = await this.segmentIds();
    for (const id of ids) await this.replaySegment(id, id === ids.at(-1));
    this.proveComplete();
    await this.repair();
    if (this.opened.length === 0) this.opened.push(await this.createFirst());
    const segments = new SegmentSet(this.disk, this.directory, this.opened);
    return { segments, state: this.state, writeNumber: this.writeNumber };
  }

  async abandon(): Promise<void> {
    for (const segment of this.opened) await segment.file.close();
    await this.unfinished?.file.close();
  }

  private async segmentIds(): Promise<readonly number[]> {
    const names = await this.disk.list(this.directory);
    const ids = names.flatMap((name) => segmentIdOf(name) ?? []).sort((a, b) => a - b);
    ids.forEach((id, i) => {
      const expected = (ids[0] ?? 0) + i;
      if (id !== expected) throw this.damage(expected, 0, 'this segment is missing');
    });
    return ids;
  }

  private async replaySegment(id: number, isLast: boolean): Promise<void> {
    const path = join(this.directory, segmentName(id));
    const file = await this.disk.open(path);
    const segment: Segment = { id, path, file, size: 0, readers: 0, closing: false };
    this.opened.push(segment);
    const bytes = await file.read(0, await file.size());
    const scan = this.scan(bytes, id);
    this.refuseDamage(scan, id, isLast);
    if (scan.validEnd === 0) {
      if (id > 1 && this.opened.length === 1) throw this.damage(id - 1, 0, 'it is missing');
      this.unfinished = this.opened.pop();
      return;
    }
    for (const frame of scan.frames) this.replayFrame(frame, id);
    segment.size = scan.validEnd;
    this.lastWrite = {
      start: this.writeStart,
      bytes: bytes.subarray(this.writeStart, scan.validEnd),
    };
  }

  private scan(bytes: Buffer, id: number): SegmentScan {
    try {
      return scanSegment(bytes, id);
    } catch (error) {
      throw this.damage(id, 0, error);
    }
  }

  /** The decision of rule D11. */
  private refuseDamage(scan: SegmentScan, id: number, isLast: boolean): void {
    if (scan.problem === undefined) return;
    const { offset, reason, laterFrame } = scan.problem;
    if (laterFrame !== undefined) {
      const later = `a valid frame of a later write stands at ${laterFrame}`;
      throw this.damage(id, offset, `${reason}, and ${later}`);
    }
    if (!isLast) throw this.damage(id, offset, `${reason}, in a sealed segment`);
  }

  private replayFrame(frame: Frame, id: number): void {
    const { offset, length } = frame;
    try {
      this.followWrite(frame);
      const record = decodeRecord(frame.kind, frame.payload);
      if (frame.writeStart === 0) this.followCheckpoint(record, frame.payload);
      else this.state.apply(record, { segment: id, offset, length });
    } catch (error) {
      throw this.damage(id, offset, error);
    }
  }

  /** Writes follow one another without gaps, and so do the frames of one. */
  private followWrite({ offset, writeStart, writeNumber }: Frame): void {
    const isNext = writeNumber === this.writeNumber + 1;
    const begins = writeStart === offset || writeStart === 0;
    const goesOn = writeNumber === this.writeNumber && writeStart === this.writeStart;
    const isOldest = this.writeNumber === 0 && writeStart === 0;
    assert(
      isOldest || goesOn || (isNext && begins),
      `write ${writeNumber} (from ${writeStart}) after write ${this.writeNumber}`,
    );
    this.writeNumber = writeNumber;
    this.writeStart = writeStart;
  }

  /** The oldest segment's checkpoint is the start; each other must say what was replayed. */
  private followCheckpoint(record: LogRecord, payload: Buffer): void {
    assert(record.kind === 'checkpoint', 'a segment begins with a checkpoint');
    if (this.opened.length === 1) {
      this.state.load(record);
      return;
    }
    const sink = new ByteSink(payload.length);
    encodeRecord(this.state.checkpoint(), sink);
    const same = sink.written().equals(payload);
    assert(same, 'the checkpoint does not say what the segments before it say');
  }

  /** Every entry of every group has a place. */
  private proveComplete(): void {
    for (const { group, firstIndex, lastIndex, runs } of this.state.allGroups()) {
      for (let i = 0; i < runs.length; i++) {
        if (runs.segmentAt(i) !== droppedSegment) continue;
        const last = i + 1 < runs.length ? runs.fromAt(i + 1) - 1 : lastIndex;
        const missing = `entries [${runs.fromAt(i)}, ${last}] of group ${group}`;
        const log = `its log is [${firstIndex}, ${lastIndex}]`;
        const oldest = this.opened[0]?.id ?? 1;
        throw this.damage(oldest, 0, `${missing} are in no segment from here on; ${log}`);
      }
      const begins = runs.length === 0 ? lastIndex + 1 : runs.fromAt(0);
      assert(begins === firstIndex, `group ${group} begins at ${begins}, not ${firstIndex}`);
    }
  }

  private async repair(): Promise<void> {
    if (this.unfinished !== undefined) {
      const { file, path } = this.unfinished;
      this.unfinished = undefined;
      await file.close();
      await this.disk.remove(path);
    }
    const active = this.opened.at(-1);
    if (active !== undefined) {
      if ((await active.file.size()) > active.size) {
        await active.file.truncateDurably(active.size);
      }
      // Written once more, not only synced: after a failed sync the page cache may call bytes clean
      // that never reached the disk, and a new sync would report success (R45).
      await active.file.writeDurably(this.lastWrite.bytes, this.lastWrite.start);
    }
    await this.disk.syncDirectory(this.directory);
  }

  private createFirst(): Promise<Segment> {
    this.writeNumber = 1;
    const checkpoint = this.state.checkpoint();
    return createSegment(
      { disk: this.disk, directory: this.directory },
      { id: 1, writeNumber: this.writeNumber, checkpoint },
    );
  }

  private damage(id: number, offset: number, why: unknown): RaftLogDamaged {
    if (why instanceof RaftLogDamaged) return why;
    const file = join(this.directory, segmentName(id));
    const reason = why instanceof Error ? why.message : String(why);
    return new RaftLogDamaged({ file, offset, reason, cause: why });
  }
}
