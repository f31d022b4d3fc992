/**
 * What the source of a migration reads for the target: a scan of the slot, piece by piece, and then the
 * changes since the export began, from the replicated change index (R70). Each piece is read from a view
 * of its own: the target keeps the newer of two records whatever the order, so pieces may overlap in time.
 */
import {
  decodeSlotKey,
  KeyKind,
  kindsRange,
  slotKey,
  type Engine,
  type SlotPlace,
} from '../../storage/index.js';
import type { Slot } from '../router/slot.js';
import {
  changesAfter,
  decodeChangeKey,
  type IndexedChange,
  type RecordKind,
} from './change-index.js';
import type { ChunkPart, MovedRecord } from './migration-step.js';
import { changeOf } from './value-codec.js';

export interface ExportSource {
  readonly engine: Engine;
  readonly prefix: Uint8Array;
  readonly slot: Slot;
  readonly instance: number;
}

/** How much is wanted at one time. */
export interface ChunkRoom {
  /** Keys and values together, both positive. */
  readonly bytesMax: number;
  readonly lengthMax: number;
}

/** Values read at one time while changes are gathered: what is not used is read in vain. */
const readAhead = 16;
const indexPageBytes = 256 * 1024;

/**
 * The piece of the scan that begins behind `cursor` (empty: at the beginning). At least one record,
 * unless the slot is at its end: a record that is larger than the room comes alone.
 */
export async function scanPart(
  { engine, prefix, slot, instance }: ExportSource,
  cursor: Uint8Array,
  { bytesMax, lengthMax }: ChunkRoom,
): Promise<ChunkPart> {
  const all = kindsRange(prefix, { slot, instance }, KeyKind.value, KeyKind.session);
  const start = cursor.byteLength === 0 ? all.start : behind(prefix, { slot, instance }, cursor);
  const view = engine.iterate({
    start,
    end: all.end,
    pageBytesMax: bytesMax,
    pageLengthMax: lengthMax,
  });
  const records: MovedRecord[] = [];
  try {
    const page = await view.next();
    for (const { key, value: stored } of page) {
      const { kind, userKey } = decodeSlotKey(key);
      records.push(storedRecord(kind === KeyKind.value ? kind : KeyKind.session, userKey, stored));
    }
    const end = page.length === 0 || (await view.next()).length === 0;
    const last = records.at(-1);
    const next = last === undefined ? cursor : Buffer.concat([Buffer.of(last.kind), last.key]);
    return { slot, progress: { kind: 'scan', after: cursor, next, end }, records };
  } finally {
    await view.close();
  }
}

/** Of a record named by a cursor. */
export function behind(prefix: Uint8Array, place: SlotPlace, cursor: Uint8Array): Uint8Array {
  const kind = cursor[0] === KeyKind.value ? KeyKind.value : KeyKind.session;
  return Buffer.concat([slotKey(prefix, place, kind, cursor.subarray(1)), Buffer.of(0)]);
}

/**
 * The changes of a migration behind `after`, whole ones only, and one even if it is larger than
 * `bytesMax`. Of each change what no later one has touched. Undefined when there is none.
 */
export async function changesPart(
  source: ExportSource,
  { migration, after }: { readonly migration: number; readonly after: number },
  { bytesMax, lengthMax }: ChunkRoom,
): Promise<ChunkPart | undefined> {
  const { engine, prefix, slot, instance } = source;
  const range = changesAfter(prefix, { slot, instance }, { migration, change: after });
  const view = engine.iterate({ ...range, pageBytesMax: indexPageBytes, keysOnly: true });
  const gathered = new Gathered();
  try {
    for (let page = await view.next(); page.length > 0; page = await view.next()) {
      const entries = page.map(({ key }) => decodeChangeKey(key));
      for (let at = 0; at < entries.length; at += readAhead) {
        const some = entries.slice(at, at + readAhead);
        const stored = await engine.getMany(
          some.map(({ kind, key }) => slotKey(prefix, { slot, instance }, kind, key)),
        );
        for (const [n, entry] of some.entries()) {
          gathered.add(entry, stored[n]);
          if (gathered.hasWhole && (gathered.bytes > bytesMax || gathered.length > lengthMax))
            return gathered.part(slot, after);
        }
      }
    }
    gathered.endChange();
    return gathered.hasWhole ? gathered.part(slot, after) : undefined;
  } finally {
    await view.close();
  }
}

/** Records by key, the newest of each; those of the last change, which may not be whole yet, apart. */
class Gathered {
  bytes = 0;
  private whole = 0;
  private last = 0;
  private readonly records = new Map<string, MovedRecord>();
  private readonly ofLast = new Map<string, MovedRecord>();

  /** Records so far. */
  get length(): number {
    return this.records.size + this.ofLast.size;
  }

  get hasWhole(): boolean {
    return this.whole > 0;
  }

  add({ change, kind, key }: IndexedChange, stored: Uint8Array | undefined): void {
    if (change > this.last) this.endChange();
    this.last = change;
    // It was changed again, and is told with that change: so no change is larger than what was asked for
    // when it was made, and nothing of a slot that is frozen is left out.
    if (stored !== undefined && changeOf(kind, stored) > change) return;
    const name = `${kind}/${Buffer.from(key).toString('latin1')}`;
    this.bytes += key.byteLength + (stored?.byteLength ?? 0);
    // What is gone by now was removed by this change or by a later one, which is told again.
    this.ofLast.set(
      name,
      stored === undefined ? { kind, key, change, stored } : storedRecord(kind, key, stored),
    );
  }

  /** No more of the last one comes. */
  endChange(): void {
    for (const [name, record] of this.ofLast) this.records.set(name, record);
    this.ofLast.clear();
    this.whole = this.last;
  }

  part(slot: Slot, after: number): ChunkPart {
    const progress = { kind: 'changes', after, through: this.whole } as const;
    return { slot, progress, records: [...this.records.values()] };
  }
}

function storedRecord(kind: RecordKind, key: Uint8Array, stored: Uint8Array): MovedRecord {
  return { kind, key, change: changeOf(kind, stored), stored };
}
