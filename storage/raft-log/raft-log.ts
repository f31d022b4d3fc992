/**
 * The Raft log of a node: one append-only segmented file sequence shared by all groups, with one
 * write and one sync per turn for everything the turn gathered. `storage/README.md` has the layout
 * of records and the decisions of recovery.
 */
import assert from 'node:assert/strict';
import type { Entry, Generation, GroupId, LogIndex, Membership } from '../../raft/index.js';
import type { ReplicaId } from '../../raft/index.js';
import { GroupAdmission, recordsOf } from './admission.js';
import { realDisk } from './disk.js';
import type { Disk } from './disk.js';
import { readEntries } from './entry-reader.js';
import { RaftLogDamaged, RaftLogFailed } from './failure.js';
import { emptyGroup } from './group-index.js';
import type { GroupIndex } from './group-index.js';
import type { LogState } from './log-state.js';
import type { GroupCreatedRecord, LogRecord } from './record.js';
import { recoverLog } from './recovery.js';
import type { RecoveredLog } from './recovery.js';
import { emptySegment, relocationDue } from './relocation.js';
import type { SegmentSet } from './segment-set.js';
import type { LogWrite, RaftLogOptions, RaftLogStatistics, RecoveredGroup } from './types.js';
import { LogWriter } from './writer.js';

/** What the simulator puts in place of the machine. */
export interface RaftLogSurroundings {
  readonly disk: Disk;
  /** Runs a function when the code that runs now is done, or later: what it appends goes into one write. */
  readonly schedule: (run: () => void) => void;
}

export const realMachine: RaftLogSurroundings = {
  disk: realDisk,
  schedule: queueMicrotask,
};

export class RaftLog {
  private recoveredGroups: readonly RecoveredGroup[];
  private readonly options: RaftLogOptions;
  private readonly segments: SegmentSet;
  private readonly state: LogState;
  private readonly writer: LogWriter;
  /** Groups as the appends leave them; `state` has them as they are durable. */
  private readonly admissions = new Map<GroupId, GroupAdmission>();
  /** The floors that removals under way will leave. */
  private readonly floors = new Map<GroupId, ReplicaId>();
  private upkeep: Promise<void> | undefined;
  private closed = false;

  private constructor(
    options: RaftLogOptions,
    log: RecoveredLog & { readonly recovered: readonly RecoveredGroup[] },
    schedule: (run: () => void) => void,
  ) {
    this.options = options;
    this.recoveredGroups = log.recovered;
    this.segments = log.segments;
    this.state = log.state;
    for (const index of log.state.allGroups()) {
      this.admissions.set(index.group, new GroupAdmission(index.checkpoint()));
    }
    this.writer = new LogWriter({
      segments: log.segments,
      state: log.state,
      writeNumber: log.writeNumber,
      segmentBytes: options.segmentBytes,
      schedule,
      onTurn: () => {
        this.startUpkeep();
      },
      onFailure: (cause) => this.failed(cause),
      onWrite: options.onWrite,
    });
  }

  /**
   * Recovers what is in the directory; everything recovered is durable on return. Throws
   * RaftLogDamaged (file, offset, remedy) and leaves the files untouched.
   */
  static async open(
    options: RaftLogOptions,
    surroundings: RaftLogSurroundings = realMachine,
  ): Promise<RaftLog> {
    assertOptions(options);
    const log = await recoverLog(surroundings.disk, options.directory);
    try {
      const recovered: RecoveredGroup[] = [];
      for (const index of log.state.allGroups()) {
        recovered.push(await recoveredGroup(log.segments, index, options.tailBytesMax));
      }
      return new RaftLog(options, { ...log, recovered }, surroundings.schedule);
    } catch (error) {
      await log.segments.close();
      throw error;
    }
  }

  /** What `open` found, ascending by group; empty after `forgetRecovered`. */
  get recovered(): readonly RecoveredGroup[] {
    return this.recoveredGroups;
  }

  /** Gives the memory of the recovered tails back, once every group was started from them. */
  forgetRecovered(): void {
    this.recoveredGroups = [];
  }

