/** All members of a scenario, the network between them, and the laws they must keep. */
import { membershipOf, nodeId, replicaId } from '../../raft/index.js';
import type {
  Generation,
  LogIndex,
  Member,
  Membership,
  Message,
  RaftOptions,
} from '../../raft/index.js';
import { describeMessage } from '../../raft/describe.js';
import { ScenarioLaws } from './scenario-laws.js';
import { ScenarioMember } from './scenario-member.js';
import { ScenarioNetwork } from './scenario-network.js';
import type { Flight, Selector } from './scenario-network.js';

/** Small numbers, so that a scenario can reach every limit; a file changes them by `options`. */
export const defaultOptions: RaftOptions = {
  id: replicaId(1),
  electionTicks: 10,
  heartbeatTicks: 2,
  leaseTicks: 0,
  preVote: true,
  checkQuorum: true,
  entryBytesMax: 1024,
  messageBytesMax: 4096,
  inflightMessagesMax: 8,
  inflightBytesMax: 65536,
  uncommittedBytesMax: 65536,
  windowBytesMax: 65536,
  stalledTicksMax: 40,
  silentTicks: 0,
  quietTicks: 0,
  promoteLagMax: 4,
  seed: 1,
};

/** More rounds than this mean that the group talks for ever without a tick. */
const roundsMax = 200;

export class ScenarioGroup {
  readonly network = new ScenarioNetwork();
  private readonly laws: ScenarioLaws[] = [new ScenarioLaws()];
  private readonly members = new Map<number, ScenarioMember>();
  private readonly ownOptions = new Map<number, Partial<RaftOptions>>();
  private options = defaultOptions;
  private lines: string[] = [];
  private readsBegun = 0;

  print(line: string): void {
    this.lines.push(line);
  }

  takeLines(): readonly string[] {
    const taken = this.lines;
    this.lines = [];
    return taken;
  }

  get ids(): readonly number[] {
    return [...this.members.keys()].sort((a, b) => a - b);
  }

  setOptions(options: Partial<RaftOptions>, only: number | undefined): void {
    if (only === undefined) this.options = { ...this.options, ...options };
    else this.ownOptions.set(only, { ...this.ownOptions.get(only), ...options });
  }

  /** The first members, all started: `voters` and `learners` are numbers of replica and node. */
  begin(voters: readonly number[], learners: readonly number[]): void {
    const named = (ids: readonly number[]): Member[] => ids.map((id) => member(id, id));
    const membership = membershipOf(named(voters), named(learners));
    for (const id of [...voters, ...learners]) this.add(id, membership);
  }

  /** A replica that knows nothing yet, as the host creates it on order of the metadata group. */
  create(id: number, generation: Generation): void {
    this.add(id, membershipOf([]), generation);
  }

  /** Forced recovery: a member that is down becomes the only voter of a higher generation. */
  recover(id: number, generation: Generation): void {
    const recovered = this.member(id);
    if (!recovered.isDown) throw new Error(`member ${id} runs`);
    const before = this.lawsOf(recovered.disk.generation);
    recovered.disk.recover(member(id, id), generation);
    this.laws[generation] = before.after(recovered.disk.image.at.index);
  }

  private lawsOf(generation: Generation): ScenarioLaws {
    const found = this.laws[generation];
    if (found === undefined) throw new Error(`nobody began generation ${generation}`);
    return found;
  }

  private add(id: number, membership: Membership, generation: Generation = 0): void {
    if (this.members.has(id)) throw new Error(`member ${id} exists already`);
    const around = {
      print: (line: string): void => this.print(line),
      send: (message: Message, generation: Generation, image: Flight['image']): void =>
        this.network.send({ message, generation, image }),
      laws: (of: Generation): ScenarioLaws => this.lawsOf(of),
    };
    const added = new ScenarioMember(replicaId(id), membership, around);
    added.disk.generation = generation;
    this.members.set(id, added);
    this.start(id, Number.MAX_SAFE_INTEGER);
  }

  start(id: number, tailMax: number): void {
    this.member(id).start({ ...this.options, ...this.ownOptions.get(id) }, tailMax);
  }

  remove(id: number): void {
    this.members.delete(id);
  }

  member(id: number): ScenarioMember {
    const found = this.members.get(id);
    if (found === undefined) throw new Error(`there is no member ${id}`);
    return found;
  }

  nextReadContext(): string {
    this.readsBegun++;
    return `r${this.readsBegun}`;
  }

  tick(ids: readonly number[], times: number): void {
    for (let count = 0; count < times; count++) {
      for (const id of ids) this.member(id).input((node) => node.tick());
    }
  }

  deliver(flights: readonly Flight[]): void {
    for (const flight of flights) this.deliverOne(flight);
  }

  /** Loses messages, and tells the sender of a snapshot that its bytes did not arrive. */
  drop(flights: readonly Flight[]): void {
    for (const { message } of flights) {
      this.print(`lost ${describeMessage(message)}`);
      this.reportSnapshot(message, false);
    }
  }

  duplicate(selector: Selector): void {
    for (const { message } of this.network.duplicate(selector)) {
      this.print(`again ${describeMessage(message)}`);
    }
  }

  /** Cuts all links between sides, both ways. */
  partition(sides: readonly (readonly number[])[]): void {
    for (const side of sides) {
      const others = sides.filter((other) => other !== side).flat();
      for (const from of side) for (const to of others) this.network.cutLink(from, to);
    }
  }

  /** Lets members work and messages arrive until nothing is left to do, without a tick. */
  stabilize(ids: readonly number[] | undefined): void {
    const among = ids === undefined ? undefined : new Set(ids);
    for (let round = 0; ; round++) {
      if (round === roundsMax) throw new Error(`not stable after ${roundsMax} rounds`);
      let worked = false;
      for (const id of ids ?? this.ids) worked = this.work(id) || worked;
      const flights = this.network.takeAmong(among);
      this.deliver(flights);
      if (!worked && flights.length === 0) return;
    }
  }

  /** Everything a member can do by itself; a member may have crashed or gone. */
  private work(id: number): boolean {
    const found = this.members.get(id);
    return found !== undefined && !found.isDown && found.work();
  }

  private deliverOne(flight: Flight): void {
    const { message, generation, image } = flight;
    const receiver = this.members.get(message.to);
    const reachable = receiver !== undefined && !receiver.isDown;
    if (!reachable || this.network.isCut(message.from, message.to)) {
      this.drop([flight]);
      return;
    }
    this.print(describeMessage(message));
    receiver.receive(message, generation, image);
    this.reportSnapshot(message, true);
  }

  private reportSnapshot(message: Message, ok: boolean): void {
    if (message.type !== 'snapshot') return;
    const sender = this.members.get(message.from);
    if (sender === undefined || sender.isDown) return;
    const result = { to: message.to, index: message.snapshot.index, ok };
    sender.input((node) => node.snapshotSent(result));
  }

  compact(id: number, through: LogIndex): void {
    const compacted = this.member(id);
    compacted.input((node) => node.compacted(through + 1));
    compacted.disk.compact(through);
  }
}

export function member(id: number, node: number): Member {
  return { id: replicaId(id), node: nodeId(node) };
}
