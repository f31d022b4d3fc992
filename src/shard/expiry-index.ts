/**
 * What expires when: an index inside each slot, so that it travels with the slot, and in memory the
 * earliest time of each slot, so that the leader need not look at all of them.
 *
 * Index key: [slot place, kind expiry] user key = due u64, kind u8, revision u64, key.
 */
import {
  decodeSlotKey,
  KeyKind,
  kindRange,
  slotKey,
  type Engine,
  type SlotPlace,
} from '../../storage/index.js';
import type { Slot } from '../router/slot.js';
import type { Due } from './command-codec.js';
import type { StoredValue } from './value-codec.js';

const headBytes = 17;
const kindCodes = { key: 1, session: 2 } as const;

export function expiryKey(prefix: Uint8Array, place: SlotPlace, due: Due): Uint8Array {
  const name = Buffer.allocUnsafe(headBytes + due.key.byteLength);
  name.writeUInt32BE(Math.floor(due.dueMs / 2 ** 32), 0);
  name.writeUInt32BE(due.dueMs >>> 0, 4);
  name[8] = kindCodes[due.kind];
  name.writeUInt32BE(Math.floor(due.revision / 2 ** 32), 9);
  name.writeUInt32BE(due.revision >>> 0, 13);
  name.set(due.key, headBytes);
  return slotKey(prefix, place, KeyKind.expiry, name);
}

function decodeExpiryKey(key: Uint8Array): Due {
  const { slot, userKey } = decodeSlotKey(key);
  const name = Buffer.from(userKey.buffer, userKey.byteOffset, userKey.byteLength);
  return {
    slot,
    dueMs: name.readUInt32BE(0) * 2 ** 32 + name.readUInt32BE(4),
    kind: name[8] === kindCodes.key ? 'key' : 'session',
    revision: name.readUInt32BE(9) * 2 ** 32 + name.readUInt32BE(13),
    key: name.subarray(headBytes),
  };
}

/** The place of a value in the expiry index; undefined: it never expires. */
export function keyDue(
  key: Uint8Array,
  { expiresAtMs, revision }: StoredValue,
): Omit<Due, 'slot'> | undefined {
  return expiresAtMs === 0 ? undefined : { dueMs: expiresAtMs, kind: 'key', revision, key };
}

export function sessionDue(clientId: Uint8Array, lastNotAfterMs: number): Omit<Due, 'slot'> {
  return { dueMs: lastNotAfterMs + 1, kind: 'session', revision: 0, key: clientId };
}

/** The first entries of a slot's index, in order of time. */
export async function firstDue(
  engine: Engine,
  prefix: Uint8Array,
  place: SlotPlace,
  count: number,
): Promise<readonly Due[]> {
  const range = kindRange(prefix, place, KeyKind.expiry);
  const view = engine.iterate({
    ...range,
    pageBytesMax: 256 * 1024,
    pageLengthMax: count,
    keysOnly: true,
  });
  try {
    return (await view.next()).map(({ key }) => decodeExpiryKey(key));
  } finally {
    await view.close();
  }
}

/**
 * For each slot a time before which nothing in it expires: never too late, perhaps too early. So
 * whoever looks at the index itself takes the time out *before* its view is opened and notes what it
 * found: what is written meanwhile notes itself when it is in the engine, and is not overwritten.
 */
export class DueTimes {
  private readonly times = new Map<Slot, number>();
  /** Told of each time that is earlier than what was known of its slot. */
  onNoted: (dueMs: number) => void = () => undefined;

  note(slot: Slot, dueMs: number): void {
    const known = this.times.get(slot);
    if (known !== undefined && dueMs >= known) return;
    this.times.set(slot, dueMs);
    this.onNoted(dueMs);
  }

  noteAll(other: DueTimes): void {
    for (const [slot, dueMs] of other.times) this.note(slot, dueMs);
  }

  take(slot: Slot): void {
    this.times.delete(slot);
  }

  /** Slots in which something may be due. */
  *dueBy(logTimeMs: number): Generator<Slot> {
    for (const [slot, dueMs] of this.times) if (dueMs <= logTimeMs) yield slot;
  }

  /** Before it nothing is due; Infinity: nothing ever is. */
  get earliestMs(): number {
    let earliest = Number.POSITIVE_INFINITY;
    for (const dueMs of this.times.values()) if (dueMs < earliest) earliest = dueMs;
    return earliest;
  }

  clear(): void {
    this.times.clear();
  }
}
