import { expect } from 'chai';
import { groupId, replicaId } from '../../raft/index.js';
import {
  decodeSlotKey,
  instanceRange,
  KeyKind,
  MemoryEngine,
  putInstalled,
  readAppliedMark,
  replicaPrefix,
  replicaRange,
  slotKey,
  slotRange,
} from '../../storage/index.js';
import { slotOf } from '../../src/router/slot.js';
import {
  encodeExpire,
  encodeTime,
  encodeWrites,
  UnknownCommand,
} from '../../src/shard/command-codec.js';
import { firstSlotState, isMoving, SlotOwnership } from '../../src/shard/slot-state.js';
import { decodeValue } from '../../src/shard/value-codec.js';
import {
  bytes,
  get,
  ifAbsent,
  ifRevision,
  increment,
  put,
  remove,
  session,
  text,
  transaction,
  write,
} from './command-texts.js';
import { plain } from './model.js';
import { entryOf, Replica } from './replica.js';

async function texts(replica: Replica, keys: readonly string[]): Promise<(string | undefined)[]> {
  const found = await Promise.all(keys.map((key) => replica.get(key)));
  return found.map((kv) => (kv === undefined ? undefined : text(kv.value)));
}

async function ordinalOf(replica: Replica, key: string): Promise<number> {
  const [stored] = await replica.engine.getMany([
    replica.machine.valueKey(slotOf(bytes(key)), bytes(key)),
  ]);
  if (stored === undefined) throw new Error(`no ${key}`);
  return decodeValue(stored).ordinal;
}

describe('state machine of a shard: change numbers', () => {
  it('D20: every change to the data of a slot takes the next number, and nothing else does', async () => {
    const replica = Replica.fresh();
    const numbers: number[] = [];
    const step = async (...writes: Parameters<Replica['one']>): Promise<void> => {
      await replica.one(...writes);
      numbers.push(replica.change('k'));
    };
    await step(write(put('k', 'a')));
    await step(write(put('k', 'b', { condition: ifAbsent })));
    await step(write(put('k', 'b', { condition: ifRevision(9) })));
    await step(write(remove('k', { condition: ifRevision(9) })));
    await step(write(increment('k', 1)));
    expect(numbers, 'refused or conditions that fail').to.deep.equal([1, 1, 1, 1, 1]);
    await step(write(put('k', '5', { condition: ifRevision(1) })));
    await step(write(increment('k', 1)));
    await step(write(remove('k')));
    await step(write(remove('k')));
    expect(numbers.slice(5), 'changes, and a delete of nothing').to.deep.equal([2, 3, 4, 4]);
    await step(write(put('k', 'x', { condition: ifRevision(9) }), session(1, 1)));
    expect(numbers[9], 'a dedup record').to.equal(5);
    await step(write(put('k', 'x', { condition: ifRevision(9) }), session(1, 1)));
    expect(numbers[10], 'its repetition').to.equal(5);
  });

  it('D20: expiry and the end of a dedup record take a number each', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'a', { ttlMs: 100 }), session(1, 1, { notAfterMs: 1200 })));
    expect(replica.change('k')).to.equal(1);
    await replica.apply([encodeExpire(await replica.due('k'), 1100)]);
    expect(replica.change('k'), 'the key').to.equal(2);
    await replica.apply([encodeExpire(await replica.due('k'), 1201)]);
    expect(replica.change('k'), 'the record').to.equal(3);
  });

  it('D20: slots count apart, and keep their number over deletes and restarts', async () => {
    const replica = Replica.fresh();
    await replica.write([
      write(put('{1}a', '1')),
      write(put('{1}b', '1')),
      write(put('{2}a', '1')),
    ]);
    await replica.write([write(remove('{1}a')), write(remove('{1}b'))]);
    const again = await Replica.load(replica.engine);
    expect([again.change('{1}'), again.change('{2}')]).to.deep.equal([4, 1]);
    expect(await again.one(write(put('{1}a', '2')))).to.include({ revision: 5 });
    expect(await again.one(write(put('{2}a', '2')))).to.include({ revision: 2 });
  });

  it('D20: the keys of one transaction share its number, told apart by an ordinal', async () => {
    const replica = Replica.fresh();
    const result = await replica.one(
      write(
        transaction([], [put('{1}a', 'x'), increment('{1}b', 2), get('{1}c'), put('{1}d', 'y')]),
      ),
    );
    expect(result).to.include({ kind: 'transaction', succeeded: true, revision: 1 });
    const keys = ['{1}a', '{1}b', '{1}d'];
    const kvs = await Promise.all(keys.map((key) => replica.get(key)));
    expect(kvs.map((kv) => kv?.revision)).to.deep.equal([1, 1, 1]);
    expect(await Promise.all(keys.map((key) => ordinalOf(replica, key)))).to.deep.equal([0, 1, 2]);
    const idle = await replica.one(write(transaction([], [get('{1}a'), remove('{1}zz')])));
    expect(idle, 'nothing changed').to.include({ revision: 0 });
    expect(replica.change('{1}')).to.equal(1);
  });
});

