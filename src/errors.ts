/**
 * The one error that leaves the node: a stable code, what a failed write may have done, and what
 * the client can do about it.
 */

/** `notApplied`: surely no effect. `unknown`: it may have happened, or may still happen. */
export type Outcome = 'notApplied' | 'unknown';

/**
 * Stable codes; clients compare these, never messages. `docs/guarantees.md` has the table with
 * gRPC statuses and remedies, `src/api/status.ts` the mapping.
 */
export type ErrorCode =
  | 'KV_INVALID' // malformed request: names the field and the remedy
  | 'KV_TOO_LARGE' // over a documented limit: names limit and size
  | 'KV_NOT_LEADER' // ask the leader: the detail carries its address, if known
  | 'KV_WRONG_SHARD' // the slot is not owned here
  | 'KV_MOVING' // the slot is about to change its owner: try again in a moment
  | 'KV_OVERLOADED' // a queue is full: nothing applied, retry after
  | 'KV_DISK_FULL' // writes refused until space is free; reads and deletes go on
  | 'KV_DEADLINE' // the deadline passed
  | 'KV_UNAVAILABLE' // no leader or no quorum just now: nothing applied
  | 'KV_UNKNOWN_OUTCOME' // leadership was lost while the write was under way
  | 'KV_NOT_INTEGER'
  | 'KV_OUT_OF_RANGE'
  | 'KV_SESSION_EXPIRED'
  | 'KV_SESSION_FORGOTTEN'
  | 'KV_SESSION_MISMATCH'
  | 'KV_TOKEN_MISMATCH' // the session token does not fit this cluster's state
  | 'KV_CANCELLED'
  | 'KV_UNIMPLEMENTED'
  | 'KV_INTERNAL';

/** What one endpoint said, or what became of the connection to it. */
export interface FailedAttempt {
  /** host:port */
  readonly endpoint: string;
  readonly code: ErrorCode;
  readonly message: string;
}

export interface KvErrorFields {
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  readonly leaderNode?: number;
  readonly leaderAddress?: string;
  readonly mapVersion?: number;
  /** Who has the slot as far as the one who answered knows, and the epoch of that ownership. */
  readonly shardId?: number;
  readonly slotEpoch?: number;
  /** The slot that this speaks of, if it is a pin; otherwise the hash slot of the key. */
  readonly pinSlot?: number;
  readonly retryAfterMs?: number;
  readonly limit?: number;
  readonly size?: number;
  /** No node said this: the client could not connect, or the connection broke, or stayed silent. */
  readonly unreachable?: boolean;
  /** Of the client: its last attempts, oldest first, at most 8. */
  readonly attempts?: readonly FailedAttempt[];
  /** Of the client: how many there were in all. */
  readonly attemptCount?: number;
  readonly cause?: unknown;
}

/** Message: what went wrong with which thing, the limit, and the remedy, for a person. */
export class KvError extends Error {
  override readonly name = 'KvError';
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  readonly fields: KvErrorFields;

  constructor(message: string, fields: KvErrorFields) {
    super(message, { cause: fields.cause });
    this.code = fields.code;
    this.outcome = fields.outcome;
    this.fields = fields;
  }

  /** Code, outcome, message, and a line for every endpoint that was tried. */
  override toString(): string {
    const outcome =
      this.outcome === 'unknown'
        ? 'it may have been applied: read before you write again'
        : 'nothing was applied';
    const { attempts = [], attemptCount = attempts.length } = this.fields;
    const heading =
      attempts.length === 0
        ? []
        : [`${attemptCount} failed attempts${attemptCount > attempts.length ? ', the last' : ''}:`];
    const lines = attempts.map(({ endpoint, code, message }) => `${endpoint} ${code}: ${message}`);
    return [`KvError ${this.code} (${outcome}): ${this.message}`, ...heading, ...lines].join(
      '\n  ',
    );
  }
}
