/** How fresh a read must be, in the service's own terms. */
import { ReadLevel } from '../../proto/messages.js';
import { invalid } from './convert.js';

export type Level =
  | { readonly kind: 'linearizable' }
  | { readonly kind: 'lease' }
  | { readonly kind: 'stale'; readonly maxStalenessMs: number };

const linearizable: Level = { kind: 'linearizable' };
const lease: Level = { kind: 'lease' };
const stalenessMsDefault = 5000;

/** Throws KvError KV_INVALID for a level that does not exist. */
export function levelOf(level: number | undefined, maxStalenessMs: number | undefined): Level {
  switch (level ?? ReadLevel.LINEARIZABLE) {
    case ReadLevel.LINEARIZABLE:
      return linearizable;
    case ReadLevel.LEASE:
      return lease;
    case ReadLevel.STALE:
      return {
        kind: 'stale',
        maxStalenessMs:
          maxStalenessMs === undefined || maxStalenessMs === 0
            ? stalenessMsDefault
            : maxStalenessMs,
      };
    default:
      throw invalid(
        `read level ${level} does not exist: use LINEARIZABLE (0), LEASE (1) or STALE (2)`,
      );
  }
}
