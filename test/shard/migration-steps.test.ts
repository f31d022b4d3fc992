import { expect } from 'chai';
import { KeyKind, MemoryEngine } from '../../storage/index.js';
import { slotOf } from '../../src/router/slot.js';
import { encodeTime } from '../../src/shard/command-codec.js';
import { noTerms, sourceSteps, type MigrationStep } from '../../src/shard/migration-step.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { bytes, increment, put, remove, session, transaction, write } from './command-texts.js';
import type { Replica } from './replica.js';
import { TwoShards } from './two-shards.js';

const slot = slotOf(bytes('{s}'));

type Side = 'source' | 'target';

interface Stage {
  readonly name: string;
  readonly at: Side;
  readonly run: (two: TwoShards) => Promise<unknown>;
}

/** Changes that come while the slot is copied: of every kind that a copy can get wrong. */
async function change(two: TwoShards, round: number): Promise<void> {
  const { source } = two;
  await source.one(write(increment('{s}counter', 1), session(1, round)));
  await source.one(write(put(`{s}new${round}`, 'v', { ttlMs: 50_000 })));
  await source.one(write(remove(`{s}${round}`)));
  const all = ['7', '8', '9'].map((name) => put(`{s}${name}`, `round ${round}`));
  await source.one(write(transaction([], all)));
}

const oneChunk = async (two: TwoShards): Promise<void> => {
  const part = await two.nextPart(slot);
  if (part !== undefined) await two.chunk([part]);
};

const begin: readonly Stage[] = [
  { name: 'export-begin', at: 'source', run: (two) => two.say(two.source, 'exportBegin') },
  { name: 'import-begin', at: 'target', run: (two) => two.begin() },
  { name: 'chunk', at: 'target', run: oneChunk },
  { name: 'a change of what was copied', at: 'source', run: (two) => change(two, 1) },
  { name: 'the rest of the copy', at: 'target', run: (two) => two.copyAll() },
  { name: 'a change behind the copy', at: 'source', run: (two) => change(two, 2) },
  { name: 'changes', at: 'target', run: oneChunk },
  { name: 'freeze', at: 'source', run: (two) => two.say(two.source, 'freeze') },
  { name: 'last changes', at: 'target', run: (two) => two.copyAll() },
  { name: 'seal', at: 'target', run: (two) => two.seal() },
];
const handover: readonly Stage[] = [
  ...begin,
  { name: 'handover', at: 'source', run: (two) => two.handover() },
  { name: 'activate', at: 'target', run: (two) => two.activate() },
  { name: 'collect', at: 'source', run: (two) => two.say(two.source, 'collect') },
];
const abort: readonly Stage[] = [
  ...begin,
  { name: 'endExport', at: 'source', run: (two) => two.say(two.source, 'endExport') },
  { name: 'endImport', at: 'target', run: (two) => two.say(two.target, 'endImport') },
];

async function filled(): Promise<TwoShards> {
  const two = new TwoShards([slot]);
  await two.target.apply([encodeTime(1000)]);
  for (let n = 0; n < 10; n++)
    await two.source.one(write(put(`{s}${n}`, `value ${n}`), session(2, n)));
  return two;
}

/** What there is in the end, on both sides, byte for byte. */
async function outcome(two: TwoShards): Promise<unknown> {
  const { source, target } = two;
  return [await source.hash(), two.stateAt(source), await target.hash(), two.stateAt(target)];
}

/** Crashes a side behind a stage; what its engine has lost, it applies again from its log. */
async function crashed(
  stages: readonly Stage[],
  behind: number,
  side: Side,
  lost: number,
): Promise<TwoShards> {
  const two = await filled();
  for (const [n, stage] of stages.entries()) {
    await stage.run(two);
    if (n === behind) Object.assign(two, { [side]: await comeBack(two[side], lost) });
  }
  return two;
}

async function comeBack(replica: Replica, lost: number): Promise<Replica> {
  const back = await replica.crash(lost);
  for (const command of replica.applied.slice(back.index)) await back.apply([command]);
  return back;
}

describe('a crash while a slot migrates', () => {
  for (const [path, stages] of [
    ['to its end', handover],
    ['and is given up', abort],
  ] as const) {
    for (const [n, { name }] of stages.entries()) {
      it(`R73 R77 D26: behind ${name}, at source or target, changes nothing, when it goes on ${path}`, async () => {
        const undisturbed = await filled();
        for (const stage of stages) await stage.run(undisturbed);
        const wanted = await outcome(undisturbed);
        for (const side of ['source', 'target'] as const) {
          // The last clear, the clear and the batch, and the batches before it.
          for (const lost of [0, 1, 2, 3, 5]) {
            const two = await crashed(stages, n, side, lost);
            expect(await outcome(two), `${side}, ${lost} lost`).to.deep.equal(wanted);
          }
        }
      });
    }
  }

  it('ends with what was written, where it was to be', async () => {
    const [moved, stayed] = [await filled(), await filled()];
    for (const stage of handover) await stage.run(moved);
    for (const stage of abort) await stage.run(stayed);
    for (const owner of [moved.target, stayed.source]) {
      expect(Buffer.from((await owner.get('{s}8'))?.value ?? '').toString()).to.equal('round 2');
      expect(await owner.get('{s}1')).to.equal(undefined);
      expect(Buffer.from((await owner.get('{s}counter'))?.value ?? '').toString()).to.equal('2');
    }
    expect(moved.stateAt(moved.source).ownership).to.equal(SlotOwnership.absent);
    expect(stayed.stateAt(stayed.target).ownership).to.equal(SlotOwnership.absent);
  });
});

