/**
 * Messages between nodes. Two implementations: TCP, and one in memory for tests and simulation.
 *
 * Delivery is at most once and may reorder between connections; Raft resends. Everything sent to
 * one node in one turn of the event loop leaves in one frame with one write.
 */
import type {
  Generation,
  GroupId,
  Message,
  NodeId,
  ReplicaId,
  SnapshotMeta,
  Term,
} from '../../raft/index.js';

export interface GroupMessage {
  readonly group: GroupId;
  /** The sender's (rule D07). */
  readonly generation: Generation;
  readonly message: Message;
}

/** What goes before the bytes of a snapshot. */
export interface SnapshotHeader {
  readonly group: GroupId;
  /** The sender's (rule D07). */
  readonly generation: Generation;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly term: Term;
  readonly snapshot: SnapshotMeta;
}

/** A snapshot coming in. Chunks are checksummed; a broken transfer throws out of the iteration. */
export interface IncomingSnapshot {
  readonly header: SnapshotHeader;
  readonly node: NodeId;
  /** Pull-driven: not reading the next chunk is the flow control. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Tells the sender how it ended; exactly once. `reason` for logs. */
  finish(result: { readonly ok: boolean; readonly reason?: string }): void;
}

/** Thrown out of `IncomingSnapshot.chunks` when the transfer broke. */
export class SnapshotInterrupted extends Error {
  override readonly name = 'SnapshotInterrupted';
}

export interface TransportReceiver {
  /** All messages of one frame, in the order in which they were sent. Must not throw. */
  onMessages(from: NodeId, messages: readonly GroupMessage[]): void;
  onSnapshot(incoming: IncomingSnapshot): void;
  /** The connection to a node came up or broke. */
  onConnection(node: NodeId, connected: boolean): void;
}

export interface PeerState {
  readonly node: NodeId;
  readonly connected: boolean;
  readonly roundTripUs: number;
  /** The peer's wall clock minus ours in ms, estimated from the last probe; undefined: unknown. */
  readonly clockOffsetMs: number | undefined;
}

export interface Transport {
  /** Begins to listen and to connect. Rejects with a clear error when the port is taken. */
  start(receiver: TransportReceiver): Promise<void>;
  /**
   * Queues a message for the frame that leaves when the running code is done. A full queue, or no
   * connection, drops it (counted): Raft resends. Never addressed to this node itself.
   */
  send(to: NodeId, message: GroupMessage): void;
  /**
   * Sends a snapshot; resolves with the receiver's verdict, or `ok: false` when the connection
   * broke. Chunks are pulled only as fast as the receiver takes them.
   */
  sendSnapshot(
    to: NodeId,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<{ readonly ok: boolean; readonly reason: string }>;
  peers(): readonly PeerState[];
  /** Figures for metrics: frames, messages, bytes in and out, drops by reason, queue length. */
  statistics(): Readonly<Record<string, number>>;
  close(): Promise<void>;
}
