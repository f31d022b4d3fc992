/** The attempts at one call: which failure is worth another, and what to say when none is. */
import { KvError, type ErrorCode, type FailedAttempt, type Outcome } from '../errors.js';

/** A single attempt at a node that does not answer: then another node is asked. */
export const attemptMsMax = 2000;

const retryDelayMs = 25;
/** Redirects followed without a pause: two nodes may each take the other for the leader. */
const redirectsMax = 3;
const keptMax = 8;

const passing: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'KV_NOT_LEADER',
  'KV_WRONG_SHARD',
  'KV_MOVING',
  'KV_UNAVAILABLE',
  'KV_OVERLOADED',
  'KV_UNKNOWN_OUTCOME',
  'KV_DEADLINE',
]);

/** Another attempt may fare better. */
export function isPassing({ code }: KvError): boolean {
  return passing.has(code);
}

export class Attempts {
  private readonly kept: FailedAttempt[] = [];
  private count = 0;
  private redirects = 0;
  private unknown = false;
  private readonly isRead: boolean;
  private readonly nowMs: () => number;

  /** `isRead`: whatever becomes of it, nothing is applied. `nowMs`: of the clock of deadlines. */
  constructor(isRead: boolean, nowMs = Date.now) {
    this.isRead = isRead;
    this.nowMs = nowMs;
  }

  /** Of all attempts that have ended. */
  get outcome(): Outcome {
    return this.unknown ? 'unknown' : 'notApplied';
  }

  /** Ask nodes to answer with the leader's address? Not for ever: the leader may be out of reach. */
  get redirect(): boolean {
    return this.redirects < redirectsMax;
  }

  /**
   * Takes note of a failed attempt. Milliseconds until the next one; undefined: there is no point in
   * it, or no time. Every attempt is sent under the same session, so the outcome of an earlier one
   * stays unknown only until the session's record answers a later one (rule D04).
   */
  next(endpoint: string, error: KvError, deadline: number): number | undefined {
    this.count += 1;
    this.unknown ||= error.outcome === 'unknown' && !this.isRead;
    this.kept.push({ endpoint, code: error.code, message: error.message });
    if (this.kept.length > keptMax) this.kept.shift();
    const waitMs = this.waitMs(error);
    return isPassing(error) && this.nowMs() + waitMs < deadline ? waitMs : undefined;
  }

  /** What the caller gets for good. */
  conclude(error: KvError): KvError {
    const outcome = this.isRead ? 'notApplied' : this.unknown ? 'unknown' : error.outcome;
    // A later refusal does not undo what an earlier attempt may have done.
    const hint =
      outcome === 'unknown' && error.outcome === 'notApplied'
        ? ' (an earlier attempt may have been applied)'
        : '';
    return new KvError(`${error.message}${hint}`, {
      ...error.fields,
      outcome,
      attempts: [...this.kept],
      attemptCount: this.count,
      cause: error.fields.cause ?? error,
    });
  }

  private waitMs(error: KvError): number {
    if (namesAnother(error)) {
      this.redirects += 1;
      if (this.redirects <= redirectsMax) return 0;
    }
    return Math.max(error.fields.retryAfterMs ?? 0, retryDelayMs);
  }
}

/** The error says where to go instead: to the leader, or to the shard that has the slot. */
export function namesAnother({ code, fields }: KvError): boolean {
  const misdirected = code === 'KV_NOT_LEADER' || code === 'KV_WRONG_SHARD';
  return misdirected && (fields.leaderAddress ?? '') !== '';
}
