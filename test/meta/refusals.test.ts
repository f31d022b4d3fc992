import { expect } from 'chai';
import type { MetaCommand } from '../../src/meta/commands.js';
import { noCluster } from '../../src/meta/topology.js';
import {
  after,
  apply,
  clusterOf,
  directoryOf,
  firstNode,
  firstNodes,
  initOf,
  joinOf,
  reasonOf,
} from './clusters.js';
import { refuses } from './refusal-rows.js';

const three = firstNodes(3);
const onOneHost = three.map((node) => ({ ...node, labels: { host: 'a' } }));

describe('init of a cluster', () => {
  refuses(noCluster, [
    ['everything before it', joinOf(1), 'noCluster', 'quorate cluster init'],
    ['no shards', initOf(three, { shards: 0 }), 'badShardCount', 'from 1 to 1024, got 0'],
    ['too many shards', initOf(three, { shards: 1025 }), 'badShardCount', '1025'],
    ['half a shard', initOf(three, { shards: 1.5 }), 'badShardCount', '1.5'],
    ['no replicas', initOf(three, { replication: 0 }), 'badReplication', 'from 1 to 7, got 0'],
    ['8 replicas', initOf(three, { replication: 8 }), 'badReplication', 'got 8'],
    ['more replicas than nodes', initOf(three, { replication: 4 }), 'notEnoughHosts', '4 replicas'],
    [
      'more replicas than hosts',
      initOf(onOneHost, { replication: 2 }),
      'notEnoughHosts',
      'ask for 1 replicas at most',
    ],
    ['an empty cluster id', initOf(three, { clusterId: '' }), 'badClusterId', 'letters'],
    ['an id twice', initOf([firstNode(1), firstNode(1)]), 'badNode', 'node 1 is given twice'],
    ['node 0', initOf([firstNode(0)]), 'badNode', 'got 0'],
    ['an id out of range', initOf([firstNode(2 ** 32)]), 'badNode', '4294967296'],
    [
      'a copied data directory',
      initOf([firstNode(1), firstNode(2, { directoryId: directoryOf(1) })]),
      'badNode',
      'never a copy',
    ],
    ['a directory id of no shape', initOf([firstNode(1, { directoryId: 'x' })]), 'badNode', "'x'"],
    [
      'one address for two nodes',
      initOf([firstNode(1), firstNode(2, { clientAddress: 'node-1:7401' })]),
      'addressTaken',
      'node-1:7401 is the address of node 1',
    ],
    ['no metadata replica', initOf(three, { metadata: [] }), 'badMetadata', 'got 0'],
    [
      'a metadata replica nowhere',
      initOf(three, { metadata: [{ replica: 1, node: 4 }] }),
      'badMetadata',
      'node 4',
    ],
    [
      'a metadata replica id twice',
      initOf(three, { metadata: [1, 2].map((node) => ({ replica: 1, node })) }),
      'badMetadata',
      'occur twice',
    ],
    [
      'a replica id that leaves none to issue',
      initOf(three, { metadata: [{ replica: 2 ** 32 - 1, node: 1 }] }),
      'badMetadata',
      '4294967295',
    ],
  ]);

  const cluster = clusterOf(3);
  refuses(cluster, [
    ['init twice', initOf(three, { clusterId: 'other' }), 'initTwice', 'init twice'],
    ['init twice with other shards', initOf(three, { shards: 5 }), 'initTwice', "'test'"],
    [
      'init twice with other labels',
      initOf(three.map((node) => ({ ...node, labels: { zone: 'a' } }))),
      'initTwice',
      'version 1',
    ],
  ]);

  it('D40: is idempotent, also when the cluster has changed since', () => {
    const moved = after(cluster, joinOf(4), { kind: 'setWeight', node: 1, weight: 7 });
    for (const command of [
      initOf(three),
      initOf(three.toReversed(), { nowMs: 99, metadata: initOf(three).metadata }),
    ]) {
      const { topology, result } = apply(moved, command);
      expect(result).to.deep.include({ kind: 'done', changed: false });
      expect(topology).to.equal(moved);
    }
  });

  it('D01: issues replica ids above those of the metadata group, each once', () => {
    const ids = cluster.shards.flatMap(({ replicas }) => replicas.map(({ replica }) => replica));
    expect(ids).to.deep.equal(ids.map((_, at) => at + 4));
    expect(cluster.next).to.deep.equal({
      node: 4,
      pin: 16384,
      replica: 16,
      shard: 5,
      operation: 1,
      migration: 1,
    });
  });
});

