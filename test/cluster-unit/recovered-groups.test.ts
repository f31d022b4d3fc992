import { expect } from 'chai';
import {
  groupId,
  membershipOf,
  newGroupState,
  nodeId,
  RawNode,
  replicaId,
  type Member,
  type Membership,
  type RaftStatus,
} from '../../raft/index.js';
import { MemoryEngine, RaftLog } from '../../storage/index.js';
import { Metadata } from '../../src/cluster/metadata.js';
import { RecoveredGroups } from '../../src/cluster/recovered-groups.js';
import { KvError } from '../../src/errors.js';
import { Host, type HostedGroup } from '../../src/group/host.js';
import { applyCommand } from '../../src/meta/apply-command.js';
import { parseMetaCommand } from '../../src/meta/commands.js';
import { shardRecordOf, type Topology } from '../../src/meta/topology.js';
import { MemoryNetwork } from '../../src/transport/memory-transport.js';
import { quickRaft, smallLimits, tickMs } from '../group/cluster.js';
import { SimulatedDisk } from '../storage/raft-log/simulated-disk.js';
import { ManualClock } from '../support/manual-clock.js';
import { clusterOf, firstNode, initOf, joinOf } from '../meta/clusters.js';

const clock = new ManualClock();

/** A metadata group of one, on node 1, of the given generation; it leads. */
async function metadataOf(generation: number): Promise<{ metadata: Metadata; host: Host }> {
  const fail = (error: Error): void => {
    throw error;
  };
  const engine = new MemoryEngine();
  const sizes = { segmentBytes: 65_536, tailBytesMax: 65_536, heldSegmentsMax: 4 };
  const log = await RaftLog.open(
    { directory: '/raft', ...sizes, onFailure: fail },
    {
      disk: new SimulatedDisk().mount(),
      schedule: (run) => {
        clock.endOfTurn(run);
      },
    },
  );
  const host = new Host({
    node: nodeId(1),
    log,
    engine,
    transport: new MemoryNetwork({ clock }).attach(nodeId(1)),
    clock,
    tickMs,
    raft: quickRaft,
    limits: smallLimits,
    logLine: () => undefined,
    seed: 1,
    onFatal: fail,
  });
  const metadata = new Metadata({
    host,
    engine,
    addressOf: () => '',
    onTopology: () => undefined,
  });
  const founders = [{ replica: replicaId(1), node: nodeId(1) }];
  await metadata.open(replicaId(1), founders, generation);
  await host.start();
  for (let ticks = 0; !metadata.isLeader; ticks++) {
    if (ticks > 200) throw new Error('nobody leads');
    await tick();
  }
  return { metadata, host };
}

async function tick(): Promise<void> {
  clock.jump(tickMs);
  await clock.settle();
}

async function outcomeOf<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  for (let ticks = 0; ticks < 20; ticks++) await tick();
  return promise;
}

describe('D07: a metadata group that was recovered', () => {
  it('D01: gives out nothing before it has leapt over what the lost majority may have given out', async () => {
    const { metadata, host } = await metadataOf(5);
    const metadataMembers = [{ replica: 1, node: 1 }];
    const init = initOf([firstNode(1)], { metadata: metadataMembers, replication: 1 });
    await outcomeOf(metadata.run(init));
    const refusal = await outcomeOf(metadata.run(joinOf(2))).catch((error: unknown) => error);
    expect(refusal).to.be.instanceOf(KvError);
    expect(refusal).to.include({ code: 'KV_UNAVAILABLE', outcome: 'notApplied' });
    await outcomeOf(
      metadata.run({ kind: 'recoverGroup', group: 0, generation: 5, members: metadataMembers }),
    );
    const { issued } = await outcomeOf(metadata.run(joinOf(2)));
    expect(issued.node).to.be.greaterThan(1_000_000);
    await host.close();
  });
});

// ---- shards

const shard = groupId(1);

function memberOn(node: number, replica = node): Member {
  return { id: replicaId(replica), node: nodeId(node) };
}

/** What the leader of a recovered shard, replica 1 on node 1, says to the topology. */
function topologyAfter(
  topology: Topology,
  membership: Membership,
  fields: Partial<RaftStatus> = {},
): Topology {
  let now = topology;
  const core = new RawNode(
    { ...quickRaft, id: replicaId(1), seed: 1, silentTicks: 0 },
    newGroupState(membership),
  );
  const status: RaftStatus = {
    ...core.status(),
    commitIndex: 9,
    membership: { index: 7, membership },
    ...fields,
  };
  const group: Pick<HostedGroup, 'id' | 'isLeader' | 'generation' | 'status'> = {
    id: shard,
    isLeader: true,
    generation: 5,
    status: () => status,
  };
  const recovered = new RecoveredGroups({
    clock,
    log: () => undefined,
    host: { allGroups: () => [group] },
    view: { topology },
    run: (text) => {
      const command = parseMetaCommand(JSON.parse(text), 0);
      now = applyCommand(now, { command }).topology;
      return Promise.resolve();
    },
  });
  clock.jump(1000);
  recovered.close();
  return now;
}

function replicasIn(topology: Topology): readonly number[] {
  return (shardRecordOf(topology, shard)?.replicas ?? []).map(({ replica }) => replica);
}

describe('D07: what the leader of a recovered shard tells the topology', () => {
  const topology = clusterOf(4, { shards: 1 });

  it('is all its committed members: those that were added since are not removed again', () => {
    const members = [memberOn(1), memberOn(2, 1_000_010), memberOn(4, 1_000_011)];
    const told = topologyAfter(topology, membershipOf(members));
    expect(replicasIn(told)).to.have.members([1, 1_000_010, 1_000_011]);
    expect(replicasIn(told)[0]).to.equal(1);
    expect(told.next.replica).to.equal(1_000_012);
  });

  it('is nothing while its members are changing', () => {
    const membership = membershipOf([memberOn(1), memberOn(2, 10)]);
    const pending = topologyAfter(topology, membership, { commitIndex: 6 });
    expect(pending).to.equal(topology);
    const joint = { ...membership, outgoing: [replicaId(1)] };
    expect(topologyAfter(topology, joint)).to.equal(topology);
  });

  it('is no more than the shard is to have: who was to be replaced goes, before that who is only built', () => {
    const voters = [memberOn(1), memberOn(2), memberOn(3), memberOn(4, 10)];
    expect(replicasIn(topologyAfter(topology, membershipOf(voters)))).to.deep.equal([1, 10, 3]);
    const building = membershipOf(voters.slice(0, 3), voters.slice(3));
    expect(replicasIn(topologyAfter(topology, building))).to.deep.equal([1, 3, 2]);
  });

  it('leaves out a member on a node that the metadata group forgot', () => {
    const members = [memberOn(1), memberOn(99, 20)];
    expect(replicasIn(topologyAfter(topology, membershipOf(members)))).to.deep.equal([1]);
  });
});
