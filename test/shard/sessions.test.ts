import { expect } from 'chai';
import { KeyKind, slotKey } from '../../storage/index.js';
import { refusalError, sessionOf } from '../../src/api/convert.js';
import { KvError } from '../../src/errors.js';
import { slotOf } from '../../src/router/slot.js';
import { encodeExpire, encodeTime, encodeWrites } from '../../src/shard/command-codec.js';
import { firstSlotState, SlotOwnership } from '../../src/shard/slot-state.js';
import {
  bytes,
  clientId,
  get,
  increment,
  put,
  session,
  text,
  transaction,
  write,
} from './command-texts.js';
import { plain } from './model.js';
import { Replica } from './replica.js';

const valueOf = async (replica: Replica, key: string): Promise<string | undefined> => {
  const kv = await replica.get(key);
  return kv === undefined ? undefined : text(kv.value);
};

describe('sessions', () => {
  it('R50: without a session a retry is applied twice; with one it gets the first answer', async () => {
    const replica = Replica.fresh();
    await replica.one(write(increment('bare', 1)));
    await replica.one(write(increment('bare', 1)));
    expect(await valueOf(replica, 'bare')).to.equal('2');
    const kept = write(increment('kept', 1), session(1, 1));
    const first = await replica.one(kept);
    await replica.one(write(put('kept', '40')));
    expect(plain(await replica.one(kept))).to.deep.equal(plain(first));
    expect(await valueOf(replica, 'kept')).to.equal('40');
  });

  it('R50: a retry is recognised in the same command, in the same batch and after a restart', async () => {
    const replica = Replica.fresh();
    const once = write(increment('k', 1), session(1, 1));
    const [first, second] = await replica.write([once, once]);
    expect(plain(second)).to.deep.equal(plain(first));
    await replica.apply([encodeWrites([once], 1000), encodeWrites([once], 1001)]);
    const again = await Replica.load(replica.engine);
    expect(plain(await again.one(once, 1002))).to.deep.equal(plain(first));
    expect(await valueOf(again, 'k')).to.equal('1');
  });

  it('R50, R42: a retry is recognised by a replica that began with a snapshot', async () => {
    const replica = Replica.fresh();
    const once = write(increment('k', 1), session(1, 1));
    const first = await replica.one(once);
    const copy = await replica.copyTo(Replica.fresh().engine, 2);
    expect(plain(await copy.one(once))).to.deep.equal(plain(first));
    expect(await valueOf(copy, 'k')).to.equal('1');
  });

  it('D21: each operation of a batch has a record of its own, whatever it is sent with next time', async () => {
    const replica = Replica.fresh();
    const writes = [1, 2, 3].map((sequence) => write(increment('k', 1), session(1, sequence)));
    const results = await replica.write(writes);
    const alone = writes[1];
    if (alone === undefined) throw new Error('no write');
    expect(plain(await replica.one(alone))).to.deep.equal(plain(results[1]));
    const mixed = await replica.write([write(increment('k', 1), session(1, 4)), ...writes]);
    expect(plain(mixed.slice(1))).to.deep.equal(plain(results));
    expect(await valueOf(replica, 'k')).to.equal('4');
  });

  it('D21: remembers refusals too: a retry is refused as before, also when it would succeed now', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'text')));
    const add = write(increment('k', 1), session(1, 1));
    expect(await replica.one(add)).to.deep.equal({ kind: 'refused', refusal: 'notInteger' });
    await replica.one(write(put('k', '5')));
    expect(await replica.one(add)).to.deep.equal({ kind: 'refused', refusal: 'notInteger' });
    expect(await valueOf(replica, 'k')).to.equal('5');
  });

  it('D21: another write under the same sequence is an error, and does nothing', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'a'), session(1, 1)));
    const before = await replica.hash();
    for (const other of [put('k', 'b'), put('k', 'a', { ttlMs: 1 }), increment('k', 1)]) {
      const result = await replica.one(write(other, session(1, 1)));
      expect(result).to.deep.equal({ kind: 'refused', refusal: 'sessionMismatch' });
    }
    expect((await replica.hash()).hash).to.equal(before.hash);
    expect(refusalError('sessionMismatch')).to.include({
      code: 'KV_SESSION_MISMATCH',
      outcome: 'notApplied',
    });
  });

  it('D21: clients and slots do not meet: the same sequence elsewhere is another write', async () => {
    const replica = Replica.fresh();
    await replica.one(write(increment('{1}k', 1), session(1, 1)));
    await replica.one(write(increment('{1}k', 1), session(2, 1)));
    await replica.one(write(increment('{2}k', 1), session(1, 1)));
    expect(await valueOf(replica, '{1}k')).to.equal('2');
    expect(await valueOf(replica, '{2}k')).to.equal('1');
  });

  it('D21: what arrives after its not_after is refused as unknown; at that very time it is not', async () => {
    const replica = Replica.fresh();
    const until = (sequence: number): ReturnType<typeof session> =>
      session(1, sequence, { notAfterMs: 2000 });
    expect(await replica.one(write(put('k', 'a'), until(1)), 2000)).to.include({ applied: true });
    const late = await replica.one(write(put('k', 'b'), until(2)), 2001);
    expect(late).to.deep.equal({ kind: 'refused', refusal: 'sessionExpired' });
    expect(await valueOf(replica, 'k')).to.equal('a');
    expect(refusalError('sessionExpired').outcome).to.equal('unknown');
  });

  it('D21, R53: a record stays until an entry with a log time beyond its last not_after', async () => {
    const replica = Replica.fresh();
    const early = write(increment('k', 1), session(1, 1, { notAfterMs: 2000 }));
    const late = write(increment('k', 1), session(1, 2, { notAfterMs: 5000 }));
    const [first] = await replica.write([early, late]);
    const due = await replica.due('k');
    expect(due.map(({ dueMs }) => dueMs)).to.deep.equal([2001]);
    // Time alone removes nothing, and what is due by the index is judged by the record.
    await replica.apply([encodeTime(4000), encodeExpire(due, 4001)]);
    expect(await replica.count('k', KeyKind.session)).to.equal(1);
    expect(plain(await replica.one(early, 4500))).to.deep.equal(plain(first));
    const next = await replica.due('k');
    expect(next.map(({ dueMs }) => dueMs)).to.deep.equal([5001]);
    await replica.apply([encodeExpire(next, 5000)]);
    expect(await replica.count('k', KeyKind.session)).to.equal(1);
    await replica.apply([encodeExpire(next, 5001)]);
    expect(await replica.count('k', KeyKind.session)).to.equal(0);
    expect(await replica.due('k')).to.deep.equal([]);
    expect(await replica.one(early, 5001)).to.deep.equal({
      kind: 'refused',
      refusal: 'sessionExpired',
    });
    expect(await valueOf(replica, 'k')).to.equal('2');
  });

  it('D21: below first_unacknowledged the records go, and a late repetition is refused as unknown', async () => {
    const replica = Replica.fresh();
    for (const sequence of [1, 2, 3])
      await replica.one(write(increment('k', 1), session(1, sequence)));
    await replica.one(write(increment('k', 1), session(1, 4, { firstUnacknowledged: 3 })));
    for (const sequence of [1, 2]) {
      expect(await replica.one(write(increment('k', 1), session(1, sequence)))).to.deep.equal({
        kind: 'refused',
        refusal: 'sessionForgotten',
      });
    }
    expect(await replica.one(write(increment('k', 1), session(1, 3)))).to.include({ value: 3 });
    expect(await valueOf(replica, 'k')).to.equal('4');
    expect(refusalError('sessionForgotten').outcome).to.equal('unknown');
  });

  it('D21: the floor never goes back: an old message brings no old promise with it', async () => {
    const replica = Replica.fresh();
    await replica.one(write(increment('k', 1), session(1, 10, { firstUnacknowledged: 9 })));
    await replica.one(write(increment('k', 1), session(1, 11, { firstUnacknowledged: 2 })));
    expect(await replica.one(write(increment('k', 1), session(1, 5)))).to.deep.equal({
      kind: 'refused',
      refusal: 'sessionForgotten',
    });
  });

  it('D21: reordered writes are each applied once', async () => {
    const replica = Replica.fresh();
    for (const sequence of [3, 1, 2, 3, 1, 2])
      await replica.one(write(increment('k', 10 ** (sequence - 1)), session(1, sequence)));
    expect(await valueOf(replica, 'k')).to.equal('111');
  });

  it('D21: one entry trims a bounded number of records', async () => {
    const replica = Replica.fresh();
    const recordBytes = async (): Promise<number> => {
      const place = { slot: slotOf(bytes('k')), instance: 0 };
      const [stored] = await replica.engine.getMany([
        slotKey(replica.prefix, place, KeyKind.session, clientId(1)),
      ]);
      return stored?.byteLength ?? 0;
    };
    const many = Array.from({ length: 600 }, (_, n) => write(put('k', 'v'), session(1, n + 1)));
    await replica.write(many);
    const [full, one] = [await recordBytes(), (await recordBytes()) / 600];
    const sizes: number[] = [];
    for (let sequence = 601; sequence <= 604; sequence++) {
      await replica.one(write(put('k', 'v'), session(1, sequence, { firstUnacknowledged: 601 })));
      sizes.push(Math.round(((await recordBytes()) - full) / one));
    }
    expect(sizes).to.deep.equal([-255, -509, -596, -595]);
  }).timeout(5000);

  it('D21: more writes under way than are remembered: the oldest are refused, never applied again', async () => {
    const replica = Replica.fresh();
    const add = (sequence: number): ReturnType<typeof write> =>
      write(increment('k', 1), session(1, sequence));
    await replica.write(Array.from({ length: 1024 }, (_, n) => add(n + 1)));
    expect(await replica.one(add(1))).to.include({ value: 1 });
    expect(await replica.one(add(1025))).to.include({ value: 1025 });
    expect(await replica.one(add(1))).to.deep.equal({
      kind: 'refused',
      refusal: 'sessionForgotten',
    });
    expect(await replica.one(add(2))).to.include({ value: 2 });
    expect(await valueOf(replica, 'k')).to.equal('1025');
  });

  it('D21: a large result is remembered without its values', async () => {
    const replica = Replica.fresh();
    const large = 'x'.repeat(5000);
    await replica.one(write(put('k', large)));
    const swap = write(put('k', 'small', { returnPrevious: true }), session(1, 1));
    const first = await replica.one(swap);
    if (first.kind !== 'put') throw new Error(first.kind);
    expect(text(first.previous?.value ?? bytes(''))).to.equal(large);
    expect(await replica.one(swap)).to.deep.equal({ ...first, previous: undefined });
    await replica.one(write(put('k', large)));
    const look = write(transaction([], [get('k'), put('{k}l', '1')]), session(1, 2));
    const seen = await replica.one(look);
    expect(seen).to.include({ kind: 'transaction', succeeded: true });
    expect(await replica.one(look)).to.deep.equal({ ...seen, results: [] });
  });

  it('D21, R75: a slot that is not owned leaves no record: the owner decides the same write', async () => {
    const replica = Replica.fresh();
    const slot = slotOf(bytes('k'));
    await replica.setSlotState(slot, { ...firstSlotState, ownership: SlotOwnership.handedOver });
    const add = write(increment('k', 1), session(1, 1));
    expect(await replica.one(add)).to.deep.equal({ kind: 'refused', refusal: 'wrongShard' });
    expect(await replica.count('k', KeyKind.session)).to.equal(0);
    await replica.setSlotState(slot, { ...firstSlotState, epoch: 2 });
    expect(await replica.one(add)).to.include({ kind: 'increment', value: 1 });
  });

  it('D21: a client may number its writes up to 2^53 - 2, so that a floor above them is a number', () => {
    const message = { clientId: clientId(1), sequence: Number.MAX_SAFE_INTEGER - 1 };
    expect(sessionOf(message)).to.include({ sequence: Number.MAX_SAFE_INTEGER - 1 });
    expect(() => sessionOf({ ...message, sequence: Number.MAX_SAFE_INTEGER }))
      .to.throw(KvError, 'session.sequence')
      .that.includes({ code: 'KV_INVALID' });
  });

  it('remembers the highest sequence there is without breaking its own record', async () => {
    const replica = Replica.fresh();
    const highest = Number.MAX_SAFE_INTEGER;
    await replica.one(write(put('k', 'v'), session(1, highest)));
    await replica.write(
      Array.from({ length: 1100 }, (_, n) => write(put('k', 'v'), session(1, highest - n))),
    );
    const result = await replica.one(write(put('k', 'v'), session(1, 5)));
    expect(result).to.deep.equal({ kind: 'refused', refusal: 'sessionForgotten' });
  });
});
