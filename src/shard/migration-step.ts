/**
 * The steps of a migration as commands of a shard's log (design: the owner gives, nobody takes). Each
 * is valid from one (state, migration id) of a slot and changes nothing in any other (rule D30), so
 * whoever is unsure says it again.
 *
 *   step  = kind u8, migration u64, peer u32, then of a chunk: parts; of any other: terms
 *   terms = count u32, then each: slot u16, epoch u64, change u64, keys u64, sum u64, log time u64, and of
 *           an import with pins: last pin u16, pins as in slot-state.ts
 *   part  = slot u16, kind u8 (1 scan: after, next, end u8; 2 changes: after u64, through u64), records
 *   record = kind u8 (KeyKind; 128 added: removed), change u64, key, [stored]
 *   after, next, key, stored = length u32, bytes
 */
import type { ByteReader, ByteWriter } from '../bytes.js';
import { KeyKind } from '../../storage/index.js';
import type { Slot } from '../router/slot.js';
import type { RecordKind } from './change-index.js';
import { decodePins, encodePins, type SlotPin } from './slot-state.js';

/** What a step says of a slot; a number that a step does not need is 0. */
export interface SlotTerms {
  readonly slot: Slot;
  readonly epoch: number;
  readonly change: number;
  readonly keys: number;
  readonly sum: number;
  readonly logTimeMs: number;
  /** Of an import: as in the source's state, where they do not change while it exports. */
  readonly pins?: readonly SlotPin[];
  readonly lastPin?: number;
}

/** One record on its way; without `stored` it was removed. */
export interface MovedRecord {
  readonly kind: RecordKind;
  readonly key: Uint8Array;
  /** The change that made it so. */
  readonly change: number;
  readonly stored: Uint8Array | undefined;
}

/** A piece of one slot; it counts only where the one before has ended. */
export interface ChunkPart {
  readonly slot: Slot;
  readonly progress:
    | {
        readonly kind: 'scan';
        /** Both as the source's engine keys without its prefix; empty: the beginning. */
        readonly after: Uint8Array;
        readonly next: Uint8Array;
        readonly end: boolean;
      }
    | { readonly kind: 'changes'; readonly after: number; readonly through: number };
  readonly records: readonly MovedRecord[];
}

const stepCodes = {
  /** Source: changes are indexed from here on. */
  exportBegin: 1,
  /** Source: no reads, no writes, no expiry from here on. */
  freeze: 2,
  /** Source: it serves again; the export goes on. */
  thaw: 3,
  /**
   * Source: gives the slot away, for good, if the target has just what it has. Terms: change, keys, sum
   * and log time (of its migration) as the target's state has them; of another freeze: nothing happens.
   */
  handover: 4,
  /** Source: the migration is over; what was not handed over stays. */
  endExport: 5,
  /** Source: the data of what was handed over goes. Only when the target serves. */
  collect: 6,
  /** Target: room for a copy. Terms: epoch and change at the source. */
  importBegin: 7,
  /** Target: nothing is missing up to the change at which the source froze. Terms: change, log time. */
  seal: 8,
  /** Target: serves. Only when the source has handed over; terms: the epoch from then on. */
  activate: 9,
  /** Target: what was copied goes. Only when the source has ended the export. */
  endImport: 10,
} as const;
const chunkCode = 11;
/** An importBegin of slots with pins. */
const importPinsCode = 12;

export type SlotStepKind = keyof typeof stepCodes;

export type MigrationStep =
  | {
      readonly kind: SlotStepKind;
      readonly id: number;
      /** The shard at the other end. */
      readonly peer: number;
      readonly slots: readonly SlotTerms[];
    }
  | {
      readonly kind: 'chunk';
      readonly id: number;
      readonly peer: number;
      readonly parts: readonly ChunkPart[];
    };

/** Steps that a source takes by itself; the others are the target's. */
export const sourceSteps: ReadonlySet<MigrationStep['kind']> = new Set<MigrationStep['kind']>([
  'exportBegin',
  'freeze',
  'thaw',
  'handover',
  'endExport',
  'collect',
]);

const kindsByCode = new Map(
  Object.entries(stepCodes).map(([kind, code]) => [code as number, kind as SlotStepKind]),
);
const removedFlag = 128;

export const noTerms: Omit<SlotTerms, 'slot'> = {
  epoch: 0,
  change: 0,
  keys: 0,
  sum: 0,
  logTimeMs: 0,
};

