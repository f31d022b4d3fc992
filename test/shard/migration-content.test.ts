import { expect } from 'chai';
import { KeyKind } from '../../storage/index.js';
import { slotCount, slotOf, type Slot } from '../../src/router/slot.js';
import { encodeExpire, encodeMigrationStep, encodeTime } from '../../src/shard/command-codec.js';
import type { Write } from '../../src/shard/command.js';
import {
  bareTerms,
  bytesOfParts,
  noTerms,
  type ChunkPart,
} from '../../src/shard/migration-step.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { encodeValue } from '../../src/shard/value-codec.js';
import { bytes, increment, put, remove, session, transaction, write } from './command-texts.js';
import { contentOf } from './slot-content.js';
import { reportOf, TwoShards } from './two-shards.js';

const slot = slotOf(bytes('{s}'));

/** A tag whose keys are in this slot. */
function tagOf(wanted: number): string {
  for (let n = 0; ; n++) if (Number(slotOf(bytes(`{${n}}`))) === wanted) return `{${n}}`;
}

async function writeAll(two: TwoShards, writes: readonly Write[]): Promise<void> {
  for (let at = 0; at < writes.length; at += 1000)
    await two.source.write(writes.slice(at, at + 1000));
}

async function expectMoved(two: TwoShards, of: Slot): Promise<void> {
  await two.copyAll(256 * 1024);
  await two.freeze(2000);
  await two.copyAll(256 * 1024);
  const wanted = await contentOf(two.source, of);
  await two.seal();
  expect((await two.handover()).differing).to.deep.equal([]);
  await two.activate();
  await two.say(two.source, 'collect');
  const { values, sessions, sum } = await contentOf(two.target, of);
  expect({ values, sessions, sum }).to.deep.equal({
    values: wanted.values,
    sessions: wanted.sessions,
    sum: wanted.sum,
  });
  expect(two.stateAt(two.target, of).ownership).to.equal(SlotOwnership.owned);
}

