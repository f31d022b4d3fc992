/**
 * A range of the keys of one space, read page by page through scans. The server scans forwards from
 * a key; bounds and the backward direction are made here, on the client's side.
 */
import type { KeyValueMessage, ScanRequest } from '../../proto/messages.js';
import type { QuorateClient } from './quorate-client.js';

/** Where the keys of a store lie: all begin with `prefix`, all are in `slot`. */
export interface Place {
  readonly client: QuorateClient;
  readonly prefix: Uint8Array;
  readonly slot: number;
}

export interface Bound {
  /** Without the prefix of the place. */
  readonly key: Uint8Array;
  readonly inclusive: boolean;
}

export interface Range {
  readonly lower: Bound | undefined;
  readonly upper: Bound | undefined;
}

/** Keys without the prefix of the place. Arrays: abstract-level decodes in place. */
export type Entry = [key: Uint8Array, value: Uint8Array];

export interface EntrySource {
  /** At most `lengthMax` entries (1 or more); empty: the range has ended. */
  next(lengthMax: number): Promise<Entry[]>;
}

/** Behind the predecessor of a bound's last byte: few keys lie between that and the bound. */
const paddingBytes = 8;
/** A padded key must stay a legal one; the server's default limit is 4 KiB. */
const paddedBytesMax = 1024;

export function isBelow(key: Uint8Array, lower: Bound | undefined): boolean {
  if (lower === undefined) return false;
  const order = Buffer.compare(key, lower.key);
  return order < 0 || (order === 0 && !lower.inclusive);
}

export function isAbove(key: Uint8Array, upper: Bound | undefined): boolean {
  if (upper === undefined) return false;
  const order = Buffer.compare(key, upper.key);
  return order > 0 || (order === 0 && !upper.inclusive);
}

/** Ascending. Each page is one view; pages are read when asked for, and are not one view. */
export class AscendingEntries implements EntrySource {
  private readonly place: Place;
  private readonly range: Range;
  private readonly keysOnly: boolean;
  /** Undefined before the first page. */
  private cursor: Uint8Array | undefined;
  private ended = false;

  constructor(place: Place, range: Range, options: { readonly keysOnly: boolean }) {
    this.place = place;
    this.range = range;
    this.keysOnly = options.keysOnly;
  }

  async next(lengthMax: number): Promise<Entry[]> {
    while (!this.ended) {
      const entries = this.within(await this.page(lengthMax));
      if (entries.length > 0) return entries;
    }
    return [];
  }

  /** One page, also an empty one in the middle: expired keys count for its length. */
  private async page(limit: number): Promise<readonly KeyValueMessage[]> {
    const { client, prefix, slot } = this.place;
    const request: ScanRequest = {
      prefix: join(prefix, sharedPrefix(this.range)),
      slot,
      limit,
      keysOnly: this.keysOnly,
      ...this.start(),
    };
    for await (const { kvs, cursor } of client.scan(request)) {
      // A scan that ends at its limit has a cursor; one that ends with the keys has none.
      if (cursor === undefined || cursor.byteLength === 0) this.ended = true;
      else this.cursor = Uint8Array.from(cursor);
      return kvs ?? [];
    }
    this.ended = true;
    return [];
  }

  private start(): { cursor?: Uint8Array; afterKey?: Uint8Array } {
    if (this.cursor !== undefined) return { cursor: this.cursor };
    const { lower } = this.range;
    if (lower === undefined) return {};
    if (!lower.inclusive) return { afterKey: join(this.place.prefix, lower.key) };
    // Nothing lies below the empty key.
    if (lower.key.byteLength === 0) return {};
    return { afterKey: join(this.place.prefix, justBefore(lower.key)) };
  }

  private within(kvs: readonly KeyValueMessage[]): Entry[] {
    const entries: Entry[] = [];
    for (const kv of kvs) {
      // Copies: decoded bytes alias the received frame, and abstract-level wants plain arrays.
      const key = new Uint8Array(kv.key.subarray(this.place.prefix.byteLength));
      if (isBelow(key, this.range.lower)) continue;
      if (isAbove(key, this.range.upper)) {
        this.ended = true;
        break;
      }
      entries.push([key, new Uint8Array(kv.value)]);
    }
    return entries;
  }
}

/**
 * Descending: the range is read forwards from its start, and its last `keep` entries are held.
 * `refuse` makes the error for more than `bytesMax` bytes of keys and values held.
 */
export class DescendingEntries implements EntrySource {
  private readonly ascending: AscendingEntries;
  private readonly keep: number;
  private readonly bytesMax: number;
  private readonly refuse: () => Error;
  /** Ascending, so that the next ones are taken from the end; undefined before the first. */
  private held: Entry[] | undefined;

  constructor(
    ascending: AscendingEntries,
    options: { readonly keep: number; readonly bytesMax: number; readonly refuse: () => Error },
  ) {
    this.ascending = ascending;
    this.keep = options.keep;
    this.bytesMax = options.bytesMax;
    this.refuse = options.refuse;
  }

  async next(lengthMax: number): Promise<Entry[]> {
    this.held ??= await this.readAll();
    return this.held.splice(-lengthMax).reverse();
  }

  private async readAll(): Promise<Entry[]> {
    let held: Entry[] = [];
    let bytes = 0;
    for (;;) {
      const page = await this.ascending.next(pageLengthMax);
      if (page.length === 0) return held;
      held.push(...page);
      bytes += bytesOf(page);
      const surplus = held.length - this.keep;
      if (surplus > 0) {
        bytes -= bytesOf(held.slice(0, surplus));
        held = held.slice(surplus);
      }
      if (bytes > this.bytesMax) throw this.refuse();
    }
  }
}

/** Keys in one page; it ends at 256 KiB in any case. */
export const pageLengthMax = 1000;

function bytesOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, [key, value]) => sum + key.byteLength + value.byteLength, 0);
}

/** Every key between two bounds begins with what the bounds have in common. */
function sharedPrefix({ lower, upper }: Range): Uint8Array {
  if (lower === undefined || upper === undefined) return new Uint8Array();
  const lengthMax = Math.min(lower.key.byteLength, upper.key.byteLength);
  let length = 0;
  while (length < lengthMax && lower.key[length] === upper.key[length]) length++;
  return lower.key.subarray(0, length);
}

/** A key below `key` (not empty) with little between the two: scans begin behind a key, not at one. */
function justBefore(key: Uint8Array): Uint8Array {
  const head = key.subarray(0, -1);
  const last = key.at(-1) ?? 0;
  if (last === 0) return head;
  const padding = key.byteLength < paddedBytesMax ? paddingBytes : 0;
  return join(head, Uint8Array.from([last - 1]), new Uint8Array(padding).fill(0xff));
}

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