/** Slots of a step that has nothing else to say of them. */
export function bareTerms(slots: Iterable<Slot>): readonly SlotTerms[] {
  return Array.from(slots, (slot) => ({ slot, ...noTerms }));
}

/** Keys and values that they bring. */
export function bytesOfParts(parts: readonly ChunkPart[]): number {
  let bytes = 0;
  for (const { records } of parts)
    for (const { key, stored } of records) bytes += key.byteLength + (stored?.byteLength ?? 0);
  return bytes;
}

export function encodeStep(writer: ByteWriter, step: MigrationStep): void {
  const withPins = step.kind === 'importBegin' && step.slots.some(hasPins);
  writer.u8(step.kind === 'chunk' ? chunkCode : withPins ? importPinsCode : stepCodes[step.kind]);
  writer.u64(step.id);
  writer.u32(step.peer);
  if (step.kind === 'chunk') {
    writer.u32(step.parts.length);
    for (const part of step.parts) encodePart(writer, part);
    return;
  }
  writer.u32(step.slots.length);
  for (const terms of step.slots) {
    writer.u16(terms.slot);
    writer.u64(terms.epoch);
    writer.u64(terms.change);
    writer.u64(terms.keys);
    writer.u64(terms.sum);
    writer.u64(terms.logTimeMs);
    if (!withPins) continue;
    writer.u16(terms.lastPin ?? 0);
    encodePins(writer, terms.pins ?? []);
  }
}

function hasPins({ pins = [], lastPin = 0 }: SlotTerms): boolean {
  return pins.length > 0 || lastPin > 0;
}

/** Throws RangeError for bytes that are no step. */
export function decodeStep(reader: ByteReader): MigrationStep {
  const code = reader.u8();
  const [id, peer] = [reader.u64(), reader.u32()];
  if (code === chunkCode)
    return { kind: 'chunk', id, peer, parts: reader.list(() => decodePart(reader)) };
  const withPins = code === importPinsCode;
  const kind = withPins ? 'importBegin' : kindsByCode.get(code);
  if (kind === undefined) throw new RangeError(`migration step ${code}: use a newer program`);
  return { kind, id, peer, slots: reader.list(() => decodeTerms(reader, withPins)) };
}

function decodeTerms(reader: ByteReader, withPins: boolean): SlotTerms {
  const terms = {
    slot: reader.u16() as Slot,
    epoch: reader.u64(),
    change: reader.u64(),
    keys: reader.u64(),
    sum: reader.u64(),
    logTimeMs: reader.u64(),
  };
  return withPins ? { ...terms, lastPin: reader.u16(), pins: decodePins(reader) } : terms;
}

function encodePart(writer: ByteWriter, { slot, progress, records }: ChunkPart): void {
  writer.u16(slot);
  if (progress.kind === 'scan') {
    writer.u8(1);
    writer.sized(progress.after);
    writer.sized(progress.next);
    writer.bool(progress.end);
  } else {
    writer.u8(2);
    writer.u64(progress.after);
    writer.u64(progress.through);
  }
  writer.u32(records.length);
  for (const { kind, key, change, stored } of records) {
    writer.u8(stored === undefined ? kind + removedFlag : kind);
    writer.u64(change);
    writer.sized(key);
    if (stored !== undefined) writer.sized(stored);
  }
}

function decodePart(reader: ByteReader): ChunkPart {
  const slot = reader.u16() as Slot;
  return {
    slot,
    progress: decodeProgress(reader),
    records: reader.list(() => decodeRecord(reader)),
  };
}

function decodeProgress(reader: ByteReader): ChunkPart['progress'] {
  const kind = reader.u8();
  if (kind === 1) {
    return {
      kind: 'scan',
      after: reader.sized(),
      next: reader.sized(),
      end: reader.bool(),
    };
  }
  if (kind !== 2) throw new RangeError(`chunk part of kind ${kind}`);
  return { kind: 'changes', after: reader.u64(), through: reader.u64() };
}

function decodeRecord(reader: ByteReader): MovedRecord {
  const code = reader.u8();
  const removed = code >= removedFlag;
  const kind = removed ? code - removedFlag : code;
  if (kind !== KeyKind.value && kind !== KeyKind.session)
    throw new RangeError(`a record of kind ${kind} does not travel`);
  const [change, key] = [reader.u64(), reader.sized()];
  return { kind, change, key, stored: removed ? undefined : reader.sized() };
}