describe('what a slot holds when it migrates', () => {
  for (const number of [0, slotCount - 1]) {
    it(`may be of slot ${number}, and of it alone`, async () => {
      const [own, other] = [tagOf(number), tagOf(number === 0 ? 1 : number - 1)];
      const of = slotOf(bytes(own));
      const two = new TwoShards([of]);
      await writeAll(two, [write(put(`${own}a`, '1')), write(put(`${other}a`, '2'))]);
      await two.begin();
      await expectMoved(two, of);
      expect((await two.target.get(`${own}a`))?.revision).to.equal(1);
      expect((await two.source.get(`${other}a`))?.revision).to.equal(1);
      expect(two.source.machine.keys).to.equal(1);
      expect(two.target.machine.keys).to.equal(1);
    });
  }

  it('may be nothing at all', async () => {
    const two = new TwoShards([slot]);
    await two.begin();
    await expectMoved(two, slot);
    expect(await two.target.one(write(put('{s}a', '1')))).to.include({ revision: 1 });
  });

  it('may be 50,000 keys', async function () {
    this.timeout(60_000);
    const two = new TwoShards([slot]);
    const writes = Array.from({ length: 50_000 }, (_, n) => write(put(`{s}${n}`, `value ${n}`)));
    await writeAll(two, writes);
    await two.begin();
    await expectMoved(two, slot);
    expect(two.stateAt(two.target)).to.include({ keys: 50_000, change: 50_000 });
  });

  it('R70: may change faster than it is copied', async () => {
    const two = new TwoShards([slot]);
    const names = Array.from({ length: 60 }, (_, n) => `{s}${String(n).padStart(2, '0')}`);
    await writeAll(
      two,
      names.map((name) => write(put(name, 'first'))),
    );
    await two.begin();
    for (let round = 0; round < 40; round++) {
      const part = await two.nextPart(slot);
      if (part !== undefined) await two.chunk([part]);
      // Before and behind the cursor, and what is there for a moment only.
      const [early = '', late = ''] = [names[round], names[names.length - 1 - round]];
      await two.source.one(write(put(early, `round ${round}`, { ttlMs: 10_000 })));
      await two.source.one(write(remove(late)));
      await two.source.one(write(put(`{s}new${round}`, 'x'), session(round % 3, round)));
      if (round % 2 === 0) await two.source.one(write(remove(`{s}new${round}`)));
    }
    await expectMoved(two, slot);
  });

  it('D20: may be a transaction whose records lie on both sides of the border of a piece', async () => {
    const two = new TwoShards([slot]);
    const all = (value: string): Write =>
      write(
        transaction(
          [],
          ['a', 'b', 'c', 'd'].map((name) => put(`{s}${name}`, value)),
        ),
      );
    await two.source.one(all('first'));
    await two.begin();
    const first = await two.nextPart(slot, 70);
    if (first === undefined) throw new Error('nothing to copy');
    expect(first.records).to.have.length.within(1, 3);
    await two.chunk([first]);
    await two.source.one(all('second'));
    await two.source.one(write(transaction([], [remove('{s}a'), put('{s}e', 'third')])));
    await two.copy(slot, 70);
    const { migration } = two.stateAt(two.target);
    expect(migration?.through).to.equal(3);
    await expectMoved(two, slot);
    expect((await two.target.get('{s}e'))?.revision).to.equal(3);
    expect(await two.target.get('{s}a')).to.equal(undefined);
  });

  it('D20: tells each change as a whole, or not yet', async () => {
    const two = new TwoShards([slot]);
    await two.begin();
    await two.copyAll();
    const names = ['a', 'b', 'c'];
    for (const value of ['1', '2'])
      await two.source.one(
        write(
          transaction(
            [],
            names.map((n) => put(`{s}${n}${value}`, value)),
          ),
        ),
      );
    const part = await partOf(two, 1);
    expect(part.progress).to.deep.equal({ kind: 'changes', after: 0, through: 1 });
    expect(part.records.map(({ key }) => Buffer.from(key).toString())).to.have.members(
      names.map((n) => `{s}${n}1`),
    );
  });

  it('R70: is no larger on its way than when it was changed: what was changed again comes with that change', async () => {
    const two = new TwoShards([slot]);
    await two.begin();
    await two.copyAll();
    const names = Array.from({ length: 50 }, (_, n) => `{s}${n}`);
    await two.source.one(
      write(
        transaction(
          [],
          names.map((name) => put(name, 'x')),
        ),
      ),
    );
    for (const name of names) await two.source.one(write(put(name, 'y'.repeat(1000))));
    const first = await partOf(two, 1);
    expect(bytesOfParts([first])).to.be.below(1200);
    await expectMoved(two, slot);
  });

  it('R76: may be a session with as many writes as are remembered, and the floor above those forgotten', async () => {
    const two = new TwoShards([slot]);
    const nth = (n: number): Write => write(increment('{s}counter', 1), session(1, n));
    const writes = Array.from({ length: 1030 }, (_, n) => nth(n));
    await writeAll(two, writes);
    await two.begin();
    await expectMoved(two, slot);
    expect(await two.target.one(nth(6))).to.deep.include({ kind: 'increment', value: 7 });
    expect(await two.target.one(nth(5))).to.deep.equal({
      kind: 'refused',
      refusal: 'sessionForgotten',
    });
    expect(await two.target.one(nth(1030))).to.deep.include({ kind: 'increment', value: 1031 });
  });

  it('may be a value of 1 MiB, in a piece that has room for less', async () => {
    const two = new TwoShards([slot]);
    const large = 'x'.repeat(1 << 20);
    await writeAll(two, [
      write(put('{s}a', '1')),
      write(put('{s}b', large)),
      write(put('{s}c', '3')),
    ]);
    await two.begin();
    await two.source.one(write(put('{s}d', large)));
    await expectMoved(two, slot);
    expect((await two.target.get('{s}b'))?.value.byteLength).to.equal(1 << 20);
    expect((await two.target.get('{s}d'))?.value.byteLength).to.equal(1 << 20);
  });
});

