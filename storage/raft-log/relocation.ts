/**
 * Copies the live entries of the oldest segment forward, so that a group that lags cannot hold all
 * segments behind it (rule D10).
 *
 * It runs beside the appends: a piece is read, then offered to the writer, which asks for the
 * records only when their turn begins. What was truncated, compacted or removed meanwhile is left
 * out then. The old segment is dropped after the last piece is durable, by whoever drops unused
 * segments.
 */
import assert from 'node:assert/strict';
import type { Entry, GroupId, LogIndex, ReplicaId } from '../../raft/index.js';
import { entriesIn } from './entry-reader.js';
import type { FramePlace } from './frame-runs.js';
import type { LogState } from './log-state.js';
import { entryBytes } from './record.js';
import type { RelocationRecord } from './record.js';
import type { Segment } from './segment.js';
import type { SegmentSet } from './segment-set.js';
import type { LogWriter } from './writer.js';

/** Read and written in one go: what a turn of appends may have to wait for, about 2 ms. */
const pieceBytesMax = 1_048_576;

/** A live frame of the segment being emptied. */
interface LiveFrame {
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly from: LogIndex;
  readonly place: FramePlace;
}

type ReadFrame = LiveFrame & { readonly entries: readonly Entry[] };

/**
 * Whether the oldest segment should be emptied: more are held than wished, and at least half of
 * what is on disk is not needed. Without the second condition a log whose entries are all needed
 * would be copied for ever; with it, a byte is copied at most once per byte that is freed.
 */
export function relocationDue(
  segments: SegmentSet,
  state: LogState,
  heldSegmentsMax: number,
): boolean {
  return segments.length - 1 > heldSegmentsMax && segments.bytes >= 2 * state.use.bytes;
}

/** Resolves when nothing live is left in `oldest`; rejects if the log fails. */
export async function emptySegment(
  oldest: Segment,
  log: {
    readonly segments: SegmentSet;
    readonly state: LogState;
    readonly writer: LogWriter;
  },
): Promise<void> {
  const { segments, state, writer } = log;
  for (const piece of piecesOf(liveFrames(state, oldest.id))) {
    const still = piece.filter((frame) => isLive(state, frame));
    const frames = await segments.readFrames(still.map(({ place }) => place));
    const read = still.map((frame, i) => ({
      ...frame,
      entries: entriesIn(frames[i], { file: oldest.path, place: frame.place, owner: frame }),
    }));
    await new Promise<void>((resolve, reject) => {
      const records = (): readonly RelocationRecord[] => relocationOf(state, read);
      writer.enqueueFirst({ records, onDurable: resolve, onLost: reject });
    });
  }
  assert(state.use.of(oldest.id) === 0, `segment ${oldest.id} is still used after its relocation`);
}

function liveFrames(state: LogState, segment: number): readonly LiveFrame[] {
  const live: LiveFrame[] = [];
  for (const { group, replica, runs } of state.allGroups()) {
    for (let i = 0; i < runs.length; i++) {
      if (runs.segmentAt(i) !== segment) continue;
      live.push({ group, replica, from: runs.fromAt(i), place: runs.placeAt(i) });
    }
  }
  return live;
}

function piecesOf(frames: readonly LiveFrame[]): readonly (readonly LiveFrame[])[] {
  const pieces: LiveFrame[][] = [];
  let bytes = Infinity;
  for (const frame of frames) {
    if (bytes + frame.place.length > pieceBytesMax) {
      pieces.push([]);
      bytes = 0;
    }
    pieces.at(-1)?.push(frame);
    bytes += frame.place.length;
  }
  return pieces;
}

/** The entries this frame is still the place of; undefined if there are none. */
function liveRange(
  state: LogState,
  frame: LiveFrame,
): { readonly from: LogIndex; readonly last: LogIndex } | undefined {
  const index = state.group(frame.group);
  if (index?.replica !== frame.replica) return undefined;
  const from = Math.max(frame.from, index.firstIndex);
  const { runs } = index;
  const i = from > index.lastIndex ? -1 : runs.find(from);
  if (i < 0) return undefined;
  const { segment, offset } = runs.placeAt(i);
  if (segment !== frame.place.segment || offset !== frame.place.offset) return undefined;
  return { from, last: i + 1 < runs.length ? runs.fromAt(i + 1) - 1 : index.lastIndex };
}

function isLive(state: LogState, frame: LiveFrame): boolean {
  return liveRange(state, frame) !== undefined;
}

/** What of these frames is live now; neighbours of one group go into one record. */
function relocationOf(state: LogState, frames: readonly ReadFrame[]): readonly RelocationRecord[] {
  const records: { group: GroupId; replica: ReplicaId; entries: Entry[] }[] = [];
  let bytes = 0;
  for (const frame of frames) {
    const range = liveRange(state, frame);
    if (range === undefined) continue;
    const { group, replica } = frame;
    const entries = frame.entries.filter((e) => e.index >= range.from && e.index <= range.last);
    const added = entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
    const last = records.at(-1);
    const joins = last?.group === group && last.entries.at(-1)?.index === range.from - 1;
    if (joins && bytes + added <= joinedBytesMax) {
      last.entries.push(...entries);
      bytes += added;
    } else {
      records.push({ group, replica, entries });
      bytes = added;
    }
  }
  return records.map((record) => ({ kind: 'relocation', ...record }));
}

/** Small enough that reading one entry of a joined frame stays cheap. */
const joinedBytesMax = 65_536;
