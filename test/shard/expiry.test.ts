import { expect } from 'chai';
import { MemoryEngine } from '../../storage/index.js';
import { slotOf } from '../../src/router/slot.js';
import {
  decodeCommand,
  encodeExpire,
  encodeWrites,
  type Command,
} from '../../src/shard/command-codec.js';
import { bytes, increment, put, remove, session, text, write } from './command-texts.js';
import { HookedEngine } from './hooked-engine.js';
import { entryOf, Replica } from './replica.js';
import { ServedShard } from './served-shard.js';

/** What the leader proposed by itself. */
function expires(served: ServedShard): readonly Extract<Command, { kind: 'expire' }>[] {
  return served.group.proposed.map(decodeCommand).filter((each) => each.kind === 'expire');
}

const lost = { kind: 'unknown', reason: 'steppedDown' } as const;

describe('expiry in apply', () => {
  it('D22: takes log time and ttl, hides from the very moment on, and leaves the rest to expire', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'v', { ttlMs: 100 })), 1000);
    expect(await replica.get('k')).to.include({ expiresAtMs: 1100 });
    expect(
      await replica.one(write(put('k', 'w', { condition: { kind: 'absent' } })), 1099),
    ).to.include({ applied: false });
    expect(await replica.one(write(remove('k')), 1100)).to.include({ existed: false });
    expect(replica.machine.keys).to.equal(1);
    await replica.apply([encodeExpire(await replica.due('k'), 1100)]);
    expect(replica.machine.keys).to.equal(0);
  });

  it('D22: log time never goes back: a command with an older time is applied at the newest', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'v', { ttlMs: 100 })), 5000);
    await replica.one(write(put('l', 'v', { ttlMs: 100 })), 1000);
    expect(replica.machine.logTimeMs).to.equal(5000);
    expect(await replica.get('l')).to.include({ expiresAtMs: 5100 });
    const again = await Replica.load(replica.engine);
    expect(again.machine.logTimeMs).to.equal(5000);
  });

  it('D22: a newer put wins over an expire that was proposed for the old one', async () => {
    const replica = Replica.fresh();
    for (const [name, newer] of [
      ['put with a ttl', put('k', 'new', { ttlMs: 100 })],
      ['put for ever', put('k', 'new')],
      ['increment', increment('k', 1)],
    ] as const) {
      await replica.one(write(remove('k')), replica.machine.logTimeMs);
      const nowMs = replica.machine.logTimeMs + 1000;
      await replica.one(write(put('k', '1', { ttlMs: 100 })), nowMs);
      const due = await replica.due('k');
      await replica.one(write(newer), nowMs + 50);
      const before = await replica.get('k');
      await replica.apply([encodeExpire(due, nowMs + 100)]);
      expect(
        await replica.engine.getMany([replica.machine.valueKey(slotOf(bytes('k')), bytes('k'))]),
        name,
      ).to.not.deep.equal([undefined]);
      if (name !== 'increment') expect(await replica.get('k'), name).to.deep.equal(before);
    }
  });

  it('D22: an expire that comes before its time, by a leader in a hurry, removes nothing', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'v', { ttlMs: 100 })), 1000);
    const due = await replica.due('k');
    await replica.apply([encodeExpire(due, 1099)]);
    expect(replica.machine.keys).to.equal(1);
    expect(await replica.due('k')).to.deep.equal(due);
  });

  it('counts keys rightly when an expired one is written anew before it is removed', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'v', { ttlMs: 10 })), 1000);
    await replica.one(write(put('k', 'w')), 2000);
    expect(replica.machine.keys).to.equal(1);
    expect(await replica.due('k')).to.deep.equal([]);
    await replica.one(write(remove('k')), 2000);
    expect(replica.machine.keys).to.equal(0);
  });

  it('never writes an expiry that it could not read again, however long the ttl', async () => {
    const replica = Replica.fresh();
    const far = Number.MAX_SAFE_INTEGER;
    await replica.one(write(put('k', 'v', { ttlMs: far })));
    expect(await replica.get('k')).to.include({ expiresAtMs: far });
    const swap = write(put('k', 'w', { returnPrevious: true }), session(1, 1));
    const first = await replica.one(swap);
    expect(await replica.one(swap), 'from the record').to.deep.equal(first);
    const again = await Replica.load(replica.engine);
    expect(text((await again.get('k'))?.value ?? bytes(''))).to.equal('w');
  });
});

