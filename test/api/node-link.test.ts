import { expect } from 'chai';
import type { NodeCalls } from '../../src/api/forwarder.js';
import { NodeLink } from '../../src/api/node-link.js';
import { toKvError } from '../../src/api/status.js';
import { ManualClock } from '../support/manual-clock.js';

/** The way to a node that is cut off: nothing comes back, and nothing breaks. */
const silence: NodeCalls = {
  forward: () => undefined,
  forwarded: 0,
  close: () => undefined,
};

describe('a call to another node', () => {
  it('R79: ends in time when nothing is heard: whoever asks can ask another node', async () => {
    const clock = new ManualClock();
    const link = new NodeLink(silence, clock);
    const asked = link.changeCluster('10.0.0.9:7400', { command: '{}' }).then(
      () => undefined,
      (error: unknown) => toKvError(error),
    );
    clock.jump(2_000);
    const error = await asked;
    expect(error?.code).to.equal('KV_DEADLINE');
    expect(error?.outcome).to.equal('unknown');
    expect(clock.timersSet).to.equal(0);
  });
});