  /** Floors of removed replicas: a replica at or below its group's floor must not be created. */
  removedFloor(group: GroupId): ReplicaId {
    return this.floors.get(group) ?? this.state.removedFloor(group);
  }

  /**
   * A new, empty replica, of generation 0 unless told; durable on return. Refuses ids at or below the
   * removed floor (D01).
   */
  async createGroup(options: {
    readonly group: GroupId;
    readonly replica: ReplicaId;
    readonly membership: Membership;
    readonly generation?: Generation;
  }): Promise<void> {
    this.assertOpen();
    const { group, replica } = options;
    const floor = this.removedFloor(group);
    if (replica <= floor) {
      throw new Error(`group ${group}: replica ${replica} was removed here (floor ${floor})`);
    }
    if (this.admissions.has(group)) throw new Error(`group ${group} exists already`);
    const record: GroupCreatedRecord = { generation: 0, ...options, kind: 'groupCreated' };
    const admission = new GroupAdmission(emptyGroup(record));
    this.admissions.set(group, admission);
    admission.underWay++;
    await this.durable([record]);
    admission.underWay--;
  }

  /** Forgets a group and raises its floor; durable on return. */
  async removeGroup(group: GroupId): Promise<void> {
    this.assertOpen();
    const { replica } = this.admission(group);
    this.admissions.delete(group);
    this.recoveredGroups = this.recoveredGroups.filter((each) => each.group !== group);
    this.floors.set(group, replica);
    await this.durable([{ kind: 'groupRemoved', group, replica }]);
  }

  /**
   * Joins this turn's write. `onDurable` is called in the order of the appends, never within this
   * call, and never after a failure. The payloads must not be touched until then.
   */
  append(write: LogWrite, onDurable: () => void): void {
    this.assertOpen();
    const admission = this.admission(write.group);
    admission.admit(write);
    const records = recordsOf(write, admission.replica);
    admission.underWay++;
    this.writer.enqueue({
      records,
      bytes: payloadBytes(write.entries),
      onDurable: () => {
        admission.underWay--;
        onDurable();
      },
    });
  }

  /**
   * At least one entry if there is any, then up to `bytesMax` of payloads. Empty if compacted away.
   * Waits for the group's writes under way, so that it never sees what they replace. Rejects, and
   * the log fails, when the file does not hold what was written.
   */
  async read(range: {
    readonly group: GroupId;
    readonly from: LogIndex;
    readonly last: LogIndex;
    readonly bytesMax: number;
  }): Promise<readonly Entry[]> {
    this.assertOpen();
    const admission = this.admissions.get(range.group);
    if ((admission?.underWay ?? 0) > 0) await this.durable([]);
    // Meanwhile the group may have been removed, and made anew.
    const index = this.state.group(range.group);
    if (index === undefined || index.replica !== admission?.replica) return [];
    try {
      return await readEntries(this.segments, index, range);
    } catch (error) {
      this.writer.fail(error);
      throw error;
    }
  }

  /**
   * Drops entries below `firstIndex`, which must be at most `appliedDurable` + 1. Durable with some
   * later turn; until then a restart finds the entries again.
   */
  compact(mark: {
    readonly group: GroupId;
    readonly firstIndex: LogIndex;
    readonly appliedDurable: LogIndex;
  }): void {
    this.assertOpen();
    const admission = this.admission(mark.group);
    if (!admission.admitCompaction(mark)) return;
    const record = { ...mark, kind: 'compaction', replica: admission.replica } as const;
    this.writer.enqueue({ records: [record], bytes: 0, onDurable: () => undefined });
  }

  /** For metrics; cheap. */
  statistics(): RaftLogStatistics {
    const { syncs, writtenBytes, lastWriteBytes } = this.writer;
    return {
      bytes: this.segments.bytes,
      liveBytes: this.state.use.bytes,
      segments: this.segments.length,
      syncs,
      writtenBytes,
      lastWriteBytes,
    };
  }

