import { expect } from 'chai';
import { KeyKind } from '../../storage/index.js';
import { addSum, recordSum, subtractSum } from '../../src/shard/content-sum.js';
import { bytes } from './command-texts.js';

const { value, session } = KeyKind;
const of = (kind: number, key: string, stored: string): number =>
  recordSum(kind, bytes(key), bytes(stored));
const sumOf = (...records: readonly number[]): number => records.reduce(addSum, 0);

describe('the content sum of a slot', () => {
  it('differs when one record has another key, another value or another kind', () => {
    const sums = [
      of(value, 'a', '1'),
      of(value, 'c', '1'),
      of(value, 'a', '2'),
      of(session, 'a', '1'),
      of(value, 'a', ''),
      of(value, '', 'a'),
    ];
    expect(new Set(sums).size).to.equal(sums.length);
  });

  it('differs when two records have exchanged their values', () => {
    const straight = sumOf(of(value, 'a', '1'), of(value, 'b', '2'));
    expect(sumOf(of(value, 'a', '2'), of(value, 'b', '1'))).to.not.equal(straight);
  });

  it('is the same in whatever order records came, and without those that went', () => {
    const records = Array.from({ length: 100 }, (_, n) => of(value, `key ${n}`, `value ${n}`));
    const all = sumOf(...records);
    expect(sumOf(...[...records].reverse())).to.equal(all);
    expect(Number.isSafeInteger(all) && all >= 0 && all < 2 ** 48).to.equal(true);
    expect(records.reduce(subtractSum, all)).to.equal(0);
  });
});
