import { expect } from 'chai';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { withCluster } from './fixture.js';
import {
  ended,
  expectWhole,
  fill,
  migrate,
  migrationOf,
  migrationTo,
  Writing,
} from './migrating.js';

async function leaderOf(cluster: LocalCluster, group: number): Promise<number> {
  let leader: number | undefined;
  await cluster.waitFor(`group ${group} has a leader`, 30_000, async () => {
    leader = await cluster.leader(group);
    return leader !== undefined;
  });
  return leader ?? 0;
}

/** How far the group's replica on that node has come, and where its log begins. */
async function logOf(
  cluster: LocalCluster,
  node: number,
  group: number,
): Promise<{ readonly first: number; readonly applied: number }> {
  const status = await cluster.status(node);
  const found = status?.groups.find(({ groupId }) => groupId === group);
  return { first: found?.firstIndex ?? 0, applied: found?.appliedIndex ?? 0 };
}

const [first, last] = [0, 8191];

describe('replicas that come and go while slots migrate', function () {
  this.timeout(240_000);

  it('R43: one that is rebuilt by a snapshot in the middle of an import, and one after the handover, are equal to the others', () => {
    const flags = { 'log-kept-mib': '1', 'segment-mib': '1' };
    return withCluster({ shards: 2, flags }, async (fixture) => {
      const { client, cluster } = fixture;
      const filled = await fill(client, { count: 160, size: 100_000 });
      const rates = [2_000_000, 100_000_000];
      for (const [round, bytesPerSecond] of rates.entries()) {
        const [source, target] = round === 0 ? [1, 2] : [2, 1];
        const leader = await leaderOf(cluster, target);
        const away = cluster.nodes.find(({ node }) => node !== leader)?.node ?? 0;
        await cluster.kill(away);
        const { applied } = await logOf(cluster, leader, target);
        const id = await migrate(client, { source, target, first, last, bytesPerSecond });
        if (round === 1) await ended(fixture, id);
        await cluster.waitFor('the log is cut behind the one that is away', 60_000, async () => {
          return (await logOf(cluster, leader, target)).first > applied;
        });
        if (round === 0) expect(await migrationOf(client, id)).to.include({ state: 'running' });
        cluster.startNode(away);
        expect(await ended(fixture, id)).to.include({ state: 'done', reason: '' });
        await expectWhole(fixture, filled);
      }
    });
  });

  it('nodes that are restarted one after the other: no write fails, and the migration ends', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client, cluster } = fixture;
      const filled = await fill(client, { count: 400, size: 500 });
      const writing = new Writing(fixture);
      try {
        const throttle = (bytesPerSecond: number): Promise<unknown> =>
          client.changeCluster({ kind: 'throttleMigration', id, bytesPerSecond });
        const move = { source: 1, target: 2, first, last, bytesPerSecond: 65_536 };
        const id = await migrate(client, move);
        await throttle(8192);
        await migrationTo(fixture, id, 'has begun', ({ moved }) => moved > 0);
        for (const { node } of cluster.nodes) {
          await cluster.terminate(node);
          cluster.startNode(node);
          await cluster.waitUntilReady(60_000);
        }
        expect(await migrationOf(client, id)).to.include({ state: 'running' });
        await throttle(100_000_000);
        expect(await ended(fixture, id)).to.include({ state: 'done', reason: '' });
      } finally {
        await writing.stop();
      }
      expect(writing.failures.map(String)).to.deep.equal([]);
      await expectWhole(fixture, filled, writing.expected);
    }));
});
