import { expect } from 'chai';
import fc from 'fast-check';
import { groupId, replicaId } from '../../../raft/index.js';
import {
  decodeSlotKey,
  instanceRange,
  KeyKind,
  kindRange,
  machineKey,
  machineRange,
  replicaKey,
  replicaPrefix,
  replicaRange,
  slotKey,
  slotRange,
  type KeyRange,
} from '../../../storage/index.js';

interface Parts {
  readonly group: number;
  readonly replica: number;
  readonly slot: number;
  readonly instance: number;
  readonly kind: KeyKind;
  readonly userKey: Uint8Array;
  readonly subkey: Uint8Array;
}

/** Bytes in which the escaped ones are frequent. */
const trickyBytes = fc
  .array(fc.constantFrom(0x00, 0x01, 0x02, 0x61, 0xfe, 0xff), { maxLength: 6 })
  .map((list) => Uint8Array.from(list));
const few = (max: number): fc.Arbitrary<number> =>
  fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max }));

const parts: fc.Arbitrary<Parts> = fc.record({
  group: few(0xffff_ffff),
  replica: few(0xffff_ffff),
  slot: fc.oneof(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 0xfffd })),
  instance: fc.oneof(fc.integer({ min: 0, max: 2 }), fc.maxSafeNat()),
  kind: fc.constantFrom(...Object.values(KeyKind)),
  userKey: trickyBytes,
  subkey: trickyBytes,
});

function encode({ group, replica, slot, instance, kind, userKey, subkey }: Parts): Uint8Array {
  const prefix = replicaPrefix(groupId(group), replicaId(replica));
  return slotKey(prefix, { slot, instance }, kind, userKey, subkey);
}

/** The order that the layout is to have, field by field. */
function order(a: Parts, b: Parts): number {
  return (
    a.group - b.group ||
    a.replica - b.replica ||
    a.slot - b.slot ||
    a.instance - b.instance ||
    a.kind - b.kind ||
    Buffer.compare(a.userKey, b.userKey) ||
    Buffer.compare(a.subkey, b.subkey)
  );
}

const isIn = (key: Uint8Array, { start, end }: KeyRange): boolean =>
  Buffer.compare(key, start) >= 0 && Buffer.compare(key, end) < 0;
const beginsWith = (key: Uint8Array, prefix: Uint8Array): boolean =>
  Buffer.compare(key.subarray(0, prefix.length), prefix) === 0;

describe('engine keys (D25)', () => {
  it('order as group, replica, slot, instance, kind, user key and subkey do', () => {
    fc.assert(
      fc.property(parts, parts, (a, b) => {
        expect(Math.sign(Buffer.compare(encode(a), encode(b)))).to.equal(Math.sign(order(a, b)));
      }),
      { numRuns: 2000 },
    );
  });

  it('give back what they were made of', () => {
    fc.assert(
      fc.property(parts, (each) => {
        const { slot, instance, kind, userKey, subkey } = decodeSlotKey(encode(each));
        expect({ slot, instance, kind }).to.deep.equal({
          slot: each.slot,
          instance: each.instance,
          kind: each.kind,
        });
        expect(Buffer.compare(userKey, each.userKey)).to.equal(0);
        expect(Buffer.compare(subkey, each.subkey)).to.equal(0);
      }),
    );
  });

  it('never hold one another: no user key ends inside of a longer one', () => {
    fc.assert(
      fc.property(parts, trickyBytes, (each, other) => {
        if (Buffer.compare(each.userKey, other) === 0) return;
        const empty = { ...each, subkey: new Uint8Array() };
        const one = encode(empty);
        const two = encode({ ...empty, userKey: other });
        expect(beginsWith(one, two) || beginsWith(two, one)).to.equal(false);
      }),
    );
  });

  it('lie in the ranges of their replica, slot, instance, kind and prefix, and in no other', () => {
    fc.assert(
      fc.property(parts, parts, trickyBytes, (range, key, userPrefix) => {
        const prefix = replicaPrefix(groupId(range.group), replicaId(range.replica));
        const encoded = encode(key);
        const sameReplica = key.group === range.group && key.replica === range.replica;
        const sameSlot = sameReplica && key.slot === range.slot;
        const sameInstance = sameSlot && key.instance === range.instance;
        const sameKind = sameInstance && key.kind === range.kind;
        expect(isIn(encoded, replicaRange(prefix))).to.equal(sameReplica);
        expect(isIn(encoded, slotRange(prefix, range.slot))).to.equal(sameSlot);
        expect(isIn(encoded, instanceRange(prefix, range))).to.equal(sameInstance);
        expect(isIn(encoded, kindRange(prefix, range, range.kind))).to.equal(sameKind);
        expect(isIn(encoded, kindRange(prefix, range, range.kind, userPrefix))).to.equal(
          sameKind && beginsWith(key.userKey, userPrefix),
        );
      }),
      { numRuns: 2000 },
    );
  });

  it('of the machine travel with a snapshot, marks of the replica do not, and no range of a slot holds either', () => {
    const prefix = replicaPrefix(groupId(3), replicaId(9));
    const machine = machineKey(prefix, 'log-time');
    const mark = replicaKey(prefix, 'applied');
    const range = machineRange(prefix);
    expect([machine, mark].map((key) => isIn(key, range))).to.deep.equal([true, false]);
    expect([machine, mark].every((key) => isIn(key, replicaRange(prefix)))).to.equal(true);
    for (const slot of [0, 16_383, 16_384, 0xfffd]) {
      expect([machine, mark].some((key) => isIn(key, slotRange(prefix, slot)))).to.equal(false);
    }
  });

  it('that are damaged are refused', () => {
    const good = encode({
      group: 1,
      replica: 1,
      slot: 5,
      instance: 0,
      kind: KeyKind.value,
      userKey: Buffer.from('abc'),
      subkey: new Uint8Array(),
    });
    expect(() => decodeSlotKey(good.subarray(0, 12))).to.throw(RangeError, /too short/);
    expect(() => decodeSlotKey(good.subarray(0, good.length - 1))).to.throw(RangeError);
    const broken = Buffer.from(good);
    broken[broken.length - 1] = 7;
    expect(() => decodeSlotKey(broken)).to.throw(RangeError, /no terminated user key/);
  });

  it('take the slots up to 65533 and instances up to 2^53 - 1', () => {
    const prefix = replicaPrefix(groupId(1), replicaId(1));
    const place = { slot: 0xfffd, instance: Number.MAX_SAFE_INTEGER };
    const { slot, instance } = decodeSlotKey(
      slotKey(prefix, place, KeyKind.session, Buffer.from('k')),
    );
    expect({ slot, instance }).to.deep.equal(place);
  });
});