describe('state machine of a shard: transactions', () => {
  it('carries out one branch as a whole: then when all compares hold, else otherwise', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('{1}a', 'x')));
    const swap = transaction(
      [
        { kind: 'exists', key: bytes('{1}a'), exists: true },
        { kind: 'value', key: bytes('{1}a'), value: bytes('x') },
        { kind: 'revision', key: bytes('{1}b'), revision: 0 },
      ],
      [put('{1}a', 'y'), put('{1}b', 'new')],
      [put('{1}b', 'else'), get('{1}a')],
    );
    expect(await replica.one(write(swap))).to.include({ succeeded: true });
    expect(await texts(replica, ['{1}a', '{1}b'])).to.deep.equal(['y', 'new']);
    const second = await replica.one(write(swap));
    expect(plain(second)).to.deep.include({ succeeded: false, revision: 3 });
    expect(await texts(replica, ['{1}a', '{1}b'])).to.deep.equal(['y', 'else']);
  });

  it('leaves nothing behind when one of its increments is refused', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('{1}a', String(Number.MAX_SAFE_INTEGER))));
    const before = await replica.hash();
    for (const [operations, refusal] of [
      [[put('{1}b', '1'), increment('{1}a', 1)], 'outOfRange'],
      [[put('{1}b', 'word'), increment('{1}b', 1)], 'notInteger'],
      [[increment('{1}c', Number.MAX_SAFE_INTEGER), increment('{1}c', 1)], 'outOfRange'],
      [[put('{1}c', '1', { condition: ifAbsent }), increment('{1}c', 1)], 'notInteger'],
    ] as const) {
      const result = await replica.one(write(transaction([], operations)));
      expect(result).to.deep.equal({ kind: 'refused', refusal });
      expect((await replica.hash()).hash).to.equal(before.hash);
    }
  });

  it('is refused over more than one slot, or over none', async () => {
    const replica = Replica.fresh();
    for (const each of [
      transaction([], [put('{1}a', 'x'), put('{2}a', 'x')]),
      transaction([{ kind: 'exists', key: bytes('{2}a'), exists: false }], [put('{1}a', 'x')]),
      transaction([], []),
    ])
      expect(await replica.one(write(each, session(1, 1)))).to.deep.equal({
        kind: 'refused',
        refusal: 'tooManySlots',
      });
    expect(replica.machine.keys).to.equal(0);
  });

  it('decides conditions of thousands of operations without comparing each with each', async () => {
    const replica = Replica.fresh();
    const operations = Array.from({ length: 10_000 }, (_, n) =>
      n % 2 === 0 ? put(`{1}${n}`, '1', { condition: ifAbsent }) : increment(`{1}${n}`, 1),
    );
    const result = await replica.one(write(transaction([], operations)));
    expect(result).to.include({ kind: 'transaction', succeeded: true });
    expect(replica.machine.keys).to.equal(10_000);
  }).timeout(2000);
});

