/**
 * Broken invariants. An assertion that fails means that this member's state can no longer be
 * trusted: the driver stops the process, and nothing more is said to anybody.
 */

/** A local bug, never remote input. `message` states the rule and the values that break it. */
export class RaftInvariantError extends Error {
  override readonly name = 'RaftInvariantError';
}

/**
 * Throws RaftInvariantError unless `condition` holds. `message` is only called on failure, so that
 * the hot path builds no text.
 */
export function assert(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new RaftInvariantError(message());
}

/** Closes a union: compiles only when every kind has been dealt with. */
export function assertNever(value: never): never {
  throw new RaftInvariantError(`unreachable: ${String(value)}`);
}
