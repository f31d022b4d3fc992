import { expect } from 'chai';
import fc from 'fast-check';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cutToWholeLines, formatLine } from '../../src/cli/load-dump.js';

describe('an interrupted dump', () => {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-dump-'));
  const file = join(directory, 'dump.jsonl');
  after(() => {
    rmSync(directory, { recursive: true });
  });

  it('goes on after the last whole line, wherever it was cut', () => {
    const lines = fc.array(
      fc.record({ key: fc.uint8Array({ minLength: 1 }), value: fc.uint8Array() }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(lines, fc.nat(), (items, at) => {
        const whole = items.map((item) => `${formatLine(item)}\n`);
        const text = Buffer.from(whole.join(''));
        const cut = text.subarray(0, at % (text.length + 1));
        writeFileSync(file, cut);
        const key = cutToWholeLines(file);
        const kept = readFileSync(file, 'utf8');
        const count = kept.split('\n').length - 1;
        expect(kept).to.equal(whole.slice(0, count).join(''));
        expect(Buffer.byteLength(kept)).to.equal(cut.lastIndexOf('\n') + 1);
        const last = items[count - 1]?.key;
        expect(key === undefined ? undefined : Buffer.from(key)).to.deep.equal(
          last === undefined ? undefined : Buffer.from(last),
        );
      }),
    );
  });

  it('finds the last key behind a value of many megabytes', () => {
    const big = formatLine({ key: Buffer.from('big'), value: Buffer.alloc(5_000_000, 'x') });
    writeFileSync(
      file,
      `${formatLine({ key: Buffer.from('a'), value: Buffer.from('1') })}\n${big}\n{"key"`,
    );
    expect(Buffer.from(cutToWholeLines(file) ?? []).toString()).to.equal('big');
  });
});
