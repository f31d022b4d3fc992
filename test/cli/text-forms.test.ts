import { expect } from 'chai';
import fc from 'fast-check';
import { formatLine, parseLine } from '../../src/cli/load-dump.js';
import { formatBytes, UsageError } from '../../src/cli/output.js';
import { splitWords } from '../../src/cli/shell.js';

describe('lines of load and dump', () => {
  it('bring back any bytes', () => {
    const bytes = fc.uint8Array({ maxLength: 40 });
    fc.assert(
      fc.property(bytes, bytes, (key, value) => {
        const back = parseLine(formatLine({ key, value }), 1);
        return Buffer.compare(back.key, key) === 0 && Buffer.compare(back.value, value) === 0;
      }),
    );
  });

  it('are text for text', () => {
    const line = formatLine({ key: Buffer.from('k'), value: Buffer.from('ü\n') });
    expect(line).to.equal('{"key":"k","value":"ü\\n"}');
  });

  for (const [what, line] of [
    ['no JSON', 'oops'],
    ['no key', '{"value":"v"}'],
    ['a number for a value', '{"key":"k","value":3}'],
    ['no object', '7'],
  ] as const) {
    it(`names the line with ${what}`, () => {
      expect(() => parseLine(line, 41)).to.throw(UsageError, 'line 41');
    });
  }
});

describe('words of a shell line', () => {
  for (const [line, words] of [
    ['get a', ['get', 'a']],
    ['  put  k  "two words" ', ['put', 'k', 'two words']],
    [`put k 'a "b"'`, ['put', 'k', 'a "b"']],
    ['put k a\\ b', ['put', 'k', 'a b']],
    ['put k ""', ['put', 'k', '']],
    ['put k x"y z"w', ['put', 'k', 'xy zw']],
    ['', []],
  ] as const) {
    it(`splits ${JSON.stringify(line)}`, () => {
      expect(splitWords(line)).to.deep.equal(words);
    });
  }
});

describe('sizes for people', () => {
  it('have a fitting unit', () => {
    expect([0, 1023, 1024, 1_572_864].map(formatBytes)).to.deep.equal([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 MiB',
    ]);
  });
});
