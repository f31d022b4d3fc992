/**
 * Whether what clients were told can be explained, key by key, by one copy of each key: with the
 * search of `jepsen/`, here bounded by steps alone, so that a run stays a function of its seed.
 */
import {
  checkLinearizability,
  type SearchLimits,
} from '../../../jepsen/checkers/linearizability.js';
import { counter, register } from '../../../jepsen/checkers/models.js';
import type { Operation as Judged } from '../../../jepsen/history.js';
import { HistoryBroken, type ClientRecord, type Operation } from './record.js';

const limits: SearchLimits = { statesMax: 20_000, msMax: Infinity };

/** Of each key that is judged; throws HistoryBroken, with a small counter-example, for one that is not. */
export function linearized(record: ClientRecord): readonly ('linearizable' | 'undecided')[] {
  return [...record.byKey()]
    .filter(([key]) => !key.endsWith('ttl'))
    .map(([key, operations]) => {
      const isCounter = operations.some(({ kind }) => kind === 'increment');
      const judged = operations.flatMap((each) => judgedAs(each, isCounter));
      const model = isCounter ? counter : register;
      const { valid, details } = checkLinearizability(judged, model, limits);
      if (valid === false) throw new HistoryBroken(`${key}: ${details.join('\n  ')}`);
      return valid === true ? 'linearizable' : 'undecided';
    });
}

/** In the words of `jepsen/`. */
function judgedAs(operation: Operation, isCounter: boolean): readonly Judged[] {
  const { client, key, kind, value = null, expected, ending, begunMs, endedMs } = operation;
  if (ending === 'fail') return [];
  const isDone = ending === 'ok' || ending === 'refused';
  const common = {
    client,
    key,
    callNs: begunMs * 1e6,
    returnNs: (isDone ? endedMs : begunMs) * 1e6,
    status: isDone ? ('ok' as const) : ('info' as const),
  };
  switch (kind) {
    case 'read':
      return [{ ...common, op: 'read', output: isCounter ? numberOf(value) : value }];
    case 'increment':
      return [{ ...common, op: 'add', value: 1, ...(isDone ? { output: numberOf(value) } : {}) }];
    case 'delete':
      // That there was nothing to delete is as good as a look.
      return ending === 'refused'
        ? [{ ...common, op: 'read', output: null }]
        : [{ ...common, op: 'write', value: null }];
    case 'put':
      return expected === undefined
        ? [{ ...common, op: 'write', value }]
        : [{ ...common, op: 'cas', value, expected, output: ending === 'ok' }];
  }
}

function numberOf(value: string | null): number | null {
  return value === null ? null : Number(value);
}
