import { expect } from 'chai';
import type { KvError } from '../../src/errors.js';
import { slotOf } from '../../src/router/slot.js';
import { encodeMigrationStep } from '../../src/shard/command-codec.js';
import type { ReadLevel } from '../../src/shard/shard.js';
import { bytes, put, write } from './command-texts.js';
import { linearizable, ServedShard } from './served-shard.js';
import { targetShard, TwoShards } from './two-shards.js';

const slot = slotOf(bytes('{s}'));
const levels: readonly ReadLevel[] = [
  linearizable,
  { kind: 'lease' },
  { kind: 'stale', maxStalenessMs: 60_000 },
  { kind: 'atLeast', positions: new Map(), maxStalenessMs: 60_000 },
];

/** Both ends lead their shards; all time is theirs. */
async function served(): Promise<{ two: TwoShards; source: ServedShard; target: ServedShard }> {
  const two = new TwoShards([slot]);
  await two.source.one(write(put('{s}a', '1')));
  await two.source.one(write(put('{other}', '2')));
  const [source, target] = [new ServedShard(two.source), new ServedShard(two.target)];
  for (const each of [source, target]) {
    each.group.lead();
    each.group.caughtUpAtMs = each.clock.monotonicMs();
  }
  return { two, source, target };
}

async function frozen(two: TwoShards): Promise<void> {
  await two.begin();
  await two.copyAll();
  await two.freeze(1000);
}

async function given(two: TwoShards): Promise<void> {
  await frozen(two);
  await two.copyAll();
  await two.seal();
  await two.handover();
}

async function errorOf(
  at: ServedShard,
  keys: readonly string[],
  level: ReadLevel,
): Promise<KvError> {
  const call = at.read(keys, level);
  await at.settle();
  return call.error;
}

describe('reads while a slot moves', () => {
  for (const level of levels) {
    const { kind } = level;
    it(`R35 lease-during-merge/move, ${kind}: the source answers until it is frozen, then that it moves, then where it is`, async () => {
      const { two, source } = await served();
      await two.begin();
      await two.copyAll();
      expect(await source.values(['{s}a'], level)).to.deep.equal(['1']);
      await two.freeze(1000);
      expect(await errorOf(source, ['{s}a'], level)).to.include({
        code: 'KV_MOVING',
        outcome: 'notApplied',
      });
      await two.copyAll();
      await two.seal();
      await two.handover();
      const gone = { code: 'KV_WRONG_SHARD', shardId: targetShard, slotEpoch: 2 };
      expect((await errorOf(source, ['{s}a'], level)).fields).to.include(gone);
      await two.activate();
      await two.say(two.source, 'collect');
      expect((await errorOf(source, ['{s}a'], level)).fields).to.include(gone);
      // The other slots of the shard are none the worse.
      expect(await source.values(['{other}'], level)).to.deep.equal(['2']);
    });

    it(`R35, ${kind}: the target answers only when it has been activated`, async () => {
      const { two, target } = await served();
      await two.begin();
      await two.copyAll();
      expect(await errorOf(target, ['{s}a'], level)).to.include({ code: 'KV_WRONG_SHARD' });
      await two.freeze(1000);
      await two.seal();
      expect(await errorOf(target, ['{s}a'], level)).to.include({ code: 'KV_MOVING' });
      await two.handover();
      expect(await errorOf(target, ['{s}a'], level)).to.include({ code: 'KV_MOVING' });
      await two.activate();
      expect(await target.values(['{s}a'], level)).to.deep.equal(['1']);
    });

    it(`R35 D23, ${kind}: a read that began before the freeze is not answered behind it`, async () => {
      for (const move of [frozen, given]) {
        const { two, source } = await served();
        const { engine } = two.source;
        const getMany = engine.getMany.bind(engine);
        let moved = false;
        // The engine has answered; before the shard looks at it, the slot moves.
        engine.getMany = async (keys): Promise<readonly (Uint8Array | undefined)[]> => {
          engine.getMany = getMany;
          const values = await getMany(keys);
          await move(two);
          moved = true;
          return values;
        };
        const call = source.read(['{s}a'], level);
        await source.until('the move', () => moved && call.answers.length > 0);
        expect(call.error.code).to.equal(move === frozen ? 'KV_MOVING' : 'KV_WRONG_SHARD');
      }
    });

    it(`R35 D23, ${kind}: a scan of the slot is refused as a read is`, async () => {
      const { two, source } = await served();
      await frozen(two);
      const scan = source.scan({ slot, level });
      await source.until('an answer', () => scan.answers.length > 0);
      expect(scan.error.code).to.equal('KV_MOVING');
    });
  }

  it('R35: of several keys the one whose slot has moved is refused, and the others are answered', async () => {
    const { two, source } = await served();
    await given(two);
    const call = source.read(['{other}', '{s}a']);
    await source.settle();
    const { values, refused } = call.result;
    expect(Buffer.from(values[0]?.value ?? '').toString()).to.equal('2');
    expect([...refused].map(([n, { code }]) => [n, code])).to.deep.equal([[1, 'KV_WRONG_SHARD']]);
  });

  it('R35: a lease is worth nothing to a leader whose log has the freeze, however long it lasts', async () => {
    const { two, source } = await served();
    source.group.leaseValid = true;
    await given(two);
    expect((await errorOf(source, ['{s}a'], { kind: 'lease' })).code).to.equal('KV_WRONG_SHARD');
    source.group.leaseValid = false;
    expect((await errorOf(source, ['{s}a'], { kind: 'lease' })).code).to.equal('KV_WRONG_SHARD');
  });

  it('D24: a session that has been at the target is not served by a replica of the source that lags', async () => {
    const { two, source } = await served();
    // It has not heard of the migration: it still owns the slot at epoch 1.
    const positions = new Map([[slot, { slot, epoch: 2, revision: 1, logTimeMs: 0 }]]);
    const level = { kind: 'atLeast', positions, maxStalenessMs: 60_000 } as const;
    source.group.readsAtOnce = false;
    const call = source.read(['{s}a'], level);
    await source.settle();
    expect(call.answers, 'it asks the leader first').to.have.length(0);
    await given(two);
    source.group.releaseReads();
    await source.settle();
    expect(call.error.code).to.equal('KV_WRONG_SHARD');
  });

  it('D32: the source answers again when it thaws', async () => {
    const { two, source } = await served();
    await frozen(two);
    const step = { kind: 'thaw', id: 1, peer: targetShard, slots: [{ ...bare, slot }] } as const;
    await two.source.apply([encodeMigrationStep(step, 1000)]);
    for (const level of levels) expect(await source.values(['{s}a'], level)).to.deep.equal(['1']);
  });
});

const bare = { epoch: 0, change: 0, keys: 0, sum: 0, logTimeMs: 0 };
