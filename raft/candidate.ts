/**
 * A candidate (paper §5.2), or one who only asks whether it could win (thesis §9.6, pre-vote).
 *
 * The two differ in what an answer costs: a vote is given once in a term and survives crashes, a
 * pre-vote is an opinion. So only votes of this term make a leader, and pre-votes only a candidate.
 * Answers to the one never count for the other: they are messages of their own (`core.ts`).
 */
import type { Replica } from './replica.js';
import { voteResult, type VoteResult } from './quorum.js';
import type { ReplicaId } from './types.js';

/** Built anew for every campaign: votes of an earlier one are forgotten with it. */
export class Candidate {
  readonly kind: 'preCandidate' | 'candidate';
  elapsed = 0;
  /** As `Follower.timeout`; then another campaign begins, one term higher if this was a true one. */
  readonly timeout: number;
  /** Own answer included: for a candidate it comes when the own vote is durable (D02). */
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

  /**
   * Only members of the active voter sets are counted, whoever else may have answered: learners answer
   * like anybody, and so do members that do not know yet that they were removed. The sets
   * are those of the log's last membership, and a log does not change while its owner campaigns.
   */
  result(): VoteResult {
    return voteResult(this.replica.membership, (id) => this.answers.get(id));
  }
}
