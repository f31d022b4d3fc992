/**
 * A shard of several replicas that apply the same log each in its own way: in batches of any length,
 * with crashes that lose what was not synced, and with snapshots of one another, taken at any moment.
 */
import { expect } from 'chai';
import { MemoryEngine, putAppliedMark } from '../../storage/index.js';
import type { Slot } from '../../src/router/slot.js';
import type { CommandResult } from '../../src/shard/command.js';
import { ShardMachine } from '../../src/shard/shard-machine.js';
import { isServing, type SlotState } from '../../src/shard/slot-state.js';
import { firstDue } from '../../src/shard/expiry-index.js';
import type { SimRandom } from '../sim/random.js';
import { entryOf, Replica, type MakeMachine } from './replica.js';

export const plainShard: MakeMachine = (...at) => new ShardMachine(...at);

export class SimulatedShard {
  readonly id: number;
  readonly log: Uint8Array[] = [];
  /** Applies each entry by itself as soon as it is there: what the shard as a whole has decided. */
  readonly first: Replica;
  readonly others: Replica[];
  private readonly random: SimRandom;
  private readonly note: (what: string) => void;

  constructor(id: number, others: number, random: SimRandom, note: (what: string) => void) {
    this.id = id;
    this.random = random;
    this.note = note;
    const fresh = (replica: number): Replica =>
      Replica.fresh(new MemoryEngine(), replica, plainShard);
    this.first = fresh(1);
    this.others = Array.from({ length: others }, (_, n) => fresh(n + 2));
  }

  state(slot: Slot): SlotState {
    return this.first.machine.slotState(slot);
  }

  /** Any replica, however far behind it is. */
  anyReplica(): Replica {
    return this.random.pick([this.first, ...this.others]) ?? this.first;
  }

  async append(command: Uint8Array): Promise<CommandResult> {
    this.log.push(command);
    const [result] = await this.first.apply([command]);
    if (result === undefined) throw new Error('a command without a result');
    return result;
  }

  /** Looks where something may be due, as a leader does, and knows it again. */
  async sweep(): Promise<void> {
    const { engine, prefix, machine } = this.first;
    for (const slot of [...machine.due.dueBy(Number.MAX_SAFE_INTEGER)]) {
      machine.due.take(slot);
      if (!isServing(machine.slotState(slot))) continue;
      const { instance } = machine.slotState(slot);
      const [next] = await firstDue(engine, prefix, { slot, instance }, 1);
      if (next !== undefined) machine.due.note(slot, next.dueMs);
    }
  }

  /** Something happens to one of the other replicas. */
  async disturb(): Promise<void> {
    const at = this.random.integer(0, this.others.length - 1);
    const kind = this.random.weighted([
      ['advance', 6],
      ['crash', 2],
      ['snapshot', 1],
      ['torn snapshot', 1],
      ['first restarts', 1],
      ['catch up', 1],
    ] as const);
    if (kind === 'advance') await this.advance(this.replica(at), this.random.integer(1, 30));
    else if (kind === 'crash') await this.crash(at);
    else if (kind === 'snapshot') await this.replaceBy(at, this.anyReplica());
    else if (kind === 'torn snapshot') await this.tornSnapshot(at);
    else if (kind === 'first restarts') await this.first.machine.load();
    else await this.catchUp(at);
  }

  private replica(at: number): Replica {
    const replica = this.others[at];
    if (replica === undefined) throw new RangeError(`no replica ${at}`);
    return replica;
  }

  /** One batch of so many commands. */
  async advance(
    replica: Replica,
    count: number,
    beforeClears?: () => Promise<void>,
  ): Promise<void> {
    const commands = this.log.slice(replica.index, replica.index + count);
    if (commands.length > 0) await replica.apply(commands, beforeClears);
  }

  /** Loses any part of what was not synced: perhaps only the clears behind the last batch. */
  private async crash(at: number): Promise<void> {
    const lost = this.random.chance(0.5)
      ? this.random.integer(0, 3)
      : this.random.integer(0, 2 * this.log.length);
    this.others[at] = await this.replica(at).crash(lost);
    this.note('crash');
  }

  private async replaceBy(at: number, original: Replica): Promise<void> {
    const copy = await original.copyTo(new MemoryEngine(), at + 2);
    if (copy.index > 0) {
      const batch = copy.engine.batch();
      putAppliedMark(batch, copy.prefix, entryOf(Buffer.alloc(0), copy.index));
      await copy.engine.write(batch, { sync: true });
    }
    this.others[at] = copy;
    this.note('snapshot');
  }

  /** A snapshot that is taken when a batch is written and its clears are not. */
  private async tornSnapshot(at: number): Promise<void> {
    const original = this.replica((at + 1) % this.others.length);
    await this.advance(original, this.random.integer(1, 30), async () => {
      await this.replaceBy(at, original);
      this.note('torn snapshot');
    });
  }

  /** To the end of the log; then it has just what the first one has. */
  async catchUp(at: number): Promise<void> {
    const replica = this.replica(at);
    while (replica.index < this.log.length) {
      const rest = this.log.length - replica.index;
      await this.advance(replica, this.random.chance(0.3) ? rest : this.random.integer(1, rest));
    }
    expect(await replica.hash(), `replica ${at + 2} of shard ${this.id}`).to.deep.equal(
      await this.first.hash(),
    );
    expect(replica.machine.keys).to.equal(this.first.machine.keys);
    expect(replica.machine.logTimeMs).to.equal(this.first.machine.logTimeMs);
    this.note('caught up');
  }

  async catchUpAll(): Promise<void> {
    for (const at of this.others.keys()) await this.catchUp(at);
  }
}