describe('expiry by the leader of a shard', () => {
  it('D22: goes on in an idle shard: the expire entry moves log time and removes the key', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 250 })));
    const writtenMs = served.replica.machine.logTimeMs;
    await served.pass(200);
    expect(await served.values(['k'])).to.deep.equal(['v']);
    expect(served.replica.machine.logTimeMs, 'idle').to.equal(writtenMs);
    await served.pass(100);
    expect(served.replica.machine.logTimeMs).to.equal(writtenMs + 300);
    expect(await served.values(['k'])).to.deep.equal([undefined]);
    expect(served.replica.machine.keys).to.equal(0);
    expect(expires(served)).to.have.length(1);
  });

  it('D22: logs nothing in a shard in which nothing is due', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v')), write(put('l', 'v', { ttlMs: 3_600_000 })));
    for (let n = 0; n < 20; n++) await served.pass(1000);
    expect(served.group.proposed).to.have.length(1);
  });

  it('D22: is never proposed by a follower, or by a leader that has no time yet', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 100 })));
    served.group.stepDown(lost);
    for (let n = 0; n < 5; n++) await served.pass(1000);
    served.group.elect();
    await served.pass(100);
    expect(expires(served)).to.have.length(0);
    served.group.noticed();
    await served.pass(100);
    expect(expires(served)).to.have.length(1);
    expect(served.replica.machine.keys).to.equal(0);
  });

  it('D22: follows no jump of the wall clock', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 10_000 })));
    served.clock.wallOffsetMs += 365 * 86_400_000;
    await served.pass(9000);
    expect(await served.values(['k'])).to.deep.equal(['v']);
    expect(expires(served)).to.have.length(0);
    served.clock.wallOffsetMs -= 10 * 365 * 86_400_000;
    await served.pass(1000);
    expect(await served.values(['k'])).to.deep.equal([undefined]);
  });

  it('D22: comes in bounded batches, one under way at a time, until nothing is due', async () => {
    const served = ServedShard.leading();
    const keys = Array.from({ length: 1200 }, (_, n) => `{${n % 3}}${n}`);
    await served.written(...keys.map((key) => write(put(key, 'v', { ttlMs: 100 }))));
    served.group.atOnce = false;
    await served.pass(150);
    await served.pass(150);
    expect(
      expires(served).map(({ due }) => due.length),
      'the first one waits',
    ).to.deep.equal([500]);
    served.group.atOnce = true;
    await served.group.applyWaiting();
    for (let n = 0; n < 4; n++) await served.pass(100);
    expect(expires(served).map(({ due }) => due.length)).to.deep.equal([500, 500, 200]);
    expect(served.replica.machine.keys).to.equal(0);
  }).timeout(5000);

  it('looks no more at a slot once nothing in it expires', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    await served.written(write(put('{1}', 'v', { ttlMs: 100 })));
    await served.written(write(put('{2}', 'v', { ttlMs: 100 })), write(remove('{2}')));
    for (let n = 0; n < 4; n++) await served.pass(100);
    const looks = engine.iterators;
    expect(looks).to.be.greaterThan(0);
    for (let n = 0; n < 10; n++) await served.pass(100);
    expect(engine.iterators).to.equal(looks);
  });

  it('is found again by the next leader when the proposal was lost', async () => {
    const served = ServedShard.leading();
    await served.written(write(put('k', 'v', { ttlMs: 100 })));
    served.group.atOnce = false;
    await served.pass(150);
    expect(served.group.waiting).to.have.length(1);
    served.group.stepDown(lost);
    served.group.atOnce = true;
    served.group.lead();
    await served.pass(100);
    await served.pass(100);
    expect(served.replica.machine.keys).to.equal(0);
  });

  it('goes on after a restart and after a snapshot', async () => {
    const replica = Replica.fresh();
    await replica.one(write(put('k', 'v', { ttlMs: 100 }), session(1, 1, { notAfterMs: 1100 })));
    for (const after of [
      await Replica.load(replica.engine),
      await replica.copyTo(new MemoryEngine(), 2),
    ]) {
      const served = new ServedShard(after);
      served.group.lead();
      await served.pass(100);
      expect(after.machine.keys).to.equal(0);
      expect(await after.due('k')).to.deep.equal([]);
    }
  });

  it('misses no key that is written while the leader looks through its slot', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    await served.written(write(put('{s}a', 'v', { ttlMs: 100 })));
    await served.written(write(remove('{s}a')));
    // The leader's view of the index is empty; {s}b is there when the view is answered.
    engine.onPage = async () => {
      const nowMs = served.replica.machine.logTimeMs;
      await served.replica.write([write(put('{s}b', 'v', { ttlMs: 50 }))], nowMs);
    };
    await served.pass(100);
    expect(served.replica.machine.keys).to.equal(1);
    for (let n = 0; n < 3; n++) await served.pass(100);
    expect(served.replica.machine.keys).to.equal(0);
    expect(await served.replica.due('{s}')).to.deep.equal([]);
  });

  it('misses no key that is being applied while the leader looks through its slot', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    const { machine } = served.replica;
    await served.written(
      write(put('{s}a', 'v', { ttlMs: 100 })),
      write(put('{s}b', 'v', { ttlMs: 5000 })),
    );
    await served.replica.one(write(remove('{s}a')), machine.logTimeMs);
    // Applied, and not yet in the engine: the leader looks in between.
    const batch = engine.batch();
    const command = encodeWrites([write(put('{s}c', 'v', { ttlMs: 300 }))], machine.logTimeMs);
    await machine.apply([entryOf(command, 99)], batch);
    await served.pass(100);
    await engine.write(batch, { sync: false });
    machine.written();
    for (let n = 0; n < 4; n++) await served.pass(100);
    expect(machine.keys, '{s}b alone').to.equal(1);
  });

  it('ends with the shard: a leader that closes looks no further and needs no engine', async () => {
    const engine = new HookedEngine();
    const served = new ServedShard(Replica.fresh(engine));
    served.group.lead();
    const keys = ['{1}', '{2}', '{3}'];
    await served.written(...keys.map((key) => write(put(key, 'v', { ttlMs: 100 }))));
    engine.onPage = async () => {
      served.shard.close();
      await engine.close();
    };
    const before = engine.iterators;
    await served.pass(100);
    await served.pass(100);
    expect(engine.iterators - before).to.equal(1);
    expect(expires(served).length).to.be.at.most(1);
    expect(served.fatal).to.deep.equal([]);
  });
});
