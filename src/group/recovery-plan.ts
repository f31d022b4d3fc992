/**
 * Which replica of each group a forced recovery (rule D07) is to begin with: a pure function from what
 * the surviving nodes have to a plan.
 *
 * The survivor with the newest log (last term, then last index) has everything that any of them
 * acknowledged, as a candidate that they would all vote for. What it has not, only the lost had.
 */
import type { Generation } from '../../raft/index.js';

/** A replica as its node's data directory has it. */
export interface ReplicaListing {
  /** 0 is the metadata group. */
  readonly group: number;
  readonly replica: number;
  readonly node: number;
  readonly generation: number;
  readonly term: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  /** Replica ids of the voters, by the newest membership in its log; two lists in a joint one. */
  readonly majorities: readonly (readonly number[])[];
  /** All members, learners included. */
  readonly members: readonly { readonly replica: number; readonly node: number }[];
  /** False: its state is damaged or half replaced, and it needs a snapshot from somebody. */
  readonly usable: boolean;
  /** Why not, or an empty text. */
  readonly reason: string;
}

export interface PlannedRecovery {
  readonly group: number;
  readonly replica: number;
  readonly node: number;
  /** That the group is to have. */
  readonly generation: number;
  /** Where the survivor's log ends now: it must not have run in between. */
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** Nodes with members of whom no listing tells. */
  readonly lost: readonly number[];
}

export interface RecoveryPlan {
  readonly recoveries: readonly PlannedRecovery[];
  /** Groups whose listed voters are a majority still: they need no recovery, only to be started. */
  readonly alive: readonly number[];
  /** Groups without a quorum, and without a replica that could be the survivor. */
  readonly hopeless: readonly number[];
  /** Not usable, and with a newer log than the best that is: what only they have would be gone as well. */
  readonly passedOver: readonly ReplicaListing[];
}

export interface PlanOptions {
  /** Recovers also groups that have a quorum. */
  readonly force: boolean;
  /** Recovers also groups with a replica that has to be passed over. */
  readonly giveUpUnusable: boolean;
  /** Of this plan alone: see `freshGeneration`. */
  readonly generation: Generation;
}

const randomBits = 20;
/** Exclusive bound of the random number that `freshGeneration` takes. */
export const randomBound = 2 ** randomBits;

/**
 * A generation that no other plan gets, wherever it is made: two that do not know of one another must
 * not take each other's members for their own. The later plan has the higher one, by seconds of its
 * wall clock; `random`, an integer below `randomBound`, tells those of one second apart.
 */
export function freshGeneration(wallMs: number, random: number): Generation {
  return Math.floor(wallMs / 1000) * randomBound + random;
}

export function planRecovery(
  listings: readonly ReplicaListing[],
  { force, giveUpUnusable, generation }: PlanOptions,
): RecoveryPlan {
  const recoveries: PlannedRecovery[] = [];
  const alive: number[] = [];
  const hopeless: number[] = [];
  const passedOver: ReplicaListing[] = [];
  const groups = [...new Set(listings.map(({ group }) => group))].sort((a, b) => a - b);
  for (const group of groups) {
    const present = newestGeneration(listings.filter((each) => each.group === group));
    const best = present.toSorted(byNewestLog)[0];
    if (best === undefined) continue;
    if (!force && hasQuorum(best, present)) {
      alive.push(group);
      continue;
    }
    const survivor = present.filter(({ usable }) => usable).toSorted(byNewestLog)[0];
    if (survivor === undefined) {
      hopeless.push(group);
      continue;
    }
    const newer = present.filter((each) => !each.usable && byLog(each, survivor) < 0);
    passedOver.push(...newer);
    if (newer.length === 0 || giveUpUnusable)
      recoveries.push(recoveryWith(survivor, present, generation));
  }
  return { recoveries, alive, hopeless, passedOver };
}

/** Those of a lower one were recovered from once already, and have nothing to say any more. */
function newestGeneration(listings: readonly ReplicaListing[]): readonly ReplicaListing[] {
  const newest = Math.max(...listings.map(({ generation }) => generation));
  return listings.filter(({ generation }) => generation === newest);
}

/** As a voter compares (paper, §5.4.1), the newest first. */
function byLog(a: ReplicaListing, b: ReplicaListing): number {
  return b.lastTerm - a.lastTerm || b.lastIndex - a.lastIndex;
}

function byNewestLog(a: ReplicaListing, b: ReplicaListing): number {
  return byLog(a, b) || a.node - b.node;
}

/** By the membership of the newest log; one that is not usable votes all the same. */
function hasQuorum({ majorities }: ReplicaListing, present: readonly ReplicaListing[]): boolean {
  const ids = new Set(present.map(({ replica }) => replica));
  return (
    majorities.length > 0 &&
    majorities.every((voters) => 2 * voters.filter((id) => ids.has(id)).length > voters.length)
  );
}

function recoveryWith(
  { group, replica, node, generation: before, lastIndex, lastTerm, members }: ReplicaListing,
  present: readonly ReplicaListing[],
  fresh: Generation,
): PlannedRecovery {
  const ids = new Set(present.map((each) => each.replica));
  const lost = members.filter((member) => !ids.has(member.replica)).map((member) => member.node);
  // A clock that went back must not take the generation with it.
  const generation = Math.max(before + 1, fresh);
  return { group, replica, node, generation, lastIndex, lastTerm, lost };
}