describe('refusals about nodes', () => {
  const cluster = after(
    clusterOf(4),
    joinOf(5),
    { kind: 'setNodeState', node: 4, state: 'down', nowMs: 5 },
    { kind: 'removeNode', node: 5, force: false, nowMs: 6 },
  );
  refuses(cluster, [
    ['a second node at an address', joinOf(9, { peerAddress: 'node-1:7401' }), 'addressTaken', '1'],
    [
      'a wiped node at its old address',
      joinOf(9, { peerAddress: 'node-1:7401', clientAddress: 'node-1:7400' }),
      'addressTaken',
      'remove node 1',
    ],
    [
      'a node that moves to the address of another',
      joinOf(1, { peerAddress: 'node-2:7401' }),
      'addressTaken',
      'node 2',
    ],
    ['a removed node that comes back', joinOf(5), 'nodeRemoved', 'clear its data directory'],
    ['a join without a directory', joinOf(9, { directoryId: '' }), 'badNode', '32 hexadecimal'],
    ['an address without a port', joinOf(9, { peerAddress: 'node' }), 'badAddress', "'node'"],
    ['port 0', joinOf(9, { peerAddress: 'node:0' }), 'badAddress', "'node:0'"],
    [
      'one port for peers and clients',
      joinOf(9, { peerAddress: 'a:1', clientAddress: 'a:1' }),
      'badAddress',
      'a port of its own',
    ],
    ['a join with weight 0', joinOf(9, { weight: 0 }), 'badWeight', 'got 0'],
    ['weight 0', { kind: 'setWeight', node: 1, weight: 0 }, 'badWeight', 'drain it'],
    ['weight -1', { kind: 'setWeight', node: 1, weight: -1 }, 'badWeight', 'got -1'],
    ['weight 0.5', { kind: 'setWeight', node: 1, weight: 0.5 }, 'badWeight', 'got 0.5'],
    ['weight 1e300', { kind: 'setWeight', node: 1, weight: 1e300 }, 'badWeight', '1 to 1000'],
    ['weight of nobody', { kind: 'setWeight', node: 77, weight: 5 }, 'unknownNode', 'no node 77'],
    ['weight of a removed one', { kind: 'setWeight', node: 5, weight: 5 }, 'nodeRemoved', 'node 5'],
    ['an empty label', { kind: 'setLabels', node: 1, labels: { host: '' } }, 'badLabels', 'host='],
    [
      'a label without a proper name',
      { kind: 'setLabels', node: 1, labels: { 'a b': 'x' } },
      'badLabels',
      'a b=x',
    ],
    [
      'a label as long as a book',
      { kind: 'setLabels', node: 1, labels: { zone: 'x'.repeat(129) } },
      'badLabels',
      '128 bytes',
    ],
    [
      'seventeen labels',
      {
        kind: 'setLabels',
        node: 1,
        labels: Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`l${at}`, 'x'])),
      },
      'badLabels',
      '16 at most',
    ],
    [
      'a removed node that is up',
      { kind: 'setNodeState', node: 5, state: 'up', nowMs: 7 },
      'nodeRemoved',
      'node 5',
    ],
    ['a drain of nobody', { kind: 'drain', node: 77, nowMs: 7 }, 'unknownNode', 'node 77'],
    ['a drain to nobody', { kind: 'drain', node: 1, to: 77, nowMs: 7 }, 'unknownNode', 'node 77'],
    ['a drain to itself', { kind: 'drain', node: 1, to: 1, nowMs: 7 }, 'badNode', 'another node'],
    [
      'a drain to a node that has one of the replicas',
      { kind: 'drain', node: 1, to: 2, nowMs: 7 },
      'sharedHost',
      'node 2 has a replica of shard',
    ],
    ['a leader of no shard', { kind: 'setLeader', shard: 77, node: 1 }, 'unknownShard', '77'],
    [
      'a leader without a replica',
      { kind: 'setLeader', shard: 1, node: 77 },
      'unknownReplica',
      'no replica on node 77',
    ],
    ['an undrain of nobody', { kind: 'undrain', node: 77, nowMs: 7 }, 'unknownNode', 'node 77'],
    [
      'the removal of a node that has replicas',
      { kind: 'removeNode', node: 1, force: false, nowMs: 7 },
      'replicasLeft',
      'drain it',
    ],
    [
      'the removal of nobody',
      { kind: 'removeNode', node: 77, force: true, nowMs: 7 },
      'unknownNode',
      'node 77',
    ],
  ]);

  const labelled = after(clusterOf(3), { kind: 'setLabels', node: 1, labels: { host: 'a' } });
  refuses(labelled, [
    [
      'a host label that two replicas of a shard would share',
      { kind: 'setLabels', node: 2, labels: { host: 'a' } },
      'sharedHost',
      'both have a replica of shard 1',
    ],
  ]);

  const draining = after(clusterOf(3), joinOf(4), { kind: 'drain', node: 4, nowMs: 3 });
  refuses(draining, [
    [
      'to call a draining node down',
      { kind: 'setNodeState', node: 4, state: 'down', nowMs: 4 },
      'nodeDraining',
      'undrain it first',
    ],
    [
      'a replica on a draining node',
      { kind: 'addReplica', shard: 1, node: 4 },
      'nodeNotUp',
      'undrain it first',
    ],
  ]);

  const lonely = after(noCluster, initOf(three, { replication: 1, shards: 1 }));
  const holder = lonely.shards[0]?.replicas[0]?.node ?? 0;
  const target = three.find(({ id }) => id !== holder)?.id ?? 0;
  const moving = after(lonely, {
    kind: 'replaceReplica',
    shard: 1,
    from: holder,
    to: target,
    nowMs: 1,
  });
  refuses(moving, [
    [
      'by force too, the removal of the only node with the data of a shard',
      { kind: 'removeNode', node: holder, force: true, nowMs: 7 },
      'lastReplica',
      'only replica of shard 1',
    ],
  ]);
  refuses(clusterOf(2, { metadata: [{ replica: 1, node: 1 }], replication: 2 }), [
    [
      'by force too, the removal of the only node with the metadata',
      { kind: 'removeNode', node: 1, force: true, nowMs: 7 },
      'lastReplica',
      'the metadata group',
    ],
  ]);
});

