import { expect } from 'chai';
import type { MetaCommand } from '../../src/meta/commands.js';
import { homeOf, pinsMax } from '../../src/meta/pins.js';
import { planRebalance } from '../../src/meta/rebalance.js';
import { slotOf, type Slot } from '../../src/router/slot.js';
import type { Topology } from '../../src/meta/topology.js';
import { after, apply, firstNodes, initOf } from './clusters.js';
import { refuses } from './refusal-rows.js';
import { noCluster } from '../../src/meta/topology.js';

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const pin = (text: string, shard: number, isPrefix = false): MetaCommand => ({
  kind: 'pinKeys',
  key: base64(text),
  isPrefix,
  shard,
  nowMs: 10,
});
const unpin = (text: string, isPrefix = false): MetaCommand => ({
  kind: 'unpinKeys',
  key: base64(text),
  isPrefix,
  nowMs: 20,
});
const filled = (slot: number): MetaCommand => ({ kind: 'pinFilled', slot, nowMs: 11 });
const span = (first: number, last = first): { first: number; last: number } => ({ first, last });
const start = (slot: number, source: number, target: number): MetaCommand => ({
  kind: 'startMigrations',
  moves: [{ slots: [span(slot)], source, target }],
  nowMs: 12,
});
const moved = (id: number, slot: number): MetaCommand => ({
  kind: 'moveSlots',
  id,
  slots: [span(slot)],
  keys: 1,
  bytes: 2,
  freezeMs: 3,
  nowMs: 13,
});

/** Four shards; 'a' hashes to slot 15495, of shard 4. */
const cluster = after(noCluster, initOf(firstNodes(3)));
const slotOfA = slotOf(Buffer.from('a'));

function only({ pins }: Topology): Topology['pins'][number] {
  const [found] = pins;
  if (found === undefined) throw new Error('no pin');
  return found;
}

