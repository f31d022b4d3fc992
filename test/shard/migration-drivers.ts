/**
 * Those who drive migrations, several at a time, each with what it has seen: perhaps long ago, at a
 * replica that was behind. They keep to three duties, and else may say anything: `activate` only after
 * the source has handed over, `collect` only after the target serves, `endImport` only after the source
 * has ended the migration without a handover.
 */
import type { Slot } from '../../src/router/slot.js';
import { changesPart, scanPart, type ChunkRoom } from '../../src/shard/slot-export.js';
import {
  noTerms,
  sourceSteps,
  type ChunkPart,
  type MigrationStep,
  type SlotStepKind,
  type SlotTerms,
} from '../../src/shard/migration-step.js';
import { SlotOwnership, type SlotMigration, type SlotState } from '../../src/shard/slot-state.js';
import type { MigrationWorld } from './migration-world.js';
import type { Replica } from './replica.js';
import { reportOf } from './two-shards.js';

export interface Plan {
  readonly id: number;
  readonly source: number;
  readonly target: number;
  readonly slots: readonly Slot[];
}

/** Both ends of one slot, as somebody has seen them. */
export interface Ends {
  readonly source: SlotState;
  readonly target: SlotState;
}

export type StepKind = SlotStepKind | 'chunk';

/** Of the plan's migration at the source. */
const isIn = ({ id }: Plan, { migration }: Pick<SlotState, 'migration'>): boolean =>
  migration?.id === id;
export const isGiven = (plan: Plan, { source }: Ends): boolean =>
  source.ownership === SlotOwnership.handedOver && isIn(plan, source);
/** The source will never hand it over under this migration. */
export const isOff = (plan: Plan, { source }: Ends): boolean =>
  source.ended >= plan.id && !isGiven(plan, { source, target: source });
const isTaken = (plan: Plan, { source, target }: Ends): boolean =>
  isGiven(plan, { source, target }) && target.ended >= plan.id && target.epoch >= source.epoch;

/** What the duties allow. */
export function mayBeSaid(kind: StepKind, plan: Plan, ends: Ends): boolean {
  switch (kind) {
    case 'activate':
      return isGiven(plan, ends);
    case 'collect':
      return isTaken(plan, ends);
    case 'endImport':
      return isOff(plan, ends);
    case 'importBegin':
      // Where the export has begun is not known before it has.
      return isIn(plan, ends.source);
    default:
      return true;
  }
}

/** What leads on, for one slot; undefined: nothing is left to be done. */
export function nextStep(plan: Plan, ends: Ends): StepKind | undefined {
  const { source, target } = ends;
  if (isTaken(plan, ends)) return 'collect';
  if (isOff(plan, ends)) return target.ended >= plan.id ? undefined : 'endImport';
  if (!isIn(plan, source)) return 'exportBegin';
  if (!isIn(plan, target)) return 'importBegin';
  const { migration } = target;
  if (migration?.copied !== true) return 'chunk';
  if (isGiven(plan, ends)) return 'activate';
  if (migration.through < source.change) return 'chunk';
  if (source.ownership === SlotOwnership.exporting) return 'freeze';
  const isSealed =
    target.ownership === SlotOwnership.ready && migration.logTimeMs === source.migration?.logTimeMs;
  return isSealed ? 'handover' : 'seal';
}

export function termsOf(kind: SlotStepKind, slot: Slot, { source, target }: Ends): SlotTerms {
  const bare = { ...noTerms, slot };
  switch (kind) {
    case 'importBegin':
      return {
        ...bare,
        epoch: source.epoch,
        change: source.migration?.from ?? 0,
        pins: source.pins,
        lastPin: source.lastPin,
      };
    case 'seal':
      return { ...bare, change: source.change, logTimeMs: source.migration?.logTimeMs ?? 0 };
    case 'handover':
      return reportOf(slot, target);
    case 'activate':
      return { ...bare, epoch: source.epoch, change: source.change };
    default:
      return bare;
  }
}

/** What a driver needs of it. */
export type DrivenWorld = Pick<MigrationWorld, 'random' | 'shard' | 'lied'>;

const rashKinds: readonly StepKind[] = [
  'exportBegin',
  'importBegin',
  'chunk',
  'freeze',
  'thaw',
  'seal',
  'handover',
  'activate',
  'collect',
  'endExport',
  'endImport',
];

export class Driver {
  private readonly world: DrivenWorld;
  private readonly seen = new Map<string, SlotState>();
  /** The last piece sent of each slot; the next one may follow it before that one is known to be there. */
  private readonly sent = new Map<string, ChunkPart['progress']>();

  constructor(world: DrivenWorld) {
    this.world = world;
  }

  /** Looks at one replica of each end, or relies on what it saw before. */
  private ends(plan: Plan, slot: Slot): Ends {
    return { source: this.look(plan.source, slot), target: this.look(plan.target, slot) };
  }

