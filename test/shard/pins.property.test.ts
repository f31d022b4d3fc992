import { expect } from 'chai';
import { PinRun } from './pin-run.js';

/** `MIGRATION_RUNS=20000 npx mocha dist/test/shard/pins.property.test.js` for more. */
const runs = Number(process.env['MIGRATION_RUNS'] ?? 40);
const firstSeed = Number(process.env['SEED'] ?? 1);
const length = 500;
/** Fewer prove nothing about how often something happens. */
const runsThatCount = 40;

/** Each has to have happened, or the runs prove nothing. */
const wanted = [
  ...[
    'put',
    'delete',
    'increment',
    'transaction',
    'tooManySlots',
    'repeated',
    'wrongShard',
    'moving',
  ],
  ...['pin', 'carry', 'pinned', 'unpin', 'unpinned'],
  ...['exportBegin', 'importBegin', 'chunk', 'freeze', 'seal', 'handover', 'activate', 'collect'],
  ...['crash', 'snapshot', 'torn snapshot', 'caught up'],
];

describe('keys that are pinned and unpinned while slots migrate among three shards', () => {
  it('R71 R75 R76 R78 D20 D25 D30: whoever says what, in any order: each key is served in one place, with what was written last, and no write is applied twice', async function () {
    this.timeout(runs * 3000);
    const seen = new Map<string, number>();
    const note = (what: string): void => {
      seen.set(what, (seen.get(what) ?? 0) + 1);
    };
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
      try {
        await new PinRun(seed, note).run(length);
      } catch (error) {
        throw new Error(`to see it again: SEED=${seed} MIGRATION_RUNS=1`, { cause: error });
      }
    }
    if (runs < runsThatCount) return;
    const missing = wanted.filter((what) => (seen.get(what) ?? 0) < 2);
    expect(missing, 'happened too rarely to prove anything').to.deep.equal([]);
  });
});
