import { Client, credentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import { service as healthService } from 'grpc-health-check';
import type { LocalCluster } from '../../src/cli/local-cluster.js';
import { parseMetrics, valueOf, type Family } from '../support/prometheus-text.js';
import { bytes, followerOf, leaderOf, withCluster } from './fixture.js';

async function scrape(cluster: LocalCluster, node: number): Promise<ReadonlyMap<string, Family>> {
  const reply = await fetch(`http://${cluster.node(node).httpAddress}/metrics`);
  expect(reply.status).to.equal(200);
  expect(reply.headers.get('content-type')).to.match(/^text\/plain; version=0\.0\.4/);
  return parseMetrics(await reply.text());
}

const http = async (cluster: LocalCluster, node: number, path: string): Promise<number> =>
  (await fetch(`http://${cluster.node(node).httpAddress}${path}`)).status;

/** What grpc.health.v1 says of a service: its status, or the name of the error. */
function health(cluster: LocalCluster, node: number, name: string): Promise<string> {
  const client = new Client(cluster.node(node).clientAddress, credentials.createInsecure());
  const check = healthService['Check'] ?? healthService['check'];
  if (check === undefined) throw new Error('no Check in the health service');
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      check.path,
      (request: object) => check.requestSerialize(request),
      (reply: Buffer) => check.responseDeserialize(reply) as { status: string },
      { service: name },
      { deadline: Date.now() + 10_000 },
      (error, reply) => {
        client.close();
        resolve(error === null ? (reply?.status ?? '') : `error ${error.code}`);
      },
    );
  });
}

describe('what a node tells of itself', function () {
  this.timeout(120_000);

  it('metrics move as things happen, and a shard without its quorum is not healthy', () =>
    withCluster({ nodes: 3, shards: 2 }, async ({ cluster, client }) => {
      const leader = await leaderOf(cluster);
      const follower = await followerOf(cluster);
      const before = await scrape(cluster, leader);
      for (let n = 0; n < 40; n++) await client.put({ key: bytes(`k${n}`), value: bytes('v') });
      for (let n = 0; n < 40; n++) await client.get({ key: bytes(`k${n}`) });
      const after = await scrape(cluster, leader);
      const grown = (name: string, labels: Record<string, string> = {}): number =>
        valueOf(after, name, labels) - valueOf(before, name, labels);
      const shard = { shard: '1' };
      expect(valueOf(after, 'quorate_shard_role', { ...shard, role: 'leader' })).to.equal(1);
      expect(valueOf(after, 'quorate_shard_term', { shard: '0' })).to.be.at.least(1);
      expect(grown('quorate_shard_commit_index', shard)).to.be.above(5);
      expect(grown('quorate_shard_proposals_total', { ...shard, outcome: 'applied' })).to.be.above(
        5,
      );
      expect(grown('quorate_shard_reads_total', shard)).to.be.above(5);
      expect(grown('quorate_raft_log_sync_duration_seconds')).to.be.above(0);
      expect(grown('quorate_peer_frame_size_bytes')).to.be.above(0);
      expect(valueOf(after, 'quorate_peer_connected')).to.equal(2);
      expect(valueOf(after, 'quorate_disk_free_bytes')).to.be.above(0);
      expect(valueOf(after, 'quorate_engine_block_cache_capacity_bytes')).to.be.above(0);
      expect(after.get('quorate_engine_level_files')?.samples).to.have.length(7);
      expect(valueOf(after, 'quorate_queue_limit', { queue: 'peer_send_bytes' })).to.be.above(1e6);
      expect(valueOf(after, 'quorate_client_requests_total', { code: 'OK' })).to.be.above(0);
      for (const each of [leader, follower]) {
        expect(await http(cluster, each, '/healthz')).to.equal(200);
        expect(await http(cluster, each, '/readyz')).to.equal(200);
        expect(await health(cluster, each, 'shard/1')).to.equal('SERVING');
      }
      expect(await health(cluster, leader, 'shard/3')).to.equal('error 5');
      expect(await http(cluster, leader, '/elsewhere')).to.equal(404);

      const others = cluster.nodes.filter(({ node }) => node !== leader);
      for (const { node } of others) await cluster.kill(node);
      await cluster.waitFor('the node that is left says so', 60_000, async () => {
        return (
          (await health(cluster, leader, 'shard/1')) === 'NOT_SERVING' &&
          (await health(cluster, leader, 'quorate.v1.KV')) === 'NOT_SERVING'
        );
      });
      expect(await http(cluster, leader, '/healthz')).to.equal(200);
      expect(await http(cluster, leader, '/readyz')).to.equal(503);
      expect(valueOf(await scrape(cluster, leader), 'quorate_peer_connected')).to.equal(0);
      for (const { node } of others) cluster.startNode(node);
      await cluster.waitFor('it serves again', 60_000, async () => {
        return (await health(cluster, leader, 'shard/1')) === 'SERVING';
      });
    }));

  it('a shard that leaves a node is neither in its metrics nor in its health, and log lines name the node', () =>
    withCluster({ nodes: 3, shards: 1 }, async ({ cluster, client }) => {
      const added = await cluster.addNode();
      await cluster.waitFor('node 4 is ready', 60_000, async () => {
        return (await http(cluster, 4, '/readyz').catch(() => 0)) === 200;
      });
      expect(await health(cluster, added.node, 'shard/1')).to.equal('error 5');
      await client.changeCluster({ kind: 'replaceReplica', shard: 1, from: 3, to: 4 });
      await cluster.waitFor('node 4 has the shard, node 3 has not', 60_000, async () => {
        return (
          (await health(cluster, 4, 'shard/1')) === 'SERVING' &&
          (await health(cluster, 3, 'shard/1')) === 'error 5'
        );
      });
      const families = await scrape(cluster, 3);
      const shards = families.get('quorate_shard_term')?.samples.map(({ labels }) => labels);
      expect(shards).to.deep.equal([{ shard: '0' }]);
      const lines = cluster.logTail(4, 1000).split('\n');
      const nodes = lines.map((line) => (JSON.parse(line) as { node: number }).node);
      expect(nodes[nodes.length - 1]).to.equal(4);
      const joined = lines.findIndex((line) => line.includes('joined the cluster'));
      expect(new Set(nodes.slice(joined + 1))).to.deep.equal(new Set([4]));
    }));
});
