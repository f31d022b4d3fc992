import { expect } from 'chai';
import type { Operation } from '../../jepsen/history.js';
import { judge } from '../../jepsen/judging.js';

function operation(fields: Partial<Operation> & Pick<Operation, 'op' | 'key'>): Operation {
  return { client: 1, callNs: 0, returnNs: 1, status: 'ok', ...fields };
}

const write = (key: string, value: number, callNs: number): Operation =>
  operation({ op: 'write', key, value, callNs, returnNs: callNs + 1 });

const scan = (pairs: readonly (readonly [string, number])[], callNs: number): Operation =>
  operation({ op: 'scan', key: 'tag', output: pairs, callNs, returnNs: callNs + 10 });

const validOf = (operations: readonly Operation[]): readonly unknown[] =>
  judge('scan', operations).map(({ valid }) => valid);

describe('the check of scans', () => {
  const history = [write('{tag}1', 1, 0), write('{tag}2', 2, 5), write('{tag}1', 3, 10)];

  it('takes a scan that shows what was written', () => {
    const pairs = [['{tag}1', 3] as const, ['{tag}2', 2] as const];
    expect(validOf([...history, scan(pairs, 20)])).to.deep.equal([true]);
  });

  it('lets a scan look at each key at a moment of its own', () => {
    // It began before either write ended.
    const pairs = [['{tag}2', 2] as const];
    expect(validOf([...history.slice(0, 2), scan(pairs, 0)])).to.deep.equal([true]);
  });

  it('finds a key that a scan has missed', () => {
    expect(validOf([...history, scan([['{tag}1', 3]], 20)])).to.deep.equal([false]);
  });

  it('finds a value that was overwritten before the scan began', () => {
    const pairs = [['{tag}1', 1] as const, ['{tag}2', 2] as const];
    expect(validOf([...history, scan(pairs, 20)])).to.deep.equal([false]);
  });
});
