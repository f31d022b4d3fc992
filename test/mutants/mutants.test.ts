/** That no mutant rots. Whether each is caught is `npm run mutants`. */
import { expect } from 'chai';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { allMutants } from '../../scripts/mutants/all-mutants.js';
import { mutated } from '../../scripts/mutants/mutant.js';
import { compiledMutant } from '../../scripts/mutants/workplace.js';
import { projectRoot } from '../../scripts/project-root.js';

describe('the mutants', () => {
  it('are at least 80, each with a name and a meaning of its own', () => {
    const judged = allMutants.filter(({ equivalent }) => equivalent === undefined);
    expect(judged.length).to.be.at.least(80);
    expect(new Set(allMutants.map(({ name }) => name)).size).to.equal(allMutants.length);
    expect(new Set(allMutants.map(({ breaks }) => breaks)).size).to.equal(allMutants.length);
    for (const { name } of allMutants) expect(name).to.match(/^[a-z]+(-[a-z]+)*$/);
  });

  it('stand where the product has that text once, and are still TypeScript', function () {
    this.timeout(60_000);
    for (const mutant of allMutants) expect(compiledMutant(mutant)).to.be.a('string');
  });

  it('name checks that there are', () => {
    for (const { name, checks, equivalent } of allMutants) {
      if (equivalent === undefined) expect(checks, name).to.not.deep.equal([]);
      for (const check of checks) {
        if (check.kind !== 'tests') continue;
        for (const file of check.files)
          expect(existsSync(join(projectRoot, 'test', `${file}.test.ts`)), file).to.equal(true);
      }
    }
  });

  it('are refused when their text is gone, stands twice, or is not changed', () => {
    const bug = { name: 'a-bug', breaks: '', file: 'scripts/project-root.ts' };
    const place = { find: 'return parent', replace: '' };
    expect(() => mutated({ ...bug, ...place, find: 'no such text' })).to.throw(/not in/);
    expect(() => mutated({ ...bug, ...place, find: 'folder' })).to.throw(/more than once/);
    const same = "from 'node:path'";
    expect(() => mutated({ ...bug, find: same, replace: same })).to.throw(/changes nothing/);
    const text = mutated({ ...bug, find: same, replace: "from 'elsewhere'" });
    expect(text).to.include("import { dirname, join } from 'elsewhere';");
  });
});
