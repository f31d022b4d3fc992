/** What every state engine promises, as tests: run over RocksDB and over memory alike. */
import { expect } from 'chai';
import fc from 'fast-check';
import { EngineClosed, type Engine, type KeyRange, type Pair } from '../../../storage/index.js';

export const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
export const everything: KeyRange = { start: bytes(''), end: bytes('\xff\xff\xff') };
const manyBytes = 1 << 20;

export async function put(
  engine: Engine,
  pairs: Readonly<Record<string, string>>,
  sync = false,
): Promise<void> {
  const batch = engine.batch();
  for (const [key, value] of Object.entries(pairs)) batch.put(bytes(key), bytes(value));
  await engine.write(batch, { sync });
}

const textOf = (value: Uint8Array | undefined): string | undefined =>
  value === undefined ? undefined : Buffer.from(value).toString('latin1');

const shown = ({ key, value }: Pair): string => `${textOf(key)}=${textOf(value)}`;

export async function get(engine: Engine, key: string): Promise<string | undefined> {
  const [value] = await engine.getMany([bytes(key)]);
  return textOf(value);
}

/** Everything in a range as `key=value`, page by page. */
export async function list(
  engine: Engine,
  options: Partial<Parameters<Engine['iterate']>[0]> = {},
): Promise<readonly string[]> {
  const iterator = engine.iterate({ ...everything, pageBytesMax: manyBytes, ...options });
  const found: string[] = [];
  try {
    for (let page = await iterator.next(); page.length > 0; page = await iterator.next()) {
      found.push(...page.map(shown));
    }
  } finally {
    await iterator.close();
  }
  return found;
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
}

/** `open` gives an empty engine each time; whoever opens cleans up. */
export function engineContract(open: () => Promise<Engine>): void {
  const using = async (run: (engine: Engine) => Promise<void>): Promise<void> => {
    const engine = await open();
    try {
      await run(engine);
    } finally {
      await engine.close();
    }
  };

  it('gives values in the order of the keys asked for, and undefined where there is none', () =>
    using(async (engine) => {
      await put(engine, { a: '1', b: '', c: '3' });
      const values = await engine.getMany(['c', 'x', 'a', 'b', 'c'].map(bytes));
      expect(values.map(textOf)).to.deep.equal(['3', undefined, '1', '', '3']);
      expect(await engine.getMany([])).to.deep.equal([]);
    }));

  it('writes a batch in its order: of several writes of a key the last one counts', () =>
    using(async (engine) => {
      const batch = engine.batch();
      batch.put(bytes('a'), bytes('1'));
      batch.delete(bytes('a'));
      batch.put(bytes('b'), bytes('1'));
      batch.put(bytes('b'), bytes('22'));
      batch.delete(bytes('nobody'));
      expect(batch.length).to.equal(5);
      expect(batch.bytes).to.equal(2 + 1 + 2 + 3 + 6);
      await engine.write(batch, { sync: false });
      expect(await list(engine)).to.deep.equal(['b=22']);
    }));

  it('writes nothing of a batch before write, and an empty one is fine', () =>
    using(async (engine) => {
      const batch = engine.batch();
      batch.put(bytes('a'), bytes('1'));
      expect(await get(engine, 'a')).to.equal(undefined);
      await engine.write(engine.batch(), { sync: true });
      await engine.write(batch, { sync: true });
      expect(await get(engine, 'a')).to.equal('1');
    }));

  it('orders keys as bytes, from start to before end, both ways', () =>
    using(async (engine) => {
      await put(engine, { '\x00': '0', a: '1', 'a\x00': '2', ab: '3', b: '4', '\xff': '5' });
      const range = { start: bytes('a'), end: bytes('b') };
      expect(await list(engine)).to.deep.equal([
        '\x00=0',
        'a=1',
        'a\x00=2',
        'ab=3',
        'b=4',
        '\xff=5',
      ]);
      expect(await list(engine, range)).to.deep.equal(['a=1', 'a\x00=2', 'ab=3']);
      expect(await list(engine, { ...range, reverse: true })).to.deep.equal([
        'ab=3',
        'a\x00=2',
        'a=1',
      ]);
      expect(await list(engine, { start: bytes('x'), end: bytes('x') })).to.deep.equal([]);
    }));

  it('gives pages of at least one pair and about as many bytes as asked for', () =>
    using(async (engine) => {
      const pairs = Object.fromEntries(
        Array.from({ length: 50 }, (_, i) => [`k${String(i).padStart(2, '0')}`, 'v'.repeat(100)]),
      );
      await put(engine, pairs);
      const sizes = async (pageBytesMax: number, pageLengthMax = 1000): Promise<number[]> => {
        const iterator = engine.iterate({ ...everything, pageBytesMax, pageLengthMax });
        const lengths: number[] = [];
        for (let page = await iterator.next(); page.length > 0; page = await iterator.next()) {
          lengths.push(page.length);
        }
        await iterator.close();
        return lengths;
      };
      expect(await sizes(1)).to.deep.equal(Array(50).fill(1));
      expect(await sizes(manyBytes, 20)).to.deep.equal([20, 20, 10]);
      const pages = await sizes(1030);
      expect(pages.reduce((sum, length) => sum + length)).to.equal(50);
      expect(Math.max(...pages)).to.be.within(9, 11);
    }));

  it('gives keys alone when asked', () =>
    using(async (engine) => {
      await put(engine, { a: '1', b: '2' });
      expect(await list(engine, { keysOnly: true })).to.deep.equal(['a=', 'b=']);
    }));

  it('shows an iteration the moment at which it was opened, whatever is written later', () =>
    using(async (engine) => {
      await put(engine, { a: '1', b: '2', c: '3' });
      const iterator = engine.iterate({ ...everything, pageBytesMax: 1 });
      const first = await iterator.next();
      await put(engine, { a: 'new', aa: 'new' });
      const batch = engine.batch();
      batch.delete(bytes('b'));
      await engine.write(batch, { sync: false });
      await engine.clear({ start: bytes('c'), end: bytes('d') });
      const rest = [await iterator.next(), await iterator.next(), await iterator.next()];
      await iterator.close();
      expect([first, ...rest].flat().map(shown)).to.deep.equal(['a=1', 'b=2', 'c=3']);
      expect(await list(engine)).to.deep.equal(['a=new', 'aa=new']);
    }));

  it('D26: clears a range at once and for itself, and what is written after it stays', () =>
    using(async (engine) => {
      await put(engine, { a: '1', b: '2', bb: '3', c: '4' });
      await engine.clear({ start: bytes('b'), end: bytes('c') });
      expect(await list(engine)).to.deep.equal(['a=1', 'c=4']);
      await put(engine, { b: 'again' });
      expect(await list(engine)).to.deep.equal(['a=1', 'b=again', 'c=4']);
    }));

  it('keeps keys and values of any bytes and of sizes up to a megabyte', () =>
    using(async (engine) => {
      const key = Buffer.alloc(5000, 0xff);
      const value = Buffer.alloc(1 << 20, 7);
      const batch = engine.batch();
      batch.put(key, value);
      await engine.write(batch, { sync: false });
      const [found] = await engine.getMany([key]);
      expect(Buffer.from(found ?? []).equals(value)).to.equal(true);
    }));

  it('closes with iterators open, twice, and with operations just begun', async () => {
    const engine = await open();
    await put(engine, { a: '1', b: '2' });
    const iterators = Array.from({ length: 20 }, () =>
      engine.iterate({ ...everything, pageBytesMax: 1 }),
    );
    await iterators[0]?.next();
    const begun = [
      put(engine, { c: '3' }),
      engine.getMany([bytes('a')]),
      engine.clear({ start: bytes('x'), end: bytes('y') }),
    ];
    await Promise.all([engine.close(), engine.close()]);
    for (const operation of begun) await rejection(operation);
    await Promise.all(iterators.map((iterator) => iterator.close()));
  });

  it('rejects everything after close with EngineClosed', async () => {
    const engine = await open();
    const iterator = engine.iterate({ ...everything, pageBytesMax: 1 });
    await engine.close();
    const later = [
      engine.getMany([bytes('a')]),
      put(engine, { a: '1' }),
      engine.clear(everything),
      iterator.next(),
    ];
    for (const operation of later) {
      expect(await rejection(operation)).to.be.instanceOf(EngineClosed);
    }
    expect(() => engine.iterate({ ...everything, pageBytesMax: 1 })).to.throw(EngineClosed);
    expect(engine.statistics()).to.be.an('object');
  });

  it('does what a sorted map does, for any sequence of batches, clears and scans', () =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), (steps) =>
        using(async (engine) => {
          const model = new Map<string, string>();
          for (const each of steps) await runStep(engine, model, each);
        }),
      ),
      { numRuns: 40 },
    ));
}

