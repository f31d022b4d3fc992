/**
 * The segments of an open log, oldest first. The last one is active: writes go there; the others
 * are sealed and never change again until they are dropped, oldest first.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Disk } from './disk.js';
import { RaftLogDamaged } from './failure.js';
import { frameHeaderBytes, readFrame } from './frame.js';
import type { Frame } from './frame.js';
import type { FramePlace } from './frame-runs.js';
import { segmentName, segmentSeed } from './segment.js';
import type { Segment } from './segment.js';
import type { SegmentUse } from './segment-use.js';

/** Neighbouring frames are read together up to this: a thread-pool trip costs more than 256 KiB. */
const spanBytesMax = 262_144;

export class SegmentSet {
  readonly disk: Disk;
  readonly directory: string;
  private readonly segments: Segment[];

  constructor(disk: Disk, directory: string, segments: readonly Segment[]) {
    assert(segments.length > 0, 'a log has at least one segment');
    this.disk = disk;
    this.directory = directory;
    this.segments = [...segments];
  }

  get active(): Segment {
    const active = this.segments.at(-1);
    assert(active !== undefined, 'a log has an active segment');
    return active;
  }

  /** Where a segment is, or was. */
  pathOf(id: number): string {
    return join(this.directory, segmentName(id));
  }

  /** Undefined while there is only the active one. */
  get oldestSealed(): Segment | undefined {
    return this.segments.length > 1 ? this.segments[0] : undefined;
  }

  get length(): number {
    return this.segments.length;
  }

  /** On disk. */
  get bytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.size, 0);
  }

  /** Seals the active segment, which is durable, and goes on in the next. */
  add(segment: Segment): void {
    assert(segment.id === this.active.id + 1, `segment ${segment.id} after ${this.active.id}`);
    this.segments.push(segment);
  }

  /**
   * Drops sealed segments that nobody uses, oldest first. Each name is gone durably before the next
   * is removed: a power cut must not leave a hole in the sequence.
   */
  async dropUnused(use: SegmentUse): Promise<void> {
    for (;;) {
      const oldest = this.oldestSealed;
      if (oldest === undefined || use.of(oldest.id) > 0) return;
      this.segments.shift();
      await this.disk.remove(oldest.path);
      await this.disk.syncDirectory(this.directory);
      oldest.closing = true;
      await closeUnread(oldest);
    }
  }

  /**
   * The frames at these places, verified. Throws RaftLogDamaged naming file and offset: bytes that
   * fail their checksum are never served. The places must be live when this is called; they may be
   * dropped while it runs.
   */
  async readFrames(places: readonly FramePlace[]): Promise<readonly Frame[]> {
    const spans = spansOf(places).map((span) => ({ span, segment: this.segmentOf(span) }));
    for (const { segment } of spans) segment.readers++;
    try {
      const frames: Frame[] = [];
      for (const { span, segment } of spans) frames.push(...(await readSpan(segment, span)));
      return frames;
    } finally {
      for (const { segment } of spans) {
        segment.readers--;
        await closeUnread(segment);
      }
    }
  }

  /** Closes the files; those being read are closed by their last reader. */
  async close(): Promise<void> {
    for (const segment of this.segments) {
      segment.closing = true;
      await closeUnread(segment);
    }
  }

  private segmentOf(span: Span): Segment {
    const segment = this.segments[span.segment - (this.segments[0]?.id ?? 0)];
    assert(segment?.id === span.segment, `no segment ${span.segment}`);
    return segment;
  }
}

/** Frames that are read in one go. */
interface Span {
  readonly segment: number;
  readonly start: number;
  end: number;
  /** Of the frames wanted; the rest belongs to other groups. */
  wantedBytes: number;
  readonly places: FramePlace[];
}

async function closeUnread(segment: Segment): Promise<void> {
  if (segment.closing && segment.readers === 0) await segment.file.close();
}

function spansOf(places: readonly FramePlace[]): readonly Span[] {
  const spans: Span[] = [];
  for (const place of places) {
    const { segment, offset, length } = place;
    const last = spans.at(-1);
    const end = offset + length;
    const joins = last?.segment === segment && offset >= last.end;
    if (joins && end - last.start <= spanBytesMax) {
      last.end = end;
      last.wantedBytes += length;
      last.places.push(place);
    } else {
      spans.push({ segment, start: offset, end, wantedBytes: length, places: [place] });
    }
  }
  return spans;
}

async function readSpan(segment: Segment, span: Span): Promise<readonly Frame[]> {
  const bytes = await segment.file.read(span.start, span.end - span.start);
  const seed = segmentSeed(segment.id);
  // With many groups a span is mostly frames of others: the payloads must not keep it alive.
  const sparse = 2 * span.wantedBytes < bytes.length;
  return span.places.map(({ offset, length }) => {
    const frame = readFrame(bytes, { offset, base: span.start, seed });
    if (typeof frame === 'string' || frame.length !== length || length < frameHeaderBytes) {
      const reason = typeof frame === 'string' ? frame : `a frame of ${frame.length} bytes`;
      throw new RaftLogDamaged({ file: segment.path, offset, reason });
    }
    return sparse ? { ...frame, payload: Buffer.from(frame.payload) } : frame;
  });
}
