import { expect } from 'chai';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { withCluster, type Fixture } from './fixture.js';
import { ended, expectWhole, fill, migrate, migrationTo, Writing } from './migrating.js';

/** Slow enough that a migration of what is filled lasts for some seconds. */
const bytesPerSecond = 65_536;
const [first, last] = [0, 8191];
const slots = last - first + 1;

type Victims = (
  cluster: LocalCluster,
  move: { readonly source: number; readonly target: number },
) => Promise<readonly number[]>;

async function leading(cluster: LocalCluster, group: number): Promise<readonly number[]> {
  let leader: number | undefined;
  await cluster.waitFor(`group ${group} has a leader`, 30_000, async () => {
    leader = await cluster.leader(group);
    return leader !== undefined;
  });
  return leader === undefined ? [] : [leader];
}

const leaderOfSource: Victims = (cluster, { source }) => leading(cluster, source);
const leaderOfTarget: Victims = (cluster, { target }) => leading(cluster, target);
const leaderOfMetadata: Victims = (cluster) => leading(cluster, 0);
const everyNode: Victims = ({ nodes }) => Promise.resolve(nodes.map(({ node }) => node));

/** Kills in the middle of a migration, at moments that nobody chose; it ends as done by itself. */
async function killDuring(fixture: Fixture, round: number, choose: Victims): Promise<void> {
  const { client, cluster } = fixture;
  const [source, target] = round % 2 === 0 ? [1, 2] : [2, 1];
  const id = await migrate(client, { source, target, first, last, bytesPerSecond });
  const moment = Math.floor(Math.random() * slots * 0.8);
  try {
    await migrationTo(fixture, id, `has moved ${moment} slots`, ({ moved }) => moved >= moment);
    const killed = await choose(cluster, { source, target });
    await Promise.all(killed.map((node) => cluster.kill(node)));
    for (const node of killed) cluster.startNode(node);
    const end = await ended(fixture, id);
    expect(end).to.include({ state: 'done', moved: slots, reason: '' });
  } catch (error) {
    throw new Error(`round ${round}, killed when ${moment} slots had moved`, { cause: error });
  }
  await cluster.waitUntilReady(30_000);
}

describe('R73, R77: nodes killed in the middle of a migration', function () {
  this.timeout(240_000);

  async function kills(order: readonly Victims[]): Promise<void> {
    await withCluster({ shards: 2 }, async (fixture) => {
      const filled = await fill(fixture.client, { count: 400, size: 500 });
      const writing = new Writing(fixture);
      try {
        for (const [round, choose] of order.entries()) await killDuring(fixture, round, choose);
      } finally {
        await writing.stop();
      }
      expect(writing.failures.map(String)).to.deep.equal([]);
      await expectWhole(fixture, filled, writing.expected);
    });
  }

  it('the leaders of the source, the target and the metadata group: each time it ends by itself, with every acknowledged write, each counted once', () =>
    kills([leaderOfSource, leaderOfTarget, leaderOfMetadata]));

  it('all nodes at once: it ends by itself, with every acknowledged write, each counted once', () =>
    kills([everyNode, everyNode]));
});
