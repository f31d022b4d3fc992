/**
 * Where to send what: the leader of the key's shard when a node has told it, otherwise any of the
 * endpoints. Only hints: a wrong one costs a redirect.
 */
import type { SlotRangeInfo, TopologyReply } from '../../proto/messages.js';
import type { ErrorCode, KvError } from '../errors.js';
import { slotCount, type Slot } from '../router/slot.js';

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

export class Routes {
  private readonly endpoints: readonly string[];
  private current = 0;
  private turn = 0;
  private readonly avoided = new Map<string, { readonly untilMs: number; readonly ms: number }>();
  /**
   * By shard once the slot map is known, by slot before: at most 16384 addresses. A shard's number
   * and a slot never meet here, because learning the map clears it.
   */
  private readonly leaders = new Map<number, string>();
  private ranges: readonly SlotRangeInfo[] = [];
  private version = 0;

  constructor(endpoints: readonly string[]) {
    this.endpoints = endpoints;
  }

  /** Version of the slot map that is known; 0: none. */
  get mapVersion(): number {
    return this.version;
  }

  /** `slot` undefined: any node. */
  endpointOf(slot: Slot | undefined): string {
    const leader = slot === undefined ? undefined : this.leaders.get(this.shardOf(slot) ?? slot);
    if (leader !== undefined) return leader;
    for (let n = 0; n < this.endpoints.length; n++) {
      const endpoint = this.endpoints[(this.current + n) % this.endpoints.length] ?? '';
      if (!this.avoids(endpoint)) return endpoint;
    }
    return this.endpoints[this.current % this.endpoints.length] ?? '';
  }

  /** Each node in its turn, for reads that any replica may answer. */
  nextEndpoint(): string {
    const { length } = this.endpoints;
    for (let n = 0; n < length; n++) {
      const endpoint = this.endpoints[this.turn++ % length] ?? '';
      if (!this.avoids(endpoint)) return endpoint;
    }
    return this.endpointOf(undefined);
  }

  /** Undefined until the slot map is known. */
  shardOf(slot: Slot): number | undefined {
    let low = 0;
    let high = this.ranges.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.ranges[middle]?.first ?? slotCount) <= slot) low = middle;
      else high = middle - 1;
    }
    return this.ranges[low]?.shardId;
  }

  /** True: the slot map is to be asked for. `slot` undefined: any node would have done. */
  onFailure(slot: Slot | undefined, endpoint: string, { code, fields }: KvError): boolean {
    const { leaderAddress = '', unreachable = false } = fields;
    if (unreachable) this.avoid(endpoint);
    else if (code === 'KV_NOT_LEADER' && leaderAddress !== '' && slot !== undefined) {
      // One that was tried just now is not learnt: the others forward meanwhile.
      if (!this.avoids(leaderAddress)) this.leaders.set(this.shardOf(slot) ?? slot, leaderAddress);
      return true;
    } else if (elsewhere.has(code)) {
      const place = slot === undefined ? undefined : (this.shardOf(slot) ?? slot);
      if (place !== undefined && this.leaders.get(place) === endpoint) this.leaders.delete(place);
      this.passBy(endpoint);
    }
    return false;
  }

  /** A node answered. */
  reached(endpoint: string): void {
    if (this.avoided.size > 0) this.avoided.delete(endpoint);
  }

  useTopology({ version, slots }: TopologyReply): void {
    if (version <= this.version) return;
    this.version = version;
    this.ranges = slots;
    this.leaders.clear();
  }

  private avoid(endpoint: string): void {
    if (!this.avoids(endpoint)) {
      const ms = Math.min(avoidMsMax, (this.avoided.get(endpoint)?.ms ?? avoidMsMin / 2) * 2);
      if (this.avoided.size >= avoidedMax) this.avoided.clear();
      this.avoided.set(endpoint, { untilMs: performance.now() + ms, ms });
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
    return untilMs !== undefined && performance.now() < untilMs;
  }
}
