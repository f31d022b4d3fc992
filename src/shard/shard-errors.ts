/** What a shard answers when it cannot: codes, outcomes, and what to do about it. */
import { KvError } from '../errors.js';
import type { ProposeOutcome, ReadOutcome } from '../group/group.js';
import { isPin } from '../router/pins.js';
import type { Slot } from '../router/slot.js';
import type { CommandResult, Session } from './command.js';
import { goneTo, isMoving, type SlotState } from './slot-state.js';

/** How far ahead of log time a session's last moment may lie (rule D21). */
export const sessionMsMax = 60_000;
const retryAfterMs = 50;
/** A slot stands still for some 50 ms. */
export const movingRetryMs = 20;

/** Of a slot that is not served here: where it has gone, if it was here, or that it is on its way. */
export function notServed(state: SlotState, slot: Slot): KvError {
  const pin = isPin(slot) ? { pinSlot: slot } : {};
  if (isMoving(state)) {
    return new KvError('the slot of this key is about to move to another shard: try again', {
      code: 'KV_MOVING',
      outcome: 'notApplied',
      retryAfterMs: movingRetryMs,
      ...pin,
    });
  }
  const shardId = goneTo(state);
  return new KvError('the slot of this key is not owned by this shard: go to its owner', {
    code: 'KV_WRONG_SHARD',
    outcome: 'notApplied',
    ...(shardId === undefined ? {} : { shardId, slotEpoch: state.epoch }),
    ...pin,
  });
}

/** It was served here all the time, and the key was not all the time where it was looked for. */
export function hasMoved(): KvError {
  return new KvError('the key has moved to another slot while it was read: try again', {
    code: 'KV_MOVING',
    outcome: 'notApplied',
    retryAfterMs: movingRetryMs,
  });
}

export function notFounded(): KvError {
  return new KvError('the shard is only being created: try again', {
    code: 'KV_UNAVAILABLE',
    outcome: 'notApplied',
    retryAfterMs,
  });
}

export function tooFarAhead(session: Session, logTimeMs: number): KvError {
  return new KvError(
    `session.not_after_ms lies ${session.notAfterMs - logTimeMs} ms ahead of the server, the limit is ` +
      `${sessionMsMax}: nothing was applied; go by the log time of this shard, and compare the clocks of the nodes`,
    {
      code: 'KV_INVALID',
      outcome: 'notApplied',
      limit: sessionMsMax,
      size: session.notAfterMs - logTimeMs,
    },
  );
}

export function writeError(
  outcome: Exclude<ProposeOutcome<CommandResult>, { kind: 'applied' }>,
): KvError {
  if (outcome.kind === 'unknown') {
    return new KvError(
      'leadership was lost while the write was under way: it may have been applied; retry with the same session, or read',
      { code: 'KV_UNKNOWN_OUTCOME', outcome: 'unknown' },
    );
  }
  switch (outcome.reason) {
    case 'overloaded':
      return new KvError(
        'too many writes are under way on this node: nothing was applied, try again later',
        {
          code: 'KV_OVERLOADED',
          outcome: 'notApplied',
          retryAfterMs,
        },
      );
    case 'tooLarge':
      return new KvError('the write is larger than a log entry may be: send less at once', {
        code: 'KV_TOO_LARGE',
        outcome: 'notApplied',
      });
    default:
      return new KvError('the shard has no leader here just now: nothing was applied', {
        code: 'KV_UNAVAILABLE',
        outcome: 'notApplied',
        retryAfterMs,
      });
  }
}

export function readError(reason: Extract<ReadOutcome, { kind: 'notReady' }>['reason']): KvError {
  if (reason === 'overloaded') {
    return new KvError('too many reads are under way on this node: try again later', {
      code: 'KV_OVERLOADED',
      outcome: 'notApplied',
      retryAfterMs,
    });
  }
  return new KvError(
    reason === 'restoring'
      ? 'this replica is being rebuilt from a snapshot: ask another node'
      : 'no leader or no quorum could be reached: try again',
    { code: 'KV_UNAVAILABLE', outcome: 'notApplied', retryAfterMs },
  );
}

/** After a confirmed round: nobody else has come further. */
export function tokenAhead(): KvError {
  return new KvError(
    'the session token names a state that this cluster does not have: it was restored or recovered ' +
      'to an earlier one since; begin with a new token',
    { code: 'KV_TOKEN_MISMATCH', outcome: 'notApplied' },
  );
}
