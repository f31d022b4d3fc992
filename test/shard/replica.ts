/** A shard's state machine on an engine, driven the way the applier drives it. */
import { EntryKind, groupId, replicaId, type Entry } from '../../raft/index.js';
import {
  exportSnapshot,
  hashReplica,
  importSnapshot,
  machineKey,
  type KeyKind,
  kindRange,
  MemoryEngine,
  putAppliedMark,
  readAppliedMark,
  replicaPrefix,
  type Engine,
  type KeyRange,
} from '../../storage/index.js';
import { slotOf, type Slot } from '../../src/router/slot.js';
import type { SlotSpan } from '../../src/router/slot-spans.js';
import { encodeWrites, type Due } from '../../src/shard/command-codec.js';
import type { CommandResult, KeyValue, Write, WriteResult } from '../../src/shard/command.js';
import { isExpired, keyValue } from '../../src/shard/apply-run.js';
import { firstDue } from '../../src/shard/expiry-index.js';
import { ShardMachine } from '../../src/shard/shard-machine.js';
import { encodeSlotState, type SlotState } from '../../src/shard/slot-state.js';
import { decodeValue } from '../../src/shard/value-codec.js';
import { bytes } from './command-texts.js';

const everySlot: readonly SlotSpan[] = [{ first: 0, last: 16_383 }];

export const entryOf = (data: Uint8Array, index: number): Entry => ({
  index,
  term: 1,
  kind: EntryKind.command,
  data,
});

/** A shard that was born with all slots, as most tests want it: their first entry is a write. */
export class WholeShard extends ShardMachine {
  protected override founding: readonly SlotSpan[] | undefined = everySlot;

  override async load(): Promise<void> {
    await super.load();
    this.founding ??= everySlot;
  }
}

export type MakeMachine = (engine: Engine, prefix: Uint8Array) => ShardMachine;
const wholeShard: MakeMachine = (...at) => new WholeShard(...at);

export class Replica {
  readonly engine: Engine;
  readonly machine: ShardMachine;
  readonly prefix: Uint8Array;
  index = 0;
  /** Every command, in order: what its log holds. */
  readonly applied: Uint8Array[] = [];
  /** Of the last batch. */
  clears: readonly KeyRange[] = [];
  private readonly number: number;
  private readonly make: MakeMachine;

  private constructor(engine: Engine, number: number, make: MakeMachine) {
    this.engine = engine;
    this.number = number;
    this.prefix = replicaPrefix(groupId(1), replicaId(number));
    this.make = make;
    this.machine = make(engine, this.prefix);
  }

  /** A replica that never applied anything; there is nothing to load. */
  static fresh(
    engine: Engine = new MemoryEngine(),
    replica = 1,
    make: MakeMachine = wholeShard,
  ): Replica {
    return new Replica(engine, replica, make);
  }

  /** A replica as its engine has it. */
  static async load(engine: Engine, replica = 1, make: MakeMachine = wholeShard): Promise<Replica> {
    const loaded = Replica.fresh(engine, replica, make);
    await loaded.machine.load();
    loaded.index = (await readAppliedMark(engine, loaded.prefix)).index;
    return loaded;
  }

  /** One batch: commands, applied index, and then what readers see; last, what has died is cleared. */
  async apply(
    commands: readonly Uint8Array[],
    beforeClears?: () => Promise<void>,
  ): Promise<readonly CommandResult[]> {
    const entries = commands.map((data) => entryOf(data, ++this.index));
    this.applied.push(...commands);
    const batch = this.engine.batch();
    const { results, clears } = await this.machine.apply(entries, batch);
    const last = entries[entries.length - 1];
    if (last !== undefined) putAppliedMark(batch, this.prefix, last);
    await this.engine.write(batch, { sync: false });
    this.machine.written();
    this.clears = clears;
    await beforeClears?.();
    for (const range of clears) await this.engine.clear(range);
    return results;
  }

  /** One command of these writes. */
  async write(writes: readonly Write[], logTimeMs = 1000): Promise<readonly WriteResult[]> {
    const [result] = await this.apply([encodeWrites(writes, logTimeMs)]);
    return result?.results ?? [];
  }

  /** One command of one write. */
  async one(write: Write, logTimeMs = 1000): Promise<WriteResult> {
    const [result] = await this.write([write], logTimeMs);
    if (result === undefined) throw new Error('a write without a result');
    return result;
  }

  async get(key: string): Promise<KeyValue | undefined> {
    const [stored] = await this.engine.getMany([
      this.machine.valueKey(slotOf(bytes(key)), bytes(key)),
    ]);
    if (stored === undefined) return undefined;
    const value = decodeValue(stored);
    return isExpired(value, this.machine.logTimeMs) ? undefined : keyValue(bytes(key), value);
  }

  /** The expiry index of the slot of a key. */
  due(key: string): Promise<readonly Due[]> {
    return this.dueOf(slotOf(bytes(key)));
  }

  dueOf(slot: Slot): Promise<readonly Due[]> {
    const { instance } = this.machine.slotState(slot);
    return firstDue(this.engine, this.prefix, { slot, instance }, 10_000);
  }

  /** How many pairs of one kind stand in the slot of a key. */
  async count(key: string, kind: KeyKind): Promise<number> {
    const slot = slotOf(bytes(key));
    const { instance } = this.machine.slotState(slot);
    const view = this.engine.iterate({
      ...kindRange(this.prefix, { slot, instance }, kind),
      pageBytesMax: 1 << 24,
    });
    const page = await view.next();
    await view.close();
    return page.length;
  }

  change(key: string): number {
    return this.machine.slotState(slotOf(bytes(key))).change;
  }

  hash(): Promise<{ readonly hash: string; readonly pairs: number }> {
    return hashReplica(this.engine, this.machine.range);
  }

  /** As it comes back from a crash in which its engine lost the last so many writes and clears. */
  async crash(lost: number): Promise<Replica> {
    const { engine } = this;
    if (!(engine instanceof MemoryEngine)) throw new TypeError('an engine that cannot crash');
    const kept = Math.max(0, engine.unsyncedLength - lost);
    return Replica.load(engine.crash(kept), this.number, this.make);
  }

  /** A replica on another engine that begins with this one's snapshot. */
  async copyTo(engine: Engine, replica: number): Promise<Replica> {
    const copy = Replica.fresh(engine, replica, this.make);
    const { prefix, machine } = copy;
    await importSnapshot(
      engine,
      { prefix, range: machine.range },
      exportSnapshot(this.engine, this.machine.range),
    );
    await machine.load();
    copy.index = this.index;
    return copy;
  }

  /** Writes the state of a slot into the engine, as a migration would have left it. */
  async setSlotState(slot: Slot, state: SlotState): Promise<void> {
    const batch = this.engine.batch();
    batch.put(machineKey(this.prefix, `slot/${slot}`), encodeSlotState(state));
    await this.engine.write(batch, { sync: false });
    await this.machine.load();
  }
}
