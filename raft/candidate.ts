/** A candidate, or one who only asks whether it could win (thesis §9.6, pre-vote). */
import type { Replica } from './replica.js';
import { voteResult, type VoteResult } from './quorum.js';
import type { ReplicaId } from './types.js';

export class Candidate {
  readonly kind: 'preCandidate' | 'candidate';
  elapsed = 0;
  readonly timeout: number;
  private readonly answers = new Map<ReplicaId, boolean>();
  private readonly replica: Replica;

  constructor(kind: 'preCandidate' | 'candidate', replica: Replica) {
    this.kind = kind;
    this.replica = replica;
    const { electionTicks } = replica.options;
    this.timeout = electionTicks + replica.random.below(electionTicks);
  }

  /** The first answer counts; a late duplicate changes nothing. */
  record(from: ReplicaId, granted: boolean): VoteResult {
    if (!this.answers.has(from)) this.answers.set(from, granted);
    return this.result();
  }

  /** Only members of the active voter sets are counted, whoever else may have answered. */
  result(): VoteResult {
    return voteResult(this.replica.membership, (id) => this.answers.get(id));
  }
}
