import { expect } from 'chai';
import { groupId, nodeId, replicaId, type Entry } from '../../raft/index.js';
import {
  instanceRange,
  MemoryEngine,
  RaftLog,
  readAppliedMark,
  replicaPrefix,
  type EngineBatch,
  type KeyRange,
} from '../../storage/index.js';
import { Host } from '../../src/group/host.js';
import type { Applied } from '../../src/group/state-machine.js';
import { slotOf } from '../../src/router/slot.js';
import type { CommandResult } from '../../src/shard/command.js';
import { encodeWrites } from '../../src/shard/command-codec.js';
import { WholeShard } from './replica.js';
import { MemoryNetwork } from '../../src/transport/memory-transport.js';
import { quickRaft, readIndex, smallLimits, withCluster } from '../group/cluster.js';
import { SimulatedDisk } from '../storage/raft-log/simulated-disk.js';
import { ManualClock } from '../support/manual-clock.js';
import { bytes, put, write } from './command-texts.js';

const yearMs = 365 * 86_400_000;
const KiB = 1024;

/** What the engine was asked to do, and what callers were told, in order. */
class RecordingEngine extends MemoryEngine {
  readonly steps: string[] = [];

  override write(batch: EngineBatch, options: { readonly sync: boolean }): Promise<void> {
    this.steps.push('write');
    return super.write(batch, options);
  }

  override async clear(range: KeyRange): Promise<void> {
    this.steps.push('clear begins');
    await new Promise((resolve) => setImmediate(resolve));
    await super.clear(range);
    this.steps.push('clear ends');
  }
}

/** A shard whose every batch drops an instance of a slot, as the end of a migration does. */
class ClearingMachine extends WholeShard {
  override async apply(
    entries: readonly Entry[],
    batch: EngineBatch,
  ): Promise<Applied<CommandResult>> {
    const { results } = await super.apply(entries, batch);
    const slot = slotOf(bytes('gone'));
    return { results, clears: [instanceRange(this.prefix, { slot, instance: 0 })] };
  }
}

async function openHost(engine: RecordingEngine, clock: ManualClock): Promise<Host> {
  const log = await RaftLog.open(
    {
      directory: '/raft',
      segmentBytes: 64 * KiB,
      tailBytesMax: 64 * KiB,
      heldSegmentsMax: 4,
      onFailure: (error) => {
        throw error;
      },
    },
    {
      disk: new SimulatedDisk().mount(),
      schedule: (run) => {
        clock.endOfTurn(run);
      },
    },
  );
  return new Host({
    node: nodeId(1),
    log,
    engine,
    transport: new MemoryNetwork({ clock }).attach(nodeId(1)),
    clock,
    tickMs: 10,
    raft: quickRaft,
    limits: smallLimits,
    logLine: () => undefined,
    seed: 1,
    onFatal: (error) => {
      throw error;
    },
  });
}

describe('shard over real groups', () => {
  it('D26: clears come after their batch with its applied index, and before the next batch', async () => {
    const engine = new RecordingEngine();
    const clock = new ManualClock();
    const prefix = replicaPrefix(groupId(1), replicaId(1));
    const host = await openHost(engine, clock);
    const group = await host.addGroup<CommandResult>({
      id: groupId(1),
      replica: replicaId(1),
      firstMembers: [{ id: replicaId(1), node: nodeId(1) }],
      createMachine: () => new ClearingMachine(engine, prefix),
    });
    await host.start();
    for (let tick = 0; !group.isLeader && tick < 100; tick++) {
      clock.jump(10);
      await clock.settle();
    }
    await clock.settle();
    engine.steps.length = 0;
    for (const key of ['gone', 'kept']) {
      group.propose(encodeWrites([write(put(key, 'v'))], 1000), ({ kind }) => {
        engine.steps.push(kind);
      });
      // The second one is committed while the first one's clear is under way.
      await new Promise((resolve) => setImmediate(resolve));
    }
    await clock.settle();
    const once = ['write', 'clear begins', 'clear ends', 'applied'];
    expect(engine.steps).to.deep.equal([...once, ...once]);
    expect((await readAppliedMark(engine, prefix)).index).to.equal(group.appliedIndex);
    await host.close();
  });

  it('D15: a replica that takes a snapshot in has no age: stale reads are refused until it is fresh', () =>
    withCluster({ limits: { durableMarkBytes: 2048, logKeptBytes: 2048 } }, async (cluster) => {
      await cluster.writeMany('early-', 5);
      const [node] = cluster.followers(await cluster.leader());
      if (node === undefined) throw new Error('no follower');
      await cluster.outcome(readIndex(node));
      expect(node.group().caughtUpAtMs).to.be.greaterThan(Number.NEGATIVE_INFINITY);
      cluster.network.setNode(node.id, false);
      await cluster.writeMany('missed-', 60, 400);
      const ages: number[] = [];
      cluster.network.onChunk = (chunk) => {
        ages.push(node.group().caughtUpAtMs);
        return Promise.resolve(chunk);
      };
      cluster.network.setNode(node.id, true);
      await cluster.converge();
      expect(ages.length).to.be.greaterThan(0);
      expect(ages.slice(1), 'while it comes in').to.deep.equal(
        ages.slice(1).map(() => Number.NEGATIVE_INFINITY),
      );
      expect(node.group().caughtUpAtMs, 'installed').to.equal(Number.NEGATIVE_INFINITY);
      await cluster.outcome(readIndex(node));
      expect(node.group().caughtUpAtMs).to.be.greaterThan(Number.NEGATIVE_INFINITY);
    }));

  it('D22: one clock that is ahead does not move log time while another voter is away', () =>
    withCluster({}, async (cluster) => {
      for (const node of cluster.nodes) {
        const transport = node.running?.transport;
        if (transport === undefined) throw new Error('no transport');
        const peers = transport.peers.bind(transport);
        transport.peers = () =>
          peers().map((peer, n) => ({ ...peer, clockOffsetMs: n === 0 ? yearMs : undefined }));
      }
      const leader = await cluster.leader();
      const leaderships = leader.ledger().leaderships.filter(({ leading }) => leading);
      const [{ clockMedianMs } = { clockMedianMs: Number.NaN }] = leaderships;
      expect(clockMedianMs).to.be.within(cluster.clock.wallMs() - 60_000, cluster.clock.wallMs());
    }));
});
