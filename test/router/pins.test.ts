import { expect } from 'chai';
import fc from 'fast-check';
import { Pins, covers, overlap, segmentAt, type PinRule } from '../../src/router/pins.js';
import { slotOf, type Slot } from '../../src/router/slot.js';

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const rule = (slot: number, key: string, isPrefix = false): PinRule => ({
  slot: slot as Slot,
  key: bytes(key),
  isPrefix,
});

describe('pins of a map', () => {
  const pins = new Pins([rule(16_384, 'a'), rule(16_385, '{t}x', true), rule(16_386, '{t}y')]);

  it('give a pinned key its pin, every key of a prefix that of the prefix, others their hash slot', () => {
    for (const [key, slot] of [
      ['a', 16_384],
      ['ab', slotOf(bytes('ab'))],
      ['{a}', slotOf(bytes('a'))],
      ['{t}x', 16_385],
      ['{t}xyz', 16_385],
      ['{t}y', 16_386],
      ['{t}ya', slotOf(bytes('t'))],
      ['x{t}x', slotOf(bytes('t'))],
    ] as const)
      expect(pins.slotOf(bytes(key)), key).to.equal(slot);
  });

  it('overlap where some key would belong to both', () => {
    expect(overlap(rule(1, '{t}', true), rule(2, '{t}x'))).to.equal(true);
    expect(overlap(rule(1, '{t}x'), rule(2, '{t}', true))).to.equal(true);
    expect(overlap(rule(1, '{t}x'), rule(2, '{t}x', true))).to.equal(true);
    expect(overlap(rule(1, '{t}xy', true), rule(2, '{t}x'))).to.equal(false);
    expect(overlap(rule(1, '{t}x', true), rule(2, '{t}y', true))).to.equal(false);
  });

  it('cut the keys of a hash slot into segments: each key in the one of its slot, in order', () => {
    const anyByte = fc.constantFrom(0, 0x61, 0x62, 0xff);
    const anyKey = fc
      .array(anyByte, { maxLength: 3 })
      .map((tail) => Buffer.from([...bytes('{t}'), ...tail]));
    const anyRule = fc.record({ key: anyKey, isPrefix: fc.boolean() });
    fc.assert(
      fc.property(fc.array(anyRule, { maxLength: 4 }), anyKey, (named, key) => {
        const rules: PinRule[] = [];
        for (const each of named) {
          const next = { ...each, slot: (16_384 + rules.length) as Slot };
          if (!rules.some((other) => overlap(other, next))) rules.push(next);
        }
        const home = slotOf(bytes('t'));
        const wanted = rules.find((each) => covers(each, key))?.slot ?? home;
        const { slot, end } = segmentAt(home, rules, key);
        expect(slot).to.equal(wanted);
        if (end === undefined) return;
        expect(Buffer.compare(end, key)).to.equal(1);
        // Up to its end a segment is of one slot, and there it is over.
        expect(segmentAt(home, rules, end)).to.not.deep.equal({ slot, end });
      }),
    );
  });
});
