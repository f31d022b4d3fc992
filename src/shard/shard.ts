/**
 * A shard as a service: its birth, and writes stamped with log time and proposed. Reads and scans
 * have files of their own.
 */
import type { GroupId, LogIndex, NodeId } from '../../raft/index.js';
import type { KvError } from '../errors.js';
import type { Group } from '../group/group.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { PinRule } from '../router/pins.js';
import type { Slot } from '../router/slot.js';
import type { SlotSpan } from '../router/slot-spans.js';
import { placeOfWrite } from './apply-run.js';
import { encodeFound, encodeHash, encodeMigrationStep, encodePinCommand } from './command-codec.js';
import type { CommandResult, Write, WriteResult } from './command.js';
import { ExpirySweep } from './expiry-sweep.js';
import { LogTime } from './log-time.js';
import type { ChunkPart, MigrationStep } from './migration-step.js';
import { carriedPart, type CarriedPart } from './pin-records.js';
import type { PinStep } from './pin-step.js';
import { ReadGate, type ReadLevel } from './read-gate.js';
import { notFounded, sessionMsMax, tooFarAhead, writeError } from './shard-errors.js';
import type { ShardMachine } from './shard-machine.js';
import { ShardReads, type ReadDone } from './shard-reads.js';
import { ShardScans, type ScanDone, type ScanPageRequest } from './shard-scans.js';
import { changesPart, scanPart, type ChunkRoom, type ExportSource } from './slot-export.js';
import { SlotLoad } from './slot-load.js';
import type { SlotPosition } from './slot-position.js';
import type { SlotState } from './slot-state.js';
import { TurnWrites } from './turn-writes.js';

export type { ReadLevel } from './read-gate.js';
export type { ReadDone, ReadResult } from './shard-reads.js';
export type { ScanPage, ScanPageRequest } from './shard-scans.js';

/** A command's results, and how far its slots have come with it. */
export interface Written extends CommandResult {
  /** Asked in the callback: later it may tell of more than the command has seen. */
  readonly positionsOf: (key: Uint8Array) => readonly SlotPosition[];
}

/** The little a shard needs of the call it works for. */
export interface ShardCall {
  readonly deadlineMs: number;
  /** Set before the command is proposed: from then on a deadline has an unknown outcome. */
  mayHaveApplied: boolean;
}

export interface ShardOptions {
  readonly group: Group<CommandResult>;
  readonly machine: ShardMachine;
  readonly clock: Clock;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
  /** The slots the shard is to be born with; undefined: this node has not heard of them yet. */
  readonly birthSlots: () => readonly SlotSpan[] | undefined;
}

const sessionSlackMs = 10_000;

export class Shard {
  private readonly group: Group<CommandResult>;
  private readonly machine: ShardMachine;
  private readonly time: LogTime;
  private readonly gate: ReadGate;
  private readonly load: SlotLoad;
  private readonly turnWrites: TurnWrites;
  private readonly reads: ShardReads;
  private readonly scans: ShardScans;
  private readonly expiry: ExpirySweep;
  private readonly birthSlots: ShardOptions['birthSlots'];
  private founding = false;
  /** From when log time has begun: an elected leader is told so a little later. */
  private leading = false;
  private leaderships = 0;

  constructor({ group, machine, clock, log, onFatal, birthSlots }: ShardOptions) {
    this.birthSlots = birthSlots;
    this.group = group;
    this.machine = machine;
    this.gate = new ReadGate({ group, machine, clock });
    this.load = new SlotLoad(clock);
    this.turnWrites = new TurnWrites(group, clock, () => this.time.now(machine.logTimeMs));
    const sources = {
      machine,
      gate: this.gate,
      load: this.load,
      endOfTurn: clock.endOfTurn.bind(clock),
      nowMs: () => this.nowMs,
      onFatal,
    };
    this.reads = new ShardReads(sources);
    this.scans = new ShardScans(sources);
    this.time = new LogTime(clock, (jumpMs) => {
      log(
        'error',
        { group: group.id, jumpMs },
        "the median of the voters' clocks is far from the log's time: check the clocks",
      );
    });
    this.expiry = new ExpirySweep({
      group,
      machine,
      clock,
      onFatal,
      nowMs: () => this.time.now(machine.logTimeMs),
      found: () => {
        this.found();
      },
    });
    machine.onLeading = ({ leading, clockMedianMs }) => {
      if (leading) this.time.begin(machine.logTimeMs, clockMedianMs);
      this.leading = leading;
      if (leading) this.leaderships++;
      else this.turnWrites.letGo();
      this.expiry.lead(leading);
    };
  }

