/** Exactly-once (rule D21): is this write new, a repetition, or too late to tell? */
import { crc32 } from 'node:zlib';
import type { Refusal, Session, WriteResult } from './command.js';
import { decodeResult, encodeResult } from './result-codec.js';
import type { SessionEntry, SessionRecord } from './value-codec.js';

/** Finished writes remembered of one client in one slot; beyond it the oldest are forgotten. */
const entriesMax = 1024;
/** A larger result (previous values) is not remembered in full. */
const resultBytesMax = 4096;
/** Entries below the floor dropped in one apply. */
const trimMax = 256;

export interface Fingerprint {
  readonly hash: number;
  readonly length: number;
}

export function fingerprint(operationBytes: Uint8Array): Fingerprint {
  return { hash: crc32(operationBytes), length: operationBytes.byteLength };
}

export type SessionVerdict =
  | { readonly kind: 'new' }
  | { readonly kind: 'repeated'; readonly result: WriteResult }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

export function judgeSession(
  record: SessionRecord | undefined,
  session: Session,
  print: Fingerprint,
  logTimeMs: number,
): SessionVerdict {
  const entry = record?.entries.find(({ sequence }) => sequence === session.sequence);
  if (entry !== undefined) {
    if (entry.hash !== print.hash || entry.length !== print.length)
      return { kind: 'refused', refusal: 'sessionMismatch' };
    return { kind: 'repeated', result: decodeResult(entry.result) };
  }
  // Its record may have been there and gone: nobody can tell whether it was applied.
  if (session.notAfterMs < logTimeMs) return { kind: 'refused', refusal: 'sessionExpired' };
  if (record !== undefined && session.sequence < record.floor)
    return { kind: 'refused', refusal: 'sessionForgotten' };
  return { kind: 'new' };
}

/** The record with this write in it, and without what the client has finished. */
export function rememberResult(
  record: SessionRecord | undefined,
  session: Session,
  print: Fingerprint,
  { result, change }: { readonly result: WriteResult; readonly change: number },
): SessionRecord {
  const floor = Math.max(record?.floor ?? 0, session.firstUnacknowledged);
  const entries = trimmed(record?.entries ?? [], floor);
  const encoded = encodeResult(result);
  entries.push({
    sequence: session.sequence,
    ...print,
    notAfterMs: session.notAfterMs,
    result: encoded.byteLength <= resultBytesMax ? encoded : encodeResult(withoutValues(result)),
  });
  const lastNotAfterMs = Math.max(record?.lastNotAfterMs ?? 0, session.notAfterMs);
  return bounded({ change, floor, lastNotAfterMs, entries });
}

/** The floor rises over what is pushed out: a repetition of it is refused, never applied again. */
function bounded(record: SessionRecord): SessionRecord {
  const excess = Math.max(0, record.entries.length - entriesMax);
  const forgotten = record.entries
    .slice(0, excess)
    .reduce((max, { sequence }) => Math.max(max, sequence + 1), record.floor);
  return {
    ...record,
    // Bounded: what is written must be readable again, or the entry stops every replica.
    floor: Math.min(forgotten, Number.MAX_SAFE_INTEGER),
    entries: excess === 0 ? record.entries : record.entries.slice(excess),
  };
}

/** What either of two slots remembers of one client: whatever one of them has refused, this refuses. */
export function mergeSessions(
  a: SessionRecord,
  b: SessionRecord | undefined,
  change: number,
): SessionRecord {
  const floor = Math.max(a.floor, b?.floor ?? 0);
  const bySequence = new Map<number, SessionEntry>();
  for (const entry of [...(b?.entries ?? []), ...a.entries]) bySequence.set(entry.sequence, entry);
  const entries = [...bySequence.values()]
    .filter(({ sequence }) => sequence >= floor)
    .toSorted((one, other) => one.sequence - other.sequence);
  const lastNotAfterMs = Math.max(a.lastNotAfterMs, b?.lastNotAfterMs ?? 0);
  return bounded({ change, floor, lastNotAfterMs, entries });
}

function trimmed(entries: readonly SessionEntry[], floor: number): SessionEntry[] {
  let left = trimMax;
  return entries.filter(({ sequence }) => sequence >= floor || left-- <= 0);
}

/** The same result without the values it carries: a repetition learns what happened, not what was. */
function withoutValues(result: WriteResult): WriteResult {
  switch (result.kind) {
    case 'put':
    case 'delete':
      return { ...result, previous: undefined };
    case 'get':
      return { kind: 'get', kv: undefined };
    case 'transaction':
      return { ...result, results: [] };
    case 'increment':
    case 'refused':
      return result;
  }
}
