import { expect } from 'chai';
import { MigrationRun } from './migration-run.js';

/** `MIGRATION_RUNS=20000 npx mocha dist/test/shard/migration.property.test.js` for more. */
const runs = Number(process.env['MIGRATION_RUNS'] ?? 40);
const firstSeed = Number(process.env['SEED'] ?? 1);
const length = 400;
/** Fewer prove nothing about how often something happens. */
const runsThatCount = 40;

/** Each has to have happened, or the runs prove nothing. */
const wanted = [
  ...['put', 'delete', 'increment', 'transaction', 'repeated', 'sessionExpired'],
  ...['wrongShard', 'moving', 'key expired', 'session expired'],
  ...['exportBegin', 'importBegin', 'chunk', 'freeze', 'thaw', 'seal', 'handover', 'activate'],
  ...['collect', 'endExport', 'endImport', 'differs', 'moved on', 'came back'],
  ...['crash', 'snapshot', 'torn snapshot', 'caught up'],
];

describe('slots that migrate among three shards', () => {
  it('R70 R71 R72 R73 R75 R76 R78 D20 D26 D30 D32: whoever says what, in any order: each is served by one shard, with just what was written, and leaves nothing behind', async function () {
    this.timeout(runs * 3000);
    const seen = new Map<string, number>();
    const note = (what: string): void => {
      seen.set(what, (seen.get(what) ?? 0) + 1);
    };
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
      try {
        await new MigrationRun(seed, note).run(length);
      } catch (error) {
        throw new Error(`to see it again: SEED=${seed} MIGRATION_RUNS=1`, { cause: error });
      }
    }
    if (runs < runsThatCount) return;
    const missing = wanted.filter((what) => (seen.get(what) ?? 0) < 2);
    expect(missing, 'happened too rarely to prove anything').to.deep.equal([]);
  });
});
