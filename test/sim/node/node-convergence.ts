/**
 * What must become true once all faults have ended: leaders soon, equal replicas, the members that the
 * topology names, no migration left and nothing of one, and the same map everywhere.
 */
import { SlotOwnership, isServing, type SlotState } from '../../../src/shard/slot-state.js';
import { isEnded } from '../../../src/meta/migrations.js';
import { metadataGroup, type Topology } from '../../../src/meta/topology.js';
import { homeOf, isBetween, nameOfPin, ownerOf } from '../../../src/meta/pins.js';
import { isPin } from '../../../src/router/pins.js';
import { anySlot, slotCount, slotOf, type Slot } from '../../../src/router/slot.js';
import type { HostedGroup } from '../../../src/group/host.js';
import { decodeSlotKey, replicaPrefix, slotRange } from '../../../storage/index.js';
import type { NodeOperator } from './node-operator.js';
import type { SimNode } from './sim-node.js';
import type { NodeWorld } from './sim-node.js';

const slotLast = 0xfffd;

export class NodeConvergence {
  private readonly world: NodeWorld;
  private readonly operator: NodeOperator;

  constructor(world: NodeWorld, operator: NodeOperator) {
    this.world = world;
    this.operator = operator;
  }

  /** Groups that nobody leads, in words. */
  leaderless(): string | undefined {
    const { shards } = this.operator.topology;
    for (const id of [metadataGroup, ...shards.map((shard) => shard.id)])
      if (this.leaderOf(id) === undefined) return `group ${id} has no leader`;
    return undefined;
  }

  /** What is not well yet, in words. */
  missing(): string | undefined {
    const { topology } = this.operator;
    return (
      this.leaderless() ??
      openWork(topology) ??
      this.maps(topology) ??
      this.members(topology) ??
      this.replicas(topology) ??
      this.slots(topology)
    );
  }

  /** Equal states at equal indexes, and no key that belongs to nobody. Throws. */
  async requireEqual(): Promise<void> {
    const hashes = new Map<
      number,
      { readonly hash: string; readonly node: number; index: number }
    >();
    for (const node of this.world.nodes) {
      for (const group of groupsOf(node)) {
        const { hash, appliedIndex: index } = await group.hash();
        const known = hashes.get(group.id);
        if (known === undefined) hashes.set(group.id, { hash, node: node.id, index });
        else if (known.index === index && known.hash !== hash)
          throw new Error(
            `group ${group.id}: the states of nodes ${known.node} and ${node.id} differ at ${index}`,
          );
        if (group.id !== metadataGroup) await requireNoOrphans(node, group);
      }
    }
  }

  state(): string {
    const lines = this.world.nodes.map((node) => {
      const groups = groupsOf(node).map((group) => {
        const { role, term, leader, commitIndex, lastIndex, appliedIndex, restoring, membership } =
          group.status();
        const { incoming, outgoing, learners } = membership.membership;
        return (
          `\n    ${group.id}/${group.replica} ${role} term=${term} leader=${leader} commit=${commitIndex} ` +
          `last=${lastIndex} applied=${appliedIndex}${restoring ? ' restoring' : ''} ` +
          JSON.stringify({ incoming, outgoing, learners })
        );
      });
      const how = node.isDestroyed ? 'lost' : node.isRunning ? 'runs' : 'down';
      return `\n  node ${node.id} ${how} map=${node.port?.parts.view.version ?? 0}${groups.join('')}`;
    });
    const { migrations, operations, pins, shards, metadata, nodes } = this.operator.topology;
    const open = operations.filter(({ state }) => state === 'running');
    const migrating = migrations.filter((each) => !isEnded(each));
    const picture = JSON.stringify({ metadata, shards, pins, migrating, open, nodes });
    return `${lines.join('')}\n  ${picture}`;
  }

  private leaderOf(id: number): HostedGroup | undefined {
    const leaders = this.world.nodes
      .flatMap(groupsOf)
      .filter((group) => group.id === id && group.isLeader);
    return leaders.sort((a, b) => b.status().term - a.status().term)[0];
  }

  private maps({ version }: Topology): string | undefined {
    const behind = this.world.nodes.find(
      ({ port, isDestroyed }) => !isDestroyed && port?.parts.view.version !== version,
    );
    return behind && `node ${behind.id} does not know version ${version} of the topology`;
  }

