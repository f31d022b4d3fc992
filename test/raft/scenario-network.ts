/** Messages in flight between the members of a scenario, in the order in which they were sent. */
import type { Generation, Message, ReplicaId } from '../../raft/index.js';
import type { Image } from './scenario-disk.js';

/** A message on its way; a snapshot's bytes travel with it. */
export interface Flight {
  readonly message: Message;
  /** The sender's. */
  readonly generation: Generation;
  readonly image: Image | undefined;
}

/** Which messages a command means: any field left out matches everything. */
export interface Selector {
  readonly from?: number;
  readonly to?: number;
  readonly type?: string;
  /** Only the first, or the last, so many of the matching ones. */
  readonly first?: number;
  readonly last?: number;
}

export class ScenarioNetwork {
  private inFlight: Flight[] = [];
  /** Set aside by `delay`; they come back by `release`. */
  private delayed: Flight[] = [];
  /** Links that lose everything, as `from->to`. */
  private readonly cut = new Set<string>();

  send(flight: Flight): void {
    this.inFlight.push(flight);
  }

  get messages(): readonly Message[] {
    return this.inFlight.map((flight) => flight.message);
  }

  /** Removes the matching messages and returns them, oldest first. */
  take(selector: Selector): readonly Flight[] {
    const taken = new Set(this.select(selector));
    this.inFlight = this.inFlight.filter((flight) => !taken.has(flight));
    return [...taken];
  }

  duplicate(selector: Selector): readonly Flight[] {
    const copies = this.select(selector).map((flight) => ({ ...flight }));
    this.inFlight.push(...copies);
    return copies;
  }

  delay(selector: Selector): readonly Flight[] {
    const taken = this.take(selector);
    this.delayed.push(...taken);
    return taken;
  }

  /** Puts what was delayed back in flight, behind everything else. */
  release(): readonly Flight[] {
    const released = this.delayed;
    this.delayed = [];
    this.inFlight.push(...released);
    return released;
  }

  /** Removes and returns what is in flight among the given members, or everything. */
  takeAmong(members: ReadonlySet<number> | undefined): readonly Flight[] {
    if (members === undefined) return this.take({});
    const between = ({ message }: Flight): boolean =>
      members.has(message.from) && members.has(message.to);
    const taken = this.inFlight.filter(between);
    this.inFlight = this.inFlight.filter((flight) => !between(flight));
    return taken;
  }

  cutLink(from: number, to: number): void {
    this.cut.add(`${from}->${to}`);
  }

  isCut(from: ReplicaId, to: ReplicaId): boolean {
    return this.cut.has(`${from}->${to}`);
  }

  heal(): void {
    this.cut.clear();
  }

  private select(selector: Selector): readonly Flight[] {
    const matching = this.inFlight.filter(
      ({ message }) =>
        (selector.from === undefined || message.from === selector.from) &&
        (selector.to === undefined || message.to === selector.to) &&
        (selector.type === undefined || message.type === selector.type),
    );
    if (selector.first !== undefined) return matching.slice(0, selector.first);
    if (selector.last !== undefined) return matching.slice(-selector.last);
    return matching;
  }
}