async function partOf(two: TwoShards, bytesMax: number): Promise<ChunkPart> {
  const part = await two.nextPart(slot, bytesMax);
  if (part === undefined) throw new Error('nothing to copy');
  return part;
}

describe('the copy of a slot', () => {
  async function recordsOf(
    two: TwoShards,
    key: string,
    change: number,
  ): Promise<ChunkPart['records']> {
    const part = await partOf(two, 1 << 20);
    return part.records
      .filter((record) => Buffer.from(record.key).toString('latin1') === key)
      .map((record) => ({ ...record, change }));
  }

  it('D30: takes a piece only where the one before has ended', async () => {
    const two = new TwoShards([slot]);
    for (const name of ['a', 'b', 'c']) await two.source.one(write(put(`{s}${name}`, 'v')));
    await two.begin();
    const first = await partOf(two, 1);
    await two.chunk([first]);
    const second = await partOf(two, 1);
    await two.chunk([second]);
    const { migration } = two.stateAt(two.target);
    // Late, and once more.
    for (const late of [first, second]) {
      await two.chunk([late]);
      expect(two.stateAt(two.target).migration).to.deep.equal(migration);
    }
    await two.copyAll();
    const copied = two.stateAt(two.target).migration;
    await two.chunk([first]);
    const last = { ...first, progress: { ...first.progress, after: copied?.cursor } };
    await two.chunk([last as ChunkPart]);
    expect(two.stateAt(two.target).migration).to.deep.equal(copied);
    const from = copied?.through ?? 0;
    const gap = { kind: 'changes', after: from + 1, through: from + 2 } as const;
    await two.chunk([{ slot, progress: gap, records: [] }]);
    const old = { kind: 'changes', after: 0, through: from - 1 } as const;
    await two.chunk([{ slot, progress: old, records: [] }]);
    expect(two.stateAt(two.target).migration).to.deep.equal(copied);
  });

  it('D32: is not ready any more when the source has thawed and changed', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'v')));
    await two.begin();
    await two.copyAll();
    await two.freeze(1000);
    await two.seal();
    const activate = (change: number): Promise<unknown> =>
      two.tell(two.target, 'activate', [{ ...noTerms, slot, epoch: 2, change }]);
    await activate(2);
    expect(two.stateAt(two.target).ownership, 'of another change').to.equal(SlotOwnership.ready);
    await two.say(two.source, 'thaw');
    await two.source.one(write(put('{s}b', 'v')));
    await two.copyAll();
    expect(two.stateAt(two.target).ownership).to.equal(SlotOwnership.importing);
    // Said by mistake, each of them finds nothing to activate.
    for (const change of [1, 2]) await activate(change);
    expect(two.stateAt(two.target).ownership).to.equal(SlotOwnership.importing);
  });

  it('R78: keeps the newer of two records, and removes none that is newer', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'old', { ttlMs: 1000 })));
    await two.begin();
    const [old] = await recordsOf(two, '{s}a', 1);
    await two.source.one(write(put('{s}a', 'new', { ttlMs: 5000 })));
    await two.source.one(write(put('{s}a', 'newer', { ttlMs: 9000 })));
    const [newer] = await recordsOf(two, '{s}a', 3);
    if (old === undefined || newer === undefined) throw new Error('no record');
    const key = bytes('{s}a');
    const gone = (change: number): typeof old => ({
      kind: KeyKind.value,
      key,
      change,
      stored: undefined,
    });
    const tell = (through: number, record: typeof old): Promise<unknown> =>
      two.chunk([{ slot, progress: { kind: 'changes', after: 1, through }, records: [record] }]);
    await tell(9, old);
    await tell(10, newer);
    await tell(11, old);
    await tell(12, gone(2));
    expect(two.stateAt(two.target).keys, 'the newer one').to.equal(1);
    expect((await contentOf(two.target, slot)).values.get('{s}a')?.revision).to.equal(3);
    expect(await two.target.dueOf(slot), 'one expiry').to.have.length(1);
    await tell(13, gone(7));
    expect(await two.target.dueOf(slot), 'its expiry goes with it').to.have.length(0);
    await tell(14, gone(4));
    await tell(15, { ...old, change: 6 });
    expect(two.stateAt(two.target).keys, 'removed by change 7').to.equal(0);
    await tell(16, { ...newer, change: 8 });
    expect(two.stateAt(two.target).keys, 'written again').to.equal(1);
  });

  it('R76 R78: keeps the newer of two session records, whichever comes first', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(increment('{s}a', 1), session(1, 1)));
    await two.begin();
    const older = await partOf(two, 1 << 20);
    await two.source.one(write(increment('{s}a', 1), session(1, 2)));
    const newer = await partOf(two, 1 << 20);
    for (const [after, { records }] of [newer, older].entries()) {
      const progress = { kind: 'changes', after: after + 1, through: after + 2 } as const;
      await two.chunk([{ slot, progress, records }]);
    }
    const [record] = [...(await contentOf(two.target, slot)).sessions.values()];
    expect(record?.sequences).to.deep.equal([1, 2]);
  });

  it('D25: leaves neither index nor tombstones behind a handover, a difference or an end', async () => {
    for (const end of ['handover', 'differs', 'endExport'] as const) {
      const two = new TwoShards([slot]);
      for (const name of ['a', 'b']) await two.source.one(write(put(`{s}${name}`, 'v')));
      await two.begin();
      await two.source.one(write(remove('{s}a')));
      await two.copyAll();
      await two.freeze(1000);
      expect(await two.source.count('{s}', KeyKind.change)).to.equal(1);
      expect(await two.target.count('{s}', KeyKind.tombstone)).to.equal(1);
      await two.seal();
      const report = reportOf(slot, two.stateAt(two.target));
      if (end === 'endExport') await two.say(two.source, 'endExport');
      else if (end === 'handover') await two.tell(two.source, 'handover', [report]);
      else await two.tell(two.source, 'handover', [{ ...report, keys: report.keys + 1 }]);
      if (end === 'handover') {
        await two.activate();
        await two.say(two.source, 'collect');
        expect(await two.target.count('{s}', KeyKind.tombstone), end).to.equal(0);
      } else {
        expect(two.stateAt(two.source)).to.include({ ownership: SlotOwnership.owned, ended: 1 });
        expect(two.stateAt(two.source).migration).to.equal(undefined);
      }
      expect(await two.source.count('{s}', KeyKind.change), end).to.equal(0);
    }
  });

  it('D26: drops neighbours that leave together as one range, and nothing of those that stay', async () => {
    const all = Array.from({ length: 8 }, (_, n) => slotOf(bytes(tagOf(n))));
    const leaving = all.filter((_, n) => n !== 3);
    const two = new TwoShards(leaving);
    for (const n of [0, 1, 2, 3, 4, 6, 7]) await two.source.one(write(put(`${tagOf(n)}a`, 'v')));
    await two.migrate();
    // 0 to 2, and 4 to 7: what lies between slots that are not here is dead.
    expect(two.source.clears).to.have.length(2);
    expect(await two.source.get(`${tagOf(3)}a`)).to.include({ revision: 1 });
    for (const of of leaving) expect((await contentOf(two.source, of)).dead).to.deep.equal([]);
    for (const n of [0, 1, 2, 4, 6, 7])
      expect(await two.target.get(`${tagOf(n)}a`)).to.include({ revision: 1 });
  });

  it('D25 D26: drops the old instance only of a slot that is on its way back in the same batch', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'old')));
    await two.begin();
    await two.copyAll();
    await two.freeze(1000);
    await two.seal();
    await two.handover();
    await two.activate();
    const stored = encodeValue({ revision: 1, ordinal: 0, expiresAtMs: 0, bytes: bytes('new') });
    const record = { kind: KeyKind.value, key: bytes('{s}a'), change: 1, stored } as const;
    const none = new Uint8Array();
    const progress = { kind: 'scan', after: none, next: none, end: true } as const;
    const part = { slot, progress, records: [record] };
    const all = { id: 2, peer: 2 };
    await two.source.apply(
      [
        { kind: 'collect', id: 1, peer: 2, slots: bareTerms([slot]) } as const,
        {
          kind: 'importBegin',
          ...all,
          slots: [{ ...noTerms, slot, epoch: 2, change: 1 }],
        } as const,
        { kind: 'chunk', ...all, parts: [part] } as const,
      ].map((step) => encodeMigrationStep(step, 1000)),
    );
    const { values, dead } = await contentOf(two.source, slot);
    expect([...values.keys()]).to.deep.equal(['{s}a']);
    expect(dead).to.deep.equal([]);
  });

  it('D22: tells the target of what expires while it is copied', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'v', { ttlMs: 10 })));
    await two.begin();
    await two.copyAll();
    await two.source.apply([encodeExpire(await two.source.dueOf(slot), 2000)]);
    await two.copyAll();
    expect(two.stateAt(two.target)).to.include({ keys: 0, sum: 0 });
    expect(two.stateAt(two.target).migration?.through).to.equal(2);
    await two.freeze(2000);
    await two.seal();
    expect((await two.handover()).differing).to.deep.equal([]);
    expect(two.stateAt(two.source).ownership).to.equal(SlotOwnership.handedOver);
  });

  it('begins with nothing, also where the slot was before', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'v')));
    await two.migrate();
    const begin = { ...noTerms, slot, epoch: 2, change: 1 };
    const back = { kind: 'importBegin', id: 2, peer: 2, slots: [begin] } as const;
    await two.step(two.source, back);
    expect(two.stateAt(two.source)).to.include({
      ownership: SlotOwnership.importing,
      instance: 2,
      change: 0,
      keys: 0,
      bytes: 0,
      sum: 0,
    });
  });

  it('D22: what has become due is looked for when the slot serves again, here or there', async () => {
    for (const end of ['thaw', 'endExport', 'differs', 'activate'] as const) {
      const two = new TwoShards([slot]);
      await two.source.one(write(put('{s}a', 'v', { ttlMs: 10 })));
      await two.begin();
      await two.copyAll();
      await two.freeze(1000);
      await two.copyAll();
      await two.seal();
      // A sweep has looked at it while it stood still.
      for (const { machine } of [two.source, two.target]) machine.due.take(slot);
      const report = reportOf(slot, two.stateAt(two.target));
      if (end === 'differs') await two.tell(two.source, 'handover', [{ ...report, sum: 1 }]);
      else if (end !== 'activate') await two.say(two.source, end);
      else {
        await two.handover();
        await two.activate();
      }
      const { machine } = end === 'activate' ? two.target : two.source;
      expect([...machine.due.dueBy(1010)], end).to.deep.equal([slot]);
    }
  });

  it('D22: never sets the time of the target back', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'v')));
    await two.target.apply([encodeTime(5000)]);
    await two.migrate();
    expect(two.target.machine.logTimeMs).to.equal(5000);
  });

  it('expires nothing that only stands at the target so far', async () => {
    const two = new TwoShards([slot]);
    await two.source.one(write(put('{s}a', 'v', { ttlMs: 10 })));
    await two.begin();
    await two.copyAll();
    const due = await two.target.dueOf(slot);
    expect(due).to.have.length(1);
    await two.target.apply([encodeExpire(due, 5000)]);
    expect(two.stateAt(two.target)).to.include({ keys: 1, change: 0 });
  });
});
