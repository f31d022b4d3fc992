/**
 * What a node consists of between its foundations and its client port: the metadata group, the
 * replicas of shards, what is known of everybody else, and the space on its disk.
 */
import { nodeId, replicaId } from '../raft/index.js';
import { ClusterView } from './cluster/cluster-view.js';
import { LocalShards } from './cluster/local-shards.js';
import { Metadata } from './cluster/metadata.js';
import { TopologyKeeper } from './cluster/topology-cache.js';
import { formatAddress } from './config/address.js';
import type { Config } from './config/config.js';
import {
  layFoundations,
  peerAddresses,
  type FoundationOptions,
  type Foundations,
} from './foundations.js';
import type { Machine } from './machine.js';
import { generationOf, type Topology } from './meta/topology.js';
import type { Clock } from './observe/clock.js';
import { DiskSpace } from './observe/disk-space.js';
import type { Log } from './observe/log.js';

const MiB = 1024 * 1024;

export interface NodeParts {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Log;
  /** The node must stop. */
  readonly onFatal: (error: Error) => void;
  readonly foundations: Foundations;
  readonly metadata: Metadata;
  readonly shards: LocalShards;
  readonly view: ClusterView;
  readonly cache: TopologyKeeper;
  readonly disk: DiskSpace;
  /** Takes a topology from wherever it came, unless it is older than what is known. */
  readonly onTopology: (topology: Topology) => void;
  /** Of a node's client port, also before there is a cluster; undefined for one that is not known. */
  readonly clientAddressOf: (node: number) => string | undefined;
}

/** Recovers what is on disk and joins its groups. Rejects with a message that names the remedy. */
export async function openParts(options: FoundationOptions): Promise<NodeParts> {
  const { config, clock, log, onFatal } = options;
  const foundations = await layFoundations(options);
  const { node: own, host, engine, raftLog, transport, machine } = foundations;
  const view = new ClusterView();
  const cache = new TopologyKeeper(clock, (topology) => {
    keepTopology(topology, options, machine);
  });
  host.generationOf = (group) => generationOf(view.topology, group);
  const onTopology = (topology: Topology): void => {
    if (topology.version <= view.version) return;
    view.update(topology);
    transport.follow(peerAddresses(config, topology));
    shards.follow(topology);
    cache.keep(topology);
  };
  const addressOf = (node: number): string | undefined => clientAddressOf(node, { view, config });
  const metadata = new Metadata({
    host,
    engine,
    addressOf: (node) => addressOf(node) ?? '',
    onTopology,
  });
  const shards = new LocalShards({
    node: own,
    host,
    engine,
    clock,
    log,
    onFatal: options.onFatal,
    isConnected: (node) => transport.peers().some((peer) => peer.node === node && peer.connected),
    metadata,
    onOwner: (slot, owner) => {
      view.learnOwner(slot, owner);
    },
  });
  // Before the topology is known: a restarted node votes and serves with what it had.
  await shards.recover(raftLog.recovered);
  // The first nodes are the metadata group's first voters; who joins is given a replica, or none.
  const founders = config.initialCluster.map(({ node }) => ({
    replica: replicaId(node),
    node: nodeId(node),
  }));
  if (config.join.length === 0) await shards.found(replicaId(own), founders);
  if (foundations.topology !== undefined) onTopology(foundations.topology);
  const disk = await openDiskSpace(options, foundations);
  const parts = {
    config,
    clock,
    log,
    onFatal,
    foundations,
    metadata,
    shards,
    view,
    cache,
    disk,
    onTopology,
  };
  return { ...parts, clientAddressOf: addressOf };
}

/**
 * It is only a copy, of which nothing is acknowledged: a disk that fails is found out by who has to be sure,
 * in the next write to the Raft log.
 */
function keepTopology(
  topology: Topology,
  { config, log }: FoundationOptions,
  machine: Machine,
): void {
  try {
    machine.writeTopology(config, topology);
  } catch (error) {
    const { version } = topology;
    log(
      'warn',
      { version, error: String(error) },
      'cannot keep the topology in the data directory: after a restart other nodes are asked for it; ' +
        'is the disk full, or the directory not writable?',
    );
  }
}

function openDiskSpace(
  { config, clock, log }: FoundationOptions,
  { raftLog, machine }: Foundations,
): Promise<DiskSpace> {
  return DiskSpace.open({
    measure: () => machine.freeBytes(config.dataDirectory),
    reserveBytes: config.diskReserveMib * MiB,
    clock,
    writtenBytes: () => raftLog.statistics().writtenBytes,
    onError: (error) => {
      log('warn', { error: String(error) }, 'cannot measure the space left on disk');
    },
    onChange: (full, freeBytes) => {
      log(
        full ? 'error' : 'info',
        { freeBytes },
        full ? 'disk nearly full: writes are refused' : 'disk has room again',
      );
    },
  });
}

function clientAddressOf(
  node: number,
  { view, config }: { readonly view: ClusterView; readonly config: Config },
): string | undefined {
  const address = view.clientAddressOf(node);
  if (address !== undefined) return address;
  const member = config.initialCluster.find((each) => each.node === node);
  return member === undefined ? undefined : formatAddress(member.client);
}
