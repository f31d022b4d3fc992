/** Worlds to decide about, in few words, and what is decided in as few. */
import { expect } from 'chai';
import { nodeId, replicaId } from '../../raft/index.js';
import {
  decide,
  type ShardReport,
  type Sight,
  type Situation,
} from '../../src/cluster/decisions.js';
import type { CommandOf, MetaCommand } from '../../src/meta/commands.js';
import { metadataGroup, shardRecordOf, type Topology } from '../../src/meta/topology.js';
import { after, clusterOf, joinOf } from '../meta/clusters.js';

export const nowMs = 10_000_000;
export const wallMs = 5_000;
export const replaceAfterMs = 300_000;

/** Of one shard with replicas on nodes 1, 2 and 3, unless said otherwise; nodes 4 and 5 are spare. */
export interface World {
  readonly topology: Topology;
  /** ms for which a node has not been connected. */
  readonly silent?: Readonly<Record<number, number>>;
  readonly leadingMs?: number;
  /** Voters and learners of shard 1; left out: those that the topology names. null: no report. */
  readonly voters?: readonly number[] | null;
  readonly learners?: readonly number[];
  /** Voters and learners of the metadata group; left out: no report. */
  readonly metadata?: { readonly voters: readonly number[]; readonly learners?: readonly number[] };
  /** Where the metadata group has members; left out: where the topology says. */
  readonly metadataNodes?: readonly number[];
}

export function situationOf(world: World): Situation {
  const { topology, silent = {}, leadingMs = nowMs } = world;
  const seen = new Map(
    topology.nodes.map(({ id }): [typeof id, Sight] => {
      const ms = silent[id];
      return [
        id,
        ms === undefined ? { connected: true } : { connected: false, sinceMs: nowMs - ms },
      ];
    }),
  );
  return {
    topology,
    seen,
    nowMs,
    wallMs,
    leadingSinceMs: nowMs - leadingMs,
    metadataNodes: world.metadataNodes?.map(nodeId) ?? topology.metadata.map(({ node }) => node),
    reports: reportsOf(world),
  };
}

function reportsOf({ topology, voters, learners = [], metadata }: World): Situation['reports'] {
  const metadataReport: ShardReport | undefined = metadata && {
    voters: metadata.voters.map(replicaId),
    learners: (metadata.learners ?? []).map(replicaId),
  };
  const first = metadataReport ? [[metadataGroup, metadataReport] as const] : [];
  if (voters === null) return new Map(first);
  return new Map([
    ...first,
    ...topology.shards.map((shard): [typeof shard.id, ShardReport] => {
      const named = shard.replicas.map(({ replica }) => replica);
      const said = shard.id === 1 && voters !== undefined ? voters.map(replicaId) : named;
      return [shard.id, { voters: said, learners: learners.map(replicaId) }];
    }),
  ]);
}

export function decided(world: World): readonly MetaCommand[] {
  const situation = situationOf(world);
  const commands = decide(situation);
  const topology = after(situation.topology, ...commands);
  expect(decide({ ...situation, topology }), 'once applied, nothing more').to.deep.equal([]);
  return commands;
}

export function nodesOf(topology: Topology): readonly number[] {
  return (shardRecordOf(topology, 1)?.replicas ?? []).map(({ node }) => node);
}

export function replicasOf(topology: Topology): readonly number[] {
  return (shardRecordOf(topology, 1)?.replicas ?? []).map(({ replica }) => replica);
}

/** Nodes 4 and 5 join later, so that shard 1 has its replicas on 1, 2 and 3. */
export function spareCluster(...commands: readonly MetaCommand[]): Topology {
  return after(clusterOf(3, { shards: 1 }), joinOf(4), joinOf(5), ...commands);
}

export const down = (node: number, at = 3_000): MetaCommand => ({
  kind: 'setNodeState',
  node,
  state: 'down',
  nowMs: at,
});
export const up = (node: number, at: number): MetaCommand => ({
  kind: 'setNodeState',
  node,
  state: 'up',
  nowMs: at,
});
export const replace = (from: number, to: number, at = 3_500): MetaCommand => ({
  kind: 'replaceReplica',
  shard: 1,
  from,
  to,
  nowMs: at,
});
const drainOf = (node: number): CommandOf<'drain'> => ({ kind: 'drain', node, nowMs: 3_000 });
export const drain = (node: number): MetaCommand => drainOf(node);
export const drainTo = (node: number, to: number): MetaCommand => ({ ...drainOf(node), to });
export const setting = (name: string, value: number): MetaCommand => ({
  kind: 'setSetting',
  name,
  value,
});
export const metadataOn = (...nodes: number[]): MetaCommand => ({ kind: 'setMetadata', nodes });

/** Kind and the one thing that matters of it, short enough for a table. */
export function brief(command: MetaCommand): string {
  switch (command.kind) {
    case 'setNodeState':
      return `${command.node} ${command.state}`;
    case 'replaceReplica':
      return `shard ${command.shard}: ${command.from} -> ${command.to}`;
    case 'addReplica':
      return `shard ${command.shard}: + ${command.node}`;
    case 'setMetadata':
      return `metadata: ${command.nodes.join(', ')}`;
    case 'endOperation':
      return `${command.id} ${command.state}: ${command.progress}`;
    default:
      return command.kind;
  }
}
