/**
 * The state machine of one replica in its engine: a chain of hashes over everything applied, which
 * differs as soon as one entry was skipped, doubled or exchanged. Batches are not synced: a crash
 * takes the engine back to any state between its durable mark and the present.
 */
import type { Entry, LogIndex, MembershipAt, Term } from '../../raft/index.js';
import type { SimRandom } from './random.js';

/** The state machine after one entry. */
export interface EngineState {
  readonly index: LogIndex;
  readonly term: Term;
  readonly hash: number;
}

/** A state machine image as it travels to a lagging replica. */
export interface Image {
  readonly state: EngineState;
  readonly membership: MembershipAt;
}

const empty: EngineState = { index: 0, term: 0, hash: 0 };

export class SimEngine {
  /** States since the durable mark, the durable one first, the present one last. */
  private states: EngineState[] = [empty];
  /** Rule D15: set, durably, while an image is being written over the old state. */
  restoringMarker = false;
  /** Durable states were lost and nothing has replaced them yet. */
  isDamaged = false;
  /** The membership that came with the last image, to finish a log reset at start. */
  imageMembership: MembershipAt | undefined;

  get state(): EngineState {
    return this.states.at(-1) ?? empty;
  }

  /** Never lost by a crash. */
  get durableIndex(): LogIndex {
    return this.states[0]?.index ?? 0;
  }

  apply(entry: Entry): EngineState {
    const { index, hash } = this.state;
    if (this.restoringMarker) throw new Error(`entry ${entry.index} applied to a broken state`);
    if (entry.index !== index + 1) throw new Error(`entry ${entry.index} applied after ${index}`);
    const next = { index: entry.index, term: entry.term, hash: chained(hash, entry) };
    this.states.push(next);
    return next;
  }

  /** Syncs: the present state is durable. */
  flush(): void {
    this.states = [this.state];
  }

  /** The new image stands, synced, together with its applied index; the marker goes with it. */
  install(image: Image): void {
    this.states = [image.state];
    this.imageMembership = image.membership;
    this.restoringMarker = false;
    this.isDamaged = false;
  }

  /** Power is lost; true if something applied was lost with it. */
  crash(random: SimRandom): boolean {
    const kept = random.chance(0.4) ? this.states.length : random.integer(1, this.states.length);
    const rolledBack = kept < this.states.length;
    // What survived the crash is on the disk: a second crash cannot take it away.
    this.states = this.states.slice(kept - 1, kept);
    return rolledBack;
  }

  /** The files of the engine are damaged: durable states are lost as well (rule D13). */
  damage(): void {
    this.states = [empty];
    this.isDamaged = true;
  }
}

function chained(hash: number, entry: Entry): number {
  let mixed = Math.imul(hash ^ entry.index, 0x01000193) ^ Math.imul(entry.term, 0x85ebca6b);
  mixed = Math.imul(mixed ^ entry.kind, 0x01000193);
  for (const byte of entry.data) mixed = Math.imul(mixed ^ byte, 0x01000193);
  return mixed >>> 0;
}