describe('state machine of a shard: counters', () => {
  const bounds: readonly (readonly [string, number, number | 'outOfRange' | 'notInteger'])[] = [
    ['9007199254740990', 1, 9007199254740991],
    ['9007199254740991', 1, 'outOfRange'],
    ['9007199254740991', -1, 9007199254740990],
    ['-9007199254740990', -1, -9007199254740991],
    ['-9007199254740991', -1, 'outOfRange'],
    ['9007199254740992', -5, 'notInteger'],
    ['99999999999999999', -5, 'notInteger'],
    ['007', 1, 'notInteger'],
    ['1.0', 1, 'notInteger'],
    ['1\n', 1, 'notInteger'],
    ['', 1, 'notInteger'],
    ['-', 1, 'notInteger'],
    ['-0', 1, 1],
    ['0', -1, -1],
  ];
  for (const [stored, delta, expected] of bounds) {
    it(`answers ${JSON.stringify(stored)} + ${delta} with ${expected}`, async () => {
      const replica = Replica.fresh();
      await replica.one(write(put('k', stored)));
      const result = await replica.one(write(increment('k', delta)));
      if (typeof expected === 'number') {
        expect(result).to.include({ kind: 'increment', value: expected });
        expect(await texts(replica, ['k'])).to.deep.equal([String(expected)]);
      } else {
        expect(result).to.deep.equal({ kind: 'refused', refusal: expected });
        expect(await texts(replica, ['k'])).to.deep.equal([stored]);
      }
    });
  }

  it('refuses a delta that is no integer, should one ever come through', async () => {
    const replica = Replica.fresh();
    for (const delta of [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])
      expect(await replica.one(write(increment('k', delta)))).to.deep.equal({
        kind: 'refused',
        refusal: 'outOfRange',
      });
    expect(replica.machine.keys).to.equal(0);
  });

  it('keeps the expiry a counter was created with', async () => {
    const replica = Replica.fresh();
    await replica.one(write(increment('k', 1, 500)), 1000);
    await replica.one(write(increment('k', 1, 9000)), 1400);
    expect(await replica.get('k')).to.include({ expiresAtMs: 1500 });
    expect(await replica.one(write(increment('k', 1)), 1500)).to.include({ value: 1 });
    expect(await replica.get('k')).to.include({ expiresAtMs: 0 });
    expect(replica.machine.keys).to.equal(1);
  });
});

