/** Rows of commands that must be refused, one test each. */
import { expect } from 'chai';
import type { MetaCommand, RefusalReason } from '../../src/meta/commands.js';
import type { Topology } from '../../src/meta/topology.js';
import { apply, reasonOf } from './clusters.js';
import { deeplyFrozen } from './topology-check.js';

export type Row = readonly [
  name: string,
  command: MetaCommand,
  reason: RefusalReason,
  says: string,
];

export function refuses(topology: Topology, rows: readonly Row[]): void {
  deeplyFrozen(topology);
  for (const [name, command, reason, says] of rows) {
    it(`refuses ${name} (${reason}) and changes nothing`, () => {
      const { topology: left, result } = apply(topology, command);
      expect(reasonOf(result)).to.equal(reason);
      expect(result.kind === 'refused' ? result.message : '').to.contain(says);
      expect(result.version).to.equal(topology.version);
      expect(left).to.equal(topology);
    });
  }
}
