import { expect } from 'chai';
import fc from 'fast-check';
import { nodeId } from '../../raft/index.js';
import type { ReadLevel, ReadResult } from '../../src/shard/shard.js';
import { bytes, put, text, write } from '../shard/command-texts.js';
import { SessionPlay, type Step } from './session-play.js';
import { withShardCluster, type ShardCluster, type ShardNode } from './shard-cluster.js';
import { tickMs } from '../group/cluster.js';

const keys = ['{s}1', '{s}2', 'other'];

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom('put' as const, 'put' as const, 'brief' as const, 'delete' as const),
      key: fc.constantFrom(...keys),
      own: fc.boolean(),
    }),
  },
  {
    weight: 9,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      key: fc.constantFrom(...keys),
      at: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'cut' as const,
        'lag' as const,
        'lag' as const,
        'heal' as const,
        'heal' as const,
        'restart' as const,
      ),
      at: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('tick' as const),
      ticks: fc.integer({ min: 1, max: 8 }),
    }),
  },
);

/** The nodes with a replica that do not lead. */
function followersOf(cluster: ShardCluster): readonly ShardNode[] {
  return cluster.nodes.filter((node) => node !== cluster.leader && node.shard !== undefined);
}

/** The answer of a node; undefined as long as there is none. */
interface Asked {
  readonly answer:
    { readonly error: Error | undefined; readonly value: string | undefined } | undefined;
}

function ask(node: ShardNode, key: string, level: ReadLevel): Asked {
  const asked: { answer: Asked['answer'] } = { answer: undefined };
  const call = { deadlineMs: Infinity, mayHaveApplied: false };
  const done = (error: Error | undefined, result: ReadResult | undefined): void => {
    const [kv] = result?.values ?? [];
    asked.answer = { error, value: kv === undefined ? undefined : text(kv.value) };
  };
  node.shard?.shard.read([bytes(key)], level, call, done);
  return asked;
}

/** Writes through whoever leads; true once it is acknowledged. */
async function acknowledged(cluster: ShardCluster, key: string, value: string): Promise<boolean> {
  const ended: boolean[] = [];
  const call = { deadlineMs: Infinity, mayHaveApplied: false };
  cluster.leader?.shard?.shard.write([write(put(key, value))], call, (error) =>
    ended.push(error === undefined),
  );
  await cluster.until('the write has ended', () => ended.length > 0);
  return ended[0] === true;
}

const linearizable: ReadLevel = { kind: 'linearizable' };
const stale = (maxStalenessMs: number): ReadLevel => ({ kind: 'stale', maxStalenessMs });

describe('reads of replicas that lag', function () {
  this.timeout(60_000);

  it('D24: a session never goes back and sees its own writes, on whatever replica it reads', () =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60 }), fc.nat(), (steps, seed) =>
        withShardCluster({ seed }, async (cluster) => {
          const play = new SessionPlay(cluster, 'atLeast');
          await play.run(steps);
          expect(play.violations).to.deep.equal([]);
        }),
      ),
      { numRuns: 25, endOnFailure: true },
    ));

  for (const level of ['stale', 'atLeast'] as const) {
    const title =
      level === 'stale'
        ? 'D24: without a token a session goes back when it goes to a replica that lags'
        : 'D24: with a token it does not: a replica that lags gives no answer, and one as soon as it has caught up';
    it(title, () =>
      withShardCluster({}, async (cluster) => {
        const leader = cluster.leader?.id ?? 0;
        const [lagging] = followersOf(cluster);
        const at = lagging?.id ?? 0;
        const [key = ''] = keys;
        const play = new SessionPlay(cluster, level);
        const fresh: readonly Step[] = [
          { kind: 'put', key, own: true },
          { kind: 'read', key, at },
        ];
        await play.run(fresh);
        expect(play.violations).to.deep.equal([]);
        expect(play.answered.get(at)).to.equal(1);
        const behind: readonly Step[] = [
          { kind: 'lag', at },
          { kind: 'put', key, own: false },
          { kind: 'read', key, at: leader },
          { kind: 'read', key, at },
        ];
        await play.run(behind);
        expect(play.violations).to.have.length(level === 'stale' ? 1 : 0);
        expect(play.answered.get(at)).to.equal(level === 'stale' ? 2 : 1);
        await play.run([
          { kind: 'heal', at },
          { kind: 'tick', ticks: 20 },
          { kind: 'read', key, at },
        ]);
        expect(play.violations).to.have.length(level === 'stale' ? 1 : 0);
        expect(play.answered.get(at)).to.equal(level === 'stale' ? 3 : 2);
      }),
    );
  }

  it('a stale read is never older than its bound, also while the follower is cut off', () =>
    withShardCluster({}, async (cluster) => {
      const [follower] = followersOf(cluster);
      if (follower === undefined) throw new Error('no follower');
      const bound = 20 * tickMs;
      const writtenAtMs: number[] = [];
      const nowMs = (): number => cluster.clock.monotonicMs();
      let refused = 0;
      let answered = 0;
      const round = async (): Promise<void> => {
        if (await acknowledged(cluster, 'k', String(writtenAtMs.length))) writtenAtMs.push(nowMs());
        await cluster.tick();
        const askedAtMs = nowMs();
        const asked = ask(follower, 'k', stale(bound));
        await cluster.until('the read has ended', () => asked.answer !== undefined);
        if (asked.answer?.error !== undefined) {
          refused++;
          return;
        }
        answered++;
        const due = writtenAtMs.findLastIndex((at) => at <= askedAtMs - bound);
        expect(Number(asked.answer?.value ?? -1), `asked at ${askedAtMs}`).to.be.at.least(due);
      };
      for (let n = 0; n < 30; n++) await round();
      expect([refused, answered]).to.deep.equal([0, 30]);
      cluster.network.setNode(nodeId(follower.id), false);
      for (let n = 0; n < 25; n++) await round();
      expect(answered, 'within the bound').to.be.within(31, 50);
      expect(refused, 'beyond it').to.be.greaterThan(0);
      cluster.network.setNode(nodeId(follower.id), true);
      const before = answered;
      await cluster.tick(40);
      for (let n = 0; n < 5; n++) await round();
      expect(answered).to.equal(before + 5);
    }));

  it('a linearizable read of a follower sees what was acknowledged before, or gives no answer', () =>
    withShardCluster({}, async (cluster) => {
      const [lagging, other] = followersOf(cluster);
      if (lagging === undefined || other === undefined) throw new Error('no followers');
      for (let n = 0; n < 30; n++) {
        // Its appends are lost in every other round; what confirms a read comes through.
        cluster.network.filter = (_from, to, { message }) =>
          to === lagging.id && n % 2 === 1 && message.type === 'append' ? 'lose' : 'pass';
        expect(await acknowledged(cluster, 'k', String(n))).to.equal(true);
        const reads = [lagging, other].map((node) => ask(node, 'k', linearizable));
        await cluster.until('the other one answers', () => reads[1]?.answer !== undefined);
        expect(reads[1]?.answer).to.deep.equal({ error: undefined, value: String(n) });
        if (n % 2 === 1) {
          await cluster.tick(3);
          expect(reads[0]?.answer, 'it has not heard of it').to.equal(undefined);
          cluster.network.filter = () => 'pass';
        }
        await cluster.until('it answers', () => reads[0]?.answer !== undefined);
        expect(reads[0]?.answer).to.deep.equal({ error: undefined, value: String(n) });
      }
    }));
});
