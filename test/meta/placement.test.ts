import { expect } from 'chai';
import fc from 'fast-check';
import { placeReplacement } from '../../src/meta/placement.js';
import { noCluster, type Topology } from '../../src/meta/topology.js';
import { after, clusterOf, firstNode, firstNodes, initOf, joinOf } from './clusters.js';

interface Share {
  readonly replicas: number;
  readonly firsts: number;
}

function sharesOf({ nodes, shards }: Topology): readonly Share[] {
  return nodes.map(({ id }) => ({
    replicas: shards.filter(({ replicas }) => replicas.some(({ node }) => node === id)).length,
    firsts: shards.filter(({ replicas }) => replicas[0]?.node === id).length,
  }));
}

function spread(values: readonly number[]): number {
  return Math.max(...values) - Math.min(...values);
}

describe('placement of replicas', () => {
  it('gives nodes of equal weight replicas and leaders that differ by one at most', () => {
    const sizes = fc.record({
      hosts: fc.integer({ min: 1, max: 10 }),
      nodesPerHost: fc.integer({ min: 1, max: 3 }),
      replication: fc.integer({ min: 1, max: 7 }),
      shards: fc.integer({ min: 1, max: 100 }),
    });
    fc.assert(
      fc.property(sizes, ({ hosts, nodesPerHost, replication, shards }) => {
        fc.pre(replication <= hosts);
        const nodes = firstNodes(hosts * nodesPerHost).map((node) => ({
          ...node,
          labels: { host: `h${node.id % hosts}` },
        }));
        const shares = sharesOf(after(noCluster, initOf(nodes, { shards, replication })));
        expect(spread(shares.map(({ replicas }) => replicas))).to.be.at.most(1);
        expect(spread(shares.map(({ firsts }) => firsts))).to.be.at.most(1);
      }),
      { numRuns: 150 },
    );
  });

  it('gives nodes of unequal weight their share of replicas and leaders, within one and a half', () => {
    const weights = fc.array(fc.integer({ min: 50, max: 200 }), { minLength: 3, maxLength: 10 });
    fc.assert(
      fc.property(
        weights,
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 8, max: 200 }),
        (each, replication, shards) => {
          const total = each.reduce((sum, weight) => sum + weight, 0);
          // Nobody can have more than one replica of a shard, whatever its weight.
          fc.pre(each.every((weight) => weight * replication <= total));
          const nodes = each.map((weight, at) => firstNode(at + 1, { weight }));
          const shares = sharesOf(after(noCluster, initOf(nodes, { shards, replication })));
          shares.forEach(({ replicas, firsts }, at) => {
            const share = (shards * (each[at] ?? 0)) / total;
            expect(Math.abs(replicas - replication * share)).to.be.at.most(1.5);
            expect(Math.abs(firsts - share)).to.be.at.most(1.5);
          });
        },
      ),
      { numRuns: 150 },
    );
  });

  it('gives a node too heavy for its host no more than one replica of a shard', () => {
    const nodes = [firstNode(1, { weight: 1000 }), firstNode(2), firstNode(3)];
    const topology = after(noCluster, initOf(nodes, { shards: 10, replication: 2 }));
    expect(sharesOf(topology).map(({ replicas }) => replicas)).to.deep.equal([10, 5, 5]);
  });

  it('puts a new shard where there is least, and none on nodes that are not up', () => {
    const joined = after(
      clusterOf(3, { shards: 8 }),
      joinOf(4),
      joinOf(5),
      joinOf(6),
      joinOf(7),
      { kind: 'setNodeState', node: 6, state: 'down', nowMs: 1 },
      { kind: 'drain', node: 7, nowMs: 1 },
      { kind: 'createShard', replication: 2 },
    );
    expect(joined.shards.at(-1)?.replicas.map(({ node }) => node)).to.have.members([4, 5]);
    expect(joined.shards.at(-1)?.birthSlots).to.deep.equal([]);
  });

  it('divides the slots evenly, whatever the number of shards', () => {
    for (const shards of [1, 3, 7, 16, 1000, 1024]) {
      const sizes = clusterOf(3, { shards }).slots.map(({ first, last }) => last - first + 1);
      expect(sizes).to.have.length(shards);
      expect(spread(sizes)).to.be.at.most(1);
    }
  });

  it('finds the node for a replacement: least loaded, up, of a host without a replica', () => {
    const labelled = after(
      clusterOf(3, { shards: 4 }),
      joinOf(4, { labels: { host: 'big' } }),
      joinOf(5),
      joinOf(6, { weight: 10 }),
      { kind: 'setLabels', node: 1, labels: { host: 'big' } },
    );
    const [shard] = labelled.shards;
    const [leaving, staying] = [labelled.nodes[0]?.id, labelled.nodes[1]?.id];
    expect(placeReplacement(labelled, shard?.id ?? 0, staying)).to.equal(5);
    const without5 = after(labelled, { kind: 'setNodeState', node: 5, state: 'suspect', nowMs: 1 });
    expect(placeReplacement(without5, shard?.id ?? 0, staying)).to.equal(6);
    expect(placeReplacement(without5, shard?.id ?? 0, leaving)).to.equal(4);
    expect(placeReplacement(clusterOf(3), 1, leaving)).to.equal(undefined);
    expect(placeReplacement(clusterOf(3), 99)).to.equal(undefined);
  });
});