  get id(): GroupId {
    return this.group.id;
  }

  get isLeader(): boolean {
    return this.group.isLeader;
  }

  /** Another number each time that this replica is elected; only meaningful while it leads. */
  get leadership(): number {
    return this.leaderships;
  }

  get leaderNode(): NodeId | undefined {
    return this.group.leaderNode;
  }

  get keys(): number {
    return this.machine.keys;
  }

  get slots(): number {
    return this.machine.ownedSlots;
  }

  /**
   * The shard's time now; 0 unless this replica leads. Clients reckon the last moment of their writes
   * from it (rule D21). A follower knows no better: applied log time stands still while nobody writes,
   * and would make writes expire at once; its own clock may be ahead, and would make leaders refuse them.
   */
  get nowMs(): number {
    return this.leading ? this.time.now(this.machine.logTimeMs) : 0;
  }

  close(): void {
    this.expiry.close();
  }

  // ---- writes

  /** All of them in one command, each with a result of its own. */
  write(
    writes: readonly Write[],
    call: ShardCall,
    done: (error: KvError | undefined, result: Written | undefined) => void,
  ): void {
    if (!this.leading) {
      // Elected, but without a time of its own yet: a stamp of the old log time could be years late.
      done(writeError({ kind: 'notApplied', reason: 'notLeader' }), undefined);
      return;
    }
    if (!this.machine.isFounded) {
      done(notFounded(), undefined);
      return;
    }
    this.load.turn();
    const logTimeMs = this.time.now(this.machine.logTimeMs);
    const stamped = writes.map((write) => this.stampSession(write, logTimeMs));
    const wrong = stamped.find(
      (write) => (write.session?.notAfterMs ?? 0) > logTimeMs + sessionMsMax + sessionSlackMs,
    );
    if (wrong?.session !== undefined) {
      done(tooFarAhead(wrong.session, logTimeMs), undefined);
      return;
    }
    const refusals = this.refusalsOf(writes);
    const positionsAt =
      (timeMs: number) =>
      (key: Uint8Array): readonly SlotPosition[] =>
        this.gate.positionsOf(this.machine.slotOf(key), timeMs);
    if (refusals !== undefined) {
      done(undefined, { logTimeMs, results: refusals, positionsOf: positionsAt(logTimeMs) });
      return;
    }
    call.mayHaveApplied = true;
    this.turnWrites.add(stamped, (outcome) => {
      if (outcome.kind === 'applied') {
        const { results, logTimeMs: appliedMs } = outcome;
        done(undefined, { logTimeMs: appliedMs, results, positionsOf: positionsAt(appliedMs) });
        return;
      }
      if (outcome.kind === 'notApplied') call.mayHaveApplied = false;
      done(writeError(outcome), undefined);
    });
  }

  /**
   * Not served here, all of them, as far as this replica knows: then they need not go into the log.
   * It cannot be wrong for ever: a slot that serves again is seen as soon as that is applied here.
   */
  private refusalsOf(writes: readonly Write[]): readonly WriteResult[] | undefined {
    const results: WriteResult[] = [];
    let isServed = false;
    for (const write of writes) {
      const { slot, refused } = placeOfWrite(write, this.machine);
      this.load.count(slot);
      if (refused === undefined || refused.refusal === 'tooManySlots') isServed = true;
      else results.push(refused);
    }
    return isServed ? undefined : results;
  }

  /**
   * A step of a migration. Resolves when it is applied; what it changed is seen in the slots' states (a
   * step that came late changed nothing). `differing`: slots that were not handed over. Rejects with
   * KvError, as a write does.
   */
  step(step: MigrationStep): Promise<CommandResult> {
    return this.control((logTimeMs) => encodeMigrationStep(step, logTimeMs));
  }