// ---- the model

const key = fc.stringMatching(/^[a-d\x00\xff]{1,3}$/);

type Step =
  | { readonly kind: 'write'; readonly writes: readonly (readonly [string, string | null])[] }
  | { readonly kind: 'clear' | 'scan' | 'scanBack'; readonly start: string; readonly end: string };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('write' as const),
    writes: fc.array(fc.tuple(key, fc.option(fc.stringMatching(/^[x-z]{0,4}$/))), {
      maxLength: 6,
    }),
  }),
  fc.record({
    kind: fc.constantFrom('clear' as const, 'scan' as const, 'scanBack' as const),
    start: key,
    end: key,
  }),
);

const inRange = (text: string, start: string, end: string): boolean =>
  Buffer.compare(bytes(text), bytes(start)) >= 0 && Buffer.compare(bytes(text), bytes(end)) < 0;

async function runStep(engine: Engine, model: Map<string, string>, each: Step): Promise<void> {
  if (each.kind === 'write') {
    const batch = engine.batch();
    for (const [text, value] of each.writes) {
      if (value === null) {
        batch.delete(bytes(text));
        model.delete(text);
      } else {
        batch.put(bytes(text), bytes(value));
        model.set(text, value);
      }
    }
    await engine.write(batch, { sync: each.writes.length % 2 === 0 });
    return;
  }
  const { kind, start, end } = each;
  const range = { start: bytes(start), end: bytes(end) };
  if (Buffer.compare(range.start, range.end) > 0) return;
  if (kind === 'clear') {
    await engine.clear(range);
    for (const text of [...model.keys()]) if (inRange(text, start, end)) model.delete(text);
    return;
  }
  const expected = [...model]
    .filter(([text]) => inRange(text, start, end))
    .sort(([a], [b]) => Buffer.compare(bytes(a), bytes(b)))
    .map(([text, value]) => `${text}=${value}`);
  if (kind === 'scanBack') expected.reverse();
  expect(await list(engine, { ...range, reverse: kind === 'scanBack' })).to.deep.equal(expected);
}
