/**
 * A unary call as both doors hand it to its implementation: bytes in, bytes or a KvError out. A
 * callback and no Promise, because this is the hot path of every put and get.
 */
import type { KvError } from '../errors.js';

/** What a call brings besides its request. */
export interface CallContext {
  /** Monotonic ms of the node's clock; the door ends the call then, whatever happens inside. */
  readonly deadlineMs: number;
  /** Came from another node: is not forwarded a second time (rule D41). */
  readonly forwarded: boolean;
  /** The door stopped waiting (deadline, cancelled, connection gone). */
  readonly ended: boolean;
  /**
   * Set once the request may have had an effect: a deadline that passes later has an unknown
   * outcome (rule D04). An implementation sets it just before it proposes or forwards.
   */
  mayHaveApplied: boolean;
}

export type UnaryDone = (error: KvError | undefined, reply: Uint8Array | undefined) => void;

/** Calls `done` exactly once, perhaps synchronously. Must not throw. */
export type UnaryMethod = (request: Uint8Array, call: CallContext, done: UnaryDone) => void;

/** Implementations by path, e.g. "/quorate.v1.KV/Put". */
export type UnaryMethods = ReadonlyMap<string, UnaryMethod>;

/** Set by a forwarding node; a request that carries it is answered or refused, never forwarded. */
export const forwardedHeader = 'x-quorate-forwarded';

/** The one call that may be larger than a client's request: `ApiLimits.stepBytesMax`. */
export const stepMigrationPath = '/quorate.v1.Admin/StepMigration';
