/** The log of a member against an array of entries and a list of what a disk holds. */
import { expect } from 'chai';
import fc from 'fast-check';
import { RaftInvariantError } from '../../raft/index.js';
import type { Entry, EntryId } from '../../raft/index.js';
import { RaftLog } from '../../raft/log.js';
import { entry, voters } from './lone-member.js';

const share = fc.double({ min: 0, max: 1, noNaN: true });
const step = fc.oneof(
  fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('replace' as const), share }),
  fc.record({ kind: fc.constant('write' as const) }),
  fc.record({ kind: fc.constant('synced' as const) }),
  fc.record({ kind: fc.constant('commit' as const), share }),
  fc.record({ kind: fc.constant('apply' as const) }),
  fc.record({ kind: fc.constant('compact' as const), share }),
  fc.record({ kind: fc.constant('reset' as const), ahead: fc.integer({ min: 1, max: 3 }) }),
);

const emptyLog = (windowBytesMax: number): RaftLog =>
  new RaftLog(
    {
      firstIndex: 1,
      lastIndex: 0,
      termRuns: [{ from: 0, term: 0 }],
      tail: [],
      commitIndex: 0,
      appliedIndex: 0,
    },
    windowBytesMax,
  );

/** The obvious log: an array, and what the disk would hold after a crash. */
class Model {
  base = 0;
  baseTerm = 0;
  entries: Entry[] = [];
  /** Entries durable on the disk, which may have older ones behind those it shares with the log. */
  disk: Entry[] = [];
  diskBase = 0;
  writing: Entry[] | undefined;
  resets = false;

  get last(): number {
    return this.base + this.entries.length;
  }

  get lastTerm(): number {
    return this.entries.at(-1)?.term ?? this.baseTerm;
  }

  /** A write removes what the disk has from its first index on (ready.ts, `entries`). */
  sync(): void {
    for (const written of this.writing ?? []) {
      this.disk = this.disk.filter(({ index }) => index < written.index);
      this.disk.push(written);
    }
    this.writing = undefined;
  }

  /** Up to here the disk holds what the log says. */
  get durable(): number {
    let index = this.base;
    while (this.disk.some((held) => held === this.entries[index - this.base])) index++;
    return index;
  }
}

