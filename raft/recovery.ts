/**
 * Forced recovery of a group that has lost its quorum for good (rule D07): one survivor is made the
 * only voter, in a higher generation. What only the lost majority had is gone, and what this survivor
 * had in its log without being committed becomes committed; no protocol can do better without them.
 *
 * No new mechanism leads there: the survivor's log gets one more entry, the membership of which it is
 * the only voter. When it starts it wins the next term by its own vote and commits all that it has.
 */
import { assert } from './assert.js';
import { encodeMembership, membershipOf } from './membership.js';
import type { RestoredState } from './options.js';
import { EntryKind, type Entry, type Generation, type HardState, type Member } from './types.js';

/** To be appended and synced as one, while the replica does not run. */
export interface ForcedRecovery {
  readonly generation: Generation;
  readonly hardState: HardState;
  readonly entries: readonly [Entry];
}

/**
 * `state`: of the survivor `member`, which is chosen by the newest log (last term, then last index), as
 * a voter would choose. Throws RaftInvariantError for a generation that is not above the survivor's,
 * and for one without a usable state machine, which could never get one from anybody.
 */
export function forceRecovery(
  state: Pick<RestoredState, 'generation' | 'hardState' | 'lastIndex' | 'termRuns' | 'restoring'>,
  member: Member,
  generation: Generation,
): ForcedRecovery {
  assert(
    generation > state.generation,
    () => `a recovery raises the generation: ${generation} after ${state.generation}`,
  );
  assert(!state.restoring, () => 'the survivor has a usable state machine');
  const lastTerm = state.termRuns[state.termRuns.length - 1]?.term ?? 0;
  // A term of its own: nobody of this generation has said a word in it, and nobody will but us.
  const term = Math.max(state.hardState.term, lastTerm) + 1;
  const entry: Entry = {
    index: state.lastIndex + 1,
    term,
    kind: EntryKind.membership,
    data: encodeMembership(membershipOf([member])),
  };
  return {
    generation,
    hardState: { term, vote: member.id, commit: state.hardState.commit },
    entries: [entry],
  };
}
