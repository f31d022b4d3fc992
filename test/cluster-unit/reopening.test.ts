import { expect } from 'chai';
import { nodeId, type GroupId } from '../../raft/index.js';
import { MemoryEngine, RaftLog } from '../../storage/index.js';
import { LocalShards } from '../../src/cluster/local-shards.js';
import type { Group } from '../../src/group/group.js';
import { Host, type GroupOptions } from '../../src/group/host.js';
import type { Topology } from '../../src/meta/topology.js';
import { silentLog } from '../../src/observe/log.js';
import { MemoryNetwork } from '../../src/transport/memory-transport.js';
import { quickRaft, tickMs } from '../group/cluster.js';
import { clusterOf } from '../meta/clusters.js';
import { SimulatedDisk } from '../storage/raft-log/simulated-disk.js';
import { ManualClock } from '../support/manual-clock.js';

class CountingHost extends Host {
  readonly opened: GroupId[] = [];

  override addGroup<R>(options: GroupOptions<R>): Promise<Group<R>> {
    this.opened.push(options.id);
    return super.addGroup(options);
  }
}

/** One node with a replica of every shard, and no metadata group. */
class LoneNode {
  readonly clock = new ManualClock();
  readonly disk = new SimulatedDisk();
  readonly engine = new MemoryEngine();
  private readonly network = new MemoryNetwork({ clock: this.clock });
  fatal: Error | undefined;

  async open(): Promise<{ log: RaftLog; host: CountingHost; shards: LocalShards }> {
    const { clock, engine } = this;
    const node = nodeId(1);
    const onFatal = (error: Error): void => {
      this.fatal ??= error;
    };
    const sizes = { segmentBytes: 65_536, tailBytesMax: 65_536, heldSegmentsMax: 4 };
    const log = await RaftLog.open(
      { directory: '/raft', ...sizes, onFailure: onFatal },
      {
        disk: this.disk.mount(),
        schedule: (run) => {
          clock.endOfTurn(run);
        },
      },
    );
    const host = new CountingHost({
      node,
      log,
      engine,
      transport: this.network.attach(node),
      clock,
      tickMs,
      raft: { ...quickRaft, quietTicks: 0 },
      limits: { proposalsMax: 10, readsMax: 10, durableMarkBytes: 2048, logKeptBytes: 2048 },
      logLine: silentLog,
      seed: 1,
      onFatal,
    });
    const open = (): Promise<never> => Promise.reject(new Error('there is no metadata group'));
    const shards = new LocalShards({
      node,
      host,
      engine,
      clock,
      log: silentLog,
      onFatal,
      isConnected: () => true,
      metadata: { open, drop: () => undefined },
      onOwner: () => undefined,
    });
    return { log, host, shards };
  }

  async settle(): Promise<void> {
    for (let n = 0; n < 50; n++) {
      this.clock.jump(tickMs);
      await this.clock.settle();
    }
  }
}

describe('a node that opens its replicas again', () => {
  it('opens none of them twice when a topology comes meanwhile', async () => {
    const node = new LoneNode();
    const topology: Topology = {
      ...clusterOf(1, { shards: 5, replication: 1 }),
      metadata: [],
    };
    const first = await node.open();
    first.shards.follow(topology);
    await node.settle();
    expect(first.host.opened).to.have.lengthOf(5);
    first.shards.close();
    await first.host.close();
    await first.log.close();

    const { log, host, shards } = await node.open();
    const recovering = shards.recover(log.recovered);
    // The metadata group, which is the first of all, has applied it by now.
    shards.follow(topology);
    await recovering;
    await node.settle();
    expect(host.opened).to.deep.equal([1, 2, 3, 4, 5]);
    expect(node.fatal).to.equal(undefined);
    shards.close();
    await host.close();
    await log.close();
  });
});
