/**
 * What a topology of many nodes and shards costs: its bytes, and the time that the event loop stands
 * still for it. In one process, by the functions that nodes and clients use.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codecOf } from '../../proto/definitions.js';
import type { TopologyReply } from '../../proto/messages.js';
import { printTable } from '../../src/cli/output.js';
import { Routes } from '../../src/client/routes.js';
import { routingReply } from '../../src/api/admin-service.js';
import { ClusterView } from '../../src/cluster/cluster-view.js';
import { decide, groupsInQuestion, type Situation } from '../../src/cluster/decisions.js';
import { writeTopologyCache } from '../../src/cluster/topology-cache.js';
import { applyCommand } from '../../src/meta/apply-command.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import { changedPieces } from '../../src/meta/topology-pieces.js';
import {
  noCluster,
  parseTopology,
  type NodeRecord,
  type ShardRecord,
  type Topology,
} from '../../src/meta/topology.js';
import { slotCount } from '../../src/router/slot.js';
import { groupId, nodeId, replicaId } from '../../raft/index.js';

const sizes = [
  { nodes: 10, shards: 128 },
  { nodes: 100, shards: 1024 },
  { nodes: 500, shards: 4096 },
  { nodes: 500, shards: 16_384 },
] as const;
const replication = 3;
const repetitions = 5;

const reply = codecOf<TopologyReply>('quorate.v1.TopologyReply');

/** The least of several, in milliseconds: what else the machine does is not of interest here. */
function timed<T>(run: () => T): { readonly ms: number; readonly made: T } {
  const times: number[] = [];
  let made = run();
  for (let n = 0; n < repetitions; n++) {
    const started = performance.now();
    made = run();
    times.push(performance.now() - started);
  }
  return { ms: Math.min(...times), made };
}

function applied(topology: Topology, command: MetaCommand): Topology {
  const { topology: after, result } = applyCommand(topology, { command });
  if (result.kind === 'refused') throw new Error(result.message);
  return after;
}

/**
 * As many joins, creations and migrations would leave it: more than `init` makes, and more nodes than
 * a cluster takes.
 */
function clusterOf(nodeCount: number, shardCount: number): Topology {
  const memberOf = (id: number): NodeRecord => ({
    id: nodeId(id),
    directoryId: id.toString(16).padStart(32, '0'),
    peerAddress: `10.0.${id >> 8}.${id & 255}:7401`,
    clientAddress: `10.0.${id >> 8}.${id & 255}:7400`,
    labels: { host: `h${id}`, zone: `z${id % 3}` },
    weight: 100,
    state: 'up',
    stateSinceMs: 1000,
  });
  const nodes = Array.from({ length: nodeCount }, (_, at) => memberOf(at + 1));
  const metadata = nodes.slice(0, 5).map(({ id }) => ({ replica: id, node: id }));
  const init = { kind: 'init', clusterId: 'scale', nodes: nodes.slice(0, 5), metadata } as const;
  const born = applied(noCluster, { ...init, shards: 1, replication, nowMs: 1000 });
  let next = born.next.replica;
  const shards = Array.from({ length: shardCount }, (_, at): ShardRecord => {
    const replicas = Array.from({ length: replication }, (__, n) => ({
      replica: replicaId(next++),
      // Neighbours, in another order each time round.
      node: nodeId(((at + n * (1 + Math.floor(at / nodeCount))) % nodeCount) + 1),
    }));
    const id = groupId(at + 1);
    return { id, replicas, replication, founders: replicas, birthSlots: [] };
  });
  const slots = shards.map(({ id }, at) => ({
    first: Math.floor((at * slotCount) / shardCount),
    last: Math.floor(((at + 1) * slotCount) / shardCount) - 1,
    shard: id,
    epoch: 2,
  }));
  const issued = { ...born.next, node: nodeCount + 1, replica: next, shard: shardCount + 1 };
  return { ...born, nodes, shards, slots, next: issued };
}

/** All is well, but for the nodes that are `away`, for an hour. */
function situationOf(topology: Topology, away: number): Situation {
  const nowMs = 10_000_000;
  const seen = new Map(
    topology.nodes.map(({ id }) => [
      id,
      id > topology.nodes.length - away
        ? ({ connected: false, sinceMs: nowMs - 3_600_000 } as const)
        : ({ connected: true } as const),
    ]),
  );
  const metadataNodes = topology.metadata.map(({ node }) => node);
  const base = { topology, seen, nowMs, metadataNodes, leadingSinceMs: 0 };
  const asked = new Set(groupsInQuestion(base));
  const reports = new Map(
    topology.shards
      .filter(({ id }) => asked.has(id))
      .map(({ id, replicas }) => [
        id,
        { voters: replicas.map(({ replica }) => replica), learners: [] },
      ]),
  );
  return { ...base, reports, wallMs: 1_800_000_000_000 };
}

function down(topology: Topology, count: number): Topology {
  return topology.nodes
    .slice(-count)
    .reduce(
      (now, { id }) => applied(now, { kind: 'setNodeState', node: id, state: 'down', nowMs: 2000 }),
      topology,
    );
}

const kib = (bytes: number): string => (bytes / 1024).toFixed(0);
const shown = (ms: number): string => ms.toFixed(ms < 10 ? 2 : 0);

/** Once a change is committed: what each node does about it, and each client. */
function costsOf(nodes: number, shards: number, directory: string): readonly string[] {
  const before = clusterOf(nodes, shards);
  const pieces = changedPieces(noCluster, before);
  const pieceBytes = [...pieces.values()].reduce((sum, text) => sum + (text ?? '').length, 0);
  const change = { kind: 'setWeight', node: nodeId(1), weight: 50 } as const;
  const apply = timed(() => changedPieces(before, applied(before, change)));
  const view = timed(() => {
    const fresh = new ClusterView();
    fresh.update(before);
  });
  const document = JSON.stringify(before);
  const cache = timed(() => {
    writeTopologyCache(directory, before);
  });
  const parse = timed(() => parseTopology(document));
  const encode = timed(() => reply.encode(routingReply(before)));
  const client = timed(() => {
    new Routes(['seed:1']).useTopology(reply.decode(encode.made));
  });
  const quiet = situationOf(before, 0);
  const lost = situationOf(down(before, 1), 1);
  return [
    `${nodes} x ${shards}`,
    `${kib(pieceBytes)} in ${pieces.size}`,
    kib(document.length),
    kib(encode.made.byteLength),
    shown(apply.ms),
    shown(view.ms),
    shown(cache.ms),
    shown(parse.ms),
    shown(encode.ms),
    shown(client.ms),
    shown(timed(() => decide(quiet)).ms),
    shown(timed(() => decide(lost)).ms),
  ];
}

/** Prints its table itself. */
export function measureTopologies(): void {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-scale-'));
  try {
    const rows = sizes.map(({ nodes, shards }) => [...costsOf(nodes, shards, directory)]);
    printTable(
      [
        'nodes x shards',
        'pieces KiB',
        'document KiB',
        'for a client KiB',
        'a change ms',
        'view ms',
        'to disk ms',
        'parse ms',
        'encode ms',
        'client ms',
        'decide ms',
        'decide, one lost ms',
      ],
      rows,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
