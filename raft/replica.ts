/**
 * One member of a group: the state that survives changes of role, and what it has to say. The roles
 * (follower.ts, candidate.ts, leader.ts) act on it; core.ts chooses the role.
 *
 * Two outputs, and which of them a message takes is what safety under crashes comes down to. News binds
 * nobody and leaves at once (`send`). A promise is about this disk, and leaves when all that it speaks
 * of is durable (`sendAfterPersist`): a vote, a request for votes, an acknowledgement.
 *
 * A promise may find its term over when it leaves, and entries it names cut off. That is no lie: its
 * receiver counts it in the old term only, and whoever cut them off was elected by a quorum that one
 * of the old term's quorum belongs to, with a log as new as that one's. Were the entries decided by
 * this promise, that leader would have had them.
 */
import { assert } from './assert.js';
import { RaftLog } from './log.js';
import { decodeMembership, isVoter } from './membership.js';
import type { Message } from './message.js';
import type { RaftOptions, RestoredState } from './options.js';
import { Random } from './random.js';
import type { Fetch, ReadState } from './ready.js';
import {
  EntryKind,
  noReplica,
  type Entry,
  type Generation,
  type HardState,
  type LogIndex,
  type Membership,
  type MembershipAt,
  type ReplicaId,
  type SnapshotMeta,
  type Term,
} from './types.js';

type Restore = SnapshotMeta & { readonly from: ReplicaId };

/** State and output of one member. No decisions: those are the roles'. */
export class Replica {
  readonly id: ReplicaId;
  readonly options: RaftOptions;
  readonly log: RaftLog;
  readonly generation: Generation;
  /**
   * The highest generation heard of that is not ours; 0: none. From then on this replica is silent
   * until it is rebuilt: what it knows of the group, and what it promised, was overruled (rule D07).
   */
  outdatedBy: Generation = 0;
  readonly random: Random;
  /** Only `enterTerm` changes these two: a new term begins without a vote. */
  term: Term;
  vote: ReplicaId;
  /** Of `term`; `noReplica` until it is heard. At most one for a term (election safety, §5.2). */
  leader: ReplicaId = noReplica;
  /**
   * Ticks given since construction. Never ahead of true time: a stalled loop gives none, and makes up
   * for none. So it measures what must not end too early: promises to a leader, silence after a
   * restart, patience with a disk. None of them ends because this process stood still.
   */
  ticks = 0;
  /** Ticks that passed without being given, as far as the driver has said (`elapse`). */
  missedTicks = 0;
  /**
   * When (in `ticks`) a leader was last heard, of whatever term. It outlives changes of term and role: a leader
   * may hold a lease on the strength of our answer, and learning a higher term from somebody else
   * does not take that answer back.
   */
  leaderHeardAt = -Infinity;
  /** Memberships in the log, ascending; the last is in force, committed or not (thesis §4.1). */
  private memberships: MembershipAt[];
  /** A snapshot is being installed; nothing is applied meanwhile, and no append or commit is taken. */
  restoring: Restore | undefined;
  /** The state machine is not usable until a snapshot is installed (rules D13, D15). */
  needsSnapshot: boolean;

  // Output, taken by ready().
  messages: Message[] = [];
  messagesAfterPersist: Message[] = [];
  readStates: ReadState[] = [];
  fetches: Fetch[] = [];
  snapshotsWanted: ReplicaId[] = [];
  restore: Restore | undefined;
  logReset: SnapshotMeta | undefined;
  /** Messages dropped, by reason: words of `drop` calls, a few dozen at most. */
  readonly dropped: Record<string, number> = {};
  /** What the last batch handed out said: durable, or on its way there before anything later. */
  private hardState: HardState;

  /** Throws RaftInvariantError for a state that no disk of ours can hold. */
  constructor(options: RaftOptions, state: RestoredState) {
    this.id = options.id;
    this.options = options;
    this.generation = state.generation;
    this.random = new Random(options.seed);
    this.hardState = state.hardState;
    this.memberships = [...state.memberships];
    assert(this.memberships.length > 0, () => 'a member knows the membership of its group');
    this.needsSnapshot = state.restoring;
    this.log = new RaftLog(
      {
        firstIndex: state.firstIndex,
        lastIndex: state.lastIndex,
        termRuns: state.termRuns,
        tail: state.tail,
        // A restarted member may have applied more than its last hard state said (rule D12).
        commitIndex: Math.max(state.hardState.commit, state.appliedIndex, state.firstIndex - 1),
        appliedIndex: Math.max(state.appliedIndex, state.firstIndex - 1),
      },
      options.windowBytesMax,
    );
    assert(
      state.restoring || state.appliedIndex >= state.firstIndex - 1,
      () => `applied ${state.appliedIndex} behind a log from ${state.firstIndex} (rule D13)`,
    );
    // A crash between the install of a snapshot and the batch with its term leaves a log that is
    // ahead of the hard state. Nothing was promised in that term: a promise follows its batch. So
    // no vote of that term can have been given, and none is forgotten here.
    const { term, vote } = state.hardState;
    this.term = Math.max(term, this.log.lastTerm);
    this.vote = this.term === term ? vote : noReplica;
  }

