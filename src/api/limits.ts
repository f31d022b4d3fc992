/**
 * The sizes a request may have. One documented limit each; an error names the limit and the size.
 */
export interface ApiLimits {
  readonly keyBytesMax: number;
  readonly valueBytesMax: number;
  /** A whole request message, also each message of a stream. */
  readonly requestBytesMax: number;
  readonly batchLengthMax: number;
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

export const defaultLimits: ApiLimits = {
  keyBytesMax: 4 * 1024,
  valueBytesMax: 1024 * 1024,
  requestBytesMax: 4 * 1024 * 1024,
  batchLengthMax: 10_000,
  unreadBytesMax: 32 * 1024 * 1024,
  streamsMax: 1024,
  watchersMax: 1000,
  timeoutMsDefault: 10_000,
  timeoutMsMax: 120_000,
};
