import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { KvError, QuorateClient, QuorateLevel } from '../../src/client/index.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, leaderOf, withCluster } from '../cluster/fixture.js';

type BytesLevel = QuorateLevel<Uint8Array, string>;

function open(client: QuorateClient, space: string, reverseBytesMax?: number): BytesLevel {
  return new QuorateLevel<Uint8Array, string>(client, {
    space,
    keyEncoding: 'view',
    ...(reverseBytesMax === undefined ? {} : { reverseBytesMax }),
  });
}

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

const numbered = (n: number): Uint8Array => bytes(`key-${String(n).padStart(6, '0')}`);

async function keysOf(level: BytesLevel): Promise<string[]> {
  return (await level.keys().all()).map((key) => Buffer.from(key).toString());
}

/** Another name whose keys lie in the same slot, so that only the prefix keeps them apart. */
function neighbourOf(space: string): string {
  const slot = slotOf(bytes(`{${space}}`));
  for (let n = 0; n < 1_000_000; n++) {
    if (slotOf(bytes(`{${space}${n}}`)) === slot) return `${space}${n}`;
  }
  throw new Error(`no name in slot ${slot}`);
}

interface Query {
  readonly lower: Uint8Array | undefined;
  readonly lowerInclusive: boolean;
  readonly upper: Uint8Array | undefined;
  readonly upperInclusive: boolean;
  readonly reverse: boolean;
  readonly limit: number;
  readonly target: Uint8Array | undefined;
}

function inRange(key: Uint8Array, query: Query): boolean {
  const { lower, upper } = query;
  const fromLower = lower === undefined ? 1 : Buffer.compare(key, lower);
  const toUpper = upper === undefined ? -1 : Buffer.compare(key, upper);
  return (
    (fromLower > 0 || (fromLower === 0 && query.lowerInclusive)) &&
    (toUpper < 0 || (toUpper === 0 && query.upperInclusive))
  );
}

/** What an iterator must give, from a plain list. */
function expected(keys: readonly Uint8Array[], query: Query): Uint8Array[] {
  const { target, reverse, limit } = query;
  if (target !== undefined && !inRange(target, query)) return [];
  const found = keys
    .filter((key) => inRange(key, query))
    .filter((key) => {
      const order = target === undefined ? 0 : Buffer.compare(key, target);
      return reverse ? order <= 0 : order >= 0;
    });
  if (reverse) found.reverse();
  return limit < 0 ? found : found.slice(0, limit);
}

async function actual(level: BytesLevel, query: Query): Promise<Uint8Array[]> {
  const { lower, upper, reverse, limit, target } = query;
  const iterator = level.keys({
    reverse,
    limit,
    ...(lower === undefined ? {} : { [query.lowerInclusive ? 'gte' : 'gt']: lower }),
    ...(upper === undefined ? {} : { [query.upperInclusive ? 'lte' : 'lt']: upper }),
  });
  if (target !== undefined) iterator.seek(target);
  return iterator.all();
}

/** Few bytes, the lowest and the highest among them: many keys touch or prefix each other. */
const keyArbitrary = fc
  .array(fc.constantFrom(0, 1, 0x61, 0x62, 0x7d, 0xfe, 0xff), { maxLength: 4 })
  .map((parts) => Uint8Array.from(parts));
const boundArbitrary = fc.option(keyArbitrary, { nil: undefined });
const queryArbitrary: fc.Arbitrary<Query> = fc.record({
  lower: boundArbitrary,
  lowerInclusive: fc.boolean(),
  upper: boundArbitrary,
  upperInclusive: fc.boolean(),
  reverse: fc.boolean(),
  limit: fc.constantFrom(-1, 0, 1, 2, 5),
  target: boundArbitrary,
});

