/**
 * The two lower floors of a node, and who it is: identity, state engine, Raft log, transport, host.
 */
import { join } from 'node:path';
import { nodeId, type NodeId } from '../raft/index.js';
import { RaftLog, type Engine } from '../storage/index.js';
import type { NodeCalls } from './api/forwarder.js';
import { fetchTopology, joinCluster, type Joined } from './api/joining.js';
import { stepBytesMax } from './api/limits.js';
import { NodeLink } from './api/node-link.js';
import { sampleOf } from './cluster/shard-sample.js';
import { formatAddress, parseAddress, type Address } from './config/address.js';
import type { Config } from './config/config.js';
import { KvError } from './errors.js';
import { Host, type RaftSettings } from './group/host.js';
import { realMachine, type Machine, type NodeIdentity, type PeerTransport } from './machine.js';
import type { Topology } from './meta/topology.js';
import type { Clock } from './observe/clock.js';
import type { Log } from './observe/log.js';
import { Meters } from './observe/meters.js';
import type { MetricsSource } from './observe/metrics.js';

const MiB = 1024 * 1024;

export interface FoundationOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  /** Called once, before anything else is opened: a node that joins is given its id by the cluster. */
  readonly onIdentity: (nodeId: number) => void;
  /** The node cannot go on; nothing is acknowledged any more. Called once. */
  readonly onFatal: (error: Error) => void;
  /** The real one if left out. */
  readonly machine?: Machine;
}

/** Everything below the services. */
export interface Foundations {
  readonly node: NodeId;
  readonly identity: NodeIdentity;
  readonly engine: Engine;
  readonly raftLog: RaftLog;
  readonly transport: PeerTransport;
  readonly host: Host;
  readonly forwarder: NodeCalls;
  readonly link: NodeLink;
  readonly meters: Meters;
  /** What a node that has joined knows of the cluster from the beginning. */
  readonly topology: Topology | undefined;
  readonly machine: Machine;
}

/** Who this node is; one that joins asks the cluster for its id, once. */
async function findIdentity(
  { config, log, clock, machine = realMachine }: FoundationOptions,
  link: NodeLink,
): Promise<{ identity: NodeIdentity; topology: Topology | undefined }> {
  const { clusterId, join: addresses } = config;
  const identity = machine.openIdentity(config);
  // Without its copy a first node asks the others, once it runs (api/topology-feed.ts).
  if (addresses.length === 0) return { identity, topology: machine.readTopology(config) };
  const joining = { addresses, link, clock, log };
  if (identity.nodeId > 0) {
    return { identity, topology: machine.readTopology(config) ?? (await fetchTopology(joining)) };
  }
  const joined: Joined = await joinCluster(
    {
      clusterId,
      directoryId: identity.directoryId,
      peerAddress: formatAddress(config.peerAddress),
      clientAddress: formatAddress(config.clientAddress),
      labels: [...config.labels],
      weight: config.weight,
    },
    joining,
  ).catch((error: unknown) => {
    if (error instanceof KvError && error.code === 'KV_INVALID') identity.forget();
    throw error;
  });
  identity.settle(joined.nodeId);
  log('info', { joined: joined.nodeId }, 'joined the cluster');
  return { identity, topology: joined.topology };
}

/** Every other node that has an address: the first ones, and those of the topology. */
export function peerAddresses(
  config: Config,
  topology: Topology | undefined,
): ReadonlyMap<NodeId, Address> {
  const addresses = new Map<NodeId, Address>(
    config.initialCluster.map(({ node, peer }) => [nodeId(node), peer]),
  );
  for (const { id, peerAddress, state } of topology?.nodes ?? []) {
    const address = parseAddress(peerAddress);
    if (state === 'removed') addresses.delete(id);
    else if (address !== undefined) addresses.set(id, address);
  }
  return addresses;
}

/** Opens what is on disk; rejects with a message that names the remedy. Listens to nobody yet. */
export async function layFoundations(options: FoundationOptions): Promise<Foundations> {
  const { config, log, clock, onFatal, machine = realMachine } = options;
  const meters = new Meters(clock);
  const forwarder = machine.openCalls(clock);
  const link = new NodeLink(forwarder, clock);
  const { identity, topology } = await findIdentity(options, link);
  options.onIdentity(identity.nodeId);
  // First the engine: its lock keeps a second process away from the Raft log as well.
  const engine = await machine.openEngine(config);
  const raftLog = await RaftLog.open(
    {
      directory: join(config.dataDirectory, 'raft-log'),
      segmentBytes: config.segmentMib * MiB,
      tailBytesMax: 4 * MiB,
      heldSegmentsMax: 16,
      onFailure: onFatal,
      onWrite: (bytes) => meters.writing(bytes),
    },
    machine.raftLog,
  );
  const own = {
    clusterId: config.clusterId,
    nodeId: nodeId(identity.nodeId),
    directoryId: identity.directoryId,
  };
  const transport = machine.newTransport({
    own,
    listen: config.peerAddress,
    peers: peerAddresses(config, topology),
    clock,
    log,
    registry: identity,
    onFrame: (bytes) => {
      meters.frameBytes.observe(bytes);
    },
  });
  const host = new Host({
    node: own.nodeId,
    log: raftLog,
    engine,
    transport,
    clock,
    tickMs: config.tickMs,
    raft: raftSettings(config),
    limits: {
      proposalsMax: 100_000,
      readsMax: 100_000,
      durableMarkBytes: Math.min(8, config.logKeptMib / 2) * MiB,
      logKeptBytes: config.logKeptMib * MiB,
    },
    logLine: log,
    seed: machine.drawSeed(),
    readContexts: `${machine.drawSeed().toString(16)}-${machine.drawSeed().toString(16)}-`,
    onFatal,
  });
  const node = own.nodeId;
  const below = { node, identity, engine, raftLog, transport, host };
  return { ...below, forwarder, link, meters, topology, machine };
}

function raftSettings(config: Config): RaftSettings {
  const { electionTicks, heartbeatTicks } = config;
  return {
    electionTicks,
    heartbeatTicks,
    // The rest of an election timeout is the drift that clocks may have (R31, R33).
    leaseTicks: config.leases ? Math.floor((electionTicks * config.leasePercent) / 100) : 0,
    preVote: true,
    checkQuorum: true,
    entryBytesMax: stepBytesMax(config.requestBytesMax, config.batchLengthMax),
    messageBytesMax: MiB,
    inflightMessagesMax: 256,
    inflightBytesMax: 16 * MiB,
    uncommittedBytesMax: config.uncommittedMib * MiB,
    windowBytesMax: 16 * MiB,
    // A disk or apply loop that has not moved for two election timeouts hangs.
    stalledTicksMax: electionTicks * 2,
    quietTicks: Math.ceil(config.quietAfterMs / config.tickMs),
    promoteLagMax: 64,
  };
}

/** Where the figures of `/metrics` come from; `rest`: those of the services above. */
export function metricsSource(
  { host, transport, raftLog, engine, forwarder }: Foundations,
  rest: Pick<MetricsSource, 'loopDelay' | 'gauges' | 'queues'>,
): MetricsSource {
  return {
    ...rest,
    shards: () => host.allGroups().map(sampleOf),
    peers: () => transport.peers(),
    queues: () => [...host.queues(), ...transport.queues(), ...rest.queues()],
    transport: () => transport.statistics(),
    raftLog: () => ({ ...raftLog.statistics() }),
    engine: () => engine.statistics(),
    forwarded: () => forwarder.forwarded,
  };
}
