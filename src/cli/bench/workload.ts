/** The core workloads of YCSB: which operations, in which shares, on which records. */
import { randomBytes } from 'node:crypto';
import type { GetRequest, ScanRequest } from '../../../proto/messages.js';
import type { OperationOptions, QuorateClient } from '../../client/index.js';
import { InsertSequence } from './insert-sequence.js';
import { ScrambledZipfian, Zipfian } from './zipfian.js';

export type Kind = 'insert' | 'read' | 'update' | 'scan' | 'read-modify-write';
export type Distribution = 'zipfian' | 'uniform' | 'latest';

export interface Workload {
  /** Percent of the operations; 100 in all. */
  readonly shares: readonly (readonly [Kind, number])[];
  readonly keys: Distribution;
}

export const workloads: Readonly<Record<string, Workload>> = {
  a: {
    shares: [
      ['read', 50],
      ['update', 50],
    ],
    keys: 'zipfian',
  },
  b: {
    shares: [
      ['read', 95],
      ['update', 5],
    ],
    keys: 'zipfian',
  },
  c: { shares: [['read', 100]], keys: 'zipfian' },
  d: {
    shares: [
      ['read', 95],
      ['insert', 5],
    ],
    keys: 'latest',
  },
  e: {
    shares: [
      ['scan', 95],
      ['insert', 5],
    ],
    keys: 'zipfian',
  },
  f: {
    shares: [
      ['read', 50],
      ['read-modify-write', 50],
    ],
    keys: 'zipfian',
  },
};

/** Records of one scan: from 1 to this, each number as often as the others. */
const scanLengthMax = 100;

/** One operation. `run` resolves to whether every record it asked for was there. */
export interface Action {
  readonly kind: Kind;
  readonly run: (options: OperationOptions) => Promise<boolean>;
}

export interface Subject {
  readonly client: Pick<QuorateClient, 'get' | 'put' | 'scan'>;
  readonly keyOf: (record: number) => Uint8Array;
  /** All keys begin with it. */
  readonly prefix: Uint8Array;
  readonly valueBytes: number;
}

export interface ReadForm {
  readonly level: number;
  readonly maxStalenessMs: number;
}

/** Writes record after record, from the first. */
export class Loading {
  private readonly subject: Subject;
  private readonly value: () => Uint8Array;
  private record = 0;

  constructor(subject: Subject) {
    this.subject = subject;
    this.value = values(subject.valueBytes);
  }

  next(): Action {
    const { client, keyOf } = this.subject;
    const put = { key: keyOf(this.record++), value: this.value() };
    return { kind: 'insert', run: (options) => client.put(put, options).then(() => true) };
  }
}

/** Draws the operations of a workload over `records` records that are there. */
export class Running {
  private readonly subject: Subject;
  private readonly shares: Workload['shares'];
  private readonly reads: ReadForm;
  private readonly choose: () => number;
  private readonly inserts: InsertSequence;
  private readonly value: () => Uint8Array;

  constructor(
    subject: Subject,
    options: {
      readonly workload: Workload;
      readonly records: number;
      readonly reads: ReadForm;
    },
  ) {
    const { workload, records, reads } = options;
    this.subject = subject;
    this.shares = workload.shares;
    this.reads = reads;
    this.inserts = new InsertSequence(records);
    this.choose = chooser(workload.keys, records, this.inserts);
    this.value = values(subject.valueBytes);
  }

  next(): Action {
    const kind = this.kind();
    return { kind, run: (options) => this.carryOut(kind, options) };
  }

  private kind(): Kind {
    let left = Math.random() * 100;
    for (const [kind, share] of this.shares) {
      left -= share;
      if (left < 0) return kind;
    }
    return 'read';
  }

  private carryOut(kind: Kind, options: OperationOptions): Promise<boolean> {
    switch (kind) {
      case 'read':
        return this.read(this.subject.keyOf(this.choose()), options);
      case 'update':
        return this.update(this.subject.keyOf(this.choose()), options);
      case 'insert':
        return this.insert(options);
      case 'scan':
        return this.scan(options);
      case 'read-modify-write':
        return this.readModifyWrite(options);
    }
  }

  private async read(key: Uint8Array, options: OperationOptions): Promise<boolean> {
    const request: GetRequest = { key, ...this.reads };
    return (await this.subject.client.get(request, options)).found;
  }

  private async update(key: Uint8Array, options: OperationOptions): Promise<boolean> {
    await this.subject.client.put({ key, value: this.value() }, options);
    return true;
  }

  /** As in YCSB two operations of one client: others may write in between. */
  private async readModifyWrite(options: OperationOptions): Promise<boolean> {
    const key = this.subject.keyOf(this.choose());
    const found = await this.read(key, options);
    await this.update(key, options);
    return found;
  }

  private async insert(options: OperationOptions): Promise<boolean> {
    const record = this.inserts.begin();
    let written = false;
    try {
      written = await this.update(this.subject.keyOf(record), options);
      return written;
    } finally {
      this.inserts.end(record, written);
    }
  }

  /** Behind a record, in the order in which this store scans: by slot, then by key. */
  private async scan(options: OperationOptions): Promise<boolean> {
    const { client, keyOf, prefix } = this.subject;
    const limit = 1 + Math.floor(Math.random() * scanLengthMax);
    const afterKey = keyOf(this.choose());
    const request: ScanRequest = { prefix, afterKey, limit, ...this.reads };
    for await (const page of client.scan(request, options)) if (page.done === true) break;
    return true;
  }
}

/** `latest`: the newer a record, the more often; the other two draw from those there at first. */
function chooser(keys: Distribution, records: number, inserts: InsertSequence): () => number {
  if (keys === 'uniform') return () => Math.floor(Math.random() * records);
  if (keys === 'zipfian') {
    const scrambled = new ScrambledZipfian(records);
    return () => scrambled.next();
  }
  const ages = new Zipfian(records);
  return () => {
    for (;;) {
      ages.resize(inserts.acknowledged);
      const record = inserts.acknowledged - 1 - ages.next();
      if (!inserts.failed(record)) return record;
    }
  };
}

/** Values that do not compress, each another piece of the same bytes. */
function values(length: number): () => Uint8Array {
  const pool = randomBytes(length * 2);
  return () => {
    const from = Math.floor(Math.random() * length);
    return pool.subarray(from, from + length);
  };
}
