import { expect } from 'chai';
import { KeyKind, slotKey } from '../../storage/index.js';
import { slotOf } from '../../src/router/slot.js';
import { encodeExpire, encodeTime } from '../../src/shard/command-codec.js';
import { noTerms } from '../../src/shard/migration-step.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { bytes, increment, put, remove, session, write } from './command-texts.js';
import { reportOf, TwoShards } from './two-shards.js';

const slot = slotOf(bytes('{s}'));
const refused = (refusal: string): object => ({ kind: 'refused', refusal });

async function filled(count = 20): Promise<TwoShards> {
  const two = new TwoShards([slot]);
  for (let n = 0; n < count; n++) await two.source.one(write(put(`{s}${n}`, `value ${n}`)));
  return two;
}

describe('a slot that migrates', () => {
  it('has at the target what it had: values, revisions, epoch one higher; the source is empty', async () => {
    const two = await filled();
    const { change } = two.stateAt(two.source);
    await two.migrate();
    for (let n = 0; n < 20; n++) {
      const kv = await two.target.get(`{s}${n}`);
      expect(Buffer.from(kv?.value ?? '').toString()).to.equal(`value ${n}`);
      expect(kv?.revision).to.equal(n + 1);
    }
    expect(two.stateAt(two.target)).to.include({
      ownership: SlotOwnership.owned,
      epoch: 2,
      change,
      keys: 20,
      ended: 1,
    });
    const left = two.stateAt(two.source);
    expect(left).to.include({
      ownership: SlotOwnership.absent,
      epoch: 2,
      instance: 0,
      keys: 0,
      bytes: 0,
      ended: 1,
    });
    expect(two.source.machine.keys).to.equal(0);
    expect(two.target.machine.keys).to.equal(20);
    expect(await two.target.one(write(put('{s}new', 'v')))).to.include({ revision: change + 1 });
  });

  it('R70 copy-cutover-gap: takes along what is written after the copy and before the freeze', async () => {
    const two = await filled();
    await two.begin();
    await two.copyAll();
    await two.source.one(write(put('{s}late', 'v')));
    await two.source.one(write(put('{s}3', 'changed')));
    await two.say(two.source, 'freeze');
    await two.copyAll();
    await two.seal();
    expect((await two.handover()).differing).to.deep.equal([]);
    await two.activate();
    expect(Buffer.from((await two.target.get('{s}3'))?.value ?? '').toString()).to.equal('changed');
    expect(await two.target.get('{s}late')).to.include({ revision: 21 });
  });

  it('R70: is not called ready before the target has the whole copy and the last changes', async () => {
    const two = await filled();
    const { target } = two;
    await two.begin();
    await two.source.one(write(put('{s}late', 'v')));
    await two.say(two.source, 'freeze');
    await two.seal();
    expect(two.stateAt(target).ownership, 'nothing is copied').to.equal(SlotOwnership.importing);
    while (two.stateAt(target).migration?.copied === false) {
      const part = await two.nextPart(slot);
      await two.chunk(part === undefined ? [] : [part]);
    }
    await two.seal();
    expect(two.stateAt(target).ownership, 'a change is missing').to.equal(SlotOwnership.importing);
    await two.copyAll();
    await two.seal();
    expect(two.stateAt(target).ownership).to.equal(SlotOwnership.ready);
    expect((await two.handover()).differing).to.deep.equal([]);
  });

  it('R71 both-serve: is served by one shard at a time, in every step', async () => {
    const two = await filled();
    const steps: readonly (() => Promise<unknown>)[] = [
      () => two.begin(),
      () => two.copyAll(),
      () => two.say(two.source, 'freeze'),
      () => two.copyAll(),
      () => two.seal(),
      () => two.handover(),
      () => two.activate(),
      () => two.say(two.source, 'collect'),
    ];
    const serving: string[] = [];
    for (const step of steps) {
      await step();
      const probe = write(put('{s}probe', 'v'));
      const results = [await two.source.one(probe), await two.target.one(probe)];
      serving.push(results.map(({ kind }) => (kind === 'put' ? 'serves' : 'refuses')).join(' '));
    }
    const [source, nobody, target] = ['serves refuses', 'refuses refuses', 'refuses serves'];
    const wanted = [source, source, nobody, nobody, nobody, nobody, target, target];
    expect(serving).to.deep.equal(wanted);
  });

  it('R75 stale epoch write: is refused by the source once frozen, and sent on once it is gone', async () => {
    const two = await filled();
    await two.begin();
    await two.copyAll();
    await two.say(two.source, 'freeze');
    expect(await two.source.one(write(put('{s}1', 'x')))).to.deep.equal(refused('moving'));
    await two.seal();
    expect(await two.target.one(write(put('{s}1', 'x')))).to.deep.equal(refused('moving'));
    await two.handover();
    expect(await two.source.one(write(put('{s}1', 'x')))).to.deep.equal(refused('wrongShard'));
  });

  it('R76 dedupe-table-not-migrated: a retry after the handover gets the first answer', async () => {
    const two = await filled();
    const add = write(increment('{s}counter', 5), session(1, 1));
    const first = await two.source.one(add);
    await two.migrate();
    expect(await two.target.one(add)).to.deep.equal(first);
    expect(await two.target.one(write(increment('{s}counter', 1), session(1, 2)))).to.include({
      value: 6,
    });
  });

  it('R78 delete resurrected by copy: what was deleted stays deleted, in whatever order pieces come', async () => {
    const two = await filled(3);
    await two.begin();
    const old = await two.nextPart(slot, 1 << 20);
    await two.source.one(write(remove('{s}1')));
    const part = await two.nextPart(slot, 1);
    if (old === undefined || part === undefined) throw new Error('nothing to copy');
    // The changes overtake the scan.
    const records = [{ kind: KeyKind.value, key: bytes('{s}1'), change: 4, stored: undefined }];
    await two.chunk([{ slot, progress: { kind: 'changes', after: 3, through: 4 }, records }]);
    await two.chunk([old]);
    expect(await two.target.get('{s}1')).to.equal(undefined);
    await two.copyAll();
    await two.say(two.source, 'freeze');
    await two.seal();
    expect((await two.handover()).differing).to.deep.equal([]);
  });

  it('D25: leaves no key behind: neither data nor change index nor tombstones, on either side', async () => {
    const two = await filled();
    await two.begin();
    await two.copyAll();
    await two.source.one(write(put('{s}ttl', 'v', { ttlMs: 50 }), session(1, 1)));
    await two.source.one(write(remove('{s}2')));
    await two.say(two.source, 'freeze');
    await two.copyAll();
    await two.seal();
    await two.handover();
    await two.activate();
    await two.say(two.source, 'collect');
    // 20 values, one of them with an expiry; one session and its expiry.
    const pairs = async (at: 'source' | 'target'): Promise<number> => (await two[at].hash()).pairs;
    const [left, there] = [await pairs('source'), await pairs('target')];
    // What stays of a slot: its state; and of the shard its summary.
    expect(left).to.equal(2);
    expect(there).to.equal(20 + 1 + 1 + 1 + 2);
  });

  it('D30: ignores every step of another migration, and every step that comes late', async () => {
    const two = await filled();
    await two.migrate();
    const before = [two.stateAt(two.source), two.stateAt(two.target)];
    const kinds = ['exportBegin', 'freeze', 'thaw', 'endExport', 'collect'] as const;
    for (const kind of kinds) await two.say(two.source, kind);
    const parts = [
      { slot, progress: { kind: 'changes', after: 20, through: 21 } as const, records: [] },
    ];
    await two.chunk(parts);
    for (const kind of ['importBegin', 'seal', 'activate', 'endImport'] as const)
      await two.tell(two.target, kind, [{ ...noTerms, slot, epoch: 7, change: 20 }]);
    await two.handover();
    expect([two.stateAt(two.source), two.stateAt(two.target)]).to.deep.equal(before);
  });

  it('D30: may come back later, as a new migration with an instance of its own', async () => {
    const two = await filled();
    await two.migrate();
    const back = new TwoShards([slot]);
    Object.assign(back, { source: two.target, target: two.source, id: 2 });
    await back.source.one(write(put('{s}1', 'newer')));
    await back.migrate();
    expect(Buffer.from((await two.source.get('{s}1'))?.value ?? '').toString()).to.equal('newer');
    expect(two.stateAt(two.source)).to.include({ epoch: 3, instance: 2, keys: 20, change: 21 });
  });

  it('D32: is served again by the source when it thaws, and can be frozen and handed over later', async () => {
    const two = await filled();
    await two.begin();
    await two.copyAll();
    await two.say(two.source, 'freeze');
    await two.copyAll();
    await two.seal();
    const report = reportOf(slot, two.stateAt(two.target));
    await two.say(two.source, 'thaw');
    expect(await two.source.one(write(put('{s}1', 'more')))).to.include({ applied: true });
    await two.say(two.source, 'freeze');
    // The report of the first freeze decides nothing about the second.
    expect((await two.tell(two.source, 'handover', [report])).differing).to.deep.equal([]);
    expect(two.stateAt(two.source).ownership).to.equal(SlotOwnership.frozen);
    await two.copyAll();
    await two.seal();
    await two.handover();
    expect(two.stateAt(two.source).ownership).to.equal(SlotOwnership.handedOver);
  });

  it('D22: once hidden by its expiry stays hidden, though the source thawed and froze again without a change', async () => {
    const two = await filled(1);
    await two.source.one(write(put('{s}short', 'v', { ttlMs: 100 })));
    await two.begin();
    await two.copyAll();
    await two.freeze(1010);
    await two.seal();
    const early = reportOf(slot, two.stateAt(two.target));
    await two.say(two.source, 'thaw');
    await two.source.apply([encodeTime(1200)]);
    expect(await two.source.get('{s}short')).to.equal(undefined);
    await two.freeze(1200);
    // The first freeze's report names all the same records, but an earlier time.
    await two.tell(two.source, 'handover', [early]);
    expect(two.stateAt(two.source).ownership).to.equal(SlotOwnership.frozen);
    await two.seal();
    await two.handover();
    await two.activate();
    expect(two.target.machine.logTimeMs).to.equal(1200);
    expect(await two.target.get('{s}short')).to.equal(undefined);
  });

  it('D30: keeps the time of the latest freeze, when the seal of an earlier one comes late', async () => {
    const two = await filled(1);
    await two.begin();
    await two.copyAll();
    await two.freeze(1500);
    await two.seal();
    await two.handover();
    await two.tell(two.target, 'seal', [{ ...noTerms, slot, change: 1, logTimeMs: 1010 }]);
    await two.activate();
    expect(two.target.machine.logTimeMs).to.equal(1500);
  });

  it('R72 nobody-serves: is not handed over before the target is ready, though it was never written', async () => {
    const two = new TwoShards([slot]);
    await two.say(two.source, 'exportBegin');
    await two.freeze(1000);
    const steps = [() => Promise.resolve(), () => two.begin(), () => two.copyAll()];
    for (const step of steps) {
      await step();
      expect((await two.handover()).differing).to.deep.equal([]);
      expect(two.stateAt(two.source).ownership).to.equal(SlotOwnership.frozen);
    }
    await two.seal();
    await two.handover();
    await two.activate();
    expect(two.stateAt(two.target)).to.include({ ownership: SlotOwnership.owned, epoch: 2 });
  });

  it('stays where it is when the copy differs, and says which slot it was', async () => {
    const two = await filled();
    await two.begin();
    await two.copyAll();
    await two.say(two.source, 'freeze');
    await two.seal();
    const lost = { ...reportOf(slot, two.stateAt(two.target)), sum: 1 };
    expect((await two.tell(two.source, 'handover', [lost])).differing).to.deep.equal([slot]);
    expect(two.stateAt(two.source)).to.include({
      ownership: SlotOwnership.owned,
      ended: 1,
      epoch: 1,
    });
    expect(await two.source.one(write(put('{s}1', 'x')))).to.include({ applied: true });
  });

  it('R73 interrupted-migration-orphans: an end at any step leaves the source whole and the target empty', async () => {
    for (let stop = 0; stop < 5; stop++) {
      const two = await filled();
      const steps = [
        () => two.begin(),
        () => two.copyAll(),
        () => two.say(two.source, 'freeze'),
        () => two.seal(),
      ];
      for (const step of steps.slice(0, stop)) await step();
      await two.say(two.source, 'endExport');
      await two.say(two.target, 'endImport');
      expect(two.stateAt(two.source)).to.include({ ownership: SlotOwnership.owned, keys: 20 });
      expect(two.stateAt(two.target)).to.include({ ownership: SlotOwnership.absent, keys: 0 });
      expect((await two.target.hash()).pairs).to.equal(2);
      // Neither side can be talked into it later.
      await two.begin();
      expect(two.stateAt(two.source).ownership).to.equal(SlotOwnership.owned);
      expect(two.stateAt(two.target).ownership).to.equal(SlotOwnership.absent);
    }
  });

  it('expires nothing while it is frozen, and at the target what was due', async () => {
    const two = await filled(1);
    await two.source.one(write(put('{s}short', 'v', { ttlMs: 100 })));
    const due = await two.source.due('{s}short');
    await two.begin();
    await two.copyAll();
    await two.say(two.source, 'freeze');
    await two.source.apply([encodeExpire(due, 5000)]);
    expect(two.stateAt(two.source).keys).to.equal(2);
    await two.copyAll();
    await two.seal();
    await two.handover();
    await two.activate();
    const moved = await two.target.due('{s}short');
    expect(moved).to.have.length(1);
    await two.target.apply([encodeExpire(moved, 5000)]);
    expect(two.stateAt(two.target).keys).to.equal(1);
  });

  it('D26: what a crash left between a batch and its clears is gone after the next start', async () => {
    const two = await filled();
    await two.migrate();
    const place = { slot, instance: 0 };
    const batch = two.source.engine.batch();
    batch.put(slotKey(two.source.prefix, place, KeyKind.value, bytes('{s}1')), bytes('dead'));
    batch.put(slotKey(two.source.prefix, place, KeyKind.change, bytes('x')), bytes(''));
    await two.source.engine.write(batch, { sync: false });
    await two.source.machine.load();
    expect((await two.source.hash()).pairs).to.equal(2);
  });
});
