/**
 * Nodes in one process that follow a topology, which the test changes: real hosts, shards and Raft
 * logs over simulated disks, engines and network. No metadata group and no doors.
 */
import { groupId, nodeId, replicaId, type NodeId } from '../../raft/index.js';
import {
  MemoryEngine,
  RaftLog,
  replicaPrefix,
  replicaRange,
  type Pair,
} from '../../storage/index.js';
import {
  LocalShards,
  type LocalShard,
  type MetadataReplica,
} from '../../src/cluster/local-shards.js';
import type { SlotOwner } from '../../src/cluster/cluster-view.js';
import { Host } from '../../src/group/host.js';
import type { MetaCommand } from '../../src/meta/meta-machine.js';
import { shardRecordOf, type ReplicaRecord, type Topology } from '../../src/meta/topology.js';
import type { Slot } from '../../src/router/slot.js';
import { silentLog } from '../../src/observe/log.js';
import { MemoryNetwork, type MemoryTransport } from '../../src/transport/memory-transport.js';
import { quickRaft, tickMs } from '../group/cluster.js';
import { after, clusterOf } from '../meta/clusters.js';
import { bytes, put, text } from '../shard/command-texts.js';
import { randomFrom, SimulatedDisk } from '../storage/raft-log/simulated-disk.js';
import { ManualClock } from '../support/manual-clock.js';

const KiB = 1024;

const noMetadata: MetadataReplica = {
  open: () => Promise.reject(new Error('there is no metadata group here')),
  drop: () => undefined,
};

/** As the topology is, but for the metadata group. */
function shardsOf(topology: Topology): Topology {
  return { ...topology, metadata: [] };
}

export const shardId = groupId(1);

/** What runs while a node is up. */
interface Running {
  readonly host: Host;
  readonly log: RaftLog;
  readonly transport: MemoryTransport;
  readonly shards: LocalShards;
}

export class ShardNode {
  readonly id: NodeId;
  readonly disk = new SimulatedDisk();
  engine = new MemoryEngine();
  running: Running | undefined;
  /** Why it stopped, if it stopped by itself. */
  fatal: Error | undefined;
  /** What its shard said of whose slots are: "slot: shard@epoch". */
  readonly owners: string[] = [];
  private readonly cluster: ShardCluster;

  constructor(cluster: ShardCluster, id: NodeId) {
    this.cluster = cluster;
    this.id = id;
  }

  /** Its replica of the shard, if it has one. */
  get shard(): LocalShard | undefined {
    return this.running?.shards.get(shardId);
  }

  /** `topology`: what it knows when it starts; later ones come by `ShardCluster.change`. */
  async start(topology = this.cluster.topology): Promise<void> {
    const { clock, network, random, quietTicks } = this.cluster;
    const { engine, id: node } = this;
    const onFatal = (error: Error): void => {
      this.fatal ??= error;
      this.kill();
    };
    const log = await this.openLog(this.disk, onFatal);
    const transport = network.attach(node);
    const host = new Host({
      node,
      log,
      engine,
      transport,
      clock,
      tickMs,
      raft: { ...quickRaft, quietTicks },
      limits: { proposalsMax: 1000, readsMax: 1000, durableMarkBytes: 2048, logKeptBytes: 2048 },
      logLine: silentLog,
      seed: random(),
      onFatal,
    });
    const isConnected = (other: NodeId): boolean =>
      transport.peers().some((peer) => peer.node === other && peer.connected);
    const metadata = noMetadata;
    const onOwner = (slot: Slot, { shard, epoch }: SlotOwner): void => {
      this.owners.push(`${slot}: ${shard}@${epoch}`);
    };
    const told = { onFatal, onOwner, log: silentLog };
    const options = { node, host, engine, clock, isConnected, metadata, ...told };
    const shards = new LocalShards(options);
    await shards.recover(log.recovered);
    shards.follow(shardsOf(topology));
    await host.start();
    this.running = { host, log, transport, shards };
  }

