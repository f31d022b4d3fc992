/**
 * The records of the benchmark and their place: a prefix that holds nothing else, which a record of its
 * own, the marker, says.
 */
import { z } from 'zod';
import type { OperationMessage } from '../../../proto/messages.js';
import type { QuorateClient } from '../../client/index.js';
import { errorOfDetail } from '../../client/wire.js';

const digits = 12;
const recordName = /^user\d{12}$/;

const markerShape = z.object({
  benchmark: z.literal('quorate bench'),
  /** All records below this number have been loaded. */
  records: z.int().min(0),
  valueBytes: z.int().min(0),
});

export type Loaded = Omit<z.infer<typeof markerShape>, 'benchmark'>;

export class Records {
  readonly prefix: Uint8Array;
  private readonly client: QuorateClient;
  private readonly shown: string;
  private readonly marker: Uint8Array;

  constructor(client: QuorateClient, prefix: string) {
    this.client = client;
    this.shown = prefix;
    this.prefix = Buffer.from(prefix, 'utf8');
    this.marker = Buffer.from(`${prefix}.quorate-bench`, 'utf8');
  }

  readonly keyOf = (record: number): Uint8Array =>
    Buffer.from(`${this.shown}user${String(record).padStart(digits, '0')}`, 'utf8');

  /** What was loaded; undefined: the prefix is empty. Throws when it holds what is not the benchmark's. */
  async loaded(): Promise<Loaded | undefined> {
    const { kv } = await this.client.get({ key: this.marker });
    if (kv) return this.parse(kv.value);
    for await (const { kvs } of this.client.scan({ prefix: this.prefix, limit: 1, keysOnly: true }))
      if (kvs !== undefined && kvs.length > 0)
        throw new Error(
          `there are keys that begin with '${this.shown}' and are not of a benchmark: ` +
            'nothing was written; give another --prefix',
        );
    return undefined;
  }

  private parse(value: Uint8Array): Loaded {
    const text = Buffer.from(value).toString('utf8');
    try {
      return markerShape.parse(JSON.parse(text));
    } catch (cause) {
      const name = Buffer.from(this.marker).toString('utf8');
      throw new Error(
        `the key '${name}' is not of a benchmark: nothing was written; give another --prefix`,
        { cause },
      );
    }
  }

  /** Says that the prefix is the benchmark's, and what it holds. */
  async mark(loaded: Loaded): Promise<void> {
    const value = Buffer.from(JSON.stringify({ benchmark: 'quorate bench', ...loaded }));
    await this.client.put({ key: this.marker, value });
  }

  /** Removes every record, and the marker last: what is interrupted can be done again. */
  async remove(): Promise<number> {
    const prefix = Buffer.from(`${this.shown}user`, 'utf8');
    const begin = this.prefix.byteLength;
    let removed = 0;
    for await (const { kvs = [] } of this.client.scan({ prefix, keysOnly: true })) {
      const operations = kvs
        .filter(({ key }) => recordName.test(Buffer.from(key.subarray(begin)).toString('latin1')))
        .map(({ key }): OperationMessage => ({ delete: { key } }));
      for (const { error } of await this.client.batch(operations))
        if (error) throw errorOfDetail(error);
      removed += operations.length;
    }
    await this.client.delete({ key: this.marker });
    return removed;
  }
}
