import { expect } from 'chai';
import { groupId, nodeId } from '../../raft/index.js';
import { decide, groupsInQuestion } from '../../src/cluster/decisions.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import { shardRecordOf } from '../../src/meta/topology.js';
import { after, clusterOf, joinOf } from '../meta/clusters.js';
import {
  replaceAfterMs,
  situationOf,
  decided,
  nodesOf,
  replicasOf,
  spareCluster,
  down,
  up,
  replace,
  drain,
  drainTo,
  setting,
  metadataOn,
  brief,
  type World,
} from './decision-cases.js';

describe('decisions about nodes', () => {
  const three = clusterOf(3, { shards: 1 });
  const rows: readonly (World & { readonly title: string; readonly expected: string[] })[] = [
    { title: 'nothing while all are connected', topology: three, expected: [] },
    { title: 'a short silence is nothing', topology: three, silent: { 2: 2_999 }, expected: [] },
    {
      title: 'a longer one is suspect',
      topology: three,
      silent: { 2: 3_000 },
      expected: ['2 suspect'],
    },
    { title: 'a long one is down', topology: three, silent: { 2: 10_000 }, expected: ['2 down'] },
    {
      title: 'a suspect goes down',
      topology: after(three, { kind: 'setNodeState', node: 2, state: 'suspect', nowMs: 3_000 }),
      silent: { 2: 10_000 },
      expected: ['2 down'],
    },
    {
      title: 'whoever is connected is up',
      topology: after(three, down(2)),
      expected: ['2 up'],
    },
    {
      title: 'D06: silence counts only while this leader has led',
      topology: three,
      silent: { 2: 600_000 },
      leadingMs: 2_999,
      expected: [],
    },
    {
      title: 'D06: a new leader waits its time, too',
      topology: three,
      silent: { 2: 600_000 },
      leadingMs: 3_000,
      expected: ['2 suspect'],
    },
    {
      title: 'a new leader makes a node that is down no less down',
      topology: after(three, down(2)),
      silent: { 2: 600_000 },
      leadingMs: 5_000,
      expected: [],
    },
    {
      title: 'a draining node keeps its state',
      topology: after(three, drain(2)),
      silent: { 2: 100_000 },
      expected: [
        '1 running: 1 left, of shards 1; 0 moving: no node of another host is up, add one; ' +
          'its replica of the metadata group waits for a node of another host',
      ],
    },
  ];
  for (const { title, expected, ...world } of rows)
    it(title, () => {
      expect(decided(world).map(brief)).to.deep.equal(expected);
    });

  it('says nothing about a node that was not looked at, or without a cluster', () => {
    const situation = situationOf({ topology: after(three, down(2)) });
    expect(decide({ ...situation, seen: new Map() })).to.deep.equal([]);
    const { topology } = situation;
    expect(decide({ ...situation, topology: { ...topology, version: 0 } })).to.deep.equal([]);
  });
});

