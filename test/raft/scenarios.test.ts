/**
 * One test per file of `scenarios/`. `REWRITE=1` records what comes out instead of comparing; a
 * changed expectation is reviewed like code, so that is refused where nobody looks.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { projectRoot } from '../../scripts/project-root.js';
import { intentOf, runScenario } from './scenario-runner.js';

const folder = join(projectRoot, 'test/raft/scenarios');
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.txt'))
  .sort();
const rewrite = process.env['REWRITE'] === '1';

describe('raft scenarios', () => {
  before(() => {
    expect(rewrite && process.env['CI'] === 'true', 'REWRITE=1 under CI').to.equal(false);
    expect(files.length, 'scenario files').to.be.at.least(75);
  });

  for (const file of files) {
    const path = join(folder, file);
    const text = readFileSync(path, 'utf8');
    it(`${file.replace('.txt', '')}: ${intentOf(text)}`, () => {
      const actual = runScenario(text);
      if (rewrite) writeFileSync(path, actual);
      else expect(actual).to.equal(text);
    });
  }
});
