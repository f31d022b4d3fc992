/** What must hold of every topology, and from each one to the next: checked the slow, obvious way. */
import { expect } from 'chai';
import { slotCount } from '../../src/router/slot.js';
import {
  hostOf,
  nodeOf,
  type NodeRecord,
  type ReplicaRecord,
  type Topology,
} from '../../src/meta/topology.js';

/** Remembers over a whole history what an id stood for. */
export class TopologyCheck {
  private readonly replicas = new Map<number, string>();
  private readonly nodes = new Map<number, string>();
  private readonly shards = new Map<number, string>();

  check(topology: Topology): void {
    this.checkSlots(topology);
    this.checkNodes(topology);
    this.checkShards(topology);
    this.checkReplicas(topology.metadata, 'metadata', topology);
    expect(topology.metadata, 'metadata replicas').to.not.equal([]);
    this.checkOperations(topology);
  }

  /** Owned exactly once, by a shard that is there; one way to write it down. */
  private checkSlots({ slots, shards }: Topology): void {
    let next = 0;
    slots.forEach(({ first, last, shard, epoch }, at) => {
      expect(first, 'slots touch').to.equal(next);
      expect(last).to.be.at.least(first);
      expect(epoch).to.be.at.least(1);
      expect(shards.some(({ id }) => id === shard)).to.equal(true);
      const before = slots[at - 1];
      expect(before?.shard === shard && before.epoch === epoch, 'ranges joined').to.equal(false);
      next = last + 1;
    });
    expect(next, 'all slots').to.equal(slotCount);
  }

  private checkNodes({ nodes, next }: Topology): void {
    const live = nodes.filter(({ state }) => state !== 'removed');
    const addresses = live.flatMap((node) => [node.peerAddress, node.clientAddress]);
    expect(new Set(addresses).size, 'addresses differ').to.equal(addresses.length);
    ascending(nodes.map(({ id }) => id));
    for (const { id, directoryId, weight } of nodes) {
      expect(id, 'issued').to.be.lessThan(next.node);
      expect(weight).to.be.within(1, 1000);
      this.nodes.set(id, this.nodes.get(id) ?? directoryId);
      expect(this.nodes.get(id), `node ${id} is one directory`).to.equal(directoryId);
    }
    expect([...this.nodes.keys()].every((id) => nodes.some((node) => node.id === id))).to.equal(
      true,
    );
  }

  private checkShards(topology: Topology): void {
    const { shards, next } = topology;
    ascending(shards.map(({ id }) => id));
    for (const { id, replicas, replication, founders, birthSlots } of shards) {
      expect(id).to.be.lessThan(next.shard);
      expect(replicas.length, 'replicas').to.be.within(1, 7);
      expect(replication).to.be.within(1, 7);
      this.checkReplicas(replicas, `shard ${id}`, topology);
      hostsDiffer(replicas, topology, `shard ${id}`);
      const birth = JSON.stringify([founders, birthSlots]);
      this.shards.set(id, this.shards.get(id) ?? birth);
      expect(this.shards.get(id), `birth of shard ${id}`).to.equal(birth);
    }
    expect([...this.shards.keys()].every((id) => shards.some((each) => each.id === id))).to.equal(
      true,
    );
  }

  /** An id is one replica of one group on one node, for ever (rule D01). */
  private checkReplicas(
    replicas: readonly ReplicaRecord[],
    group: string,
    topology: Topology,
  ): void {
    for (const { replica, node } of replicas) {
      const place = `${group} on node ${node}`;
      expect(replica).to.be.lessThan(topology.next.replica);
      expect(this.replicas.get(replica) ?? place).to.equal(place);
      this.replicas.set(replica, place);
      expect(nodeOf(topology, node)?.state, `node of replica ${replica}`).to.not.be.oneOf([
        undefined,
        'removed',
      ]);
    }
    expect(new Set(replicas.map(({ node }) => node)).size, 'nodes differ').to.equal(
      replicas.length,
    );
  }

  /** Also what a replacement goes back to, when it is given up, is a good shard. */
  private checkOperations(topology: Topology): void {
    const { operations, next, shards } = topology;
    ascending(operations.map(({ id }) => id));
    const moving = new Set<number>();
    for (const { id, state, replacement } of operations) {
      expect(id).to.be.lessThan(next.operation);
      if (state !== 'running' || replacement === undefined) continue;
      const { shard: shardId, from, to } = replacement;
      expect(moving.has(shardId), `one replacement of shard ${shardId}`).to.equal(false);
      moving.add(shardId);
      const shard = shards.find((each) => each.id === shardId);
      expect(shard?.replicas).to.deep.include(to);
      const back = (shard?.replicas ?? []).map((each) =>
        each.replica === to.replica ? from : each,
      );
      this.checkReplicas(back, `shard ${shardId}`, topology);
      hostsDiffer(back, topology, `shard ${shardId} again`);
    }
    expect(operations.filter(({ state }) => state !== 'running').length).to.be.at.most(100);
  }
}

function hostsDiffer(replicas: readonly ReplicaRecord[], topology: Topology, what: string): void {
  const hosts = replicas
    .map(({ node }) => nodeOf(topology, node))
    .filter((node): node is NodeRecord => node !== undefined)
    .map(hostOf);
  expect(new Set(hosts).size, `hosts of ${what} differ: ${hosts.join(', ')}`).to.equal(
    replicas.length,
  );
}

function ascending(ids: readonly number[]): void {
  ids.forEach((id, at) => {
    expect(id).to.be.greaterThan(ids[at - 1] ?? 0);
  });
}

/** So that whoever changes a value in place is found out. */
export function deeplyFrozen<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) deeplyFrozen(part);
  }
  return value;
}
