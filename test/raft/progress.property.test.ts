/** What a leader knows of a follower against a list of what is in flight to it. */
import { expect } from 'chai';
import fc from 'fast-check';
import { replicaId } from '../../raft/index.js';
import { Progress } from '../../raft/progress.js';

const messagesMax = 3;
const bytesMax = 100;

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      count: fc.integer({ min: 1, max: 3 }),
      bytes: fc.integer({ min: 1, max: 60 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('ack' as const), back: fc.nat(8) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('probe' as const), back: fc.nat(8) }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'replicate' } as const) },
  { weight: 1, arbitrary: fc.constant({ kind: 'snapshot' } as const) },
);

describe('progress of a follower', () => {
  it('knows what matches for ever, guesses the rest above it, and keeps its windows', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const peer = new Progress(replicaId(2), 5, false);
        let flying: { last: number; bytes: number }[] = [];
        let match = 0;
        for (const taken of steps) {
          const { state } = peer;
          switch (taken.kind) {
            case 'send': {
              if (peer.isPaused(messagesMax, bytesMax)) break;
              const last = peer.next - 1 + taken.count;
              peer.sent(last, taken.bytes);
              if (state === 'replicate') flying.push({ last, bytes: taken.bytes });
              expect(peer.next, 'a probe moves nothing').to.equal(
                state === 'replicate' ? last + 1 : last + 1 - taken.count,
              );
              break;
            }
            case 'ack': {
              const index = Math.max(0, peer.next - 1 - taken.back);
              expect(peer.acknowledged(index)).to.equal(index > match);
              match = Math.max(match, index);
              flying = flying.filter(({ last }) => last > index);
              break;
            }
            case 'probe':
              peer.becomeProbe(Math.max(1, peer.next - taken.back));
              flying = [];
              break;
            case 'replicate':
              peer.becomeReplicate();
              flying = [];
              expect(peer.next).to.equal(match + 1);
              break;
            case 'snapshot':
              peer.becomeSnapshot();
              flying = [];
          }
          expect(peer.match, 'what is known stays known').to.equal(match);
          expect(peer.next, 'a guess lies above').to.be.above(match);
          if (peer.state === 'replicate') {
            const bytes = flying.reduce((sum, one) => sum + one.bytes, 0);
            expect(peer.isPaused(messagesMax, bytesMax)).to.equal(
              flying.length >= messagesMax || bytes >= bytesMax,
            );
          }
          if (peer.state === 'snapshot')
            expect(peer.isPaused(messagesMax, bytesMax)).to.equal(true);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('a probe waits for its answer, and a fetch from the disk for its entries', () => {
    const peer = new Progress(replicaId(2), 5, false);
    peer.sent(5, 10);
    expect(peer.isPaused(messagesMax, bytesMax)).to.equal(true);
    peer.becomeReplicate();
    expect(peer.isPaused(messagesMax, bytesMax)).to.equal(false);
    peer.fetching = true;
    expect(peer.isPaused(messagesMax, bytesMax)).to.equal(true);
    peer.becomeProbe(3);
    expect(peer.isPaused(messagesMax, bytesMax), 'nobody waits for that fetch now').to.equal(false);
  });
});
