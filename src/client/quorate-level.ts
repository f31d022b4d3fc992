/** A cluster as an abstract-level store: ordered keys, iterators, atomic batches, sublevels. */
import {
  AbstractIterator,
  AbstractLevel,
  type AbstractClearOptions,
  type AbstractDatabaseOptions,
  type AbstractIteratorOptions,
} from 'abstract-level';
import type { OperationMessage } from '../../proto/messages.js';
import { slotOf } from '../router/slot.js';
import {
  AscendingEntries,
  DescendingEntries,
  isAbove,
  isBelow,
  join,
  pageLengthMax,
  type Bound,
  type Entry,
  type EntrySource,
  type Place,
  type Range,
} from './level-range.js';
import type { QuorateClient } from './quorate-client.js';
import { errorOfDetail } from './wire.js';

const spaceBytesMax = 256;
/** At the default limit of 1 MiB a value this stays below the 64 MiB that a reply may have. */
const readsPerCall = 48;
/** Held by a backward iterator that was not told otherwise. */
const reverseBytesMaxDefault = 16 * 1024 * 1024;

export interface QuorateLevelOptions<K, V> extends AbstractDatabaseOptions<K, V> {
  /** 1 to 256 bytes without `{` and `}`. Stores of one space see the same keys, others never do. */
  readonly space: string;
  /** Bytes of keys and values that a backward iterator may hold; 16 MiB if absent. */
  readonly reverseBytesMax?: number;
}

interface LevelWrite {
  readonly type: 'put' | 'del';
  readonly key: Uint8Array;
  readonly value?: Uint8Array;
}

/**
 * All keys lie under the hash tag `{space}`, hence in one slot. That is what gives key order and
 * batches that are applied as a whole or not at all; its price is that a space lives in one shard:
 * it gets that shard's throughput and room, and not more by adding nodes. Use many spaces.
 *
 * Every get, put, del, batch and each page of an iterator is linearizable; a failed call rejects
 * with KvError, whose `outcome` says what a write may have done. The client stays the caller's:
 * closing the store does not close it.
 *
 * What is not there, and what the manifest (`db.supports`) says of it:
 * - snapshots, implicit and explicit: an iterator reads page by page and sees writes made meanwhile
 *   (in pages not read yet); `clear` removes page by page, and is not atomic;
 * - `getSync`: reads go over the network;
 * - `createIfMissing`, `errorIfExists`: a space exists by being named; opening does no call;
 * - signals on a read under way: a signal is seen between reads.
 * Backward iterators read their range from its beginning and hold it (or its last `limit` entries),
 * up to `reverseBytesMax`; beyond that they reject with LEVEL_NOT_SUPPORTED.
 * Keys are shorter than the server's limit by the length of the tag. A batch has the limits of a
 * request (10,000 operations, 4 MiB); over them it is refused with KV_TOO_LARGE, nothing applied.
 */
export class QuorateLevel<K = string, V = string> extends AbstractLevel<Uint8Array, K, V> {
  private readonly place: Place;
  private readonly reverseBytesMax: number;

  constructor(client: QuorateClient, options: QuorateLevelOptions<K, V>) {
    const { space, reverseBytesMax = reverseBytesMaxDefault, ...level } = options;
    super(
      {
        encodings: { view: true },
        has: true,
        seek: true,
        permanence: true,
        implicitSnapshots: false,
        explicitSnapshots: false,
        createIfMissing: false,
        errorIfExists: false,
      },
      level,
    );
    const prefix = prefixOf(space);
    this.place = { client, prefix, slot: slotOf(prefix) };
    this.reverseBytesMax = reverseBytesMax;
  }

  async _get(key: Uint8Array): Promise<Uint8Array | undefined> {
    const { found, kv } = await this.place.client.get({ key: this.keyOf(key) });
    return found && kv ? new Uint8Array(kv.value) : undefined;
  }

