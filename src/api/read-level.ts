/** How fresh a read must be, in the service's own terms. */
import { ReadLevel } from '../../proto/messages.js';
import type { ReadLevel as Level } from '../shard/shard.js';
import { invalid } from './convert.js';
import type { Positions } from './session-token.js';

export type { Level };

const linearizable: Level = { kind: 'linearizable' };
const lease: Level = { kind: 'lease' };
const stalenessMsDefault = 5000;

/** What a request says of its level, as far as it is needed here. */
interface LevelFields {
  readonly level?: number;
  readonly maxStalenessMs?: number;
}

/** `positions`: of the request's session token. Throws KvError KV_INVALID for a level that does not exist. */
export function levelOf({ level, maxStalenessMs = 0 }: LevelFields, positions: Positions): Level {
  switch (level ?? ReadLevel.LINEARIZABLE) {
    case ReadLevel.LINEARIZABLE:
      return linearizable;
    case ReadLevel.LEASE:
      return lease;
    case ReadLevel.STALE:
      return { kind: 'stale', maxStalenessMs: maxStalenessMs || stalenessMsDefault };
    case ReadLevel.AT_LEAST:
      // The maximum, not infinity: a replica that was never caught up is older than any number.
      return {
        kind: 'atLeast',
        positions,
        maxStalenessMs: maxStalenessMs || Number.MAX_SAFE_INTEGER,
      };
    default:
      throw invalid(
        `read level ${level} does not exist: ` +
          'use LINEARIZABLE (0), LEASE (1), STALE (2) or AT_LEAST (3)',
      );
  }
}
