import { expect } from 'chai';
import fc from 'fast-check';
import { slot, slotCount, slotOf, type Slot } from '../../src/router/slot.js';
import { decodeCursor, encodeCursor } from '../../src/shard/scan-cursor.js';
import type { ScanPage, ScanPageRequest } from '../../src/shard/shard.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { bytes, put, remove, text, write } from './command-texts.js';
import { HookedEngine } from './hooked-engine.js';
import { Replica } from './replica.js';
import { ServedShard } from './served-shard.js';

/** All pages of a scan, each going on at the cursor of the one before. */
async function pages(
  served: ServedShard,
  request: Partial<ScanPageRequest>,
): Promise<readonly ScanPage[]> {
  const all: ScanPage[] = [];
  let cursor = request.cursor;
  for (;;) {
    const { afterKey, ...rest } = request;
    const page = await served.page(
      cursor === undefined ? { ...rest, ...(afterKey && { afterKey }) } : { ...rest, cursor },
    );
    all.push(page);
    if (page.done) return all;
    if (all.length > 2000) throw new Error('the scan does not end');
    cursor = page.cursor;
  }
}

const keysOf = (all: readonly ScanPage[]): string[] =>
  all.flatMap(({ kvs }) => kvs.map(({ key }) => text(key)));

/** Order of a scan: by slot, then by bytes. */
function inScanOrder(keys: readonly string[]): string[] {
  return [...keys].sort(
    (a, b) => slotOf(bytes(a)) - slotOf(bytes(b)) || Buffer.compare(bytes(a), bytes(b)),
  );
}

async function filled(keys: readonly string[], value = 'v'): Promise<ServedShard> {
  const served = ServedShard.leading();
  await served.written(...keys.map((key) => write(put(key, value))));
  return served;
}

/** The state of a slot changes at once, without an entry of the log. */
function changeSlot(
  served: ServedShard,
  number: Slot,
  change: { readonly ownership?: SlotOwnership; readonly epoch?: number },
): void {
  const { machine } = served.replica;
  const before = machine.slotState.bind(machine);
  machine.slotState = (each) => (each === number ? { ...before(each), ...change } : before(each));
}