describe('refusals about shards, settings and operations', () => {
  const cluster = after(
    clusterOf(3),
    joinOf(4, { labels: { host: 'a' } }),
    joinOf(5, { labels: { host: 'a' } }),
    joinOf(6),
    { kind: 'setNodeState', node: 6, state: 'suspect', nowMs: 2 },
    { kind: 'replaceReplica', shard: 1, from: 1, to: 4, nowMs: 3 },
    { kind: 'drain', node: 3, nowMs: 3 },
    { kind: 'undrain', node: 3, nowMs: 3 },
  );
  const replace = (shard: number, from: number, to: number): MetaCommand => ({
    kind: 'replaceReplica',
    shard,
    from,
    to,
    nowMs: 4,
  });
  const end = (id: number, state: 'running' | 'done'): MetaCommand => ({
    kind: 'endOperation',
    id,
    state,
    progress: '',
    nowMs: 4,
  });
  refuses(cluster, [
    ['a replica of no shard', { kind: 'addReplica', shard: 9, node: 4 }, 'unknownShard', 'shard 9'],
    ['a replica nowhere', { kind: 'addReplica', shard: 2, node: 77 }, 'unknownNode', 'node 77'],
    [
      'a replica on a node that is not up',
      { kind: 'addReplica', shard: 2, node: 6 },
      'nodeNotUp',
      'node 6 is suspect',
    ],
    [
      'another change while a replica is replaced',
      { kind: 'addReplica', shard: 1, node: 5 },
      'operationRunning',
      'cancel it',
    ],
    [
      'a removal while a replica is replaced',
      { kind: 'removeReplica', shard: 1, node: 2 },
      'operationRunning',
      'shard 1',
    ],
    ['a second replacement', replace(1, 2, 5), 'operationRunning', 'node 1 by one on node 4'],
    [
      'the removal of what is not',
      { kind: 'removeReplica', shard: 2, node: 4 },
      'unknownReplica',
      '4',
    ],
    ['a replacement of what is not', replace(2, 4, 5), 'unknownReplica', 'on node 4'],
    ['a replacement by itself', replace(2, 1, 1), 'sharedHost', 'another node'],
    ['a replacement by a companion', replace(2, 1, 2), 'sharedHost', 'node 2'],
    ['8 replicas', { kind: 'createShard', replication: 8 }, 'badReplication', 'got 8'],
    ['more replicas than hosts', { kind: 'createShard', replication: 5 }, 'notEnoughHosts', 'of 4'],
    ['an unknown setting', { kind: 'setSetting', name: 'x', value: 1 }, 'badSetting', 'repairsMax'],
    [
      'a setting named as a part of every object',
      { kind: 'setSetting', name: 'constructor', value: 1 },
      'badSetting',
      'constructor',
    ],
    [
      'a setting out of bounds',
      { kind: 'setSetting', name: 'repairsMax', value: 65 },
      'badSetting',
      'from 0 to 64',
    ],
    [
      'a node down before it is suspect',
      { kind: 'setSetting', name: 'downAfterMs', value: 200 },
      'badSetting',
      'must not be above',
    ],
    ['the end of nothing', end(99, 'done'), 'unknownOperation', 'operation 99'],
    ['another end of what ended', end(2, 'done'), 'operationEnded', 'cancelled'],
    ['progress of what ended', end(2, 'running'), 'operationEnded', 'operation 2'],
    ['no metadata', { kind: 'setMetadata', nodes: [] }, 'badMetadata', 'got 0'],
    ['metadata twice on a node', { kind: 'setMetadata', nodes: [1, 1] }, 'badMetadata', 'twice'],
    ['metadata nowhere it was', { kind: 'setMetadata', nodes: [4] }, 'badMetadata', 'none'],
    ['metadata on nobody', { kind: 'setMetadata', nodes: [1, 77] }, 'unknownNode', 'node 77'],
    ['metadata on a suspect', { kind: 'setMetadata', nodes: [1, 6] }, 'nodeNotUp', 'suspect'],
    [
      'metadata twice on a host',
      { kind: 'setMetadata', nodes: [1, 4, 5] },
      'sharedHost',
      'the metadata group',
    ],
  ]);

  const full = after(clusterOf(8, { replication: 7, shards: 1 }));
  const spare = full.nodes.find(
    ({ id }) => full.shards[0]?.replicas.every(({ node }) => node !== id) === true,
  );
  refuses(full, [
    [
      'an eighth replica',
      { kind: 'addReplica', shard: 1, node: spare?.id ?? 0 },
      'tooManyReplicas',
      'the most is 7',
    ],
  ]);
  const single = clusterOf(1, { replication: 1, shards: 1 });
  refuses(single, [
    [
      'the removal of the last replica',
      { kind: 'removeReplica', shard: 1, node: 1 },
      'lastReplica',
      'add a replica on another node first',
    ],
  ]);
  const limping = after(clusterOf(3), { kind: 'setNodeState', node: 3, state: 'down', nowMs: 1 });
  refuses(limping, [
    [
      'to remove one of two replicas that are up',
      { kind: 'removeReplica', shard: 1, node: 1 },
      'quorumAtRisk',
      '2 replicas, 1 of them on nodes that are up',
    ],
  ]);

  it('refuses what was decided at another version, old or from the future', () => {
    const { version } = cluster;
    const command: MetaCommand = { kind: 'setWeight', node: 1, weight: 5 };
    expect(reasonOf(apply(cluster, command, version - 1).result)).to.equal('versionMoved');
    expect(reasonOf(apply(cluster, command, version + 1).result)).to.equal('futureVersion');
    expect(apply(cluster, command, version - 1).topology).to.equal(cluster);
    expect(apply(cluster, command, version).result).to.deep.include({
      kind: 'done',
      changed: true,
    });
  });

  it('refuses the 257th node', () => {
    const nodes = Array.from({ length: 256 }, (_, at) => firstNode(at + 1));
    const filled = after(noCluster, initOf(nodes, { shards: 1 }));
    const { result } = apply(filled, joinOf(300));
    expect(reasonOf(result)).to.equal('tooManyNodes');
    const room = after(filled, {
      kind: 'removeNode',
      node:
        filled.nodes.find(
          ({ id }) =>
            id > 3 && filled.shards[0]?.replicas.every(({ node }) => node !== id) === true,
        )?.id ?? 0,
      force: false,
      nowMs: 1,
    });
    expect(apply(room, joinOf(300)).result).to.deep.include({ kind: 'done', changed: true });
  });
});
