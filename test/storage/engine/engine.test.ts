import { expect } from 'chai';
import fc from 'fast-check';
import { EngineFailure, MemoryEngine } from '../../../storage/index.js';
import { bytes, engineContract, get, list, put } from './engine-contract.js';

describe('the state engine in memory', () => {
  engineContract(() => Promise.resolve(new MemoryEngine()));

  it('keeps through a power cut what was synced, and of the rest a first part', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 20 }),
        fc.nat(20),
        async (syncs, kept) => {
          const engine = new MemoryEngine();
          for (const [i, sync] of syncs.entries()) await put(engine, { [`k${i + 10}`]: 'v' }, sync);
          const unsynced = syncs.length - 1 - syncs.lastIndexOf(true);
          expect(engine.unsyncedLength).to.equal(unsynced);
          const after = engine.crash(kept);
          const count = syncs.length - unsynced + Math.min(kept, unsynced);
          const expected = Array.from({ length: count }, (_, i) => `k${i + 10}=v`);
          expect(await list(after)).to.deep.equal(expected);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('breaks for good when a write is made to fail, and has written nothing of it', async () => {
    const engine = new MemoryEngine();
    await put(engine, { a: '1' });
    engine.failNextWrite(new Error('no space left on device'));
    const errors: unknown[] = [];
    for (const act of [
      () => put(engine, { b: '2' }),
      () => put(engine, { c: '3' }),
      () => get(engine, 'a'),
    ]) {
      await act().catch((error: unknown) => errors.push(error));
    }
    expect(errors).to.have.length(3);
    for (const error of errors) expect(error).to.be.instanceOf(EngineFailure);
    expect(String(errors[0])).to.match(/no space left on device/);
    expect(await list(engine.crash(99))).to.deep.equal(['a=1']);
  });

  it('stays quick with 100,000 keys', async function () {
    this.timeout(20_000);
    const engine = new MemoryEngine();
    for (let i = 0; i < 100_000; i += 1000) {
      const batch = engine.batch();
      for (let n = i; n < i + 1000; n++) {
        batch.put(bytes(`k${(n * 7919) % 100_000}`), bytes('v'));
      }
      await engine.write(batch, { sync: true });
    }
    expect(engine.statistics()).to.include({ keys: 100_000 });
  });
});