describe('state machine of a shard: versions, crashes and owners', () => {
  it('D16: stops at a command of an unknown version or kind, and has written nothing', async () => {
    const good = encodeWrites([write(put('k', 'v'))], 1);
    const newer = Buffer.from(good);
    newer[0] = 2;
    const other = Buffer.from(good);
    other[1] = 200;
    for (const bad of [newer, other]) {
      const replica = Replica.fresh();
      const batch = replica.engine.batch();
      let thrown: unknown;
      try {
        await replica.machine.apply([entryOf(good, 1), entryOf(bad, 2)], batch);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).to.be.instanceOf(UnknownCommand);
      expect(batch.length).to.equal(0);
    }
  });

  it('D16: an unknown version in the engine stops the load', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'v')));
    const view = replica.engine.iterate({ ...replica.machine.range, pageBytesMax: 1 << 20 });
    const pairs = await view.next();
    await view.close();
    const summary = pairs[pairs.length - 1];
    if (summary === undefined) throw new Error('nothing stored');
    const batch = replica.engine.batch();
    const newer = Buffer.from(summary.value);
    newer[0] = 9;
    batch.put(summary.key, newer);
    await replica.engine.write(batch, { sync: false });
    let thrown: unknown;
    await Replica.load(replica.engine).catch((error: unknown) => (thrown = error));
    expect(thrown).to.be.instanceOf(RangeError).that.has.property('message').contains('version 9');
  });

  it('R40: after a power cut at any moment the log behind the applied index gives the same state', async () => {
    const log = [1, 2, 3, 4, 5].map((n) =>
      encodeWrites(
        [
          write(increment('k', n), n % 2 === 0 ? session(1, n) : undefined),
          write(put(`{k}${n}`, 'v', { ttlMs: n * 10 })),
        ],
        1000 + n,
      ),
    );
    const whole = Replica.fresh();
    await whole.apply(log);
    for (let kept = 0; kept <= log.length; kept++) {
      const engine = new MemoryEngine();
      const crashing = Replica.fresh(engine);
      for (const command of log) await crashing.apply([command]);
      const after = await Replica.load(engine.crash(kept));
      expect(after.index).to.equal(kept);
      await after.apply(log.slice(after.index));
      expect(await after.hash()).to.deep.equal(await whole.hash());
      expect(after.machine.keys).to.equal(whole.machine.keys);
    }
  }).timeout(5000);

  it('R42: a snapshot that holds entry N is followed by N + 1, not by N', async () => {
    const log = [1, 2, 3, 4].map(() => encodeWrites([write(increment('k', 1))], 1000));
    const leader = Replica.fresh();
    await leader.apply(log.slice(0, 3));
    const engine = new MemoryEngine();
    const copy = await leader.copyTo(engine, 2);
    const end = engine.batch();
    const none: readonly never[] = [];
    const membership = {
      incoming: none,
      outgoing: none,
      learners: none,
      learnersNext: none,
      members: none,
      autoLeave: false,
    };
    putInstalled(end, copy.prefix, {
      index: leader.index,
      term: 1,
      membership: { index: 0, membership },
    });
    await engine.write(end, { sync: true });
    const restarted = await Replica.load(engine.crash(), 2);
    expect(await readAppliedMark(restarted.engine, restarted.prefix)).to.include({ index: 3 });
    await restarted.apply(log.slice(restarted.index));
    await leader.apply(log.slice(3));
    expect(await texts(restarted, ['k'])).to.deep.equal(['4']);
    expect(await restarted.hash()).to.deep.equal(await leader.hash());
  });

  it('R51: a command of several writes has the result of each in its place, refusals included', async () => {
    const replica = Replica.fresh();
    const results = await replica.write([
      write(put('a', 'x')),
      write(increment('a', 1)),
      write(put('b', 'y', { condition: ifAbsent })),
      write(put('b', 'z', { condition: ifAbsent })),
      write(remove('c')),
    ]);
    expect(results.map((each) => plain(each))).to.deep.equal([
      { kind: 'put', applied: true, revision: 1, previous: undefined },
      { kind: 'refused', refusal: 'notInteger' },
      { kind: 'put', applied: true, revision: 1, previous: undefined },
      {
        kind: 'put',
        applied: false,
        revision: 1,
        previous: { key: 'b', value: 'y', revision: 1, expiresAtMs: 0 },
      },
      { kind: 'delete', applied: true, existed: false, revision: 0, previous: undefined },
    ]);
  });

  it('R75: ownership is decided in apply: a write of an old map changes nothing in any other state', async () => {
    for (const ownership of Object.values(SlotOwnership)) {
      const replica = Replica.fresh();
      await replica.one(write(put('k', 'old', { ttlMs: 10 })));
      const due = await replica.due('k');
      await replica.setSlotState(slotOf(bytes('k')), {
        ...replica.machine.slotState(slotOf(bytes('k'))),
        ownership,
      });
      const before = await replica.hash();
      const results = await replica.write([
        write(put('k', 'new'), session(1, 1)),
        write(transaction([], [remove('k')])),
        write(put('other', 'v')),
      ]);
      // While it is exported the source serves on.
      if (ownership === SlotOwnership.owned || ownership === SlotOwnership.exporting) {
        expect(results[0]).to.include({ applied: true });
        continue;
      }
      const moving = isMoving(replica.machine.slotState(slotOf(bytes('k'))));
      const wrong = { kind: 'refused', refusal: moving ? 'moving' : 'wrongShard' };
      expect(results.slice(0, 2)).to.deep.equal([wrong, wrong]);
      expect(results[2], 'a slot beside it').to.include({ applied: true });
      await replica.one(write(remove('other')));
      await replica.apply([encodeExpire(due, 5000)]);
      const [stored] = await replica.engine.getMany([
        replica.machine.valueKey(slotOf(bytes('k')), bytes('k')),
      ]);
      expect(stored, 'no expiry either').to.not.equal(undefined);
      expect((await replica.hash()).pairs).to.equal(before.pairs + 1);
    }
  }).timeout(5000);
});

describe('state machine of a shard: what readers see', () => {
  it('D23: moves on only when the batch is in the engine, data and all else in one step', async () => {
    const replica = Replica.fresh();
    const { machine, engine } = replica;
    await replica.one(write(put('k', 'v')), 1000);
    const seen = (): unknown => [machine.logTimeMs, machine.keys, machine.slotState(slot)];
    const slot = slotOf(bytes('k'));
    const before = seen();
    const batch = engine.batch();
    const command = encodeWrites([write(put('k', 'w')), write(put('{k}2', 'w'))], 2000);
    await machine.apply([entryOf(command, 2)], batch);
    expect(seen(), 'applied').to.deep.equal(before);
    await engine.write(batch, { sync: false });
    expect(seen(), 'written').to.deep.equal(before);
    machine.written();
    const { bytes: stored, sum } = machine.slotState(slot);
    const state = { ...firstSlotState, change: 3, keys: 2, bytes: stored, sum };
    expect(seen(), 'told so').to.deep.equal([2000, 2, state]);
  });
});

