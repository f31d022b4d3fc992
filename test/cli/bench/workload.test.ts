import { expect } from 'chai';
import fc from 'fast-check';
import {
  ReadLevel,
  type GetReply,
  type PutReply,
  type ScanReply,
} from '../../../proto/messages.js';
import { InsertSequence } from '../../../src/cli/bench/insert-sequence.js';
import { Loading, Running, workloads, type Subject } from '../../../src/cli/bench/workload.js';
import { KvError } from '../../../src/errors.js';

/** Remembers what was asked for; `failing`: every write of a new record fails. */
class Recorder {
  readonly read: number[] = [];
  readonly written: number[] = [];
  readonly scans: number[] = [];
  failing = false;
  readonly subject: Subject;

  constructor(records: number) {
    const of = (key: Uint8Array): number => Number(Buffer.from(key).toString());
    this.subject = {
      keyOf: (record) => Buffer.from(String(record)),
      prefix: new Uint8Array(),
      valueBytes: 10,
      client: {
        get: ({ key }): Promise<GetReply> => {
          this.read.push(of(key));
          return Promise.resolve({ found: true });
        },
        put: ({ key, value }): Promise<PutReply> => {
          expect(value.byteLength).to.equal(10);
          this.written.push(of(key));
          return this.failing && of(key) >= records
            ? Promise.reject(new KvError('no', { code: 'KV_UNAVAILABLE', outcome: 'unknown' }))
            : Promise.resolve({ applied: true, revision: 1 });
        },
        scan: ({ limit = 0 }): AsyncGenerator<ScanReply> => {
          this.scans.push(limit);
          return pages();
        },
      },
    };
  }
}

async function* pages(): AsyncGenerator<ScanReply> {
  yield { done: true };
}

const reads = { level: ReadLevel.LINEARIZABLE, maxStalenessMs: 0 };

describe('the workloads of quorate bench', () => {
  for (const [name, workload] of Object.entries(workloads))
    it(`${name}: has the shares that YCSB gives it, on records that are there`, async () => {
      const [records, operations] = [100, 4000];
      const recorder = new Recorder(records);
      const running = new Running(recorder.subject, { workload, records, reads });
      const counts = new Map<string, number>();
      for (let n = 0; n < operations; n++) {
        const { kind, run } = running.next();
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
        expect(await run({})).to.equal(true);
      }
      expect(workload.shares.reduce((sum, [, share]) => sum + share, 0)).to.equal(100);
      for (const [kind, share] of workload.shares)
        // Ten standard deviations of the most uncertain share: one run in 10 ** 23 is beyond.
        expect((counts.get(kind) ?? 0) / operations, kind).to.be.closeTo(share / 100, 0.08);
      const inserted = counts.get('insert') ?? 0;
      for (const record of recorder.read) expect(record).to.be.within(0, records + inserted - 1);
      for (const limit of recorder.scans) expect(limit).to.be.within(1, 100);
      expect(new Set(recorder.written.filter((record) => record >= records)).size).to.equal(
        inserted,
      );
    });

  it('latest: asks for the newest more than for any other, and never for one that failed', async () => {
    const { d } = workloads;
    if (d === undefined) throw new Error('there is no workload d');
    const recorder = new Recorder(10);
    const running = new Running(recorder.subject, { workload: d, records: 10, reads });
    recorder.failing = true;
    let failures = 0;
    for (let n = 0; n < 3000; n++)
      await running
        .next()
        .run({})
        .catch((error: unknown) => {
          if (!(error instanceof KvError)) throw error;
          failures += 1;
        });
    expect(failures).to.be.greaterThan(0);
    expect(Math.max(...recorder.read)).to.equal(9);
    const times = (record: number): number =>
      recorder.read.filter((each) => each === record).length;
    expect(times(9)).to.be.greaterThan(times(0));
  });

  it('loads each record once, in order', async () => {
    const recorder = new Recorder(0);
    const loading = new Loading(recorder.subject);
    for (let n = 0; n < 50; n++) await loading.next().run({});
    expect(recorder.written).to.deep.equal(Array.from({ length: 50 }, (_, n) => n));
  });

  it('a record may be asked for once it and all before it have ended, in whatever order they end', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 1 }), fc.nat(), (written, seed) => {
        const sequence = new InsertSequence(7);
        const open = written.map(() => sequence.begin());
        const ended = new Set<number>();
        for (let n = 0; open.length > 0; n++) {
          const [record = 0] = open.splice((seed + n * 7919) % open.length, 1);
          sequence.end(record, written[record - 7] ?? false);
          ended.add(record);
          let expected = 7;
          while (ended.has(expected)) expected += 1;
          expect(sequence.acknowledged).to.equal(expected);
          expect(sequence.failed(record)).to.equal(written[record - 7] === false);
        }
      }),
    );
  });
});
