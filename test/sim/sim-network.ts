/**
 * The network: messages between replicas, each link in each direction with a fate of its own.
 * A link can lose, duplicate, delay and reorder; it can be cut, slow, or lose one type of message.
 */
import type { Generation, Message, MessageType, ReplicaId } from '../../raft/index.js';
import { describeMessage } from '../../raft/describe.js';
import type { Coverage } from './coverage.js';
import type { SimRandom } from './random.js';
import type { Image } from './sim-engine.js';
import type { NetworkPlan } from './swarm.js';
import type { Timeline } from './timeline.js';
import type { Trace } from './trace.js';

/** What a receiver gets: a message, with a snapshot's bytes beside it. */
export interface Parcel {
  readonly message: Message;
  /** The sender's. */
  readonly generation: Generation;
  readonly image: Image | undefined;
}

/** Told once for each snapshot: did its bytes arrive? */
export type Arrival = (arrived: boolean) => void;

export interface NetworkSurroundings {
  readonly timeline: Timeline;
  readonly coverage: Coverage;
  readonly trace: Trace;
  /** True if the receiver is there to take it. */
  readonly deliver: (parcel: Parcel) => boolean;
}

interface Link {
  cuts: number;
  /** Delays are this many times longer. */
  slowness: number;
  /** When the last message of an ordered link arrives. */
  lastArrival: number;
}

/** A perfect network for the end of a run. */
const healedPlan: NetworkPlan = {
  delayMinMs: 0.5,
  delayMaxMs: 3,
  ordered: true,
  loss: 0,
  duplication: 0,
  longHold: 0,
};

/** After this long the sender of a lost snapshot knows that it did not arrive. */
const snapshotLossKnownMs = 300;

export class SimNetwork {
  private readonly links = new Map<number, Link>();
  private readonly lostTypes = new Map<MessageType, number>();
  private readonly around: NetworkSurroundings;
  private plan: NetworkPlan;
  private readonly random: SimRandom;

  /** When the last message arrives of all that were sent so far. */
  lastArrivalMs = 0;

  constructor(around: NetworkSurroundings, plan: NetworkPlan, random: SimRandom) {
    this.around = around;
    this.plan = plan;
    this.random = random;
  }

  /** Cuts one direction; cuts add up, and `mend` takes one away. */
  cut(from: ReplicaId, to: ReplicaId): void {
    this.link(from, to).cuts++;
  }

  mend(from: ReplicaId, to: ReplicaId): void {
    const link = this.link(from, to);
    link.cuts = Math.max(0, link.cuts - 1);
  }

  /** Does this direction lose everything? */
  isCut(from: ReplicaId, to: ReplicaId): boolean {
    return this.link(from, to).cuts > 0;
  }

  slow(from: ReplicaId, to: ReplicaId, times: number): void {
    this.link(from, to).slowness = times;
  }

  /** From now on messages of this type are lost with the given probability; 0 ends it. */
  loseType(type: MessageType, probability: number): void {
    this.lostTypes.set(type, probability);
  }

  /** No more faults; what is on its way still arrives late. */
  heal(): void {
    this.links.clear();
    this.lostTypes.clear();
    this.plan = healedPlan;
  }

  send(parcel: Parcel, arrival?: Arrival): void {
    const { message } = parcel;
    const link = this.link(message.from, message.to);
    if (this.isLost(message.type, link)) {
      this.lose(parcel, arrival);
      return;
    }
    const delayMs = this.delayOf(link);
    this.carry(parcel, delayMs, arrival);
    if (this.random.chance(this.plan.duplication)) {
      this.around.coverage.count('message duplicated');
      this.carry(parcel, this.delayOf(link), undefined);
    }
  }

  private carry(parcel: Parcel, delayMs: number, arrival: Arrival | undefined): void {
    this.lastArrivalMs = Math.max(this.lastArrivalMs, this.around.timeline.now + delayMs);
    this.around.timeline.after(delayMs, () => {
      const { from, to } = parcel.message;
      // A cut also takes what is on its way: else a long delay would reach through a partition.
      const arrived = this.link(from, to).cuts === 0 && this.around.deliver(parcel);
      if (arrival !== undefined)
        this.around.timeline.after(this.plan.delayMinMs, () => arrival(arrived));
    });
  }

  private lose(parcel: Parcel, arrival: Arrival | undefined): void {
    this.around.coverage.count('message lost');
    if (this.around.trace.isRead) this.around.trace.line(`lost ${describeMessage(parcel.message)}`);
    if (arrival === undefined) return;
    this.around.coverage.count('snapshot lost');
    this.around.timeline.after(snapshotLossKnownMs, () => arrival(false));
  }

  private isLost(type: MessageType, link: Link): boolean {
    if (link.cuts > 0 || this.random.chance(this.plan.loss)) return true;
    if (!this.random.chance(this.lostTypes.get(type) ?? 0)) return false;
    this.around.coverage.count('type of message lost');
    return true;
  }

  private delayOf(link: Link): number {
    const { delayMinMs, delayMaxMs, longHold, ordered } = this.plan;
    if (this.random.chance(longHold)) {
      this.around.coverage.count('message held back for long');
      return this.random.between(200, 8000);
    }
    const delayMs = this.random.tailed(delayMinMs, delayMaxMs) * link.slowness;
    const arrival = this.around.timeline.now + delayMs;
    if (arrival >= link.lastArrival) {
      link.lastArrival = arrival;
      return delayMs;
    }
    if (ordered) return link.lastArrival - this.around.timeline.now;
    this.around.coverage.count('message overtaken');
    return delayMs;
  }

  private link(from: ReplicaId, to: ReplicaId): Link {
    const key = from * 0x10000 + to;
    const known = this.links.get(key);
    if (known !== undefined) return known;
    const link: Link = { cuts: 0, slowness: 1, lastArrival: 0 };
    this.links.set(key, link);
    return link;
  }
}
