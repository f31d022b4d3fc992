import { expect } from 'chai';
import { runNodeScript } from './node-sim.js';
import { planOfKills, StepKills, steps, type Victim } from './step-kills.js';

describe('a kill at each step of a migration, in whole nodes', () => {
  const victims: readonly Victim[] = ['source', 'target', 'metadata'];
  for (const [n, victim] of victims.entries())
    it(`R73 R77 R79: of the leader of the ${victim}: ${steps.length} migrations end by themselves, with every acknowledged write`, async function () {
      this.timeout(120_000);
      const killed: string[] = [];
      const { failure, coverage } = await runNodeScript(
        planOfKills(n + 1),
        (world, operator) => new StepKills({ world, operator, victim, killed }),
      );
      expect(failure).to.equal(undefined);
      expect(killed).to.deep.equal(steps.map(({ name }) => name));
      expect(coverage['write ok'], 'writes').to.be.greaterThan(100);
    });
});