  /** A step of a pin; as one of a migration. */
  pinStep(step: PinStep): Promise<CommandResult> {
    return this.control((logTimeMs) => encodePinCommand(step, logTimeMs));
  }

  private control(encoded: (logTimeMs: number) => Uint8Array): Promise<CommandResult> {
    return new Promise((resolve, reject) => {
      if (!this.leading) {
        reject(writeError({ kind: 'notApplied', reason: 'notLeader' }));
        return;
      }
      if (!this.machine.isFounded) {
        reject(notFounded());
        return;
      }
      const logTimeMs = this.time.now(this.machine.logTimeMs);
      this.group.propose(encoded(logTimeMs), (outcome) => {
        if (outcome.kind === 'applied') resolve(outcome.result);
        else reject(writeError(outcome));
      });
    });
  }

  // ---- what drives a migration

  slotState(slot: Slot): SlotState {
    return this.machine.slotState(slot);
  }

  /** Slots that are served here, with how often they are asked for, per second. */
  *slotFigures(): Generator<{ slot: Slot; state: SlotState; operationsPerSecond: number }> {
    this.load.turn();
    for (const [slot, state] of this.machine.servedSlots())
      yield { slot, state, operationsPerSecond: this.load.rateOf(slot) };
  }

  /** Reads and writes that this replica was asked for since it was opened. */
  get operations(): number {
    return this.load.total;
  }

  get slotsInMigration(): ReadonlySet<Slot> {
    return this.machine.slotsInMigration;
  }

  /** As in slot-export.ts; of the slot as it is applied here. */
  scanPart(slot: Slot, cursor: Uint8Array, room: ChunkRoom): Promise<ChunkPart> {
    return scanPart(this.exportSource(slot), cursor, room);
  }

  changesPart(
    slot: Slot,
    from: { readonly migration: number; readonly after: number },
    room: ChunkRoom,
  ): Promise<ChunkPart | undefined> {
    return changesPart(this.exportSource(slot), from, room);
  }

  /** As in pin-records.ts: of the slot that the pin's records are to leave, as it is applied here. */
  carriedPart(
    slot: Slot,
    rule: PinRule,
    cursor: Uint8Array,
    room: ChunkRoom,
  ): Promise<CarriedPart> {
    return carriedPart(this.exportSource(slot), rule, cursor, room);
  }

  private exportSource(slot: Slot): ExportSource {
    const { engine, prefix } = this.machine;
    return { engine, prefix, slot, instance: this.machine.slotState(slot).instance };
  }

  private stampSession(write: Write, logTimeMs: number): Write {
    const { session } = write;
    if (session === undefined || session.notAfterMs !== 0) return write;
    return { ...write, session: { ...session, notAfterMs: logTimeMs + sessionMsMax } };
  }

  /** Calls back with the index at which every replica takes the hash of its state. */
  takeHash(done: (error: KvError | undefined, index: LogIndex) => void): void {
    if (!this.leading) {
      done(writeError({ kind: 'notApplied', reason: 'notLeader' }), 0);
      return;
    }
    this.group.propose(encodeHash(this.time.now(this.machine.logTimeMs)), (outcome) => {
      if (outcome.kind === 'applied') done(undefined, outcome.index);
      else done(writeError(outcome), 0);
    });
  }

  // ---- reads

  read(keys: readonly Uint8Array[], level: ReadLevel, _call: ShardCall, done: ReadDone): void {
    this.reads.read(keys, level, done);
  }

  scan(request: ScanPageRequest, _call: ShardCall, done: ScanDone): void {
    this.scans.scan(request, done);
  }

  // ---- birth

  /** Whichever leader comes first says it; the first entry counts (rule D30). */
  private found(): void {
    const slots = this.birthSlots();
    if (slots === undefined || this.founding) return;
    this.founding = true;
    this.group.propose(encodeFound(slots, this.time.now(this.machine.logTimeMs)), () => {
      this.founding = false;
    });
  }
}