describe('scan of a shard', () => {
  it('gives every key once and in order, whatever the sizes of the pages', () =>
    fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(
          fc
            .tuple(fc.constantFrom('{1}', '{2}', '{3}'), fc.string({ maxLength: 4 }))
            .map(([tag, rest]) => tag + text(bytes(rest))),
          { minLength: 1, maxLength: 30 },
        ),
        fc.integer({ min: 1, max: 400 }),
        fc.integer({ min: 1, max: 7 }),
        fc.boolean(),
        async (keys, bytesMax, lengthMax, keysOnly) => {
          const served = await filled(keys);
          for (const tag of ['{1}', '{2}', '{3}']) {
            const number = slotOf(bytes(tag));
            const all = await pages(served, { slot: number, bytesMax, lengthMax, keysOnly });
            const inSlot = keys.filter((key) => key.startsWith(tag));
            expect(keysOf(all)).to.deep.equal(inScanOrder(inSlot));
            for (const { kvs } of all) {
              expect(kvs.length).to.be.at.most(lengthMax);
              for (const { value } of kvs) expect(text(value)).to.equal(keysOnly ? '' : 'v');
            }
          }
        },
      ),
      { numRuns: 40 },
    ));

  it('walks through all slots in order, in pages that look at a bounded number of them', async () => {
    const keys = Array.from({ length: 40 }, (_, n) => `key-${n}`);
    const served = await filled(keys);
    const all = await pages(served, {});
    expect(keysOf(all)).to.deep.equal(inScanOrder(keys));
    expect(all.length).to.be.within(slotCount / 2100, slotCount / 2000 + 1);
    let last = -1;
    for (const { cursor, done } of all) {
      if (done) break;
      const at = decodeCursor(cursor).slot;
      expect(at - last).to.be.at.most(2050);
      last = at;
    }
    expect(all[all.length - 1]?.cursor).to.deep.equal(new Uint8Array());
  });

  it('keeps a page within its bytes, but for the last pair', async () => {
    const keys = Array.from({ length: 20 }, (_, n) => `{s}${String(n).padStart(2, '0')}`);
    const served = await filled(keys, 'x'.repeat(1000));
    const all = await pages(served, { slot: slotOf(bytes('{s}')), bytesMax: 3000 });
    expect(keysOf(all)).to.deep.equal(keys);
    for (const { kvs } of all)
      expect(kvs.reduce((sum, { value }) => sum + value.byteLength, 0)).to.be.at.most(4000);
    expect(all.length).to.be.at.least(7);
  });

  it('ends a page at its bytes also over expired keys, and goes on behind them', async () => {
    const served = ServedShard.leading();
    const short = Array.from({ length: 10 }, (_, n) => write(put(`{s}a${n}`, 'x', { ttlMs: 50 })));
    await served.written(...short, write(put('{s}b', 'kept')));
    served.group.stepDown({ kind: 'unknown', reason: 'steppedDown' });
    served.group.lead(served.clock.wallMs() + 60);
    served.shard.close();
    await served.written(write(put('other', 'moves log time on')));
    const first = await served.page({ slot: slotOf(bytes('{s}')), bytesMax: 100 });
    expect(first.kvs).to.deep.equal([]);
    expect(first.done).to.equal(false);
    const all = await pages(served, { slot: slotOf(bytes('{s}')), bytesMax: 100 });
    expect(keysOf(all)).to.deep.equal(['{s}b']);
    expect(all.length).to.be.at.least(5);
  });

  it('gives only keys with the prefix, and goes on after a key', async () => {
    const served = await filled(['{s}', '{s}a', '{s}a\0', '{s}a\xff', '{s}b', '{t}a']);
    const inSlot = { slot: slotOf(bytes('{s}')) };
    const all = await pages(served, { ...inSlot, prefix: bytes('{s}a') });
    expect(keysOf(all)).to.deep.equal(['{s}a', '{s}a\0', '{s}a\xff']);
    const after = await pages(served, { ...inSlot, afterKey: bytes('{s}a\0'), lengthMax: 1 });
    expect(keysOf(after)).to.deep.equal(['{s}a\xff', '{s}b']);
    const none = await pages(served, { ...inSlot, prefix: bytes('{s}a'), afterKey: bytes('{s}b') });
    expect(keysOf(none)).to.deep.equal([]);
  });

  it('refuses bytes that are no cursor, and the cursor of another slot', async () => {
    const served = await filled(['{s}a', '{t}a']);
    const cursor = encodeCursor({ slot: slotOf(bytes('{t}')), from: bytes('') });
    for (const request of [
      { cursor: bytes('nonsense') },
      { cursor, slot: slotOf(bytes('{s}')) },
      { afterKey: bytes('{t}a'), slot: slotOf(bytes('{s}')) },
    ]) {
      const { error } = served.scan(request);
      expect(error).to.include({ code: 'KV_INVALID', outcome: 'notApplied' });
    }
    expect(served.group.reads, 'refused before anybody is asked').to.have.length(0);
  });

  it('D23: ends a page before a slot of another shard, and refuses to begin there', async () => {
    const served = await filled(['{s}a']);
    changeSlot(served, slot(700), { ownership: SlotOwnership.absent });
    const call = served.scan({ cursor: encodeCursor({ slot: slot(700), from: bytes('') }) });
    await served.settle();
    expect(call.error).to.include({ code: 'KV_WRONG_SHARD', outcome: 'notApplied' });
    const page = await served.page({ cursor: encodeCursor({ slot: slot(690), from: bytes('') }) });
    expect(page.done).to.equal(false);
    expect(decodeCursor(page.cursor)).to.deep.equal({ slot: slot(700), from: bytes('') });
  });

  it('D23: gives nothing of a slot whose epoch changed while its page was read', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    await served.written(write(put('{s}a', 'v')), write(put('{s}b', 'v')));
    const number = slotOf(bytes('{s}'));
    const first = await served.page({ slot: number, lengthMax: 1 });
    engine.onPage = () => {
      changeSlot(served, number, { epoch: 5 });
      return Promise.resolve();
    };
    const second = served.scan({ slot: number, cursor: first.cursor });
    await served.settle();
    expect(second.error).to.include({ code: 'KV_WRONG_SHARD', outcome: 'notApplied' });
    expect(engine.opened, 'views left open').to.equal(0);
  });

  it('shows a slot as it was when its page began: writes meanwhile are in the next page or not', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    await served.written(...['a', 'b', 'c'].map((name) => write(put(`{s}${name}`, 'old'))));
    engine.onPage = async () => {
      await served.replica.write([write(put('{s}b', 'new')), write(remove('{s}c'))], 1);
    };
    const page = await served.page({ slot: slotOf(bytes('{s}')) });
    expect(page.kvs.map(({ value }) => text(value))).to.deep.equal(['old', 'old', 'old']);
    expect(keysOf([await served.page({ slot: slotOf(bytes('{s}')) })])).to.deep.equal([
      '{s}a',
      '{s}b',
    ]);
  });

  it('waits for the read index of its level before it looks', async () => {
    const served = await filled(['{s}a']);
    served.group.readsAtOnce = false;
    const call = served.scan({ slot: slotOf(bytes('{s}')) });
    await served.written(write(put('{s}b', 'v')));
    expect(call.answers).to.have.length(0);
    served.group.releaseReads();
    await served.settle();
    expect(keysOf([call.result])).to.deep.equal(['{s}a', '{s}b']);
  });
});