  private members({ metadata, shards }: Topology): string | undefined {
    for (const { id, replicas } of [{ id: metadataGroup, replicas: metadata }, ...shards]) {
      const { incoming, outgoing, members } =
        this.leaderOf(id)?.status().membership.membership ?? {};
      const wanted = replicas.map(({ replica }) => replica).sort((a, b) => a - b);
      const isSettled = outgoing?.length === 0 && members?.length === incoming?.length;
      if (!isSettled || String(incoming) !== String(wanted))
        return `group ${id} has members ${String(incoming)}, wanted are ${String(wanted)}`;
    }
    return undefined;
  }

  private replicas({ metadata, shards }: Topology): string | undefined {
    for (const node of this.world.nodes) {
      for (const group of groupsOf(node)) {
        const named =
          group.id === metadataGroup
            ? metadata
            : shards.find(({ id }) => id === group.id)?.replicas;
        if (named?.some(({ replica }) => replica === group.replica) !== true)
          return `node ${node.id} still has replica ${group.replica} of group ${group.id}`;
        const { appliedIndex, restoring } = group.status();
        const leader = this.leaderOf(group.id)?.status();
        if (restoring || appliedIndex !== leader?.lastIndex)
          return `group ${group.id} on node ${node.id} stands at ${appliedIndex}, its leader at ${leader?.lastIndex}`;
      }
    }
    return undefined;
  }

  private slots(topology: Topology): string | undefined {
    for (const node of this.world.nodes) {
      for (const { id, shard } of node.port?.parts.shards.all() ?? []) {
        const [moving] = shard.slotsInMigration;
        if (moving !== undefined) return `slot ${moving} is still on its way at shard ${id}`;
        for (const slot of slotsInUse(topology, this.world.plan.tags)) {
          const owner = ownerOf(topology, slot);
          const state = shard.slotState(slot);
          if (isServing(state) !== (owner === id))
            return `shard ${id} on node ${node.id} has slot ${slot} as ${state.ownership}, its owner is ${owner}`;
          const named = isPin(slot) ? [] : topology.pins.filter((pin) => homeOf(pin) === slot);
          const [pinned, wanted] = [pinsOf(state), numbersOf(named)];
          if (owner === id && !isPin(slot) && pinned !== wanted)
            return `shard ${id} on node ${node.id} has pins ${pinned} of slot ${slot}, wanted are ${wanted}`;
        }
      }
    }
    return undefined;
  }
}

function openWork({ migrations, operations, pins }: Topology): string | undefined {
  const migration = migrations.find((each) => !isEnded(each));
  if (migration !== undefined) return `migration ${migration.id} is ${migration.state}`;
  const pin = pins.find(isBetween);
  if (pin !== undefined) return `pin ${pin.slot} (${nameOfPin(pin)}) is ${pin.state}`;
  const operation = operations.find(({ state }) => state === 'running');
  return (
    operation && `operation ${operation.id} is running: ${operation.what}: ${operation.progress}`
  );
}

/** Of hashed tags, and all pins that ever were. */
function slotsInUse({ next }: Topology, tags: readonly string[]): readonly Slot[] {
  const pins = Array.from({ length: next.pin - slotCount }, (_, n) => anySlot(slotCount + n));
  return [...tags.map((tag) => slotOf(Buffer.from(`{${tag}}`))), ...pins];
}

const numbersOf = (pins: readonly { readonly slot: number }[]): string =>
  String(pins.map(({ slot }) => slot).sort((a, b) => a - b));
const pinsOf = ({ pins }: SlotState): string => numbersOf(pins);

function groupsOf({ port }: SimNode): readonly HostedGroup[] {
  return port?.parts.foundations.host.allGroups() ?? [];
}

/** No key outside of the slots that the shard has (R73). */
async function requireNoOrphans(node: SimNode, { id, replica }: HostedGroup): Promise<void> {
  const shard = node.port?.parts.shards.get(id)?.shard;
  if (shard === undefined) return;
  const prefix = replicaPrefix(id, replica);
  const range = { start: slotRange(prefix, 0).start, end: slotRange(prefix, slotLast).end };
  const iterator = node.engine.iterate({ ...range, pageBytesMax: 1e9 });
  for (const { key } of await iterator.next()) {
    const { slot: number, instance } = decodeSlotKey(key);
    const slot = anySlot(number);
    const state = shard.slotState(slot);
    if (state.ownership !== SlotOwnership.owned || state.instance !== instance)
      throw new Error(
        `shard ${id} on node ${node.id} has a key of slot ${slot}, instance ${instance}; the slot is ` +
          JSON.stringify(state),
      );
  }
  await iterator.close();
}