describe('decisions about lost replicas', () => {
  const lost = { silent: { 2: replaceAfterMs } } as const;
  const lostReplica =
    shardRecordOf(spareCluster(), 1)?.replicas.find(({ node }) => node === 2)?.replica ?? 0;
  const rows: readonly (World & { readonly title: string; readonly expected: string[] })[] = [
    {
      title: 'a replica of a node that stays down is built anew elsewhere',
      topology: spareCluster(down(2)),
      ...lost,
      expected: ['shard 1: 2 -> 4'],
    },
    {
      title: 'D06: not before its time',
      topology: spareCluster(down(2)),
      silent: { 2: replaceAfterMs - 1 },
      expected: [],
    },
    {
      title: 'D06: not by a leader that has not seen it down for so long',
      topology: spareCluster(down(2)),
      ...lost,
      leadingMs: replaceAfterMs - 1,
      expected: [],
    },
    {
      title: 'not without a word of the shard',
      topology: spareCluster(down(2)),
      ...lost,
      voters: null,
      expected: [],
    },
    {
      title: 'not while a change of before is not over',
      topology: spareCluster(down(2)),
      ...lost,
      voters: [...replicasOf(spareCluster()), 99],
      expected: [],
    },
    {
      title: 'also when its replica votes no more, because a replacement was cancelled too late',
      topology: spareCluster(down(2)),
      ...lost,
      voters: [...replicasOf(spareCluster()).filter((id) => id !== lostReplica), 99],
      learners: [lostReplica],
      expected: ['shard 1: 2 -> 4'],
    },
    {
      title: 'not while a replica that was added before does not vote yet',
      topology: spareCluster(down(2), { kind: 'addReplica', shard: 1, node: 4 }),
      ...lost,
      voters: replicasOf(spareCluster()),
      expected: [],
    },
    {
      title: 'not when those who are left cannot decide',
      topology: spareCluster(down(2)),
      silent: { 2: replaceAfterMs, 3: 1 },
      expected: [],
    },
    {
      title: 'not on a node that is not heard just now',
      topology: spareCluster(down(2)),
      silent: { 2: replaceAfterMs, 4: 1 },
      expected: ['shard 1: 2 -> 5'],
    },
    {
      title: 'nowhere when no other host is up',
      topology: after(clusterOf(3, { shards: 1 }), down(2)),
      ...lost,
      expected: [],
    },
    {
      title: 'repairsMax 0 pauses it',
      topology: spareCluster(down(2), setting('repairsMax', 0)),
      ...lost,
      expected: [],
    },
    {
      title: 'a replica that was given up by force is built anew',
      topology: spareCluster({ kind: 'removeNode', node: 2, force: true, nowMs: 3_000 }),
      expected: ['shard 1: + 4'],
    },
    {
      title: 'but not before the shard has let it go',
      topology: spareCluster({ kind: 'removeNode', node: 2, force: true, nowMs: 3_000 }),
      voters: replicasOf(spareCluster()),
      expected: [],
    },
  ];
  for (const { title, expected, ...world } of rows)
    it(title, () => {
      expect(decided(world).map(brief)).to.deep.equal(expected);
    });

  it('begins as many as repairsMax says, the shards with the fewest live replicas first', () => {
    const cluster = after(
      clusterOf(7, { shards: 12, replication: 5 }),
      setting('repairsMax', 3),
      ...[1, 2].map((node) => down(node)),
    );
    const silent = { 1: replaceAfterMs, 2: replaceAfterMs };
    const commands = decided({ topology: cluster, silent });
    const liveIn = (shard: number): number =>
      (shardRecordOf(cluster, shard)?.replicas ?? []).filter(({ node }) => node > 2).length;
    const begun = commands.map((each) => (each.kind === 'replaceReplica' ? each.shard : 0));
    expect(begun.length).to.equal(3);
    expect(new Set(begun).size).to.equal(3);
    expect(begun.map(liveIn)).to.deep.equal([3, 3, 3]);
  });
});

