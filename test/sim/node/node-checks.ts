/** What must hold after every event of every node, of the groups and of the slots. */
import type { GroupId, RaftStatus, ReplicaId } from '../../../raft/index.js';
import { checkMember, checkMessage, GroupInvariants } from '../../../raft/invariants.js';
import { Driver } from '../../../src/group/driver.js';
import type { HostedGroup } from '../../../src/group/host.js';
import { isPin } from '../../../src/router/pins.js';
import { slotOf, type Slot } from '../../../src/router/slot.js';
import { isServing, SlotOwnership, type SlotState } from '../../../src/shard/slot-state.js';
import type { GroupMessage } from '../../../src/transport/transport.js';
import type { SimNode } from './sim-node.js';
import type { NodeWorld } from './sim-node.js';

const roleNumbers = { follower: 1, preCandidate: 2, candidate: 3, leader: 4 } as const;
/** More waits on no node of a run. */
const waitingMax = 500;

/** What is known of a group over all its replicas and their lives. */
interface KnownGroup {
  readonly invariants: GroupInvariants;
  /** Terms of applied entries by index. */
  readonly terms: number[];
  /** Of states, by index. */
  readonly hashes: Map<number, string>;
}

/** What a replica has said that its disk has. */
interface Promised {
  readonly group: GroupId;
  term: number;
  vote: number;
  ackTerm: number;
  ackIndex: number;
}

interface Seen {
  readonly status: RaftStatus;
  readonly driver: Driver<unknown>;
}

export class NodeChecks {
  private readonly world: NodeWorld;
  private readonly groups = new Map<GroupId, KnownGroup>();
  private readonly promises = new Map<string, Promised>();
  /** By node and group; of the running process. */
  private readonly seen = new Map<string, Seen>();
  /** Who serves a slot at an epoch. */
  private readonly owners = new Map<string, number>();
  private readonly slotStates = new Map<string, SlotState>();
  /** In use, and all pins that were heard of. */
  private readonly slots: Set<Slot>;

  constructor(world: NodeWorld) {
    this.world = world;
    this.slots = new Set(world.plan.tags.map((tag) => slotOf(Buffer.from(`{${tag}}`))));
  }

  afterEvent(node: SimNode): void {
    const parts = node.port?.parts;
    if (parts === undefined) return;
    for (const group of parts.foundations.host.allGroups()) this.afterEventOf(node, group);
    const { size } = node.port?.services.deadlines ?? { size: 0 };
    if (size > waitingMax) throw new Error(`node ${node.id}: ${size} calls wait`);
  }

  /** A message leaves a node. */
  sent(from: SimNode, { group, message }: GroupMessage): void {
    checkMessage(message, { messageBytesMax: 1024 * 1024, entryBytesMax: 8 * 1024 * 1024 });
    const { invariants } = this.groupOf(group);
    if (message.type === 'append') {
      let previous = message.prevTerm;
      for (const entry of message.entries) {
        invariants.appended(entry, previous);
        previous = entry.term;
      }
    }
    const promised = this.promisedOf(from, group, message.from);
    const votes =
      message.type === 'vote' ||
      (message.type === 'voteReply' && message.granted) ||
      (message.type === 'appendReply' && !message.rejected);
    if (!votes || message.term < promised.term) return;
    if (message.term > promised.term) promised.vote = 0;
    promised.term = message.term;
    if (message.type === 'vote') promised.vote = message.from;
    else if (message.type === 'voteReply') promised.vote = message.to;
    else if (message.type === 'appendReply') {
      const isLater = message.term > promised.ackTerm;
      promised.ackIndex = isLater ? message.index : Math.max(promised.ackIndex, message.index);
      promised.ackTerm = message.term;
    }
  }

  /** A process has come back with what its disk gave it: nothing that was promised may be gone. */
  started(node: SimNode): void {
    const parts = node.port?.parts;
    if (parts === undefined) return;
    const { host } = parts.foundations;
    for (const [name, promised] of this.promises) {
      if (!name.startsWith(`${node.place}/`)) continue;
      const replica = Number(name.split('/')[2]);
      const group = host.allGroups().find(({ id }) => id === promised.group);
      if (group?.replica !== replica) {
        if (replica <= host.removedFloor(promised.group)) continue;
        throw new Error(`durable promise: node ${node.id} has lost replica ${name}`);
      }
      const { term, vote, lastIndex } = group.status();
      const isBroken =
        term < promised.term ||
        (term === promised.term && promised.vote !== 0 && vote !== promised.vote) ||
        (term === promised.ackTerm && lastIndex < promised.ackIndex);
      if (isBroken)
        throw new Error(
          `durable promise: ${name} restarted with term ${term}, vote ${vote}, last ${lastIndex}; ` +
            `promised: ${JSON.stringify(promised)}`,
        );
    }
  }

  crashed(node: SimNode): void {
    for (const name of this.seen.keys())
      if (name.startsWith(`${node.place}/`)) this.seen.delete(name);
    for (const name of this.slotStates.keys())
      if (name.startsWith(`${node.place}/`)) this.slotStates.delete(name);
  }

  /** A replica took the hash of its state at an index. */
  hashed(group: GroupId, index: number, hash: string): void {
    const { hashes } = this.groupOf(group);
    const known = hashes.get(index);
    if (known === undefined) hashes.set(index, hash);
    else if (known !== hash)
      throw new Error(`replicas of group ${group} differ at ${index}: ${known}, ${hash}`);
    else this.world.coverage.count('states compared under load');
  }