describe('pins in the metadata group', () => {
  it('D25: a pin begins in the shard of its hash slot, and goes on by a migration when it is filled', () => {
    const begun = after(cluster, pin('a', 2));
    expect(only(begun)).to.include({ slot: 16_384, state: 'pinning', shard: 4, epoch: 0 });
    expect(homeOf(only(begun))).to.equal(slotOfA);
    const there = after(begun, filled(16_384));
    expect(only(there)).to.include({ state: 'pinned', shard: 4, epoch: 1, target: 2 });
    const [migration] = there.migrations;
    expect(migration).to.deep.include({ source: 4, target: 2, slots: [span(16_384)] });
    const arrived = after(there, moved(migration?.id ?? 0, 16_384));
    expect(only(arrived)).to.include({ shard: 2, epoch: 2 });
    expect(arrived.migrations[0]).to.include({ state: 'done', moved: 1 });
    expect(arrived.slots, 'hash slots stay').to.equal(cluster.slots);
  });

  it('D25: unpinned, it goes to wherever its hash slot is, and its id is never used again', () => {
    const there = after(cluster, pin('a', 2), filled(16_384), moved(2, 16_384));
    const elsewhere = after(there, start(slotOfA, 4, 3), moved(3, slotOfA));
    const back = after(elsewhere, unpin('a'));
    expect(only(back)).to.include({ state: 'unpinning', shard: 2 });
    expect(back.migrations.at(-1)).to.include({ source: 2, target: 3 });
    const gone = after(back, moved(4, 16_384), { kind: 'pinGone', slot: 16_384 });
    expect(gone.pins).to.deep.equal([]);
    expect(only(after(gone, pin('a', 1))).slot).to.equal(16_385);
  });

  it('D30: says the same again without a change, and only what is new is new', () => {
    const begun = after(cluster, pin('a', 2));
    const again = apply(begun, pin('a', 2)).result;
    expect(again).to.deep.include({ kind: 'done', changed: false, issued: { pin: 16_384 } });
    const there = after(begun, filled(16_384));
    expect(apply(there, filled(16_384)).topology).to.equal(there);
    expect(apply(there, { kind: 'pinGone', slot: 16_384 }).topology).to.equal(there);
    const failed = after(there, { kind: 'failMigration', id: 2, reason: 'x' });
    const ended = after(failed, { kind: 'endMigration', id: 2, nowMs: 14 });
    // At home already: nothing to migrate.
    const back = after(ended, unpin('a'));
    expect(back.migrations).to.have.length(1);
    expect(apply(back, unpin('a')).topology).to.equal(back);
  });

  it('goes along when its shard is merged into others, and stays when slots are rebalanced or split', () => {
    const there = after(cluster, pin('a', 2), filled(16_384), moved(2, 16_384));
    const merged = after(there, { kind: 'mergeShard', shard: 2, into: [1, 3], nowMs: 15 });
    const taken = merged.migrations.flatMap(({ slots, source }) => (source === 2 ? slots : []));
    expect(taken.at(-1)).to.deep.equal(span(16_384));
    const split = after(there, { kind: 'splitShard', shard: 2, into: 2, nowMs: 15 });
    const left = split.migrations.flatMap(({ slots, source }) => (source === 2 ? slots : []));
    expect(left.every(({ last }) => last < 16_384)).to.equal(true);
    const weights = new Map([[4, 50]]);
    const { moves } = planRebalance(after(cluster, pin('a', 2)), { weights });
    const all = moves.flatMap(({ slots }) => slots);
    expect(moves.length).to.be.at.least(1);
    expect(all.some(({ first, last }) => slotOfA >= first && slotOfA <= last)).to.equal(false);
  });

  const pinned = after(cluster, pin('a', 2), filled(16_384), moved(2, 16_384));
  const busy = after(pinned, pin('{t}x', 1, false));
  refuses(busy, [
    ['an empty key', pin('', 1), 'badPin', 'the key is empty'],
    ['a key that is too long', pin('x'.repeat(4097), 1), 'badPin', 'the limit is 4096'],
    ['no base64', { ...pin('a', 1), key: '*' } as MetaCommand, 'badPin', 'base64'],
    ['a prefix without a tag', pin('user:', 1, true), 'badPin', 'has no whole {tag}'],
    ['a prefix with half a tag', pin('{user', 1, true), 'badPin', 'has no whole {tag}'],
    ['a prefix with an empty tag', pin('{}user', 1, true), 'badPin', 'has no whole {tag}'],
    ['a shard that is not there', pin('b', 9), 'unknownShard', 'there is no shard 9'],
    ['a key twice', pin('a', 3), 'pinExists', 'migration start --slots 16384 --to N'],
    ['a prefix over a pin', pin('{t}', 1, true), 'pinExists', 'unpin that first'],
    ['a second pin of a slot that is busy', pin('{t}y', 1), 'slotMigrating', 'is pinning just now'],
    ['what is not pinned', unpin('b'), 'unknownPin', "key 'b' is not pinned"],
    ['what is only being pinned', unpin('{t}x'), 'slotMigrating', 'wait until it is'],
    [
      'to migrate the slot of a pin that begins',
      start(slotOf(Buffer.from('{t}')), only({ ...busy, pins: busy.pins.slice(1) }).shard, 3),
      'slotMigrating',
      'is pinning just now',
    ],
    [
      'to migrate a pin that begins',
      start(16_385, busy.pins[1]?.shard ?? 0, 3),
      'slotMigrating',
      'pin 16385',
    ],
    ['to remove the shard of a pin', { kind: 'removeShard', shard: 2 }, 'shardInUse', 'merge it'],
  ]);

  const migrating = after(cluster, start(slotOfA, 4, 3));
  refuses(migrating, [
    ['a key whose slot migrates', pin('a', 2), 'slotMigrating', 'in migration 1'],
  ]);

  const record = only(pinned);
  const full = {
    ...pinned,
    pins: Array.from({ length: pinsMax }, (_, n) => ({
      ...record,
      key: base64(`k${n}`),
      slot: (16_384 + n) as Slot,
    })),
  };
  refuses(full, [['more pins than there may be', pin('z', 1), 'tooManyPins', 'the limit is 1000']]);
  const crowded = {
    ...full,
    pins: full.pins.slice(0, 16).map((each, n) => ({ ...each, key: base64(`{t}${n}`) })),
  };
  refuses(crowded, [['too many of one slot', pin('{t}z', 1), 'tooManyPins', 'the limit is 16']]);
  const used = { ...pinned, next: { ...pinned.next, pin: 65_534 } };
  refuses(used, [['when every id was used', pin('z', 1), 'tooManyPins', 'all 49150 ids']]);
});
