/** What must hold of every topology, and from each one to the next: checked the slow, obvious way. */
import { expect } from 'chai';
import { overlap } from '../../src/router/pins.js';
import { pinSlotMax, slotCount } from '../../src/router/slot.js';
import { homeOf, ruleOf } from '../../src/meta/pins.js';
import { settingOf } from '../../src/meta/settings.js';
import {
  hostOf,
  nodeOf,
  type MigrationRecord,
  type NodeRecord,
  type ReplicaRecord,
  type Topology,
} from '../../src/meta/topology.js';

/** Remembers over a whole history what an id stood for. */
export class TopologyCheck {
  private readonly replicas = new Map<number, string>();
  private readonly nodes = new Map<number, string>();
  private readonly shards = new Map<number, string>();
  private readonly migrations = new Map<number, string>();
  private readonly pins = new Map<number, string>();
  /** Of each slot, pins among them. */
  private readonly owners = new Uint32Array(pinSlotMax + 1);
  private readonly epochs = new Uint32Array(pinSlotMax + 1);
  private before: Topology | undefined;

  check(topology: Topology): void {
    const { before } = this;
    // Values are never changed in place: what is the same was checked.
    if (topology.slots !== before?.slots) this.checkSlots(topology);
    this.checkNodes(topology);
    this.checkShards(topology);
    this.checkReplicas(topology.metadata, 'metadata', topology);
    expect(topology.metadata, 'metadata replicas').to.not.equal([]);
    this.checkOperations(topology);
    this.checkPins(topology);
    if (topology.slots !== before?.slots || topology.migrations !== before.migrations)
      this.checkMigrations(topology);
    if (before !== undefined) checkPromotions(before, topology);
    this.before = topology;
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
      for (let slot = first; slot <= last; slot++) this.checkOwner(slot, shard, epoch);
    });
    expect(next, 'all slots').to.equal(slotCount);
  }

  /** An epoch never falls, and is one ownership. */
  private checkOwner(slot: number, shard: number, epoch: number): void {
    const [owner = 0, known = 0] = [this.owners[slot], this.epochs[slot]];
    if (epoch < known || (epoch === known && owner !== shard))
      expect.fail(`slot ${slot}: shard ${owner} at ${known}, then shard ${shard} at ${epoch}`);
    this.owners[slot] = shard;
    this.epochs[slot] = epoch;
  }

  /** No key is in two; each is somewhere, for ever the same keys, and with its hash slot while between. */
  private checkPins({ pins, next, slots, shards, migrations }: Topology): void {
    ascending(pins.map(({ slot }) => slot));
    for (const pin of pins) {
      const { slot, shard, epoch, state, key, isPrefix } = pin;
      expect(slot, 'issued').to.be.within(slotCount, next.pin - 1);
      const keys = `${isPrefix} ${key}`;
      expect(this.pins.get(slot) ?? keys, `pin ${slot}`).to.equal(keys);
      this.pins.set(slot, keys);
      expect(shards.some(({ id }) => id === shard)).to.equal(true);
      if (epoch > 0) this.checkOwner(slot, shard, epoch);
      this.owners[slot] = shard;
      const home = homeOf(pin);
      const isIn = (place: number): boolean =>
        migrations.some(
          (each) =>
            !endings.includes(each.state) &&
            each.slots.some(({ first, last }) => place >= first && place <= last),
        );
      if (state !== 'pinned') expect(isIn(home), `slot ${home} stays`).to.equal(false);
      if (state !== 'pinning') continue;
      expect(epoch).to.equal(0);
      expect(isIn(slot), 'not born').to.equal(false);
      expect(slots.find(({ last }) => last >= home)?.shard, 'begins there').to.equal(shard);
    }
    for (const [at, pin] of pins.entries())
      for (const other of pins.slice(at + 1))
        expect(overlap(ruleOf(pin), ruleOf(other)), 'keys in common').to.equal(false);
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
    const { removedShards } = topology;
    const stands = (id: number): boolean => shards.some((each) => each.id === id);
    expect(removedShards.some(stands), 'removed and there').to.equal(false);
    expect(new Set(removedShards).size, 'removed once').to.equal(removedShards.length);
    for (const id of this.shards.keys())
      expect(stands(id) || removedShards.some((each) => each === id), `shard ${id}`).to.equal(true);
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

  /** No slot is in two open ones, and none with anybody else meanwhile. */
  private checkMigrations({ migrations, next, operations, shards }: Topology): void {
    ascending(migrations.map(({ id }) => id));
    const promised = new Uint8Array(pinSlotMax + 1);
    for (const migration of migrations) {
      const { id, source, target, slots, state, hasRun, endedMs } = migration;
      expect(id, 'issued').to.be.lessThan(next.migration);
      const birth = JSON.stringify([source, target, slots]);
      expect(this.migrations.get(id) ?? birth, `migration ${id}`).to.equal(birth);
      this.migrations.set(id, birth);
      const isOpen = !endings.includes(state);
      if (isActive(migration) || state === 'done') expect(hasRun, state).to.equal(true);
      if (isOpen) {
        expect(endedMs).to.equal(0);
        for (const shard of [source, target])
          expect(shards.some((each) => each.id === shard)).to.equal(true);
      }
      let end = -2;
      for (const { first, last } of slots) {
        expect(first, 'ascending, not touching').to.be.greaterThan(end + 1);
        end = last;
        for (let slot = first; isOpen && slot <= last; slot++) {
          const owner = this.owners[slot];
          if (promised[slot] !== 0) expect.fail(`slot ${slot} of migration ${id} is in two`);
          if (owner !== source && owner !== target)
            expect.fail(`slot ${slot} of migration ${id} belongs to shard ${String(owner)}`);
          promised[slot] = 1;
        }
      }
    }
    const awaited = operations.flatMap((each) =>
      each.state === 'running' ? (each.migrations ?? []) : [],
    );
    const kept = migrations.filter(
      ({ id, state }) => endings.includes(state) && !awaited.includes(id),
    );
    expect(kept.length).to.be.at.most(100);
  }
}

/** What has begun to run may: with all that are active beside it. */
function checkPromotions(before: Topology, { migrations, settings }: Topology): void {
  const ran = new Set(before.migrations.filter(isActive).map(({ id }) => id));
  const active = migrations.filter(isActive);
  const begun = active.filter(({ id, state }) => state === 'running' && !ran.has(id));
  for (const { id, source, target } of begun) {
    expect(active.length, `with ${id}`).to.be.at.most(settingOf(settings, 'migrationsMax'));
    expect(active.filter((each) => each.source === source).length, `source of ${id}`).to.equal(1);
    expect(active.filter((each) => each.target === target).length).to.be.at.most(2);
  }
}

function isActive({ state }: MigrationRecord): boolean {
  return state === 'running' || state === 'cancelling' || state === 'failing';
}

const endings: readonly string[] = ['done', 'cancelled', 'failed'];

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
