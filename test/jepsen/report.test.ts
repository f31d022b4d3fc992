import { expect } from 'chai';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readHistory, type FaultSpan, type Verdict } from '../../jepsen/history.js';
import { plotSvg } from '../../jepsen/report/plot.js';
import { conclusionOf, writeReport, type RunReport } from '../../jepsen/report/report.js';
import { cleanHistory } from './histories.js';

const operations = cleanHistory({
  ...{ seed: 5, kind: 'register', operations: 200, clients: 5, lostShare: 0.1 },
});

const faults: readonly FaultSpan[] = [
  {
    ...{ nemesis: 'kill', what: 'kill -9', target: 'node 1 & <2>' },
    ...{ fromNs: 10_000, toNs: 20_000, hadEffect: true },
  },
  {
    ...{ nemesis: 'partition', what: 'cut off', target: 'node 3' },
    ...{ fromNs: 15_000, toNs: 40_000, hadEffect: false },
  },
];

const passed: Verdict = { checker: 'set', valid: true, checked: 200, ms: 3, details: [] };
const run: RunReport = {
  ...{ title: 'register under kill', command: 'npm run jepsen -- --seed 5' },
  ...{ operations, faults, verdicts: [passed], rejected: [] },
};

describe('the report of a run', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'report-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  it('holds the history as it was, and says what was found and how to repeat it', async () => {
    const found: Verdict = { ...passed, valid: false, details: ['1 is missing'] };
    const summary = writeReport(folder, { ...run, verdicts: [passed, found] });
    expect(readdirSync(folder).sort()).to.deep.equal([
      'faults.json',
      'history.jsonl',
      'plot.svg',
      'summary.txt',
      'verdicts.json',
    ]);
    expect(await readHistory(join(folder, 'history.jsonl'))).to.deep.equal(
      JSON.parse(JSON.stringify(operations)),
    );
    expect(readFileSync(join(folder, 'summary.txt'), 'utf8')).to.equal(summary);
    expect(summary).to.match(/kill: 1 faults, 1 had an effect/);
    expect(summary).to.match(/INVALID +set: 200 operations in 3 ms\n +1 is missing/);
    expect(summary).to.match(/\ninvalid\nagain: npm run jepsen -- --seed 5\n$/);
  });

  it('says which line of a history is none', async () => {
    const file = join(folder, 'history.jsonl');
    writeFileSync(file, `${JSON.stringify(operations[0])}\n{"client":1}\n`);
    let message = '';
    await readHistory(file).catch((error: unknown) => (message = String(error)));
    expect(message).to.match(/line 2 is not an operation/);
    writeFileSync(file, '{"client":');
    await readHistory(file).catch((error: unknown) => (message = String(error)));
    expect(message).to.match(/line 1 is not JSON/);
  });

  for (const { what, verdicts, rejected, conclusion } of [
    { what: 'all valid', verdicts: [true], rejected: [], conclusion: 'valid' },
    { what: 'one undecided', verdicts: [true, 'unknown'], rejected: [], conclusion: 'undecided' },
    { what: 'rejected', verdicts: [true, 'unknown'], rejected: ['few'], conclusion: 'rejected' },
    { what: 'one invalid', verdicts: [false, true], rejected: ['few'], conclusion: 'invalid' },
  ] as const) {
    it(`calls a run ${conclusion} that is ${what}`, () => {
      const judged = verdicts.map((valid) => ({ ...passed, valid }));
      expect(conclusionOf({ ...run, verdicts: judged, rejected })).to.equal(conclusion);
    });
  }
});

describe('the picture of a run', () => {
  it('shades each fault, and shows one without effect hollow', () => {
    const svg = plotSvg(run);
    expect(svg).to.match(/^<svg [^>]+>\n[\s\S]*<\/svg>\n$/);
    expect(svg.match(/opacity="0.12"/g)).to.have.length(2);
    expect(svg).to.include('<title>kill -9 node 1 &amp; &lt;2></title>');
    expect(svg).to.match(/fill="none" stroke="#f46036"><title>cut off node 3/);
    expect(svg).to.not.match(/NaN|undefined|Infinity/);
  });

  it('can be drawn of a run in which nothing happened', () => {
    const svg = plotSvg({ title: 'nothing', operations: [], faults: [] });
    expect(svg).to.not.match(/NaN|undefined|Infinity/);
  });
});
