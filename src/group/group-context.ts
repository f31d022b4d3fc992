/**
 * What the parts of a group see of one another and of the node: the driver provides it, the applier
 * and the snapshots work on it.
 */
import type {
  Entry,
  GroupId,
  LogIndex,
  NodeId,
  RawNode,
  ReplicaId,
  SnapshotMeta,
  Term,
} from '../../raft/index.js';
import type { Engine, RaftLog } from '../../storage/index.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { Transport } from '../transport/transport.js';
import type { Places } from './places.js';
import type { StateMachine } from './state-machine.js';

/** What all groups of a node share. */
export interface DriverSurroundings {
  readonly log: RaftLog;
  readonly engine: Engine;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly tickMs: number;
  readonly logLine: Log;
  readonly limits: GroupLimits;
  /** Of this start of the node: no context of a read that begins so was ever used before (D08). */
  readonly readContexts: string;
  /** There is a live connection to the node, or it is this one. */
  readonly isConnected: (node: NodeId) => boolean;
  /** This group has something to do at the end of this turn. */
  readonly wake: () => void;
  /** Nothing may be acknowledged any more: the node stops. */
  readonly onFatal: (error: Error) => void;
  /** Median of the wall clocks of these nodes, this one included, ms since 1970. */
  readonly clockMedianMs: (nodes: readonly NodeId[]) => number;
}

export interface GroupLimits {
  readonly proposalsMax: number;
  readonly readsMax: number;
  /** Applied bytes after which the applied index is made durable. */
  readonly durableMarkBytes: number;
  /** Log kept behind the applied index for slow followers, bytes. */
  readonly logKeptBytes: number;
}

/** One group, as its applier and its snapshots see it. */
export interface GroupContext<R> {
  readonly id: GroupId;
  readonly replica: ReplicaId;
  /** First bytes of all keys of this replica in the engine. */
  readonly prefix: Uint8Array;
  readonly node: RawNode;
  readonly machine: StateMachine<R>;
  readonly surroundings: DriverSurroundings;
  readonly isLeader: boolean;
  readonly term: Term;
  readonly appliedIndex: LogIndex;
  /** The replica is closed, and nothing of it may touch the core any more. */
  readonly closed: boolean;
  readonly places: Places;
  /** Resolves when no entry is being applied. */
  applierIdle(): Promise<void>;
  /** The batch of `entries` is in the engine, with one result for each command among them. */
  onApplied(entries: readonly Entry[], results: readonly R[]): void;
  /** A snapshot is being installed: from here on the state is only a part of one. */
  onInstalling(): void;
  /** The state is the snapshot's. */
  onInstalled(snapshot: SnapshotMeta): void;
  /** Work that nobody waits for; if it fails, the node stops. */
  background(work: Promise<void>): void;
  /** The node stops. */
  fatal(error: unknown): void;
}