  private openLog(disk: SimulatedDisk, onFailure: (error: Error) => void): Promise<RaftLog> {
    const sizes = { segmentBytes: 64 * KiB, tailBytesMax: 64 * KiB, heldSegmentsMax: 4 };
    return RaftLog.open(
      { directory: '/raft', ...sizes, onFailure },
      {
        disk: disk.mount(),
        schedule: (run) => {
          this.cluster.clock.endOfTurn(run);
        },
      },
    );
  }

  /** What a restart would find of the shard in the Raft log, now. */
  async recoverable(): Promise<{ replica: number | undefined; floor: number }> {
    const log = await this.openLog(this.disk.copy(), () => undefined);
    const found = log.recovered.find(({ group }) => group === shardId);
    return { replica: found?.replica, floor: log.removedFloor(shardId) };
  }

  /** Everything the engine holds of a replica, marks included. */
  async pairsOf(replica: number): Promise<readonly Pair[]> {
    const range = replicaRange(replicaPrefix(shardId, replicaId(replica)));
    const iterator = this.engine.iterate({ ...range, pageBytesMax: 1e9 });
    try {
      return await iterator.next();
    } finally {
      await iterator.close();
    }
  }

  /** kill -9: whatever was written is there. */
  kill(): void {
    const { running } = this;
    this.running = undefined;
    running?.shards.close();
    // The ticker stops and the network forgets the node; what is under way ends nowhere.
    if (running !== undefined) void running.host.close();
    this.disk.kill();
    this.engine = this.engine.crash(this.engine.unsyncedLength);
  }
}

interface ShardClusterOptions {
  readonly replicas?: number;
  readonly seed?: number;
  readonly quietTicks?: number;
}

export class ShardCluster {
  readonly clock = new ManualClock();
  readonly network = new MemoryNetwork({ clock: this.clock });
  readonly random: () => number;
  readonly nodes: readonly ShardNode[];
  /** One shard; as many nodes as replicas, and one more. */
  topology: Topology;
  /** Acknowledged, by key. */
  readonly written = new Map<string, string>();

  /** See `RaftOptions`; 0: groups never fall quiet. */
  readonly quietTicks: number;

  private constructor({ replicas = 3, seed = 1, quietTicks = 0 }: ShardClusterOptions) {
    this.quietTicks = quietTicks;
    this.random = randomFrom(seed);
    this.topology = clusterOf(replicas + 1, { shards: 1, replication: replicas });
    this.nodes = this.topology.nodes.map(({ id }) => new ShardNode(this, nodeId(id)));
  }

  static async start(options: ShardClusterOptions): Promise<ShardCluster> {
    const cluster = new ShardCluster(options);
    for (const node of cluster.nodes) await node.start();
    await cluster.write(1);
    return cluster;
  }

  get replicas(): readonly ReplicaRecord[] {
    return shardRecordOf(this.topology, shardId)?.replicas ?? [];
  }

  node(id: number): ShardNode {
    const node = this.nodes[id - 1];
    if (node === undefined) throw new Error(`there is no node ${id}`);
    return node;
  }

  /** The node without a replica. */
  get spare(): ShardNode {
    const spare = this.nodes.find(({ id }) => !this.replicas.some(({ node }) => node === id));
    if (spare === undefined) throw new Error('every node has a replica');
    return spare;
  }

  get leader(): ShardNode | undefined {
    const termOf = (node: ShardNode): number => node.shard?.group.term ?? 0;
    return this.nodes
      .filter(({ shard }) => shard?.group.isLeader)
      .sort((a, b) => termOf(b) - termOf(a))[0];
  }

  /** The metadata group decides something, and every node that is up hears of it. */
  change(command: MetaCommand): void {
    this.topology = after(this.topology, command);
    for (const { running } of this.nodes) running?.shards.follow(shardsOf(this.topology));
  }

  /** Another replica takes the place of the one on this node; gives back the two. */
  replace(from: ShardNode, to: ShardNode): { readonly old: number; readonly new: number } {
    const replicaOn = ({ id }: ShardNode): number =>
      this.replicas.find(({ node }) => node === id)?.replica ?? 0;
    const old = replicaOn(from);
    this.change({ kind: 'replaceReplica', shard: 1, from: from.id, to: to.id, nowMs: 3_000 });
    return { old, new: replicaOn(to) };
  }

