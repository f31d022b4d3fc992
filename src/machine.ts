/**
 * What a node takes from the machine it runs on: files, sockets and chance. The simulator has a
 * machine of its own for the same node.
 */
import { randomInt } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { watchTopology, type TopologyWatchOptions } from '../proto/topology-watch.js';
import { MemoryEngine, RocksEngine, realMachine as realLog } from '../storage/index.js';
import type { Engine, RaftLogSurroundings } from '../storage/index.js';
import { Forwarder, type NodeCalls } from './api/forwarder.js';
import { readTopologyCache, writeTopologyCache } from './cluster/topology-cache.js';
import type { Config } from './config/config.js';
import { Identity } from './config/identity.js';
import type { Topology } from './meta/topology.js';
import type { Clock } from './observe/clock.js';
import { TcpTransport, type TcpTransportOptions } from './transport/tcp-transport.js';
import type { Transport } from './transport/transport.js';

const MiB = 1024 * 1024;

/** The transport of a node, which follows the addresses of the others. */
export type PeerTransport = Transport & Pick<TcpTransport, 'follow' | 'queues'>;

export type NodeIdentity = Pick<
  Identity,
  'nodeId' | 'directoryId' | 'settle' | 'forget' | 'known' | 'remember'
>;

export interface Machine {
  /** Whose the data directory is. Throws IdentityMismatch. */
  openIdentity(config: Config): NodeIdentity;
  openEngine(config: Config): Promise<Engine>;
  readonly raftLog: RaftLogSurroundings;
  /** The last topology that this node knew. */
  readTopology(config: Config): Topology | undefined;
  writeTopology(config: Config, topology: Topology): void;
  /** Left for the data directory. */
  freeBytes(directory: string): Promise<number>;
  /** To the client ports of other nodes. */
  openCalls(clock: Clock): NodeCalls;
  watchTopology(options: TopologyWatchOptions): () => void;
  newTransport(options: TcpTransportOptions): PeerTransport;
  /** Unsigned 32-bit. */
  drawSeed(): number;
}

export const realMachine: Machine = {
  openIdentity({ clusterId, nodeId, dataDirectory: directory, join: addresses }) {
    return addresses.length === 0
      ? Identity.open({ directory, clusterId, nodeId })
      : Identity.openToJoin({ directory, clusterId });
  },
  async openEngine({ engine, dataDirectory, engineMemoryMib }) {
    if (engine === 'memory') return new MemoryEngine();
    return RocksEngine.open({
      directory: join(dataDirectory, 'state'),
      memoryBytesMax: engineMemoryMib * MiB,
    });
  },
  raftLog: realLog,
  readTopology: ({ dataDirectory }) => readTopologyCache(dataDirectory),
  writeTopology: ({ dataDirectory }, topology) => {
    writeTopologyCache(dataDirectory, topology);
  },
  async freeBytes(directory) {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize;
  },
  openCalls: (clock) => new Forwarder(clock),
  watchTopology,
  newTransport: (options) => new TcpTransport(options),
  drawSeed: () => randomInt(2 ** 32),
};
