/** Views of an engine that goes on being written, and what is left of it after a power cut. */
import { expect } from 'chai';
import fc from 'fast-check';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  EngineClosed,
  exportSnapshot,
  MemoryEngine,
  RocksEngine,
  type Engine,
  type EngineIterator,
} from '../../../storage/index.js';
import { bytes, everything, list } from './engine-contract.js';

/** Also keys of nothing but FF. */
const whole = { start: bytes(''), end: bytes('\xff\xff\xff\xff') };

type Change =
  | { readonly kind: 'write'; readonly writes: readonly Write[]; readonly sync: boolean }
  | { readonly kind: 'clear'; readonly start: string; readonly end: string };
type Write = readonly [key: string, value: string | null];
interface ViewStep {
  readonly kind: 'view';
  readonly start: string;
  readonly end: string;
  readonly reverse: boolean;
  readonly pageBytesMax: number;
  readonly pageLengthMax: number;
}

const key = fc.stringMatching(/^[a-c\x00\xff]{1,3}$/);
const change: fc.Arbitrary<Change> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      writes: fc.array(fc.tuple(key, fc.option(fc.stringMatching(/^[x-z]{0,8}$/))), {
        maxLength: 8,
      }),
      sync: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('clear' as const), start: key, end: key }),
  },
);
const viewStep: fc.Arbitrary<ViewStep> = fc.record({
  kind: fc.constant('view' as const),
  start: fc.oneof(fc.constant(''), key),
  end: fc.oneof(fc.constant('\xff\xff\xff\xff'), key),
  reverse: fc.boolean(),
  pageBytesMax: fc.integer({ min: 1, max: 40 }),
  pageLengthMax: fc.integer({ min: 1, max: 5 }),
});

type Model = Map<string, string>;

/** latin1 has one code unit for each byte: the order of texts is the order of bytes. */
const isIn = (text: string, { start, end }: { readonly start: string; readonly end: string }) =>
  text >= start && text < end;

function changeModel(model: Model, each: Change): void {
  if (each.kind === 'clear') {
    for (const text of [...model.keys()]) if (isIn(text, each)) model.delete(text);
    return;
  }
  for (const [text, value] of each.writes) {
    if (value === null) model.delete(text);
    else model.set(text, value);
  }
}

async function changeEngine(engine: Engine, each: Change): Promise<void> {
  if (each.kind === 'clear') {
    await engine.clear({ start: bytes(each.start), end: bytes(each.end) });
    return;
  }
  const batch = engine.batch();
  for (const [text, value] of each.writes) {
    if (value === null) batch.delete(bytes(text));
    else batch.put(bytes(text), bytes(value));
  }
  await engine.write(batch, { sync: each.sync });
}

const sorted = (model: Model): string[] =>
  [...model].sort(([a], [b]) => (a < b ? -1 : 1)).map(([text, value]) => `${text}=${value}`);

function viewOfModel(model: Model, view: ViewStep): readonly string[] {
  const found = sorted(new Map([...model].filter(([text]) => isIn(text, view))));
  return view.reverse ? found.reverse() : found;
}

const ordered = <T extends Change | ViewStep>(each: T): boolean =>
  each.kind === 'write' || ('start' in each && each.start <= each.end);

async function drain(iterator: EngineIterator, lengthMax: number): Promise<readonly string[]> {
  const found: string[] = [];
  for (let page = await iterator.next(); page.length > 0; page = await iterator.next()) {
    expect(page.length).to.be.at.most(lengthMax);
    for (const pair of page) {
      const [text, value] = [pair.key, pair.value].map((part) =>
        Buffer.from(part).toString('latin1'),
      );
      found.push(`${text}=${value}`);
    }
  }
  await iterator.close();
  return found;
}

async function checkViews(engine: Engine, steps: readonly (Change | ViewStep)[]): Promise<void> {
  const model: Model = new Map();
  const views: { iterator: EngineIterator; step: ViewStep; expected: readonly string[] }[] = [];
  for (const step of steps) {
    if (step.kind === 'view') {
      const { start, end, ...rest } = step;
      const iterator = engine.iterate({ ...rest, start: bytes(start), end: bytes(end) });
      views.push({ iterator, step, expected: viewOfModel(model, step) });
    } else {
      changeModel(model, step);
      await changeEngine(engine, step);
    }
  }
  for (const { iterator, step, expected } of views) {
    expect(await drain(iterator, step.pageLengthMax)).to.deep.equal(expected);
  }
  expect(await list(engine, whole)).to.deep.equal(sorted(model));
}

const steps = fc.array(fc.oneof(change, viewStep), { maxLength: 30 });

describe('views of a state engine', function () {
  this.timeout(30_000);
  let base = '';
  let opened = 0;
  before(() => {
    base = mkdtempSync(join(tmpdir(), 'quorate-views-'));
  });
  after(() => {
    rmSync(base, { recursive: true, force: true });
  });
  const rocks = (): Promise<Engine> =>
    RocksEngine.open({ directory: join(base, String(opened++)), memoryBytesMax: 8 << 20 });
  const engines = [
    { name: 'in memory', open: () => Promise.resolve<Engine>(new MemoryEngine()), numRuns: 300 },
    { name: 'on RocksDB', open: rocks, numRuns: 50 },
  ];

  for (const { name, open, numRuns } of engines) {
    it(`${name} stay what they were when opened, in any range, order and size of pages`, () =>
      fc.assert(
        fc.asyncProperty(steps, async (all) => {
          const engine = await open();
          try {
            await checkViews(engine, all.filter(ordered));
          } finally {
            await engine.close();
          }
        }),
        { numRuns },
      ));

    it(`${name} that were given up never pass for the end of what they show`, async () => {
      const engine = await open();
      const write = { kind: 'write', sync: false } as const;
      await changeEngine(engine, { ...write, writes: [['prefix-08a', 'x'.repeat(300_000)]] });
      await changeEngine(engine, { ...write, writes: [['prefix-08b', 'x']] });
      const iterator = engine.iterate({ ...everything, pageBytesMax: 1 });
      await iterator.close();
      await iterator.close();
      const error = await iterator.next().catch((reason: unknown) => reason);
      expect(error).to.be.instanceOf(EngineClosed);
      // A stream that ended here in order would be a snapshot with half of the keys.
      const chunks = exportSnapshot(engine, everything);
      const taken = chunks[Symbol.asyncIterator]();
      expect((await taken.next()).done).to.equal(false);
      await chunks.discard();
      const next = await taken.next().catch((reason: unknown) => reason);
      expect(next).to.be.instanceOf(EngineClosed);
      // Nothing of this is the engine's fault.
      expect(await list(engine, { keysOnly: true })).to.have.length(2);
      await engine.close();
    });
  }
});

describe('the power cut of the engine in memory', () => {
  it('leaves all up to the last sync, and of the changes behind it the first ones', () =>
    fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 20 }), fc.nat(20), async (all, kept) => {
        const changes = all.filter(ordered);
        const engine = new MemoryEngine();
        let synced = 0;
        for (const [n, each] of changes.entries()) {
          await changeEngine(engine, each);
          if (each.kind === 'write' && each.sync) synced = n + 1;
        }
        expect(engine.unsyncedLength).to.equal(changes.length - synced);
        const model: Model = new Map();
        for (const each of changes.slice(0, synced + kept)) changeModel(model, each);
        const after = engine.crash(kept);
        expect(await list(after, whole)).to.deep.equal(sorted(model));
        // What was found after one cut is there after the next.
        expect(await list(after.crash(), whole)).to.deep.equal(sorted(model));
      }),
      { numRuns: 300 },
    ));
});
