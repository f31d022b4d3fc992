/**
 * Where to send what: straight to the leader of the key's shard as far as the topology, its leaders
 * and the answers of nodes tell; otherwise to any node. Only hints: a wrong one costs a redirect.
 */
import type {
  NodeInfo,
  PinInfo,
  ShardLeader,
  SlotRangeInfo,
  TopologyReply,
} from '../../proto/messages.js';
import type { ErrorCode, KvError } from '../errors.js';
import { isPin, Pins } from '../router/pins.js';
import { anySlot, slotCount, slotOf, type Slot } from '../router/slot.js';
import { namesAnother } from './attempts.js';

/**
 * An address that could not be reached is left alone for so long, unless there is no other. Longer
 * each time: a leader's address may be one that only the nodes can reach.
 */
const avoidMsMin = 500;
const avoidMsMax = 8000;
/** Beyond it all are tried again: a cluster has fewer nodes. */
const avoidedMax = 256;

/** Another node may know better, or be able to. */
const elsewhere: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'KV_NOT_LEADER',
  'KV_WRONG_SHARD',
  'KV_UNAVAILABLE',
  'KV_UNKNOWN_OUTCOME',
  'KV_DEADLINE',
]);

/** Who has a slot, and the epoch of that ownership. */
interface Owner {
  readonly shardId: number;
  readonly epoch: number;
}

export class Routes {
  /** Told of the endpoint that named a newer version of the map than is known here. */
  onBehind: (endpoint: string, version: number) => void = () => undefined;
  private readonly seeds: readonly string[];
  private readonly nowMs: () => number;
  /** The seeds, and the nodes of the topology; without those that were removed from the cluster. */
  private endpoints: readonly string[];
  private current = 0;
  private turn = 0;
  private readonly avoided = new Map<string, { readonly untilMs: number; readonly ms: number }>();
  /**
   * Addresses by shard. Before the map is known by slot, at most 16384; a shard's number and a slot
   * never meet here, because learning the first map clears it.
   */
  private readonly leaders = new Map<number, string>();
  /** Of the newest leader that a node told us of, by shard. */
  private readonly terms = new Map<number, number>();
  private topology: TopologyReply | undefined;
  private ranges: readonly SlotRangeInfo[] = [];
  private pins = new Pins([]);
  private pinOwners: ReadonlyMap<Slot, Owner> = new Map();
  /** Client addresses of the nodes that are in the cluster. */
  private addresses: ReadonlyMap<number, string> = new Map();
  /** Addresses of the nodes with a replica of a shard, the one that is to lead it first. */
  private replicas = new Map<number, readonly string[]>();
  /** Owners that nodes named with a higher epoch than the map's (rule D31). */
  private readonly ahead = new Map<Slot, Owner>();

  /** `nowMs`: of a clock that never goes back. */
  constructor(seeds: readonly string[], nowMs: () => number = () => performance.now()) {
    this.nowMs = nowMs;
    this.seeds = seeds;
    this.endpoints = seeds;
  }

  /** Version of the slot map that is known; 0: none. */
  get mapVersion(): number {
    return this.topology?.version ?? 0;
  }

  /** `slot` undefined: any node. */
  endpointOf(slot: Slot | undefined): string {
    const expected = slot === undefined ? undefined : this.leaderOf(slot);
    if (expected !== undefined) return expected;
    for (let n = 0; n < this.endpoints.length; n++) {
      const endpoint = this.endpoints[(this.current + n) % this.endpoints.length] ?? '';
      if (!this.avoids(endpoint)) return endpoint;
    }
    return this.endpoints[this.current % this.endpoints.length] ?? '';
  }

  /**
   * For reads that any replica may answer: each node with a replica of the slot's shard in its turn;
   * each of all nodes where that is not known, or no such node can be reached.
   */
  nextEndpoint(slot: Slot | undefined = undefined): string {
    const shard = slot === undefined ? undefined : this.shardOf(slot);
    const replicas = shard === undefined ? [] : (this.replicas.get(shard) ?? []);
    return this.nextOf(replicas) ?? this.nextOf(this.endpoints) ?? this.endpointOf(undefined);
  }

