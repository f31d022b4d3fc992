/** Session tokens between their bytes on the wire and the positions of slots (rule D24). */
import { codecOf } from '../../proto/definitions.js';
import type { ReplyHeader, RequestHeader, SessionTokenMessage } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { isPin } from '../router/pins.js';
import { anySlot, pinSlotMax, slotCount, type Slot } from '../router/slot.js';
import { mergePosition, type SlotPosition } from '../shard/slot-position.js';
import { invalid } from './convert.js';

const codec = codecOf<SessionTokenMessage>('quorate.v1.SessionToken');

export type Positions = ReadonlyMap<Slot, SlotPosition>;

const nothingSeen: Positions = new Map();

/**
 * What the token of a request names, of `only` (a hash slot) and of pins if that is given: which pin a key
 * belongs to is for the replica to know that answers. Throws KvError: KV_INVALID for bytes
 * that are no token, KV_TOKEN_MISMATCH for a token of another cluster.
 */
export function positionsOf(
  header: RequestHeader | null | undefined,
  clusterId: string,
  only?: Slot,
): Positions {
  const token = header?.token;
  if (token === undefined || token.byteLength === 0) return nothingSeen;
  const { clusterId: named, positions } = decoded(token);
  if (named !== clusterId) throw otherCluster(named, clusterId);
  const found = new Map<Slot, SlotPosition>();
  for (const { slot, epoch, revision, logTimeMs } of positions) {
    if (slot > pinSlotMax || ![epoch, revision, logTimeMs].every(Number.isSafeInteger))
      throw malformed(`slot ${slot}`);
    if (only === undefined || slot === only || slot >= slotCount)
      mergePosition(found, { slot: anySlot(slot), epoch, revision, logTimeMs });
  }
  return found;
}

/** The part of one hash slot, and of pins. */
export function within(positions: Positions, slot: Slot): Positions {
  if (positions.size === 0) return nothingSeen;
  return new Map([...positions].filter(([each]) => each === slot || isPin(each)));
}

/** The token of a reply, if the request asked for one. */
export function tokenFor(
  asked: RequestHeader | null | undefined,
  clusterId: string,
  seen: () => Iterable<SlotPosition>,
): Pick<ReplyHeader, 'token'> {
  if (asked?.returnToken !== true) return {};
  const positions = new Map<Slot, SlotPosition>();
  for (const position of seen()) mergePosition(positions, position);
  return { token: codec.encode({ clusterId, positions: [...positions.values()] }) };
}

function decoded(token: Uint8Array): SessionTokenMessage {
  try {
    return codec.decode(token);
  } catch (error) {
    throw malformed(error instanceof Error ? error.message : String(error));
  }
}

function malformed(what: string): KvError {
  return invalid(
    `header.token is no session token (${what}): send what a reply brought, or nothing`,
  );
}

function otherCluster(named: string, clusterId: string): KvError {
  return new KvError(
    `the session token is of cluster '${named}', this is cluster '${clusterId}': ` +
      'go to that cluster, or begin with a new token',
    { code: 'KV_TOKEN_MISMATCH', outcome: 'notApplied' },
  );
}