/** Every step with the terms that would be right if it were its turn. */
function everyStep(two: TwoShards, id: number): readonly MigrationStep[] {
  const source = two.stateAt(two.source);
  const { change, keys, sum, migration } = source;
  const { logTimeMs = 0, from = change, through = change } = migration ?? {};
  const terms = { ...noTerms, slot, epoch: 9, change, keys, sum, logTimeMs };
  const kinds = [...sourceSteps, 'importBegin', 'seal', 'activate', 'endImport'] as const;
  const records = [{ kind: KeyKind.value, key: bytes('{s}x'), change: 999, stored: undefined }];
  const cursor = two.stateAt(two.target).migration?.cursor ?? bytes('');
  const scan = { kind: 'scan', after: cursor, next: bytes('\u0002z'), end: false } as const;
  const changes = { kind: 'changes', after: from, through: through + 90 } as const;
  return [
    ...kinds.map((kind) => {
      if (kind === 'chunk') throw new Error('not of the source');
      return { kind, id, peer: 7, slots: [terms] };
    }),
    { kind: 'chunk', id, peer: 7, parts: [{ slot, progress: scan, records }] },
    { kind: 'chunk', id, peer: 7, parts: [{ slot, progress: changes, records }] },
  ];
}

const nameOf = (step: MigrationStep): string =>
  step.kind === 'chunk' ? (step.parts[0]?.progress.kind ?? '') : step.kind;

/** Which steps count at one side, each tried on a copy of its own. */
async function counting(two: TwoShards, side: Side, id: number): Promise<readonly string[]> {
  const counted: string[] = [];
  for (const step of everyStep(two, id)) {
    const before = await two[side].hash();
    const copy = await two[side].copyTo(new MemoryEngine(), 9);
    await two.step(copy, step);
    if ((await copy.hash()).hash !== before.hash) counted.push(nameOf(step));
  }
  return counted.sort();
}

describe('each step of a migration', () => {
  const cases: readonly {
    readonly behind: string;
    readonly source: readonly string[];
    readonly target: readonly string[];
  }[] = [
    {
      behind: 'nothing',
      source: ['endExport', 'endImport', 'exportBegin'],
      target: ['endExport', 'endImport', 'importBegin'],
    },
    {
      behind: 'import-begin',
      source: ['endExport', 'freeze'],
      target: ['changes', 'endImport', 'scan'],
    },
    {
      behind: 'the rest of the copy',
      source: ['endExport', 'freeze'],
      target: ['changes', 'endImport', 'seal'],
    },
    {
      behind: 'a change behind the copy',
      source: ['endExport', 'freeze'],
      target: ['changes', 'endImport'],
    },
    {
      behind: 'last changes',
      source: ['endExport', 'handover', 'thaw'],
      target: ['changes', 'endImport', 'seal'],
    },
    {
      behind: 'seal',
      source: ['endExport', 'handover', 'thaw'],
      target: ['activate', 'changes', 'endImport'],
    },
    { behind: 'handover', source: ['collect'], target: ['activate', 'changes', 'endImport'] },
    { behind: 'activate', source: ['collect'], target: [] },
    { behind: 'collect', source: [], target: [] },
  ];
  for (const { behind, source, target } of cases) {
    it(`D30: counts where it belongs and nowhere else, behind ${behind}`, async () => {
      const two = await filled();
      for (const stage of handover.slice(0, handover.findIndex(({ name }) => name === behind) + 1))
        await stage.run(two);
      expect(await counting(two, 'source', 1), 'source').to.deep.equal(source);
      expect(await counting(two, 'target', 1), 'target').to.deep.equal(target);
      if (behind === 'nothing') return;
      const isOver = behind === 'collect';
      const gone = ['endExport', 'endImport', 'importBegin'];
      const there = ['endExport', 'endImport', 'exportBegin'];
      expect(await counting(two, 'source', 2), 'a later one').to.deep.equal(isOver ? gone : []);
      const isThere = isOver || behind === 'activate';
      expect(await counting(two, 'target', 2), 'a later one').to.deep.equal(isThere ? there : []);
      for (const side of ['source', 'target'] as const)
        expect(await counting(two, side, 0), `an earlier one, ${side}`).to.deep.equal([]);
    });
  }
});