  private look(shardId: number, slot: Slot): SlotState {
    const { random } = this.world;
    const name = `${shardId}/${slot}`;
    const known = this.seen.get(name);
    if (known !== undefined && random.chance(0.3)) return known;
    const shard = this.world.shard(shardId);
    const replica = random.chance(0.7) ? shard.first : shard.anyReplica();
    const state = replica.machine.slotState(slot);
    this.seen.set(name, state);
    return state;
  }

  /** A step that leads on, or one at random; undefined: it has nothing to say. */
  async say(plan: Plan): Promise<MigrationStep | undefined> {
    const { random } = this.world;
    const all = plan.slots.map((slot) => ({ slot, ends: this.ends(plan, slot) }));
    const one = random.pick(all);
    if (one === undefined) return undefined;
    const next = nextStep(plan, one.ends);
    const hesitates = (next === 'seal' || next === 'handover') && random.chance(0.15);
    const kind = random.chance(0.15) ? random.pick(rashKinds) : hesitates ? 'thaw' : next;
    if (kind === undefined) return undefined;
    const some = all
      .filter((each) => each === one || random.chance(0.5))
      .filter(({ ends }) => mayBeSaid(kind, plan, ends));
    if (some.length === 0) return undefined;
    const peer = sourceSteps.has(kind) ? plan.target : plan.source;
    if (kind !== 'chunk') {
      const slots = some.map(({ slot, ends }) => this.told(termsOf(kind, slot, ends), kind));
      return { kind, id: plan.id, peer, slots };
    }
    const parts: ChunkPart[] = [];
    for (const { slot, ends } of some) {
      const part = await this.part(plan, slot, ends);
      if (part !== undefined) parts.push(part);
    }
    return parts.length === 0 ? undefined : { kind, id: plan.id, peer, parts };
  }

  /** Now and then a lie; but nobody makes up that the target has what it has not. */
  private told(terms: SlotTerms, kind: SlotStepKind): SlotTerms {
    const { world } = this;
    if (!world.lied || kind === 'activate' || !world.random.chance(0.1)) return terms;
    const lie = kind === 'handover' ? 0 : world.random.integer(-1, 1);
    return {
      ...terms,
      change: Math.max(0, terms.change + lie),
      keys: Math.max(0, terms.keys + world.random.integer(-1, 1)),
      sum: terms.sum + world.random.integer(0, 1),
    };
  }

  /** The next piece as the target asked for it, read while the replica goes on. */
  private async part(plan: Plan, slot: Slot, ends: Ends): Promise<ChunkPart | undefined> {
    const { random } = this.world;
    const shard = this.world.shard(plan.source);
    const replica = random.chance(0.7) ? shard.first : shard.anyReplica();
    const state = replica.machine.slotState(slot);
    // A replica that is not as far as the beginning of the export does not know the slot as it was then.
    const knows = isIn(plan, state) && state.ownership !== SlotOwnership.absent;
    if (!knows) return undefined;
    const name = `${plan.id}/${slot}`;
    const wanted = positionOf(plan, ends.target);
    const sent = this.sent.get(name);
    const next = sent !== undefined && random.chance(0.3) ? behind(sent, wanted) : wanted;
    // Changes may overtake the copy.
    const from = random.chance(0.15) ? { ...next, copied: true } : next;
    const reading = nextPart(replica, plan, slot, from, {
      bytesMax: random.integer(1, 300),
      lengthMax: random.integer(1, 8),
    });
    if (replica !== shard.first) await shard.advance(replica, random.integer(0, 5));
    const part = await reading;
    if (part !== undefined) this.sent.set(name, part.progress);
    if (part === undefined || !this.world.lied || !random.chance(0.2)) return part;
    return { ...part, records: part.records.slice(1) };
  }
}

/** Where a copy stands. */
type Position = Pick<SlotMigration, 'copied' | 'cursor' | 'through'>;

/** Where the target's copy stands. */
export function positionOf(plan: Plan, { migration }: SlotState): Position {
  const nowhere = { copied: false, cursor: new Uint8Array(), through: 0 };
  return migration?.id === plan.id ? migration : nowhere;
}

/** Where it will stand when this piece, too, has arrived. */
function behind(progress: ChunkPart['progress'], before: Position): Position {
  return progress.kind === 'changes'
    ? { ...before, copied: true, through: progress.through }
    : { ...before, copied: progress.end, cursor: progress.next };
}

/** The piece that follows, as a replica of the source has it. */
export function nextPart(
  { engine, prefix, machine }: Replica,
  plan: Plan,
  slot: Slot,
  { copied, cursor, through }: Position,
  room: ChunkRoom,
): Promise<ChunkPart | undefined> {
  const at = { engine, prefix, slot, instance: machine.slotState(slot).instance };
  return copied
    ? changesPart(at, { migration: plan.id, after: through }, room)
    : scanPart(at, cursor, room);
}