  /**
   * Never behind true time, as of the driver's last word. It measures the one thing that must not
   * last too long: the lease. Two clocks, since one cannot be late and early at once: a heartbeat that
   * waited in the queue of a stalled process is heard before the driver tells of the stall, and by
   * this clock the promise that it brings would be shorter by all of it.
   */
  get now(): number {
    return this.ticks + this.missedTicks;
  }

  /** In force, with the index that brought it: the handle for compare and set (rule D06). */
  get membershipAt(): MembershipAt {
    const last = this.memberships[this.memberships.length - 1];
    assert(last !== undefined, () => 'a member knows the membership of its group');
    return last;
  }

  get membership(): Membership {
    return this.membershipAt.membership;
  }

  /** The membership in force at an index that is still in the log, or just before it. */
  membershipBefore(index: LogIndex): MembershipAt {
    for (let n = this.memberships.length - 1; n >= 0; n--) {
      const at = this.memberships[n];
      if (at !== undefined && at.index <= index) return at;
    }
    return this.membershipAt;
  }

  /**
   * May this member campaign? A learner or one that was removed may not: nobody waits for it. Nor may
   * one without a state machine: as leader it could answer nothing, nor send anybody a snapshot (D15).
   * One of a generation that is over has nobody to lead (D07).
   */
  get canCampaign(): boolean {
    if (this.outdatedBy > 0) return false;
    return this.isVoterStill && !this.needsSnapshot && this.restoring === undefined;
  }

  /**
   * A voter of the membership in force, or of an earlier one as long as what replaced it is not known
   * to be committed: those who are to decide may not have heard of the change, and may need our log,
   * which has it, to be brought forward by somebody (thesis §4.2.2). Without the own vote, if the
   * membership in force does not count it.
   */
  private get isVoterStill(): boolean {
    const { memberships, id, log } = this;
    return memberships.some(({ membership }, n) => {
      const successor = memberships[n + 1];
      const isOver = successor !== undefined && successor.index <= log.commitIndex;
      return !isOver && isVoter(membership, id);
    });
  }

  /** Vote and term change together, here and on disk: a vote kept for a new term would be nobody's. */
  enterTerm(term: Term): void {
    assert(term > this.term, () => `terms rise: ${term} after ${this.term}`);
    this.term = term;
    this.vote = noReplica;
    this.leader = noReplica;
  }

  /**
   * Appends, and follows what the entries say about the membership: each is in force from here on,
   * committed or not (thesis §4.1). A member sees what is in its log, but not at which moment an entry
   * became committed: were it that moment, two members could differ about who counts and both be right.
   */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    this.forgetMembershipsFrom(first.index);
    this.log.append(entries);
    for (const entry of entries) {
      if (entry.kind !== EntryKind.membership) continue;
      this.memberships.push({ index: entry.index, membership: decodeMembership(entry.data) });
    }
  }

  /** A truncated membership entry was never in force. */
  private forgetMembershipsFrom(index: LogIndex): void {
    while (this.memberships.length > 1 && this.membershipAt.index >= index) this.memberships.pop();
  }

  /** The membership at firstIndex - 1 stays known: a snapshot taken there has to name it. */
  compact(firstIndex: LogIndex): void {
    this.log.compact(firstIndex);
    while (this.memberships.length > 1 && (this.memberships[1]?.index ?? Infinity) < firstIndex) {
      this.memberships.shift();
    }
  }

  /**
   * The state machine holds the snapshot. If our log has its last entry, what follows it stays: it
   * was acknowledged, and a quorum may rest on it (paper, figure 13, step 6). Otherwise the log is
   * another history, or too short, and begins anew.
   */
  installSnapshot(snapshot: SnapshotMeta): void {
    const { log } = this;
    if (log.matches(snapshot.index, snapshot.term)) {
      log.skipTo(snapshot.index);
      return;
    }
    log.reset(snapshot);
    this.memberships = [snapshot.membership];
    this.logReset = snapshot;
  }

  /** The only thing that happens to a message that is not heard. */
  drop(reason: string): void {
    this.dropped[reason] = (this.dropped[reason] ?? 0) + 1;
  }

  /** For news: true whatever becomes of this disk. */
  send(message: Message): void {
    this.messages.push(message);
  }

  /** For messages that promise something about this disk. */
  sendAfterPersist(message: Message): void {
    this.messagesAfterPersist.push(message);
  }

  /** Accepts everything up to `index`: true only once all of it is durable here. */
  acknowledge(to: ReplicaId, index: LogIndex): void {
    const { id: from, term } = this;
    this.sendAfterPersist({
      type: 'appendReply',
      from,
      to,
      term,
      index,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
  }

  /** The hard state, if the batch at hand must carry it. The commit index alone is no reason. */
  takeHardState(withBatch: boolean): HardState | undefined {
    const { term, vote } = this;
    // Never beyond what is durable already: a write that is torn in the middle could keep this hint
    // and lose the entries of the same batch, and the member would start with a commit index that
    // its log does not reach.
    const commit = Math.min(this.log.commitIndex, this.log.persistedIndex);
    const old = this.hardState;
    const changed = term !== old.term || vote !== old.vote;
    if (!changed && !(withBatch && commit !== old.commit)) return undefined;
    this.hardState = { term, vote, commit };
    return this.hardState;
  }

  /** Worth a write of its own: these two must be durable before anything is said in the term. */
  get hardStateChanged(): boolean {
    return this.term !== this.hardState.term || this.vote !== this.hardState.vote;
  }
}