  /** Undefined until the slot map is known. */
  shardOf(slot: Slot): number | undefined {
    return (this.ahead.get(slot) ?? this.ownerOf(slot))?.shardId;
  }

  /** The pin that a key belongs to by the map, or else its hash slot. */
  slotOf(key: Uint8Array): Slot {
    return this.pins.slotOf(key);
  }

  /**
   * Where a request goes next, by what a node said of its key: to a pin, or past one, that the map does not
   * name (any more). Undefined: nothing was said.
   */
  hinted(key: Uint8Array, { code, fields }: KvError): Slot | undefined {
    const { pinSlot = 0, shardId = 0 } = fields;
    if (shardId === 0) return undefined;
    if (pinSlot > 0) return anySlot(pinSlot);
    return code === 'KV_WRONG_SHARD' ? slotOf(key) : undefined;
  }

  /** `asked` undefined: any node would have done. */
  onFailure(asked: Slot | undefined, endpoint: string, error: KvError): void {
    const { code, fields } = error;
    const { pinSlot = 0, shardId = 0 } = fields;
    // What it says of a pin is not true of the hash slot, nor the other way round.
    const isOther = asked !== undefined && shardId > 0 && pinSlot !== (isPin(asked) ? asked : 0);
    const slot = !isOther ? asked : pinSlot > 0 ? anySlot(pinSlot) : undefined;
    const { leaderAddress = '', unreachable = false } = fields;
    this.meet(endpoint, fields.mapVersion);
    const isOld = slot !== undefined && !this.takeOwner(slot, fields);
    const place = slot === undefined ? undefined : (this.shardOf(slot) ?? slot);
    if (unreachable) this.avoid(endpoint);
    else if (namesAnother(error) && place !== undefined && !isOld) {
      // One that was tried just now is not learnt: the others forward meanwhile.
      if (!this.avoids(leaderAddress)) this.leaders.set(place, leaderAddress);
    } else if (elsewhere.has(code)) {
      if (place !== undefined) this.putLast(place, endpoint);
      this.passBy(endpoint);
    }
  }

  /** A node answered, and has this version of the map. */
  reached(endpoint: string, mapVersion: number | undefined): void {
    if (this.avoided.size > 0) this.avoided.delete(endpoint);
    this.meet(endpoint, mapVersion);
  }

  /** Takes a newer topology of this cluster; any other one is ignored. */
  useTopology(topology: TopologyReply): void {
    const { clusterId, version, nodes, shards, slots } = topology;
    if (version <= this.mapVersion) return;
    if (this.topology === undefined) this.leaders.clear();
    else if (this.topology.clusterId !== clusterId) return;
    this.topology = topology;
    this.ranges = slots;
    this.usePins(topology.pins);
    const present = nodes.filter(({ state }) => state !== 'removed');
    this.addresses = new Map(present.map((node) => [node.nodeId, node.clientAddress]));
    const addressOf = (node: number): string[] => [this.addresses.get(node) ?? []].flat();
    this.replicas = new Map(shards.map((each) => [each.shardId, each.nodes.flatMap(addressOf)]));
    for (const [slot, { epoch }] of this.ahead)
      if ((this.ownerOf(slot)?.epoch ?? 0) >= epoch) this.ahead.delete(slot);
    this.follow(nodes);
  }

  private usePins(pins: readonly PinInfo[]): void {
    const placed = pins.map(({ prefix, ...pin }) => ({
      ...pin,
      slot: anySlot(pin.slot),
      isPrefix: prefix,
    }));
    this.pins = new Pins(placed);
    this.pinOwners = new Map(placed.map((pin) => [pin.slot, pin]));
    for (const slot of this.ahead.keys())
      if (isPin(slot) && !this.pinOwners.has(slot)) this.ahead.delete(slot);
  }

  private ownerOf(slot: Slot): Owner | undefined {
    return isPin(slot) ? this.pinOwners.get(slot) : this.rangeOf(slot);
  }

