import { expect } from 'chai';
import type { MetaCommand } from '../../src/meta/commands.js';
import { after, clusterOf, joinOf } from '../meta/clusters.js';
import {
  replaceAfterMs,
  decided,
  spareCluster,
  down,
  drain,
  setting,
  metadataOn,
  brief,
  type World,
} from './decision-cases.js';

describe('decisions about the metadata group', () => {
  const three = { metadata: { voters: [1, 2, 3] } };
  const one = { topology: after(clusterOf(3, { shards: 1 }), metadataOn(1)), voters: null };
  const forced: MetaCommand = { kind: 'removeNode', node: 2, force: true, nowMs: 3_000 };
  const given = after(spareCluster(), metadataOn(1, 4, 3)).metadata[2]?.replica ?? 0;
  const replicasOn = (...nodes: number[]): readonly number[] =>
    after(spareCluster(), metadataOn(...nodes)).metadata.map(({ replica }) => replica);
  const rows: readonly (World & { readonly title: string; readonly expected: string[] })[] = [
    {
      title: 'D40: it grows from 1 to 3',
      ...one,
      metadata: { voters: [1] },
      expected: ['metadata: 1, 2, 3'],
    },
    { title: 'not before it was asked who its members are', ...one, expected: [] },
    {
      title: 'D40: and from 3 to 5',
      topology: spareCluster(),
      ...three,
      expected: ['metadata: 1, 2, 3, 4, 5'],
    },
    {
      title: 'not to 4, nor to two nodes of one host',
      topology: after(
        clusterOf(3, { shards: 1 }),
        joinOf(4),
        joinOf(5, { labels: { host: 'x' } }),
        joinOf(6, { labels: { host: 'x' } }),
        drain(4),
      ),
      ...three,
      voters: null,
      expected: ['1 done: no replicas are left on it: it may be removed'],
    },
    {
      title: 'not while one of its nodes is away, if only for a moment',
      topology: spareCluster(),
      ...three,
      silent: { 3: 1 },
      expected: [],
    },
    {
      title: 'not while its members are still changing',
      topology: spareCluster(),
      metadata: { voters: [1, 2, 3], learners: [9] },
      expected: [],
    },
    {
      title: 'a node that stays away is replaced in it',
      topology: spareCluster(down(2)),
      ...three,
      silent: { 2: replaceAfterMs },
      voters: null,
      expected: ['metadata: 1, 4, 3'],
    },
    {
      title: 'without another node five become three',
      topology: after(spareCluster(), metadataOn(1, 2, 3, 4, 5), down(4)),
      metadata: { voters: replicasOn(1, 2, 3, 4, 5) },
      silent: { 4: replaceAfterMs },
      voters: null,
      expected: ['metadata: 1, 2, 3'],
    },
    {
      title: 'without another node three stay three, one of them lost',
      topology: after(clusterOf(3, { shards: 1 }), down(2)),
      ...three,
      silent: { 2: replaceAfterMs },
      voters: null,
      expected: [],
    },
    {
      title: 'not a moment too early',
      topology: spareCluster(down(2)),
      ...three,
      silent: { 2: replaceAfterMs - 1 },
      expected: [],
    },
    {
      title: 'D06: and not for a silence from before this leader led',
      topology: spareCluster(down(2)),
      ...three,
      silent: { 2: replaceAfterMs * 2 },
      leadingMs: replaceAfterMs - 1,
      expected: [],
    },
    {
      title: 'a drained node leaves it, and the drain waits until it has left',
      topology: spareCluster(drain(2)),
      ...three,
      voters: null,
      expected: [
        'metadata: 1, 4, 3',
        '1 running: 1 left, of shards 1; 0 moving; its replica of the metadata group is moving',
      ],
    },
    {
      title: 'a node that is drained to another one is replaced there by that one',
      topology: spareCluster({ kind: 'drain', node: 2, to: 5, nowMs: 3_000 }),
      ...three,
      voters: null,
      expected: [
        'metadata: 1, 5, 3',
        '1 running: 1 left, of shards 1; 0 moving; its replica of the metadata group is moving',
      ],
    },
    {
      title: 'a drain of a node whose replica still counts is not done',
      topology: after(
        clusterOf(3, { shards: 1, replication: 1 }),
        joinOf(4),
        metadataOn(1, 4, 3),
        drain(2),
      ),
      metadata: { voters: [1, 2, 3, given] },
      metadataNodes: [1, 2, 3, 4],
      expected: ['1 running: its replica of the metadata group is moving'],
    },
    {
      title: 'and not when nobody has reported the group since the drain began',
      topology: after(
        clusterOf(3, { shards: 1, replication: 1 }),
        joinOf(4),
        metadataOn(1, 4, 3),
        drain(2),
      ),
      metadataNodes: [1, 2, 3, 4],
      expected: ['1 running: its replica of the metadata group is moving'],
    },
    {
      title: 'a drain is done while the group moves for another node, which may take for ever',
      topology: after(spareCluster(), metadataOn(1, 4, 3), drain(5)),
      metadata: { voters: [1, 2, 3] },
      metadataNodes: [1, 2, 3, 4],
      silent: { 4: 20_000 },
      expected: ['4 down', '1 done: no replicas are left on it: it may be removed'],
    },
    {
      title: 'one that was lost by force is made up for',
      topology: spareCluster(forced),
      metadata: { voters: [1, 3] },
      voters: null,
      expected: ['metadata: 1, 3, 4'],
    },
    {
      title: 'nothing is moved while repairs are paused',
      topology: spareCluster(down(2), setting('repairsMax', 0)),
      ...three,
      silent: { 2: replaceAfterMs },
      expected: [],
    },
  ];
  for (const { title, expected, ...world } of rows)
    it(title, () => {
      expect(decided(world).map(brief)).to.deep.equal(expected);
    });
});
