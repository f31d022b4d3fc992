import { expect } from 'chai';
import { RawNode } from '../../raft/index.js';
import { runCoreSim } from './core-sim.js';
import { failureReport } from './failure-report.js';
import { coreKind } from './kinds.js';

/** A core that acknowledges what is not on disk (R02), until the returned function is called. */
function breakTheCore(): () => void {
  const { ready } = RawNode.prototype;
  RawNode.prototype.ready = function (this: RawNode) {
    const { messages, messagesAfterPersist, ...rest } = ready.call(this);
    const all = [...messages, ...messagesAfterPersist];
    return { ...rest, messages: all, messagesAfterPersist: [] };
  };
  return () => {
    RawNode.prototype.ready = ready;
  };
}

describe('the report of a seed that failed', () => {
  it('shows the end of its trace, the reason, and the one line that repeats it', async () => {
    const mend = breakTheCore();
    try {
      const result = runCoreSim({ seed: 3, seconds: 20, traceLines: 0 });
      const lines = await failureReport(coreKind, result, 20);
      expect(lines.length).to.be.greaterThan(5);
      expect(lines[0]).to.equal('seed 3 failed:');
      expect(lines.join('\n')).to.match(/durable promise/);
      expect(lines).to.not.include('the second run took another course: not determined');
      expect(lines[lines.length - 1]).to.equal(
        'npm run sim -- --kind core --seed-from 3 --seeds 1 --trace',
      );
    } finally {
      mend();
    }
  });
});
