/**
 * Entries of one group back from the file, every frame verified.
 */
import type { Entry, GroupId, LogIndex, ReplicaId } from '../../raft/index.js';
import { RaftLogDamaged } from './failure.js';
import type { Frame } from './frame.js';
import type { FramePlace } from './frame-runs.js';
import type { GroupIndex } from './group-index.js';
import { decodeRecord } from './record.js';
import type { SegmentSet } from './segment-set.js';

export interface EntryRange {
  readonly from: LogIndex;
  /** Inclusive. */
  readonly last: LogIndex;
  /** Of payloads; the first entry may be larger. */
  readonly bytesMax: number;
}

/** Empty when `from` is below the first index or above the last. */
export async function readEntries(
  segments: SegmentSet,
  index: GroupIndex,
  range: EntryRange,
): Promise<readonly Entry[]> {
  if (range.from < index.firstIndex || range.from > index.lastIndex) return [];
  // Taken before the first await: the index may change while the file is read, the bytes do not.
  const plan = planOf(index, range);
  const frames = await segments.readFrames(plan.map(({ place }) => place));
  const entries: Entry[] = [];
  let bytes = 0;
  for (const [i, { place, from, last }] of plan.entries()) {
    for (const entry of entriesIn(frames[i], {
      file: segments.pathOf(place.segment),
      place,
      owner: index,
    })) {
      if (entry.index < from || entry.index > last) continue;
      bytes += entry.data.length;
      if (entries.length > 0 && bytes > range.bytesMax) return entries;
      entries.push(entry);
    }
  }
  return entries;
}

interface PlannedFrame {
  readonly place: FramePlace;
  readonly from: LogIndex;
  readonly last: LogIndex;
}

/** Frames until their bytes exceed the limit; the first always. */
function planOf(index: GroupIndex, range: EntryRange): readonly PlannedFrame[] {
  const { runs } = index;
  const planned: PlannedFrame[] = [];
  const end = Math.min(range.last, index.lastIndex);
  let bytes = 0;
  for (let i = runs.find(range.from); i < runs.length && runs.fromAt(i) <= end; i++) {
    const place = runs.placeAt(i);
    const from = Math.max(runs.fromAt(i), range.from);
    const runLast = i + 1 < runs.length ? runs.fromAt(i + 1) - 1 : index.lastIndex;
    planned.push({ place, from, last: Math.min(runLast, end) });
    bytes += place.length;
    if (bytes > range.bytesMax) break;
  }
  return planned;
}

/** The entries a verified frame holds for this replica. Throws RaftLogDamaged if it has none. */
export function entriesIn(
  frame: Frame | undefined,
  expected: {
    readonly file: string;
    readonly place: FramePlace;
    readonly owner: { readonly group: GroupId; readonly replica: ReplicaId };
  },
): readonly Entry[] {
  const { file, place, owner } = expected;
  const record = frame && decodeRecord(frame.kind, frame.payload);
  const holds = record?.kind === 'append' || record?.kind === 'relocation';
  if (holds && record.group === owner.group && record.replica === owner.replica) {
    return record.entries;
  }
  const reason = `no entries of group ${owner.group}, replica ${owner.replica}`;
  throw new RaftLogDamaged({ file, offset: place.offset, reason });
}