  /** What a node knows of leaders: a later term replaces an earlier one. */
  useLeaders(leaders: readonly ShardLeader[]): void {
    for (const { shardId, nodeId, term } of leaders) {
      const address = this.addresses.get(nodeId);
      const known = this.leaders.has(shardId) ? (this.terms.get(shardId) ?? 0) : -1;
      if (address === undefined || term <= known || this.avoids(address)) continue;
      this.terms.set(shardId, term);
      this.leaders.set(shardId, address);
    }
  }

  /** Of those that have a replica, the leader or whoever is to lead. */
  private leaderOf(slot: Slot): string | undefined {
    const shard = this.shardOf(slot);
    const leader = this.leaders.get(shard ?? slot);
    if (leader !== undefined || shard === undefined) return leader;
    return this.replicas.get(shard)?.find((address) => !this.avoids(address));
  }

  /** It may be cut off from the others: they are asked first as long as no leader is known. */
  private putLast(place: number, endpoint: string): void {
    if (this.leaders.get(place) === endpoint) this.leaders.delete(place);
    const replicas = this.replicas.get(place) ?? [];
    if (!replicas.includes(endpoint)) return;
    this.replicas.set(place, [...replicas.filter((each) => each !== endpoint), endpoint]);
  }

  private nextOf(addresses: readonly string[]): string | undefined {
    for (let n = 0; n < addresses.length; n++) {
      const address = addresses[this.turn++ % addresses.length] ?? '';
      if (!this.avoids(address)) return address;
    }
    return undefined;
  }

  private rangeOf(slot: Slot): SlotRangeInfo | undefined {
    let low = 0;
    let high = this.ranges.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.ranges[middle]?.first ?? slotCount) <= slot) low = middle;
      else high = middle - 1;
    }
    return this.ranges[low];
  }

  /** False: the hint is older than what is known of the slot, and so is everything else it says. */
  private takeOwner(slot: Slot, { shardId = 0, slotEpoch = 0 }: KvError['fields']): boolean {
    const isNew = isPin(slot) && shardId > 0 ? { shardId: 0, epoch: 0 } : undefined;
    const known = this.ahead.get(slot) ?? this.ownerOf(slot) ?? isNew;
    if (known === undefined || shardId === 0) return true;
    if (slotEpoch > known.epoch) this.ahead.set(slot, { shardId, epoch: slotEpoch });
    return slotEpoch >= known.epoch;
  }

  private meet(endpoint: string, version: number | undefined): void {
    if (version !== undefined && version > this.mapVersion) this.onBehind(endpoint, version);
  }

  /** New nodes can be asked, removed ones are left: also when they go on answering. */
  private follow(nodes: readonly NodeInfo[]): void {
    const present = new Set(this.addresses.values());
    const gone = new Set(nodes.map((node) => node.clientAddress).filter((a) => !present.has(a)));
    const now = this.endpoints[this.current % this.endpoints.length] ?? '';
    const known = [...new Set([...this.seeds, ...present])].filter((each) => !gone.has(each));
    this.endpoints = known.length === 0 ? this.seeds : known;
    this.current = Math.max(0, this.endpoints.indexOf(now));
    for (const [place, address] of this.leaders) if (gone.has(address)) this.leaders.delete(place);
  }

  private avoid(endpoint: string): void {
    if (!this.avoids(endpoint)) {
      const ms = Math.min(avoidMsMax, (this.avoided.get(endpoint)?.ms ?? avoidMsMin / 2) * 2);
      if (this.avoided.size >= avoidedMax) this.avoided.clear();
      this.avoided.set(endpoint, { untilMs: this.nowMs() + ms, ms });
    }
    for (const [place, address] of this.leaders)
      if (address === endpoint) this.leaders.delete(place);
    this.passBy(endpoint);
  }

  /** The next endpoint's turn. Many calls that fail at the same one count as one. */
  private passBy(endpoint: string): void {
    const { length } = this.endpoints;
    if (this.endpoints[this.current % length] === endpoint)
      this.current = (this.current + 1) % length;
  }

  private avoids(address: string): boolean {
    const untilMs = this.avoided.get(address)?.untilMs;
    return untilMs !== undefined && this.nowMs() < untilMs;
  }
}
