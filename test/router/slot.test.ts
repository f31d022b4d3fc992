import { expect } from 'chai';
import fc from 'fast-check';
import { slot, slotCount, slotOf } from '../../src/router/slot.js';

const bytes = (text: string): Uint8Array => Buffer.from(text, 'utf8');

/** CRC16/XMODEM bit by bit, as the specification of Redis Cluster describes it. */
function slowCrc16(key: Uint8Array): number {
  let crc = 0;
  for (const byte of key) {
    for (let bit = 7; bit >= 0; bit--) {
      const carry = ((crc >> 15) & 1) ^ ((byte >> bit) & 1);
      crc = ((crc << 1) & 0xffff) ^ (carry === 1 ? 0x1021 : 0);
    }
  }
  return crc;
}

/** The rule for tags, word for word: the first brace, then the first closing brace behind it. */
function slowSlot(key: Uint8Array): number {
  const text = Buffer.from(key).toString('latin1');
  const [, tag] = /\{([^}]*)\}/s.exec(text.slice(Math.max(0, text.indexOf('{')))) ?? [];
  const tagged = text.includes('{') && tag !== undefined && tag.length > 0;
  return slowCrc16(tagged ? Buffer.from(tag, 'latin1') : key) % slotCount;
}

describe('slot of a key', () => {
  // Taken from a Redis Cluster: CLUSTER KEYSLOT.
  const known: readonly (readonly [string, number])[] = [
    ['123456789', 0x31c3],
    ['foo', 12182],
    ['bar', 5061],
    ['hello', 866],
    ['somekey', 11058],
    ['foo{hash_tag}', 2515],
    ['bar{hash_tag}', 2515],
    ['{user1000}.following', 3443],
    ['{user1000}.followers', 3443],
  ];
  for (const [key, expected] of known) {
    it(`is what Redis Cluster says for ${key}`, () => {
      expect(slotOf(bytes(key))).to.equal(expected);
    });
  }

  const wholes: readonly (readonly [string, string])[] = [
    ['an empty tag', 'foo{}'],
    ['an empty tag with another one behind it', 'foo{}{bar}'],
    ['an opening brace alone', 'foo{bar'],
    ['a closing brace alone', 'foo}bar'],
    ['braces the wrong way round', '}foo{'],
  ];
  for (const [what, key] of wholes) {
    it(`comes from the whole key with ${what}`, () => {
      expect(slotOf(bytes(key))).to.equal(slowCrc16(bytes(key)) % slotCount);
    });
  }

  it('comes from what the first closing brace ends: {{bar}} has the tag {bar', () => {
    expect(slotOf(bytes('foo{{bar}}zap'))).to.equal(slowCrc16(bytes('{bar')) % slotCount);
    expect(slotOf(bytes('foo{bar}{zap}'))).to.equal(slotOf(bytes('bar')));
    expect(slotOf(bytes('}{a}'))).to.equal(slotOf(bytes('a')));
  });

  it('agrees with the bit by bit definition for any bytes, braces often', () => {
    const byte = fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(0x7b, 0x7d) },
      { weight: 5, arbitrary: fc.nat(255) },
    );
    const key = fc.array(byte, { minLength: 1, maxLength: 24 }).map((all) => Uint8Array.from(all));
    fc.assert(
      fc.property(key, (each) => {
        expect(slotOf(each)).to.equal(slowSlot(each));
      }),
      { numRuns: 2000 },
    );
  });

  it('is the same for a view into a larger buffer', () => {
    const buffer = Buffer.from('xx{tag}yy');
    expect(slotOf(buffer.subarray(2, 7))).to.equal(slotOf(bytes('tag')));
  });

  it('is a number below 16384, and nothing else is branded as one', () => {
    expect(slot(0)).to.equal(0);
    expect(slot(16383)).to.equal(16383);
    for (const bad of [-1, 16384, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => slot(bad)).to.throw(RangeError, 'slot must be an integer');
  });
});