describe('decisions about a replacement under way', () => {
  // Operation 1: replica 5 on node 2 gives way to a new one on node 4.
  const begun = spareCluster(down(2), replace(2, 4));
  const before = replicasOf(spareCluster());
  const [to = 0] = replicasOf(begun).filter((replica) => !before.includes(replica));
  const [from = 0] = before.filter((replica) => !replicasOf(begun).includes(replica));
  const away = { 2: 400_000 };
  const rows: readonly (World & { readonly title: string; readonly expected: string[] })[] = [
    {
      title: 'says nothing before the shard has begun',
      topology: begun,
      silent: away,
      voters: before,
      expected: [],
    },
    {
      title: 'shows the new replica catch up',
      topology: begun,
      silent: away,
      voters: before,
      learners: [to],
      expected: [`1 running: replica ${to} is catching up`],
    },
    {
      title: 'shows the old one leave',
      topology: begun,
      silent: away,
      voters: [...before, to],
      expected: [`1 running: replica ${to} is a voter, replica ${from} is leaving`],
    },
    {
      title: 'is done when the voters are those that the topology names',
      topology: begun,
      silent: away,
      expected: [`1 done: replica ${to} on node 4 has its place`],
    },
    {
      title: 'is not done as long as anybody else is a member',
      topology: begun,
      silent: away,
      learners: [99],
      expected: [`1 running: replica ${to} is a voter, replica ${from} is leaving`],
    },
    {
      title: 'D06: is cancelled when the node is back before the new replica votes',
      topology: begun,
      voters: before,
      learners: [to],
      expected: ['2 up', '1 cancelled: node 2 is back'],
    },
    {
      title: 'D06: goes on when the node is back and the new replica votes already',
      topology: begun,
      voters: [...before, to],
      expected: ['2 up', `1 running: replica ${to} is a voter, replica ${from} is leaving`],
    },
    {
      title: 'goes on when somebody moves a replica from a node that was up all the time',
      topology: spareCluster(replace(2, 4)),
      voters: before,
      learners: [to],
      expected: [`1 running: replica ${to} is catching up`],
    },
    {
      title: 'is not decided without a word of the shard',
      topology: begun,
      voters: null,
      expected: ['2 up'],
    },
    {
      title: 'fails when its target goes down, and another one is tried',
      topology: begun,
      silent: { 2: 400_000, 4: 10_000 },
      voters: before,
      expected: [
        '4 down',
        '1 failed: node 4 went down meanwhile: another node is tried',
        'shard 1: 2 -> 5',
      ],
    },
    {
      title: 'fails, and waits until the target has left the shard again',
      topology: begun,
      silent: { 2: 400_000, 4: 10_000 },
      voters: before,
      learners: [to],
      expected: ['4 down', '1 failed: node 4 went down meanwhile: another node is tried'],
    },
    {
      title: 'does not fail once the old replica has left: it could not take its place again',
      topology: begun,
      silent: { 2: 400_000, 4: 10_000 },
      voters: replicasOf(begun),
      learners: [99],
      expected: ['4 down', `1 running: replica ${to} is a voter, replica ${from} is leaving`],
    },
    {
      title: 'does not fail for a short silence of its target',
      topology: begun,
      silent: { 2: 400_000, 4: 9_999 },
      voters: before,
      learners: [to],
      expected: ['4 suspect', `1 running: replica ${to} is catching up`],
    },
    {
      title: 'fails when its target is to be drained before the new replica votes',
      topology: after(begun, drain(4)),
      silent: away,
      voters: before,
      expected: [
        '1 failed: node 4 is being drained by now: another node is tried',
        'shard 1: 2 -> 5',
        '2 done: no replicas are left on it: it may be removed',
      ],
    },
  ];
  for (const { title, expected, ...world } of rows)
    it(title, () => {
      expect(decided(world).map(brief)).to.deep.equal(expected);
    });
});

describe('decisions about a drain', () => {
  const noMetadata = metadataOn(1, 3);
  const rows: readonly (World & { readonly title: string; readonly expected: string[] })[] = [
    {
      title: 'replaces its replicas at once',
      topology: spareCluster(noMetadata, drain(2)),
      expected: ['shard 1: 2 -> 4', '1 running: 1 left, of shards 1; 1 moving'],
    },
    {
      title: 'does so too when the node is down',
      topology: spareCluster(noMetadata, drain(2)),
      silent: { 2: 1_000 },
      expected: ['shard 1: 2 -> 4', '1 running: 1 left, of shards 1; 1 moving'],
    },
    {
      title: 'goes to the node that was named, not to the one with least',
      topology: spareCluster(noMetadata, drainTo(2, 5)),
      expected: ['shard 1: 2 -> 5', '1 running: 1 left, of shards 1; 1 moving'],
    },
    {
      title: 'waits for the named node while that is away for a moment',
      topology: spareCluster(noMetadata, drainTo(2, 5)),
      silent: { 5: 1_000 },
      expected: ['1 running: 1 left, of shards 1; 0 moving'],
    },
    {
      title: 'goes elsewhere when the named node is down',
      topology: spareCluster(noMetadata, drainTo(2, 5), down(5)),
      silent: { 5: 100_000 },
      expected: ['shard 1: 2 -> 4', '1 running: 1 left, of shards 1; 1 moving'],
    },
    {
      title: 'leaves a shard alone that lacks somebody else',
      topology: spareCluster(noMetadata, drain(2)),
      silent: { 3: 1_000 },
      expected: ['1 running: 1 left, of shards 1; 0 moving'],
    },
    {
      title: 'waits for the shard to say who its members are',
      topology: spareCluster(noMetadata, drain(2)),
      voters: null,
      expected: ['1 running: 1 left, of shards 1; 0 moving'],
    },
    {
      title: 'is paused with repairs',
      topology: spareCluster(noMetadata, drain(2), setting('repairsMax', 0)),
      expected: ['1 running: 1 left, of shards 1; 0 moving: repairsMax is 0, which pauses them'],
    },
    {
      title: 'is done when nothing is left',
      topology: spareCluster(noMetadata, drain(4)),
      expected: ['1 done: no replicas are left on it: it may be removed'],
    },
    {
      title: 'is not done while a replica of the metadata group is left',
      topology: after(clusterOf(4, { shards: 1, replication: 1 }), drain(3)),
      expected: ['1 running: its replica of the metadata group waits for a node of another host'],
    },
    {
      title: 'that was taken back cancels its moves',
      topology: spareCluster(noMetadata, drain(2), replace(2, 4), {
        kind: 'undrain',
        node: 2,
        nowMs: 4_000,
      }),
      voters: replicasOf(spareCluster()),
      expected: ['2 cancelled: node 2 is back'],
    },
  ];
  for (const { title, expected, ...world } of rows)
    it(title, () => {
      expect(decided(world).map(brief)).to.deep.equal(expected);
    });
});

