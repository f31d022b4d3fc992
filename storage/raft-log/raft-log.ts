/**
 * The Raft log of a node: one append-only segmented file sequence shared by all groups, with one
 * write and one fdatasync per turn for everything the turn gathered.
 */
import type {
  Entry, GroupId, HardState, LogIndex, MembershipAt, ReplicaId, SnapshotMeta, TermRun, Membership,
} from '../../raft/index.js';

export interface RaftLogOptions {
  /** Created if missing; its parent directory must exist. */
  readonly directory: string;
  /** A segment is sealed when it has grown past this. */
  readonly segmentBytes: number;
  /** Entries of a group's tail kept for its first window, bytes. */
  readonly tailBytesMax: number;
  /** Segments a lagging group may hold back before its live entries are copied forward. */
  readonly heldSegmentsMax: number;
  /** Called once, with the first failed write or sync; the node must stop (never retried). */
  readonly onFailure: (error: Error) => void;
}

/** What recovery found of one group. */
export interface RecoveredGroup {
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly hardState: HardState;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly termRuns: readonly TermRun[];
  readonly memberships: readonly MembershipAt[];
  readonly tail: readonly Entry[];
  /** The durable applied index the last compaction relied on (rule D13). */
  readonly appliedDurable: LogIndex;
}

/** One group's share of a turn, all of it durable together. */
export interface LogWrite {
  readonly group: GroupId;
  readonly hardState?: HardState | undefined;
  /** Contiguous; entries at or above the first index are replaced. */
  readonly entries?: readonly Entry[] | undefined;
  /** Empties the log; it then begins after this snapshot (written before `entries`). */
  readonly reset?: SnapshotMeta | undefined;
}

export declare class RaftLog {
  /** Throws RaftLogDamaged (file, offset, remedy) and leaves the files untouched. */
  static open(options: RaftLogOptions): Promise<RaftLog>;
  readonly recovered: readonly RecoveredGroup[];
  /** Floors of removed replicas: a replica at or below its group's floor must not be created. */
  removedFloor(group: GroupId): ReplicaId;
  /** A new, empty replica; durable on return. Refuses ids at or below the removed floor (D01). */
  createGroup(options: { readonly group: GroupId; readonly replica: ReplicaId; readonly membership: Membership }): Promise<void>;
  /** Forgets a group and raises its floor; durable on return. */
  removeGroup(group: GroupId): Promise<void>;
  /** Joins this turn's write. `onDurable` is called in the order of the appends. */
  append(write: LogWrite, onDurable: () => void): void;
  /** At least one entry if there is any, then up to `bytesMax`. Empty if compacted away. */
  read(range: { readonly group: GroupId; readonly from: LogIndex; readonly last: LogIndex; readonly bytesMax: number }): Promise<readonly Entry[]>;
  /** Drops entries below `firstIndex`, which must be at most `appliedDurable` + 1. Not synced by itself. */
  compact(mark: { readonly group: GroupId; readonly firstIndex: LogIndex; readonly appliedDurable: LogIndex }): void;
  /** Bytes on disk, segments, and sizes of the last writes, for metrics. */
  statistics(): { readonly bytes: number; readonly segments: number; readonly syncs: number; readonly writtenBytes: number };
  /** Waits for what was appended, then closes. */
  close(): Promise<void>;
}
