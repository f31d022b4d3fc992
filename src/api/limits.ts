/**
 * The sizes a request may have. One documented limit each; an error names the limit and the size.
 */
export interface ApiLimits {
  readonly keyBytesMax: number;
  readonly valueBytesMax: number;
  /** A whole request message, also each message of a stream. */
  readonly requestBytesMax: number;
  readonly batchLengthMax: number;
  /** A call that brings steps of a migration, and what they are in the target's log. */
  readonly stepBytesMax: number;
  /** Bytes of replies a connection may leave unread before it is closed. */
  readonly unreadBytesMax: number;
  /** Calls in flight on one connection. */
  readonly streamsMax: number;
  /** Of Topology.Watch on this node. */
  readonly watchersMax: number;
  /** Used when a call brings no deadline, milliseconds. */
  readonly timeoutMsDefault: number;
  /** A longer timeout is cut to this, milliseconds. */
  readonly timeoutMsMax: number;
}

const MiB = 1024 * 1024;
/** What a record on its way has beside its key and value. */
const recordHeadBytes = 64;
/** The largest record of a session (1024 results of 4 KiB), and a piece that was full before the change came. */
const beyondBytes = 8 * MiB;
/** A frame between nodes has room for one entry of this size (src/transport/frame.ts). */
const entryBytesLimit = 288 * MiB;

/**
 * A piece of a migration has one whole change at least: a request as large as it may be, with a record for
 * each of its operations.
 */
export function stepBytesMax(requestBytesMax: number, batchLengthMax: number): number {
  const changeBytes = requestBytesMax + batchLengthMax * recordHeadBytes;
  return Math.min(changeBytes + beyondBytes, entryBytesLimit);
}

export const defaultLimits: ApiLimits = {
  keyBytesMax: 4 * 1024,
  valueBytesMax: 1024 * 1024,
  requestBytesMax: 4 * MiB,
  batchLengthMax: 10_000,
  stepBytesMax: stepBytesMax(4 * MiB, 10_000),
  unreadBytesMax: 32 * 1024 * 1024,
  streamsMax: 1024,
  watchersMax: 1000,
  timeoutMsDefault: 10_000,
  timeoutMsMax: 120_000,
};
