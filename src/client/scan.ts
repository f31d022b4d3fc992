/**
 * A scan, page by page: each is asked of a node that has the slot where it begins, and ends where that
 * node's shard ends. The cursor says where to go on, whoever has that slot by then.
 */
import { ReadLevel, type ScanReply, type ScanRequest } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { isPin } from '../router/pins.js';
import { anySlot, slot as slotNumber, slotOf, type Slot } from '../router/slot.js';
import type { CallBounds } from './log-time.js';
import { methods } from './methods.js';
import { checkBytes, isForAnyReplica } from './requests.js';
import type { RetriedCalls } from './retried-calls.js';

/** `boundsOf`: of one page. Throws KvError; what was given out before is good, up to its cursor. */
export async function* scanPages(
  calls: RetriedCalls,
  request: ScanRequest,
  boundsOf: () => CallBounds,
): AsyncGenerator<ScanReply> {
  let next = request;
  let place = firstSlot(request);
  for (;;) {
    const page = await pageOf(calls, next, place, boundsOf());
    const { limit = 0, afterKey: _, ...rest } = next;
    const left = limit - (page.kvs?.length ?? 0);
    const done = page.done === true || (limit > 0 && left <= 0);
    yield { ...page, done };
    if (done) return;
    next = { ...rest, limit: limit > 0 ? left : 0, cursor: cursorOf(page) };
    place = slotIn(page.nextSlot);
  }
}

/** `place`: where it begins; undefined: only the cursor tells. */
async function pageOf(
  calls: RetriedCalls,
  request: ScanRequest,
  place: Slot | undefined,
  bounds: CallBounds,
): Promise<ScanReply> {
  const { token } = bounds;
  const level = request.level ?? (token && ReadLevel.AT_LEAST);
  // Behind a pin come slots of any number.
  const isKnown = place !== undefined && !isPin(place);
  const slots = slotIn(request.slot) ?? { from: isKnown ? place : slotNumber(0) };
  const page = await calls.call(
    methods.scanPage,
    level === undefined ? request : { ...request, level },
    {
      ...bounds,
      slot: place,
      isRead: true,
      anyReplica: isForAnyReplica(level),
      header: token?.headerOf(slots),
    },
  );
  token?.learn(page.header);
  return page;
}

function firstSlot({ slot, cursor, afterKey }: ScanRequest): Slot | undefined {
  if (afterKey !== undefined) checkBytes('afterKey', afterKey);
  if (afterKey !== undefined && afterKey.byteLength > 0) return slotOf(afterKey);
  const isResumed = cursor !== undefined && cursor.byteLength > 0;
  return slotIn(slot) ?? (isResumed ? undefined : slotNumber(0));
}

function slotIn(value: number | null | undefined): Slot | undefined {
  return typeof value === 'number' ? anySlot(value) : undefined;
}

/** Without one the scan would begin anew. */
function cursorOf({ cursor }: ScanReply): Uint8Array {
  if (cursor !== undefined && cursor.byteLength > 0) return cursor;
  throw new KvError('a page of a scan has neither a cursor nor an end', {
    code: 'KV_INTERNAL',
    outcome: 'notApplied',
  });
}
