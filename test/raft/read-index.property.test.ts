/** Rounds of reads and the lease against lists of what was sent and answered when. */
import { expect } from 'chai';
import fc from 'fast-check';
import { replicaId } from '../../raft/index.js';
import { Lease, ReadRounds } from '../../raft/read-index.js';

const self = replicaId(1);

type Step =
  | { readonly kind: 'read' }
  | { readonly kind: 'round'; readonly committed: number }
  | { readonly kind: 'confirm'; readonly back: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.constant({ kind: 'read' } as const),
  fc.record({ kind: fc.constant('round' as const), committed: fc.nat(3) }),
  fc.record({ kind: fc.constant('confirm' as const), back: fc.nat(3) }),
);

interface Asked {
  readonly context: string;
  round: number | undefined;
  index: number;
}

describe('rounds of reads (thesis §6.4)', () => {
  it('R34: release each read once, in order, with the commit index of its own round', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const rounds = new ReadRounds();
        let waiting: Asked[] = [];
        let round = 0;
        let commit = 0;
        steps.forEach((taken, at) => {
          if (taken.kind === 'read') {
            rounds.add({ context: `${at}`, from: self });
            waiting.push({ context: `${at}`, round: undefined, index: 0 });
          } else if (taken.kind === 'round') {
            round++;
            commit += taken.committed;
            if (rounds.hasGathered) rounds.begin(round, commit);
            for (const read of waiting.filter((one) => one.round === undefined)) {
              Object.assign(read, { round, index: commit });
            }
          } else {
            const confirmed = round - taken.back;
            const released: string[] = [];
            rounds.confirm(confirmed, ({ context }, index) => released.push(`${context}@${index}`));
            const due = waiting.filter((one) => (one.round ?? Infinity) <= confirmed);
            expect(released).to.deep.equal(due.map(({ context, index }) => `${context}@${index}`));
            waiting = waiting.filter((one) => !due.includes(one));
          }
          expect(rounds.length).to.equal(waiting.length);
          expect(rounds.hasGathered).to.equal(waiting.some((one) => one.round === undefined));
        });
        expect(rounds.takeAll().map(({ context }) => context)).to.deep.equal(
          waiting.map(({ context }) => context),
        );
        expect(rounds.length).to.equal(0);
      }),
      { numRuns: 500 },
    );
  });
});

describe('lease (thesis §6.4.1)', () => {
  const events = fc.array(
    fc.record({ waits: fc.nat(4), confirms: fc.option(fc.nat(4), { nil: undefined }) }),
    { maxLength: 40 },
  );

  it('R32: holds exactly until leaseTicks after the send of the newest round answered', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 9 }), events, (leaseTicks, taken) => {
        const lease = new Lease(leaseTicks);
        const sentAt: number[] = [];
        let tick = 0;
        let newest = -1;
        for (const { waits, confirms } of taken) {
          tick += waits;
          lease.roundSent(sentAt.length, tick);
          sentAt.push(tick);
          if (confirms !== undefined) {
            const round = sentAt.length - 1 - confirms;
            if (round >= 0) lease.roundConfirmed(round);
            newest = Math.max(newest, round);
          }
          const until = newest < 0 ? 0 : (sentAt[newest] ?? 0) + leaseTicks;
          for (const at of [tick, until - 1, until, until + 1]) {
            expect(lease.isValid(at), `at ${at}`).to.equal(leaseTicks > 0 && at < until);
          }
        }
        lease.end();
        lease.roundSent(sentAt.length, tick);
        lease.roundConfirmed(sentAt.length);
        expect(lease.isValid(tick), 'D03: ended for good').to.equal(false);
      }),
      { numRuns: 500 },
    );
  });
});