  /**
   * Waits for what was appended, marks the log as closed, and closes its files. After a failure,
   * which `onFailure` has reported, it only closes them.
   */
  async close(): Promise<void> {
    this.assertOpen();
    this.closed = true;
    await this.upkeep;
    await new Promise<void>((resolve) => {
      const onLost = (): void => {
        resolve();
      };
      this.writer.enqueue({ records: [{ kind: 'closed' }], bytes: 0, onDurable: resolve, onLost });
    });
    await this.writer.idle();
    await this.segments.close();
  }

  /** Resolves when these records, and everything appended before them, are durable. */
  private durable(records: readonly LogRecord[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.writer.enqueue({ records, bytes: 0, onDurable: resolve, onLost: reject });
    });
  }

  private admission(group: GroupId): GroupAdmission {
    const admission = this.admissions.get(group);
    assert(admission !== undefined, `no group ${group} in the Raft log`);
    return admission;
  }

  private assertOpen(): void {
    assert(!this.closed, 'the Raft log is closed');
  }

  /** Drops and empties old segments beside the writes; one such job at a time. */
  private startUpkeep(): void {
    if (this.closed || this.upkeep !== undefined || !this.hasUpkeep()) return;
    this.upkeep = this.doUpkeep()
      .catch((error: unknown) => {
        this.writer.fail(error);
      })
      .finally(() => {
        this.upkeep = undefined;
      });
  }

  private hasUpkeep(): boolean {
    const { segments, state } = this;
    const oldest = segments.oldestSealed;
    if (oldest === undefined) return false;
    return state.use.of(oldest.id) === 0 || this.relocationDue();
  }

  private relocationDue(): boolean {
    return relocationDue(this.segments, this.state, this.options.heldSegmentsMax);
  }

  private async doUpkeep(): Promise<void> {
    const { segments, state, writer } = this;
    while (this.hasUpkeep() && !this.closed) {
      const oldest = segments.oldestSealed;
      if (oldest !== undefined && state.use.of(oldest.id) > 0) {
        await emptySegment(oldest, { segments, state, writer });
      }
      await segments.dropUnused(state.use);
    }
  }

  private failed(cause: unknown): Error {
    const known = cause instanceof RaftLogDamaged;
    const error = known ? cause : new RaftLogFailed(this.options.directory, cause);
    this.options.onFailure(error);
    return error;
  }
}

function assertOptions(options: RaftLogOptions): void {
  const { segmentBytes, tailBytesMax, heldSegmentsMax } = options;
  // 2^31 leaves a segment half of its 32-bit offsets for the write that crosses the limit.
  assert(segmentBytes > 0 && segmentBytes <= 2 ** 31, `segmentBytes: ${segmentBytes}`);
  assert(tailBytesMax >= 0, `tailBytesMax: ${tailBytesMax}`);
  assert(heldSegmentsMax >= 1, `heldSegmentsMax: ${heldSegmentsMax}`);
}

function payloadBytes(entries: readonly Entry[] | undefined): number {
  let bytes = 0;
  if (entries !== undefined) for (const entry of entries) bytes += entry.data.length;
  return bytes;
}

async function recoveredGroup(
  segments: SegmentSet,
  index: GroupIndex,
  tailBytesMax: number,
): Promise<RecoveredGroup> {
  const state = index.checkpoint();
  const { hardState, lastIndex } = state;
  const commit = Math.min(hardState.commit, lastIndex);
  const tail = await readTail(segments, index, tailBytesMax);
  return { ...state, hardState: { ...hardState, commit }, tail };
}

/** The longest suffix of the log whose payloads fit. */
async function readTail(
  segments: SegmentSet,
  index: GroupIndex,
  bytesMax: number,
): Promise<readonly Entry[]> {
  const { runs, lastIndex } = index;
  let first = runs.length;
  let frameBytes = 0;
  while (first > 0 && frameBytes <= bytesMax) {
    first--;
    frameBytes += runs.placeAt(first).length;
  }
  if (first === runs.length) return [];
  const range = { from: runs.fromAt(first), last: lastIndex, bytesMax: Infinity };
  const entries = await readEntries(segments, index, range);
  let begin = entries.length;
  let bytes = 0;
  while (begin > 0) {
    bytes += entries[begin - 1]?.data.length ?? 0;
    if (bytes > bytesMax) break;
    begin--;
  }
  return entries.slice(begin);
}