describe('state machine of a shard: keys in the engine', () => {
  it('D25: the late clear of a dead instance of a slot leaves the living one alone', async () => {
    const replica = Replica.fresh();
    const slot = slotOf(bytes('k'));
    await replica.one(write(put('k', 'dead', { ttlMs: 10 }), session(1, 1)));
    await replica.setSlotState(slot, { ...firstSlotState, epoch: 3, instance: 7, change: 10 });
    expect(await texts(replica, ['k'])).to.deep.equal([undefined]);
    await replica.one(write(put('k', 'alive', { ttlMs: 10 }), session(1, 1)));
    await replica.engine.clear(instanceRange(replica.prefix, { slot, instance: 0 }));
    const again = await Replica.load(replica.engine);
    expect(await texts(again, ['k'])).to.deep.equal(['alive']);
    expect(await again.count('k', KeyKind.session)).to.equal(1);
    expect((await again.due('k')).length).to.equal(2);
  });

  it('D25: each pair of a slot lies in the range of its slot, and all of them in the replica', async () => {
    const replica = Replica.fresh();
    await replica.write([
      write(put('{1}\0\xff', 'v', { ttlMs: 5 }), session(1, 1)),
      write(put('{2}', 'v')),
    ]);
    const slot = slotOf(bytes('{1}'));
    const inside = replica.engine.iterate({
      ...slotRange(replica.prefix, slot),
      pageBytesMax: 1 << 20,
    });
    const kinds = (await inside.next()).map(({ key }) => decodeSlotKey(key).kind);
    await inside.close();
    const { value, session: record, expiry } = KeyKind;
    expect(kinds).to.have.members([value, record, expiry, expiry]);
    const outside = replica.engine.iterate({
      start: replicaRange(replica.prefix).end,
      end: Buffer.alloc(9, 0xff),
      pageBytesMax: 1 << 20,
    });
    expect(await outside.next()).to.deep.equal([]);
    await outside.close();
  });

  it('D25: two replicas on one engine do not meet', async () => {
    const engine = new MemoryEngine();
    const [one, two] = [Replica.fresh(engine, 1), Replica.fresh(engine, 2)];
    await one.one(write(put('k', 'one')));
    await two.one(write(put('k', 'two')));
    expect([...(await texts(one, ['k'])), ...(await texts(two, ['k']))]).to.deep.equal([
      'one',
      'two',
    ]);
    await engine.clear(replicaRange(replicaPrefix(groupId(1), replicaId(1))));
    expect(await texts(two, ['k'])).to.deep.equal(['two']);
  });

  it('D25: keys of any bytes keep apart, also when one is the beginning of another', async () => {
    const replica = Replica.fresh();
    const keys = ['{1}', '{1}\0', '{1}\0\0', '{1}\0\x01', '{1}\0\xff', '{1}\xff', '{1}a'];
    await replica.write(keys.map((key) => write(put(key, key))));
    expect(await texts(replica, keys)).to.deep.equal(keys);
    const place = { slot: slotOf(bytes('{1}')), instance: 0 };
    const engineKeys = keys.map((key) =>
      Buffer.from(slotKey(replica.prefix, place, KeyKind.value, bytes(key))),
    );
    const sorted = [...engineKeys].sort((a, b) => Buffer.compare(a, b));
    const expected = [...keys].sort();
    expect(sorted.map((key) => text(decodeSlotKey(key).userKey))).to.deep.equal(expected);
  });

  it('D26: no command of this version clears a range; clears come with migrations', async () => {
    const replica = Replica.fresh();
    const commands = [
      encodeWrites([write(put('k', 'v', { ttlMs: 1 })), write(remove('l'))], 1),
      encodeExpire([], 2),
      encodeTime(3),
    ];
    const batch = replica.engine.batch();
    const { clears } = await replica.machine.apply(
      commands.map((command, n) => entryOf(command, n + 1)),
      batch,
    );
    expect(clears).to.deep.equal([]);
  });
});
