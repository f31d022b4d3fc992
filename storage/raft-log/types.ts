/**
 * What goes into the Raft log of a node and what comes out of it after a restart.
 */
import type {
  Entry,
  Generation,
  GroupId,
  HardState,
  LogIndex,
  MembershipAt,
  ReplicaId,
  SnapshotMeta,
  TermRun,
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
  /** For metrics: called with each synced write's bytes; what it returns, when that is durable. */
  readonly onWrite?: (bytes: number) => () => void;
}

/** What recovery found of one group. */
export interface RecoveredGroup {
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly generation: Generation;
  /** The commit index is a hint, and never above `lastIndex` here. */
  readonly hardState: HardState;
  readonly firstIndex: LogIndex;
  /** `firstIndex - 1` if the log is empty. */
  readonly lastIndex: LogIndex;
  /** Terms of [firstIndex - 1, lastIndex]; the first run begins at firstIndex - 1. */
  readonly termRuns: readonly TermRun[];
  /** Ascending; the first is the one in force at firstIndex - 1. */
  readonly memberships: readonly MembershipAt[];
  /** A suffix of the log; its payloads are at most `tailBytesMax` bytes. */
  readonly tail: readonly Entry[];
  /**
   * The durable applied index that the last compaction (or reset) relied on: a state machine that
   * has applied less has lost data and must be rebuilt by a snapshot (rule D13).
   */
  readonly appliedDurable: LogIndex;
}

/** One group's share of a turn, all of it durable together. */
export interface LogWrite {
  readonly group: GroupId;
  /** Raises the replica's generation: forced recovery alone does (rule D07). */
  readonly generation?: Generation | undefined;
  readonly hardState?: HardState | undefined;
  /** Contiguous; entries at or above the first index are replaced. */
  readonly entries?: readonly Entry[] | undefined;
  /** Empties the log; it then begins after this snapshot (written before `entries`). */
  readonly reset?: SnapshotMeta | undefined;
}

/** Figures of an open log. */
export interface RaftLogStatistics {
  /** Bytes in the segments that exist now. */
  readonly bytes: number;
  /** Those of them in frames that hold entries somebody still needs. */
  readonly liveBytes: number;
  readonly segments: number;
  /** Synced writes since the log was opened. */
  readonly syncs: number;
  /** Bytes written since the log was opened, relocated ones included. */
  readonly writtenBytes: number;
  /** Size of the last synced write, bytes. */
  readonly lastWriteBytes: number;
}
