/**
 * What the target of a migration lacks, piece by piece, and when so little is missing that the slots can
 * stand still for the rest. Nothing here is more than a guess of how to go on: what the target has, it says.
 */
import type { Slot } from '../router/slot.js';
import { bytesOfParts, type ChunkPart } from '../shard/migration-step.js';
import type { SourceShard } from './migration-order.js';
import type { MigrationTarget } from './migration-target.js';

/** More would hold the log and the event loop of the target for too long. */
const chunkBytesMax = 256 * 1024;
const chunkRecordsMax = 512;
/** Few enough to be brought over while the slots stand still. */
const freezeLagMax = 512;
/** Rounds of changes after which slots are frozen though they lag more: writers may be as fast as we are. */
const patientRounds = 20;
const hurriedLagMax = 16_384;

export interface MigrationCopyOptions {
  /** Of the migration. */
  readonly id: number;
  readonly shard: Pick<SourceShard, 'slotState' | 'scanPart' | 'changesPart'>;
  readonly target: Pick<MigrationTarget, 'part'>;
}

export class MigrationCopy {
  private readonly options: MigrationCopyOptions;
  private rounds = 0;
  /** Bytes of changes in the last one; what comes while slots stand still is about as much. */
  private roundBytes = 0;
  /** The least lag of the slots at hand since their copy is complete. */
  private leastLag = Number.POSITIVE_INFINITY;

  constructor(options: MigrationCopyOptions) {
    this.options = options;
  }

  /** Of other slots. */
  begin(): void {
    this.beginRounds();
    this.leastLag = Number.POSITIVE_INFINITY;
  }

  /** Slots that stood still take writes again. */
  beginRounds(): void {
    this.rounds = 0;
    this.roundBytes = 0;
  }

  /** Changes were sent that came after the copy. */
  noteRound(bytes: number): void {
    this.rounds++;
    this.roundBytes = bytes;
  }

  isComplete(slots: readonly Slot[]): boolean {
    return slots.every((slot) => this.options.target.part(slot)?.copied === true);
  }

  /** Changes that the target does not have yet. */
  lag(slots: readonly Slot[]): number {
    return slots.reduce((sum, slot) => sum + this.lagOf(slot), 0);
  }

  /** Unlike the copy, changes may never end: only fewer of them than ever are progress. */
  isLeast(lag: number): boolean {
    if (lag >= this.leastLag) return false;
    this.leastLag = lag;
    return true;
  }

  /** Little is missing, and the last round was smaller than a chunk; or there is no end of it. */
  isTimeToFreeze(lag: number): boolean {
    if (this.rounds >= patientRounds) return lag <= hurriedLagMax;
    return lag === 0 || (lag <= freezeLagMax && this.rounds > 0 && this.roundBytes < chunkBytesMax);
  }

  /** The next piece of each slot, as much as goes into one chunk. */
  async nextParts(slots: readonly Slot[]): Promise<ChunkPart[]> {
    const parts: ChunkPart[] = [];
    let [bytes, records] = [chunkBytesMax, chunkRecordsMax];
    for (const slot of slots) {
      if (bytes <= 0 || records <= 0) break;
      const part = await this.nextPart(slot, { bytesMax: bytes, lengthMax: records });
      if (part === undefined) continue;
      parts.push(part);
      bytes -= bytesOfParts([part]);
      records -= part.records.length;
    }
    return parts;
  }

  private async nextPart(
    slot: Slot,
    room: { readonly bytesMax: number; readonly lengthMax: number },
  ): Promise<ChunkPart | undefined> {
    const { shard, id, target } = this.options;
    // Of a target that was not heard of yet it is assumed that it has nothing; if it has, this is ignored.
    const migration = target.part(slot);
    if (migration?.copied !== true)
      return shard.scanPart(slot, migration?.cursor ?? new Uint8Array(), room);
    if (this.lagOf(slot) === 0) return undefined;
    return shard.changesPart(slot, { migration: id, after: migration.through }, room);
  }

  private lagOf(slot: Slot): number {
    const { change } = this.options.shard.slotState(slot);
    return Math.max(0, change - (this.options.target.part(slot)?.through ?? 0));
  }
}