describe('raft log', () => {
  it('agrees with an array, and never takes for durable what the disk does not hold', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 80 }),
        fc.integer({ min: 1, max: 300 }),
        (steps, window) => {
          const log = emptyLog(window);
          const model = new Model();
          let term = 1;
          for (const taken of steps) {
            switch (taken.kind) {
              case 'append':
              case 'replace': {
                const uncommitted = model.last - log.commitIndex;
                const from =
                  taken.kind === 'append'
                    ? model.last + 1
                    : log.commitIndex + 1 + Math.floor(taken.share * uncommitted);
                if (taken.kind === 'replace') term++;
                const count = taken.kind === 'append' ? taken.count : 2;
                const added = Array.from({ length: count }, (_, at) => entry(from + at, term));
                log.append(added);
                model.entries = [...model.entries.slice(0, from - model.base - 1), ...added];
                break;
              }
              case 'write':
                if (model.writing === undefined && log.hasUnpersisted)
                  model.writing = [...log.takeUnpersisted()];
                break;
              case 'synced': {
                const last: EntryId | undefined = model.writing?.at(-1);
                model.sync();
                if (last !== undefined) log.persisted(last);
                break;
              }
              case 'commit':
                log.commitTo(
                  log.commitIndex + Math.floor(taken.share * (model.last - log.commitIndex)),
                );
                break;
              case 'apply':
                log.applyingIndex = Math.max(log.applyingIndex, log.appliable);
                log.appliedTo(log.applyingIndex);
                break;
              case 'compact': {
                const first =
                  log.firstIndex +
                  Math.floor(taken.share * (log.appliedIndex + 1 - log.firstIndex));
                log.compact(first);
                model.baseTerm = model.entries[first - 2 - model.base]?.term ?? model.baseTerm;
                model.entries = model.entries.slice(first - 1 - model.base);
                model.base = first - 1;
                break;
              }
              case 'reset': {
                // One batch at a time: the reset is written behind what is being written now.
                if (model.writing !== undefined) break;
                term++;
                const index = model.last + taken.ahead;
                log.reset({ index, term, membership: { index: 0, membership: voters(1) } });
                Object.assign(model, { base: index, baseTerm: term, entries: [], disk: [] });
              }
            }
            compare(log, model);
          }
        },
      ),
      { numRuns: 600 },
    );
  });

  function compare(log: RaftLog, model: Model): void {
    expect([log.firstIndex, log.lastIndex]).to.deep.equal([model.base + 1, model.last]);
    expect(log.lastTerm).to.equal(model.lastTerm);
    expect(log.termAt(model.base)).to.equal(model.baseTerm);
    expect(log.termAt(model.base - 1)).to.equal(undefined);
    expect(log.termAt(model.last + 1)).to.equal(undefined);
    for (const { index, term } of model.entries) expect(log.termAt(index)).to.equal(term);
    const from = Math.max(log.lastBelowWindow + 1, log.firstIndex);
    expect(log.entries(from, log.lastIndex, Infinity)).to.deep.equal(
      model.entries.slice(from - 1 - model.base),
    );
    if (log.lastBelowWindow >= log.firstIndex) {
      expect(log.entries(log.lastBelowWindow, log.lastIndex, 1)).to.equal('belowWindow');
      expect(log.lastBelowWindow, 'only what is durable leaves memory').to.be.at.most(
        log.persistedIndex,
      );
    }
    expect(log.persistedIndex, 'no more than the disk holds').to.be.at.most(model.durable);
    expect(log.appliedIndex).to.be.at.most(Math.min(log.commitIndex, log.persistedIndex));
    for (const term of [0, 1, 2, 5]) {
      const agreed = model.entries.filter((held) => held.term <= term).at(-1)?.index ?? model.base;
      expect(log.lastAtOrBelowTerm(model.last, term)).to.equal(agreed);
    }
  }

  it('the last entry decides which log is more up to date: term first, then length (§5.4.1)', () => {
    const place = fc.tuple(fc.nat(5), fc.nat(5));
    fc.assert(
      fc.property(
        fc.array(fc.nat(2), { minLength: 1, maxLength: 5 }),
        place,
        (rises, [index, term]) => {
          const log = emptyLog(1000);
          let own = 1;
          rises.forEach((rise, at) => log.append([entry(at + 1, (own += rise))]));
          const expected = term > own || (term === own && index >= rises.length);
          expect(log.isUpToDate(index, term)).to.equal(expected);
        },
      ),
    );
  });

  it('R05: never truncates what is committed, nor compacts what is not applied', () => {
    const log = emptyLog(1000);
    log.append([entry(1, 1), entry(2, 1)]);
    log.commitTo(2);
    expect(() => log.append([entry(2, 2)])).to.throw(RaftInvariantError);
    expect(() => log.compact(2)).to.throw(RaftInvariantError);
    expect(() => log.commitTo(1)).to.throw(RaftInvariantError);
    expect(() => log.commitTo(3)).to.throw(RaftInvariantError);
  });

  it('D15: applies nothing again that an image has brought, and keeps what lies behind it', () => {
    const log = emptyLog(1000);
    log.append([entry(1, 1), entry(2, 1), entry(3, 1)]);
    log.skipTo(2);
    expect(log).to.include({ lastIndex: 3, commitIndex: 2, appliedIndex: 2, applyingIndex: 2 });
    expect(log.takeUnpersisted(), 'the log on disk must not have a gap').to.have.length(3);
    log.commitTo(3);
    expect(log.appliable, 'the image is durable, the entry behind it is not').to.equal(2);
    expect(() => log.skipTo(4)).to.throw(RaftInvariantError);
  });

  it('D15: begins anew behind an image, but not below what is committed', () => {
    const log = emptyLog(1000);
    log.append([entry(1, 1), entry(2, 1), entry(3, 1)]);
    log.commitTo(2);
    log.takeUnpersisted();
    const membership = { index: 0, membership: voters(1) };
    expect(() => log.reset({ index: 1, term: 1, membership })).to.throw(RaftInvariantError);
    log.reset({ index: 2, term: 4, membership });
    expect(log).to.include({ firstIndex: 3, lastIndex: 2, lastTerm: 4, persistedIndex: 2 });
    log.append([entry(3, 4)]);
    log.persisted({ index: 3, term: 1 });
    expect(log.persistedIndex, 'the batch in flight was of the old log').to.equal(2);
  });

  it('gives out at least one entry, however small the limit', () => {
    const log = emptyLog(1000);
    log.append([entry(1, 1), entry(2, 1)]);
    expect(log.entries(1, 2, 1)).to.have.length(1);
  });
});