  /** In calls of up to 48 keys, each key read on its own: no view over all of them. */
  async _getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    const values: (Uint8Array | undefined)[] = [];
    for (let from = 0; from < keys.length; from += readsPerCall) {
      const reads = keys
        .slice(from, from + readsPerCall)
        .map((key): OperationMessage => ({ get: { key: this.keyOf(key) } }));
      for (const { get, error } of await this.place.client.batch(reads)) {
        if (error) throw errorOfDetail(error);
        values.push(get?.found === true && get.kv ? new Uint8Array(get.kv.value) : undefined);
      }
    }
    return values;
  }

  async _has(key: Uint8Array): Promise<boolean> {
    return (await this._get(key)) !== undefined;
  }

  async _hasMany(keys: readonly Uint8Array[]): Promise<boolean[]> {
    return (await this._getMany(keys)).map((value) => value !== undefined);
  }

  async _put(key: Uint8Array, value: Uint8Array): Promise<void> {
    await this.place.client.put({ key: this.keyOf(key), value });
  }

  async _del(key: Uint8Array): Promise<void> {
    await this.place.client.delete({ key: this.keyOf(key) });
  }

  /** One transaction: all or nothing, also when the client had to retry. */
  async _batch(writes: readonly LevelWrite[]): Promise<void> {
    await this.place.client.txn({
      then: writes.map(({ type, key, value }): OperationMessage => {
        if (type === 'del') return { delete: { key: this.keyOf(key) } };
        return { put: { key: this.keyOf(key), value: value ?? new Uint8Array() } };
      }),
    });
  }

  async _clear(options: AbstractClearOptions<K>): Promise<void> {
    let left = limitOf(options.limit);
    // Without a limit the direction makes no difference, and forwards holds nothing.
    const reverse = options.reverse === true && left !== Infinity;
    const source = this.entries(rangeOf(options), { reverse, keep: left, keysOnly: true });
    while (left > 0) {
      const entries = await source.next(Math.min(left, pageLengthMax));
      if (entries.length === 0) return;
      await this._batch(entries.map(([key]): LevelWrite => ({ type: 'del', key })));
      left -= entries.length;
    }
  }

  _iterator(options: AbstractIteratorOptions<K, V>): QuorateIterator<K, V> {
    return new QuorateIterator(this, options, (range, keep) =>
      this.entries(range, {
        reverse: options.reverse === true,
        keep,
        keysOnly: options.values === false,
      }),
    );
  }

  private entries(
    range: Range,
    options: { readonly reverse: boolean; readonly keep: number; readonly keysOnly: boolean },
  ): EntrySource {
    const ascending = new AscendingEntries(this.place, range, options);
    if (!options.reverse) return ascending;
    const bytesMax = this.reverseBytesMax;
    return new DescendingEntries(ascending, {
      keep: options.keep,
      bytesMax,
      refuse: () =>
        notSupported(
          `a backward read would hold more than ${bytesMax} bytes: ` +
            'give it a lower bound or a limit, read forwards, or raise reverseBytesMax',
        ),
    });
  }

  private keyOf(key: Uint8Array): Uint8Array {
    return join(this.place.prefix, key);
  }
}

/** Reads a page when the last one is used up, so nothing before the first `next`. */
class QuorateIterator<K, V> extends AbstractIterator<QuorateLevel<K, V>, K, V> {
  private readonly range: Range;
  private readonly reverse: boolean;
  private readonly open: (range: Range, keep: number) => EntrySource;
  private source: EntrySource | undefined;
  private page: Entry[] = [];
  private used = 0;

  constructor(
    db: QuorateLevel<K, V>,
    options: AbstractIteratorOptions<K, V>,
    open: (range: Range, keep: number) => EntrySource,
  ) {
    super(db, options);
    this.range = rangeOf(options);
    this.reverse = options.reverse === true;
    this.open = open;
  }

  async _next(): Promise<Entry | undefined> {
    return (await this._nextv(1))[0];
  }

  async _nextv(size: number): Promise<Entry[]> {
    if (this.used === this.page.length) {
      // 1 or more: abstract-level does not ask beyond the limit.
      const left = this.limit - this.count;
      this.source ??= this.open(this.range, left);
      this.page = await this.source.next(Math.min(left, pageLengthMax));
      this.used = 0;
    }
    const entries = this.page.slice(this.used, this.used + size);
    this.used += entries.length;
    return entries;
  }

  _seek(target: Uint8Array): void {
    this.page = [];
    this.used = 0;
    const { lower, upper } = this.range;
    if (isBelow(target, lower) || isAbove(target, upper)) {
      this.source = { next: () => Promise.resolve([]) };
      return;
    }
    const bound = { key: new Uint8Array(target), inclusive: true };
    const range = this.reverse ? { lower, upper: bound } : { lower: bound, upper };
    this.source = this.open(range, this.limit - this.count);
  }
}

function prefixOf(space: string): Uint8Array {
  const length = Buffer.byteLength(space, 'utf8');
  if (length === 0 || length > spaceBytesMax || /[{}]/.test(space)) {
    throw new RangeError(
      `space must have 1 to ${spaceBytesMax} bytes and neither { nor }, got ${JSON.stringify(space)}`,
    );
  }
  return new Uint8Array(Buffer.from(`{${space}}`, 'utf8'));
}

/** The options of the private methods carry bounds as bytes. */
function rangeOf(options: {
  readonly gt?: unknown;
  readonly gte?: unknown;
  readonly lt?: unknown;
  readonly lte?: unknown;
}): Range {
  return {
    lower: boundOf(options.gte, true) ?? boundOf(options.gt, false),
    upper: boundOf(options.lte, true) ?? boundOf(options.lt, false),
  };
}

function boundOf(key: unknown, inclusive: boolean): Bound | undefined {
  return key instanceof Uint8Array ? { key, inclusive } : undefined;
}

function limitOf(limit: number | undefined): number {
  return limit === undefined || limit < 0 ? Infinity : limit;
}

/** Coded as abstract-level codes its own errors. */
function notSupported(message: string): Error {
  return Object.assign(new Error(message), { code: 'LEVEL_NOT_SUPPORTED' });
}