describe('a space of keys as a store, over one node', () => {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-space-'));
  let cluster: LocalCluster | undefined;
  let client = new QuorateClient({ endpoints: ['127.0.0.1:1'] });

  before(async () => {
    cluster = await LocalCluster.start({ nodes: 1, directory, basePort: 0, flags: {} });
    client = new QuorateClient({ endpoints: cluster.endpoints });
  });

  after(async () => {
    client.close();
    await cluster?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it('iterates like a sorted list, with any bounds, direction, limit and seek', async () => {
    const level = open(client, 'model');
    const all =
      fc.sample(
        fc.uniqueArray(keyArbitrary, {
          minLength: 60,
          maxLength: 60,
          comparator: (a, b) => Buffer.compare(a, b) === 0,
        }),
        { numRuns: 1, seed: 7 },
      )[0] ?? [];
    all.sort((a, b) => Buffer.compare(a, b));
    await level.batch(all.map((key) => ({ type: 'put', key, value: 'v' })));
    await fc.assert(
      fc.asyncProperty(queryArbitrary, async (query) => {
        expect(await actual(level, query)).to.deep.equal(expected(all, query));
      }),
      { numRuns: 300 },
    );
  });

  it('begins exactly at its lower bound, though keys lie as close below it as keys can', async () => {
    const level = open(client, 'close');
    const long = new Uint8Array(2_000).fill(0x62);
    const belowLong = Uint8Array.from([...long.subarray(0, -1), 0x61, 0xff]);
    const below = Uint8Array.from([0x61, ...new Uint8Array(20).fill(0xff)]);
    const keys = [below, bytes('b'), belowLong, long];
    await level.batch(keys.map((key) => ({ type: 'put', key, value: 'v' })));
    expect(await level.keys({ gte: bytes('b') }).all()).to.deep.equal(keys.slice(1));
    expect(await level.keys({ gte: bytes('b'), limit: 1 }).all()).to.deep.equal([bytes('b')]);
    expect(await level.keys({ gte: long }).all()).to.deep.equal([long]);
    expect(await level.keys({ reverse: true, gte: long }).all()).to.deep.equal([long]);
  });

  it('never shows nor clears keys of another space, though in the same slot or of a longer name', async () => {
    const neighbour = neighbourOf('mine');
    const mine = open(client, 'mine');
    const others = [open(client, neighbour), open(client, 'min'), open(client, 'mine!')];
    for (const other of others) await other.put(bytes('k'), 'theirs');
    await client.put({ key: bytes('{mine'), value: bytes('no tag') });
    await client.put({ key: bytes('mine'), value: bytes('no braces') });
    expect(await mine.iterator().all()).to.deep.equal([]);
    expect(await mine.iterator({ reverse: true }).all()).to.deep.equal([]);
    expect(await mine.get(bytes('k'))).to.equal(undefined);
    await mine.put(bytes('k'), 'mine');
    await mine.clear();
    expect(await mine.get(bytes('k'))).to.equal(undefined);
    for (const other of others) expect(await other.get(bytes('k'))).to.equal('theirs');
  });

  it('takes no name that could end the tag early', () => {
    for (const space of ['', 'a}b', 'a{b', 'x'.repeat(257)])
      expect(() => open(client, space), space).to.throw(RangeError, 'space must have');
  });

  it('refuses a batch over a limit as a whole, and names limit and size', async () => {
    const level = open(client, 'large');
    const tooMany = Array.from({ length: 10_001 }, (_, n) => numbered(n));
    const many = await failureOf(
      level.batch(tooMany.map((key) => ({ type: 'put', key, value: '' }))),
    );
    const tooBig = Array.from({ length: 5 }, (_, n) => numbered(n));
    const big = await failureOf(
      level.batch(tooBig.map((key) => ({ type: 'put', key, value: 'x'.repeat(1024 * 1024) }))),
    );
    const value = await failureOf(
      level.batch([
        { type: 'put', key: numbered(1), value: 'fits' },
        { type: 'put', key: numbered(2), value: 'x'.repeat(1024 * 1024 + 1) },
      ]),
    );
    for (const error of [many, big, value]) {
      if (!(error instanceof KvError)) throw new Error(`no KvError: ${String(error)}`);
      expect([error.code, error.outcome]).to.deep.equal(['KV_TOO_LARGE', 'notApplied']);
      expect(error.fields.size).to.be.greaterThan(error.fields.limit ?? Infinity);
      expect(error.message).to.include(String(error.fields.limit));
    }
    expect(await keysOf(level)).to.deep.equal([]);
  });

  it('applies a batch at the limit of its length, in order, the last write to a key winning', async () => {
    const level = open(client, 'full');
    const puts = Array.from({ length: 9_998 }, (_, n) => ({
      type: 'put' as const,
      key: numbered(n),
      value: `v${n}`,
    }));
    const twice = [
      { type: 'del' as const, key: numbered(1) },
      { type: 'put' as const, key: numbered(2), value: 'again' },
    ];
    await level.batch([...puts, ...twice]);
    // Ten pages: order and completeness across the seams.
    const keys = await keysOf(level);
    expect(keys).to.deep.equal(
      puts.filter((_, n) => n !== 1).map(({ key }) => Buffer.from(key).toString()),
    );
    // Three calls.
    const asked = Array.from({ length: 100 }, (_, n) => numbered(n));
    const values = await level.getMany(asked);
    expect(values.slice(0, 4)).to.deep.equal(['v0', undefined, 'again', 'v3']);
    expect(values.slice(4)).to.deep.equal(asked.slice(4).map((_, n) => `v${n + 4}`));
    await level.clear({ gte: numbered(10), reverse: true, limit: 5_000 });
    expect((await keysOf(level)).length).to.equal(4_997);
    expect(await level.has(numbered(4_997))).to.equal(true);
    expect(await level.has(numbered(4_998))).to.equal(false);
    await level.clear();
    expect(await keysOf(level)).to.deep.equal([]);
  });

  it('holds no more than it may for a backward read, and says what to do instead', async () => {
    const level = open(client, 'backwards', 20_000);
    const value = 'x'.repeat(1_000);
    await level.batch(
      Array.from({ length: 100 }, (_, n) => ({ type: 'put', key: numbered(n), value })),
    );
    const error = await failureOf(level.iterator({ reverse: true }).all());
    expect(error).to.have.property('code', 'LEVEL_NOT_SUPPORTED');
    expect(String(error)).to.include('20000 bytes').and.include('reverseBytesMax');
    const last = await level.keys({ reverse: true, limit: 3 }).all();
    expect(last.map((key) => Buffer.from(key).toString())).to.deep.equal([
      'key-000099',
      'key-000098',
      'key-000097',
    ]);
  });

  it('refuses what it does not have: snapshots and reads without waiting', async () => {
    const level = open(client, 'refusals');
    await level.open();
    expect(() => level.snapshot())
      .to.throw()
      .with.property('code', 'LEVEL_NOT_SUPPORTED');
    expect(() => level.getSync(bytes('k')))
      .to.throw()
      .with.property('code', 'LEVEL_NOT_SUPPORTED');
    const { implicitSnapshots, explicitSnapshots, createIfMissing, errorIfExists } = level.supports;
    expect({ implicitSnapshots, explicitSnapshots, createIfMissing, errorIfExists }).to.deep.equal({
      implicitSnapshots: false,
      explicitSnapshots: false,
      createIfMissing: false,
      errorIfExists: false,
    });
  });
});

describe('a space of keys as a store, over three nodes', function () {
  this.timeout(60_000);

  it('goes on iterating and writing when the leader is killed in between', async () => {
    await withCluster({}, async ({ cluster, client }) => {
      const level = open(client, 'crash');
      const write = (from: number, count: number): Promise<void> =>
        level.batch(
          Array.from({ length: count }, (_, n) => ({
            type: 'put',
            key: numbered(from + n),
            value: 'x'.repeat(500),
          })),
        );
      await write(0, 2_000);
      const iterator = level.keys();
      const seen = await iterator.nextv(100);
      await cluster.kill(await leaderOf(cluster));
      for (let more = await iterator.nextv(500); more.length > 0; more = await iterator.nextv(500))
        seen.push(...more);
      await iterator.close();
      expect(seen).to.deep.equal(Array.from({ length: 2_000 }, (_, n) => numbered(n)));
      await write(2_000, 500);
      expect((await keysOf(level)).length).to.equal(2_500);
    });
  });

  it('a scan that began behind a key goes on from its cursor when its node is killed', async () => {
    await withCluster({}, async ({ cluster, client }) => {
      const keys = Array.from({ length: 800 }, (_, n) => bytes(`{s}${String(n).padStart(4, '0')}`));
      for (let from = 0; from < keys.length; from += 100)
        await client.batch(
          keys
            .slice(from, from + 100)
            .map((key) => ({ put: { key, value: new Uint8Array(10_000) } })),
        );
      // A client of its own begins at the first endpoint.
      const own = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      const first = keys[0] ?? new Uint8Array();
      const seen: string[] = [];
      let pages = 0;
      for await (const page of own.scan({
        prefix: bytes('{s}'),
        slot: slotOf(first),
        afterKey: first,
        pageBytes: 20_000,
      })) {
        for (const { key } of page.kvs ?? []) seen.push(Buffer.from(key).toString());
        // 8 MB do not fit into the windows between: most pages are still to come.
        if (++pages === 1) await cluster.kill(1);
      }
      own.close();
      expect(seen).to.deep.equal(keys.slice(1).map((key) => Buffer.from(key).toString()));
    });
  });
});