describe('the groups in question', () => {
  const asked = (world: World): readonly number[] => groupsInQuestion(situationOf(world));
  const cluster = after(clusterOf(3, { shards: 2 }), joinOf(4));

  it('are none while nothing is wrong', () => {
    expect(asked({ topology: cluster })).to.deep.equal([]);
    expect(asked({ topology: after(cluster, down(2)), silent: { 2: 20_000 } })).to.deep.equal([]);
  });

  it('are those of nodes that are lost or drained', () => {
    const lost = after(cluster, down(2));
    expect(asked({ topology: lost, silent: { 2: replaceAfterMs } })).to.deep.equal([0, 1, 2]);
    expect(asked({ topology: after(cluster, drain(1)) })).to.deep.equal([0, 1, 2]);
    expect(asked({ topology: after(cluster, drain(4)) })).to.deep.equal([]);
  });

  it('are no more than those under way when no more may be begun', () => {
    const moving = after(cluster, drain(1), setting('repairsMax', 1), replace(1, 4));
    expect(asked({ topology: moving })).to.deep.equal([0, 1]);
  });

  it('are those with too few replicas', () => {
    const forced: MetaCommand = { kind: 'removeNode', node: 2, force: true, nowMs: 3_000 };
    expect(asked({ topology: after(cluster, forced) })).to.deep.equal([0, 1, 2]);
  });

  it('count an added replica as a repair until it votes', () => {
    const forced: MetaCommand = { kind: 'removeNode', node: 2, force: true, nowMs: 3_000 };
    const topology = after(cluster, forced, setting('repairsMax', 1));
    const commands = decided({ topology });
    expect(commands.map(brief)).to.deep.equal(['shard 1: + 4']);
    expect(asked({ topology: after(topology, ...commands) })).to.include(groupId(1));
  });
});

describe('nodes of one host', () => {
  it('never get two replicas of a shard, not even for want of others', () => {
    const topology = after(
      clusterOf(3, { shards: 1 }),
      joinOf(4, { labels: { host: 'a' } }),
      { kind: 'setLabels', node: 3, labels: { host: 'a' } },
      down(2),
    );
    expect(nodesOf(topology)).to.have.members([1, 2, 3].map(nodeId));
    expect(decided({ topology, silent: { 2: replaceAfterMs } })).to.deep.equal([]);
    // The one that leaves is no companion.
    const other = after(topology, up(2, 4_000), down(3, 4_500));
    const commands = decided({ topology: other, silent: { 3: replaceAfterMs } });
    expect(commands.map(brief)).to.deep.equal(['shard 1: 3 -> 4']);
  });
});
