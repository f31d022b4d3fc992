import { expect } from 'chai';
import { Timeline } from '../timeline.js';
import { linearized } from './linearizable.js';
import { ClientRecord, HistoryBroken, type Ending, type Operation } from './record.js';

/** A history as clients would have told it: one line for each operation, at given times. */
class Told {
  private readonly timeline = new Timeline();
  readonly record = new ClientRecord(this.timeline);

  add(
    kind: Operation['kind'],
    { from, to, ending = 'ok', revision = 0, ...asked }: Partial<Operation> & Spoken,
  ): this {
    const { key = '{a}reg' } = asked;
    this.passUntil(from);
    const operation = this.record.begin(1, key, kind, asked);
    operation.value = asked.value;
    operation.ending = ending;
    operation.revision = revision;
    if (ending !== 'unknown') operation.endedMs = to;
    return this;
  }

  private passUntil(ms: number): void {
    this.timeline.after(ms - this.timeline.now, () => undefined);
    while (this.timeline.step(ms));
  }
}

interface Spoken {
  readonly from: number;
  readonly to: number;
  readonly ending?: Ending;
}

const counter = '{a}ctr';
const list = '{a}list';

/** What can be, each with what it takes to be explained. */
const possible: Readonly<Record<string, () => Told>> = {
  'a read beside a write shows either': () =>
    new Told()
      .add('put', { from: 0, to: 5, value: 'x', revision: 1 })
      .add('put', { from: 10, to: 30, value: 'y', revision: 2 })
      .add('read', { from: 11, to: 14, value: 'y', revision: 2 })
      .add('read', { from: 15, to: 20, value: 'y', revision: 2 }),
  'a write of unknown outcome is seen later, or never': () =>
    new Told()
      .add('put', { from: 0, to: 5, value: 'x', ending: 'unknown' })
      .add('put', { from: 6, to: 7, value: 'y', ending: 'unknown' })
      .add('read', { from: 10, to: 12 })
      .add('read', { from: 20, to: 22, value: 'x', revision: 4 }),
  'increments count once, those of unknown outcome perhaps': () =>
    new Told()
      .add('increment', { from: 0, to: 5, key: counter, ending: 'unknown' })
      .add('increment', { from: 6, to: 9, key: counter, value: '2', revision: 2 })
      .add('read', { from: 10, to: 12, key: counter, value: '2', revision: 2 }),
  'what there was not could not be deleted': () =>
    new Told()
      .add('delete', { from: 0, to: 5, ending: 'refused' })
      .add('put', { from: 2, to: 9, value: 'x', revision: 1 }),
};

/** What cannot be, though no revision says so. */
const impossible: Readonly<Record<string, () => Told>> = {
  'a counter that was read with a sum that it had before': () =>
    new Told()
      .add('increment', { from: 0, to: 5, key: counter, value: '1', revision: 1 })
      .add('increment', { from: 6, to: 9, key: counter, value: '2', revision: 2 })
      .add('read', { from: 10, to: 12, key: counter, value: '1', revision: 2 })
      .add('read', { from: 13, to: 15, key: counter, value: '2', revision: 2 }),
  'an increment of unknown outcome that counted and then did not': () =>
    new Told()
      .add('increment', { from: 0, to: 5, key: counter, ending: 'unknown' })
      .add('read', { from: 6, to: 8, key: counter, value: '1', revision: 1 })
      .add('read', { from: 9, to: 10, key: counter })
      .add('read', { from: 11, to: 12, key: counter, value: '1', revision: 1 }),
  'a condition that was refused though it was met': () =>
    new Told()
      .add('put', { from: 0, to: 5, key: list, value: 'x', expected: null, revision: 1 })
      .add('put', { from: 6, to: 9, key: list, value: 'x,y', expected: 'x', ending: 'refused' })
      .add('read', { from: 10, to: 12, key: list, value: 'x', revision: 1 }),
  'a condition that was met twice': () =>
    new Told()
      .add('put', { from: 0, to: 5, key: list, value: 'x', expected: null, revision: 1 })
      .add('put', { from: 6, to: 9, key: list, value: 'x,y', expected: 'x', revision: 2 })
      .add('put', { from: 6, to: 9, key: list, value: 'x,z', expected: 'x', revision: 3 }),
  'nothing to delete where there was something': () =>
    new Told()
      .add('put', { from: 0, to: 5, key: '{a}del', value: 'x', revision: 1 })
      .add('delete', { from: 6, to: 9, key: '{a}del', ending: 'refused' }),
};

describe('histories of the simulation of whole nodes', () => {
  for (const [what, told] of Object.entries(possible))
    it(`passes: ${what}`, () => {
      const { record } = told();
      record.checkRevisions();
      expect(linearized(record)).to.deep.equal(['linearizable']);
    });

  for (const [what, told] of Object.entries(impossible))
    it(`finds by search: ${what}`, () => {
      expect(() => linearized(told().record)).to.throw(HistoryBroken, 'not linearizable');
    });

  it('finds by revisions a stale read, a lost write, and one that failed and is there', () => {
    const written = new Told()
      .add('put', { from: 0, to: 5, value: 'x', revision: 1 })
      .add('put', { from: 6, to: 9, value: 'y', revision: 2 });
    const stale = written.add('read', { from: 10, to: 12, value: 'x', revision: 1 });
    expect(() => {
      stale.record.checkRevisions();
    }).to.throw(HistoryBroken, 'a stale read');
    const lost = new Told()
      .add('put', { from: 0, to: 5, value: 'x', revision: 1 })
      .add('read', { from: 10, to: 12 });
    expect(() => {
      lost.record.checkRevisions();
    }).to.throw(HistoryBroken, 'an acknowledged write is lost');
    const failed = new Told()
      .add('put', { from: 0, to: 5, value: 'x', ending: 'fail' })
      .add('read', { from: 10, to: 12, value: 'x', revision: 1 });
    expect(() => {
      failed.record.checkRevisions();
    }).to.throw(HistoryBroken, 'a write that failed was read');
  });

  it('says so when the search meets its limit', () => {
    const told = new Told();
    // Any of them may have been the last; that both were is found only when all orders have been tried.
    for (let n = 0; n < 20; n++) {
      told.add('put', { from: 0, to: 100, value: `v${n}`, revision: n + 1 });
      told.add('read', { from: 0, to: 100, value: `v${n}`, revision: n + 1 });
    }
    told.add('read', { from: 101, to: 102, value: 'v0', revision: 1 });
    told.add('read', { from: 103, to: 104, value: 'v1', revision: 2 });
    expect(linearized(told.record)).to.deep.equal(['undecided']);
  });
});
