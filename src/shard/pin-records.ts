/** What is to be carried between a hash slot and a pin, piece by piece: records by name. */
import {
  decodeSlotKey,
  KeyKind,
  kindRange,
  slotKey,
  type Engine,
  type KeyRange,
} from '../../storage/index.js';
import { behindKey, type PinRule } from '../router/pins.js';
import type { Slot } from '../router/slot.js';
import type { CarriedRecord, Carry } from './pin-step.js';
import { behind, type ChunkRoom, type ExportSource } from './slot-export.js';

export type CarriedPart = Pick<Carry, 'after' | 'next' | 'end' | 'records'>;

/** Of a slot: the pin's values, then all session records, from behind a cursor (empty: the beginning). */
export async function carriedPart(
  source: ExportSource,
  rule: PinRule,
  cursor: Uint8Array,
  { bytesMax, lengthMax }: ChunkRoom,
): Promise<CarriedPart> {
  const { engine, prefix, slot, instance } = source;
  const place = { slot, instance };
  const first = cursor.byteLength === 0 ? undefined : behind(prefix, place, cursor);
  const isAtSessions = cursor.byteLength > 0 && cursor[0] !== KeyKind.value;
  const records: CarriedRecord[] = [];
  let [bytes, end] = [bytesMax, true];
  const ranges = [valuesOf(prefix, place, rule), kindRange(prefix, place, KeyKind.session)];
  for (const [n, range] of ranges.entries()) {
    if (n === 0 && isAtSessions) continue;
    const start = first !== undefined && (n === 0) !== isAtSessions ? first : range.start;
    const room = { bytesMax: bytes, lengthMax: lengthMax - records.length };
    const found = await readRange(engine, { start, end: range.end }, room);
    records.push(...found.records);
    bytes -= found.bytes;
    end = found.end;
    if (!end || (n === 0 && (bytes <= 0 || records.length >= lengthMax))) {
      end = false;
      break;
    }
  }
  const last = records.at(-1);
  const next = last === undefined ? cursor : Buffer.concat([Buffer.of(last.kind), last.key]);
  return { after: cursor, next, end, records };
}

function valuesOf(
  prefix: Uint8Array,
  place: { readonly slot: Slot; readonly instance: number },
  { key, isPrefix }: PinRule,
): KeyRange {
  if (isPrefix) return kindRange(prefix, place, KeyKind.value, key);
  const start = slotKey(prefix, place, KeyKind.value, key);
  return { start, end: behindKey(start) };
}

async function readRange(
  engine: Engine,
  range: KeyRange,
  { bytesMax, lengthMax }: ChunkRoom,
): Promise<{ records: readonly CarriedRecord[]; bytes: number; end: boolean }> {
  const view = engine.iterate({ ...range, pageBytesMax: bytesMax, pageLengthMax: lengthMax });
  try {
    const page = await view.next();
    const records = page.map(({ key }): CarriedRecord => {
      const { kind, userKey } = decodeSlotKey(key);
      return { kind: kind === KeyKind.value ? KeyKind.value : KeyKind.session, key: userKey };
    });
    const bytes = page.reduce((sum, { key, value }) => sum + key.byteLength + value.byteLength, 0);
    return { records, bytes, end: page.length === 0 || (await view.next()).length === 0 };
  } finally {
    await view.close();
  }
}