  end(state: 'done' | 'cancelled'): void {
    const id = this.topology.operations.at(-1)?.id ?? 0;
    this.change({ kind: 'endOperation', id, state, progress: '', nowMs: 4_000 });
  }

  /** The members are those of the topology, all voters, by the word of whoever leads. */
  get isAsWanted(): boolean {
    const status = this.leader?.shard?.group.status();
    if (status === undefined || status.membership.index > status.commitIndex) return false;
    const { incoming, outgoing, members } = status.membership.membership;
    const wanted = this.replicas.map(({ replica }) => replica).sort((a, b) => a - b);
    return (
      outgoing.length === 0 &&
      String(incoming) === String(wanted) &&
      members.length === incoming.length
    );
  }

  /** Writes so many keys of 400 bytes, through whoever leads, as often as it takes. */
  async write(count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      const key = `key-${this.written.size}`;
      const value = key.padEnd(400, '.');
      let state: 'open' | 'asked' | 'done' = 'open';
      await this.until(`${key} is written`, () => {
        const shard = this.leader?.shard?.shard;
        if (state === 'open' && shard !== undefined) {
          state = 'asked';
          const call = { deadlineMs: Infinity, mayHaveApplied: false };
          const writes = [{ operation: put(key, value), session: undefined }];
          shard.write(writes, call, (error) => {
            state = error === undefined ? 'done' : 'open';
          });
        }
        return state === 'done';
      });
      this.written.set(key, value);
    }
  }

  /** What the leader answers to linearizable reads of all keys that were written. */
  async read(): Promise<ReadonlyMap<string, string>> {
    const keys = [...this.written.keys()];
    const found = new Map<string, string>();
    let state: 'open' | 'asked' | 'done' = 'open';
    await this.until('everything is read', () => {
      const shard = this.leader?.shard?.shard;
      if (state === 'open' && shard !== undefined) {
        state = 'asked';
        const call = { deadlineMs: Infinity, mayHaveApplied: false };
        shard.read(keys.map(bytes), { kind: 'linearizable' }, call, (error, result) => {
          state = error === undefined ? 'done' : 'open';
          for (const kv of result?.values ?? [])
            if (kv !== undefined) found.set(text(kv.key), text(kv.value));
        });
      }
      return state === 'done';
    });
    return found;
  }

  async tick(ticks = 1): Promise<void> {
    for (let i = 0; i < ticks; i++) {
      this.clock.jump(tickMs);
      await this.clock.settle();
    }
  }

  /** Ticks until the condition holds; throws with `what` when it does not within `ticksMax`. */
  async until(
    what: string,
    condition: () => boolean | Promise<boolean>,
    ticksMax = 3000,
  ): Promise<void> {
    await this.clock.settle();
    for (let i = 0; i < ticksMax; i++) {
      if (await condition()) return;
      await this.tick();
    }
    throw new Error(`not within ${ticksMax} ticks: ${what}${this.describe()}`);
  }

  close(): void {
    for (const node of this.nodes) node.kill();
  }

  private describe(): string {
    return this.nodes
      .map(({ id, shard, fatal }) => {
        const status = shard?.group.status();
        const { incoming, outgoing, learners } = status?.membership.membership ?? {};
        const members = JSON.stringify({ incoming, outgoing, learners });
        const role = `replica ${status?.id ?? 'none'} ${status?.role ?? ''}`;
        return `\n  node ${id}: ${role} ${members} ${fatal?.stack ?? ''}`;
      })
      .join('');
  }
}

/** Runs with a cluster and stops its nodes afterwards. */
export async function withShardCluster(
  options: ShardClusterOptions,
  run: (cluster: ShardCluster) => Promise<void>,
): Promise<void> {
  const cluster = await ShardCluster.start(options);
  try {
    await run(cluster);
  } finally {
    cluster.close();
  }
}
