/**
 * The steps by which keys become a pin, and go back into their hash slot, as commands of the log of the
 * shard that has both. Like those of a migration each is valid from one state, and changes nothing in any
 * other (rule D30).
 *
 *   step  = kind u8, pin u16, then
 *           pin (1): migration u64, flag u8 (1 prefix), key; pinned (2): migration u64
 *           unpin (3), unpinned (4): hash slot u16
 *           carry (5): hash slot u16, flag u8 (1 back), instance u64, after, next, end u8, records: count u32, each:
 *           kind u8 (KeyKind), key
 *   after, next, key = length u32, bytes
 */
import type { ByteReader, ByteWriter } from '../bytes.js';
import { KeyKind } from '../../storage/index.js';
import type { Slot } from '../router/slot.js';
import type { RecordKind } from './change-index.js';

/** A record that goes over; what it holds by then is read when the step is applied. */
export interface CarriedRecord {
  readonly kind: RecordKind;
  readonly key: Uint8Array;
}

export type PinStep =
  /** The hash slot serves these keys no more. `id`: of the pin's birth, the instance of its data. */
  | {
      readonly kind: 'pin';
      readonly pin: Slot;
      readonly id: number;
      readonly isPrefix: boolean;
      readonly key: Uint8Array;
    }
  /** All has been carried: the pin serves. */
  | { readonly kind: 'pinned'; readonly pin: Slot; readonly id: number }
  /** The pin serves no more. */
  | { readonly kind: 'unpin'; readonly pin: Slot; readonly home: Slot }
  /** All has been carried back: the hash slot serves these keys again, and the pin is no more. */
  | { readonly kind: 'unpinned'; readonly pin: Slot; readonly home: Slot }
  | Carry;

/** The next records, from the hash slot to a pin that fills, or back from one that drains. */
export interface Carry {
  readonly kind: 'carry';
  readonly pin: Slot;
  readonly home: Slot;
  /** Out of the pin. */
  readonly isBack: boolean;
  /** Of the pin's data. */
  readonly instance: number;
  /** Where the one before has ended (empty: at the beginning), and where this one ends. */
  readonly after: Uint8Array;
  readonly next: Uint8Array;
  readonly end: boolean;
  readonly records: readonly CarriedRecord[];
}

const codes = { pin: 1, pinned: 2, unpin: 3, unpinned: 4, carry: 5 } as const;

export function encodePinStep(writer: ByteWriter, step: PinStep): void {
  writer.u8(codes[step.kind]);
  writer.u16(step.pin);
  switch (step.kind) {
    case 'pin':
      writer.u64(step.id);
      writer.bool(step.isPrefix);
      writer.sized(step.key);
      break;
    case 'pinned':
      writer.u64(step.id);
      break;
    case 'unpin':
    case 'unpinned':
      writer.u16(step.home);
      break;
    case 'carry':
      encodeCarry(writer, step);
  }
}

function encodeCarry(writer: ByteWriter, step: Carry): void {
  writer.u16(step.home);
  writer.bool(step.isBack);
  writer.u64(step.instance);
  writer.sized(step.after);
  writer.sized(step.next);
  writer.bool(step.end);
  writer.u32(step.records.length);
  for (const { kind, key } of step.records) {
    writer.u8(kind);
    writer.sized(key);
  }
}

/** Throws RangeError for bytes that are no step. */
export function decodePinStep(reader: ByteReader): PinStep {
  const code = reader.u8();
  const pin = reader.u16() as Slot;
  switch (code) {
    case codes.pin:
      return {
        kind: 'pin',
        pin,
        id: reader.u64(),
        isPrefix: reader.bool(),
        key: Buffer.from(reader.sized()),
      };
    case codes.pinned:
      return { kind: 'pinned', pin, id: reader.u64() };
    case codes.unpin:
      return { kind: 'unpin', pin, home: reader.u16() as Slot };
    case codes.unpinned:
      return { kind: 'unpinned', pin, home: reader.u16() as Slot };
    case codes.carry:
      return decodeCarry(reader, pin);
    default:
      throw new RangeError(`pin step ${code}: use a newer program`);
  }
}

function decodeCarry(reader: ByteReader, pin: Slot): Carry {
  return {
    kind: 'carry',
    pin,
    home: reader.u16() as Slot,
    isBack: reader.bool(),
    instance: reader.u64(),
    after: Buffer.from(reader.sized()),
    next: Buffer.from(reader.sized()),
    end: reader.bool(),
    records: reader.list(() => ({ kind: recordKind(reader.u8()), key: reader.sized() })),
  };
}

function recordKind(kind: number): RecordKind {
  if (kind === KeyKind.value || kind === KeyKind.session) return kind;
  throw new RangeError(`a record of kind ${kind} is not carried`);
}