  private afterEventOf(node: SimNode, group: HostedGroup): void {
    if (!(group instanceof Driver)) return;
    const driver: Driver<unknown> = group;
    const name = `${node.place}/${driver.id}`;
    const before = this.seen.get(name);
    const old = before?.driver === driver ? before.status : undefined;
    const { node: core } = driver;
    if (
      old !== undefined &&
      old.term === core.term &&
      old.commitIndex === core.commitIndex &&
      old.firstIndex === core.firstIndex &&
      (old.role === 'leader') === core.isLeader &&
      old.appliedIndex === driver.appliedIndex
    )
      return;
    const status = driver.status();
    this.seen.set(name, { status, driver });
    this.checkGroup(driver, status, old);
    const local = node.port?.parts.shards.get(driver.id);
    if (local !== undefined && local.group === group) this.checkSlots(node, driver.id);
    this.mix(node, status);
  }

  private checkGroup(
    driver: Driver<unknown>,
    status: RaftStatus,
    before: RaftStatus | undefined,
  ): void {
    const { coverage } = this.world;
    const { invariants } = this.groupOf(driver.id);
    checkMember(status, before);
    if (status.role === 'leader') {
      if (before?.role !== 'leader' || before.term !== status.term)
        coverage.count('leader elected');
      invariants.leads(status, driver.node);
    }
    if (before !== undefined && status.commitIndex > before.commitIndex && !status.restoring) {
      const led = before.role === 'leader' && before.term === status.term;
      const judged: RaftStatus = led ? { ...status, role: 'leader' } : status;
      const { membership } = before.membership;
      invariants.commitAdvanced(judged, driver.node, membership, () => true);
    }
    if (before !== undefined && status.firstIndex > before.firstIndex)
      coverage.count('log compacted');
    if (!status.restoring) this.checkApplied(driver, status, before);
  }

  /** The same term at each applied index, on every replica for ever. */
  private checkApplied(
    driver: Driver<unknown>,
    { appliedIndex, id }: RaftStatus,
    before: RaftStatus | undefined,
  ): void {
    const { terms } = this.groupOf(driver.id);
    for (
      let index = (before?.appliedIndex ?? appliedIndex - 1) + 1;
      index <= appliedIndex;
      index++
    ) {
      const term = driver.node.termAt(index);
      if (term === undefined) continue;
      const known = terms[index];
      if (known !== undefined && known !== term)
        throw new Error(
          `state machine safety: replica ${id} of group ${driver.id} applied (${index}, term ${term}), ` +
            `another applied term ${known}`,
        );
      terms[index] = term;
    }
    if (driver.appliedIndex < appliedIndex)
      throw new Error(
        `replica ${id} believes to have applied ${appliedIndex}, its applier has not`,
      );
  }

  /** At an epoch a slot is served by one shard alone (R71, R75). */
  private checkSlots(node: SimNode, group: GroupId): void {
    const { shards, view } = node.port?.parts ?? {};
    const shard = shards?.get(group)?.shard;
    if (shard === undefined) return;
    for (const { slot } of view?.topology.pins ?? []) this.slots.add(slot);
    for (const slot of this.slots) {
      const state = shard.slotState(slot);
      const name = `${node.place}/${group}/${slot}`;
      const before = this.slotStates.get(name);
      if (before === state) continue;
      this.slotStates.set(name, state);
      if (before !== undefined) this.countSlot(slot, before, state);
      if (!isServing(state)) continue;
      const key = `${slot}@${state.epoch}`;
      const owner = this.owners.get(key);
      if (owner === undefined) this.owners.set(key, group);
      else if (owner !== group)
        throw new Error(
          `slot exclusivity: slot ${slot} is served by shards ${owner} and ${group} at epoch ${state.epoch}`,
        );
    }
  }

  private countSlot(slot: Slot, before: SlotState, { ownership }: SlotState): void {
    const { coverage } = this.world;
    if (before.ownership === ownership) return;
    if (before.ownership === SlotOwnership.filling) coverage.count('pin filled');
    if (before.ownership === SlotOwnership.draining) coverage.count('pin emptied');
    if (ownership === SlotOwnership.handedOver && isPin(slot)) coverage.count('pin handed over');
    if (ownership === SlotOwnership.frozen) coverage.count('slots frozen');
    if (ownership === SlotOwnership.handedOver) coverage.count('slot handed over');
    const wasComing =
      before.ownership === SlotOwnership.importing || before.ownership === SlotOwnership.ready;
    if (wasComing && ownership === SlotOwnership.absent)
      coverage.count('import ended without the slot');
  }

  private groupOf(group: GroupId): KnownGroup {
    let known = this.groups.get(group);
    if (known === undefined) {
      known = { invariants: new GroupInvariants(), terms: [], hashes: new Map() };
      this.groups.set(group, known);
    }
    return known;
  }

  private promisedOf(node: SimNode, group: GroupId, replica: ReplicaId): Promised {
    const name = `${node.place}/${group}/${replica}`;
    let promised = this.promises.get(name);
    if (promised === undefined) {
      promised = { group, term: 0, vote: 0, ackTerm: 0, ackIndex: 0 };
      this.promises.set(name, promised);
    }
    return promised;
  }

  private mix(node: SimNode, status: RaftStatus): void {
    const { trace } = this.world;
    trace.mix(node.place);
    trace.mix(status.term * 8 + roleNumbers[status.role]);
    trace.mix(status.lastIndex);
    trace.mix(status.commitIndex);
    trace.mix(status.appliedIndex);
  }
}
