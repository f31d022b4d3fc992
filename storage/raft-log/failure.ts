/**
 * The two ways a Raft log ends: what is on disk is wrong, or the disk refuses. Both stop the node.
 */

/** `ENOSPC` and its like, if the error carries one. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/**
 * Bytes that were durable are not what was written. Nothing behind the damage can be trusted, and
 * the log holds votes and acknowledged entries, so cutting it here could lose both.
 */
export class RaftLogDamaged extends Error {
  override readonly name = 'RaftLogDamaged';
  readonly file: string;
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly reason: string;

  constructor(place: {
    readonly file: string;
    readonly offset: number;
    readonly reason: string;
    readonly cause?: unknown;
  }) {
    super(
      `Raft log damaged: ${place.file} at byte ${place.offset}: ${place.reason}. ` +
        'Do not edit or delete the file: this node may have forgotten votes and acknowledged ' +
        'entries. Remedy: keep the node stopped, remove it from the cluster, move its data ' +
        'directory away and join it anew with an empty one; its replicas are then rebuilt from ' +
        'their peers under new ids.',
      { cause: place.cause },
    );
    this.file = place.file;
    this.offset = place.offset;
    this.reason = place.reason;
  }
}

/** A write or sync failed. Nothing was acknowledged after it, and nothing is retried. */
export class RaftLogFailed extends Error {
  override readonly name = 'RaftLogFailed';
  readonly directory: string;
  /** `ENOSPC`, `EIO`, ...; undefined for an error without a system code. */
  readonly code: string | undefined;

  constructor(directory: string, cause: unknown) {
    const code = codeOf(cause);
    const text = cause instanceof Error ? cause.message : String(cause);
    super(`Raft log in ${directory}: ${text}. ${remedyFor(code, directory)}`, { cause });
    this.directory = directory;
    this.code = code;
  }
}

function remedyFor(code: string | undefined, directory: string): string {
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return (
      `The disk (or quota) of ${directory} is full. Remedy: free space there, then start the node ` +
      'again; the unfinished write was never acknowledged and is cut at the start.'
    );
  }
  return (
    'After a failed write or sync nobody knows what the disk holds, so the node stops. Remedy: ' +
    'check the disk and the system log, then start the node again; if it refuses, rebuild it ' +
    'from its peers.'
  );
}
