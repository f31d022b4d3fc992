/**
 * The term gate and the changes of role: which message is heard at all, and who this member is when
 * it hears it. What a role does is in follower.ts, candidate.ts and leader.ts.
 *
 * Paper §5.1: a higher term is entered, a lower one refused. Two exceptions keep members that cannot
 * win from costing the group its leader: pre-votes name a term that nobody is in yet (thesis §9.6),
 * and candidates are not heard at all while a leader is (thesis §4.2.3).
 *
 * A change of role builds a new object and throws the old one away, so nothing that was true of the
 * old role can be taken for true of the new one. Every change ends the reads of the old role first.
 */
import { assertNever } from './assert.js';
import { Candidate } from './candidate.js';
import { Follower } from './follower.js';
import { Leader } from './leader.js';
import { isMember, isVoter } from './membership.js';
import type { Message, VoteReply, VoteRequest } from './message.js';
import { isWellFormed } from './message-check.js';
import type { ReadVerdict } from './options.js';
import type { VoteResult } from './quorum.js';
import { readsMax } from './read-index.js';
import type { Replica } from './replica.js';
import {
  noReplica,
  type Generation,
  type ReplicaId,
  type SnapshotMeta,
  type Term,
} from './types.js';

type CurrentRole = Follower | Candidate | Leader;

/** The member behind a `RawNode`: takes inputs, leaves what follows from them in `replica`. */
export class Core {
  readonly replica: Replica;
  role: CurrentRole;
  /** Until this tick no vote is granted: one given before the restart may stand in a lease (D03). */
  private readonly silentUntil: number;
  /** The own disk or apply loop hangs: a leader steps down, and nobody campaigns meanwhile. */
  private stalled = false;

  constructor(replica: Replica) {
    this.replica = replica;
    this.silentUntil = replica.options.silentTicks;
    this.role = new Follower(replica);
  }

  // ---- time

  /** `stalled`: this member's own disk or state machine has not moved for too long. */
  tick(stalled: boolean): void {
    const { role, replica } = this;
    replica.ticks++;
    this.stalled = stalled;
    if (role.kind === 'leader') {
      if (stalled || role.tick() === 'stepDown') this.becomeFollower(noReplica);
      return;
    }
    if (role.kind === 'follower') role.expireReads();
    if (role.kind === 'follower' && role.quiet) return;
    role.elapsed++;
    if (role.elapsed >= role.timeout) this.onElectionTimeout();
  }

  /** Paper §5.2: a silence that was long enough, or a campaign that came to nothing. */
  private onElectionTimeout(): void {
    if (!this.replica.canCampaign || this.stalled) {
      // Waits on, and forgets the leader that fell silent: reads are no longer sent there.
      this.becomeFollower(noReplica);
      return;
    }
    this.campaign(this.replica.options.preVote ? 'preCandidate' : 'candidate', false);
  }

  // ---- elections

  /**
   * Paper §5.2, thesis §9.6. `transfer`: asked for by the leader, so voters need not honour its lease,
   * and no rehearsal is needed either: the leader itself found this log to be complete (§3.10).
   */
  campaign(kind: 'preCandidate' | 'candidate', transfer: boolean): void {
    const { replica } = this;
    if (this.role.kind === 'leader' || !replica.canCampaign) return;
    this.loseReads();
    const { log } = replica;
    if (kind === 'candidate') {
      replica.enterTerm(replica.term + 1);
      replica.vote = replica.id;
    }
    // A rehearsal raises no term: a member that cannot win must not disturb those that can (§9.6).
    const term = kind === 'candidate' ? replica.term : replica.term + 1;
    replica.leader = noReplica;
    const candidate = new Candidate(kind, replica);
    this.role = candidate;
    const type = kind === 'candidate' ? 'vote' : 'preVote';
    for (const { id: to } of replica.membership.members) {
      // In a joint configuration both sides are asked, since both have to agree (paper §6).
      if (to === replica.id || !isVoter(replica.membership, to)) continue;
      const request: VoteRequest = {
        type,
        from: replica.id,
        to,
        term,
        lastIndex: log.lastIndex,
        lastTerm: log.lastTerm,
        transfer,
      };
      // Asking in a term says that it is ours: that must survive a crash first. Asked early,
      // votes for a campaign that a crash forgot could be counted by the next one of the same term,
      // and they were given to the log of before the crash.
      if (kind === 'candidate') replica.sendAfterPersist(request);
      else replica.send(request);
    }
    if (kind === 'candidate') {
      // Our own vote counts when it is durable, like everybody's: it comes back through step() (D02).
      replica.sendAfterPersist(voteReply(replica, { type, to: replica.id, term, granted: true }));
    } else {
      this.onVotes(candidate, candidate.record(replica.id, true));
    }
  }

  private onVotes(candidate: Candidate, result: VoteResult): void {
    if (result === 'pending') return;
    // Lost: a majority knows better. Waiting as a follower draws a new timeout, and in the same term
    // the winner is recognised by its first heartbeat.
    if (result === 'lost') this.becomeFollower(noReplica);
    else if (candidate.kind === 'preCandidate') this.campaign('candidate', false);
    else this.role = new Leader(this.replica);
  }

  /** Without a change of term. `leader`: whom to follow, `noReplica` to wait for whoever comes. */
  becomeFollower(leader: ReplicaId): void {
    const { role, replica } = this;
    if (role.kind === 'follower' && replica.leader === leader) {
      role.elapsed = 0;
      role.quiet = false;
      return;
    }
    this.loseReads();
    replica.leader = leader;
    this.role = new Follower(replica);
  }

  /** Whoever waits for a read is told now: the new role will not know of it. */
  private loseReads(): void {
    if (this.role.kind === 'follower' || this.role.kind === 'leader') this.role.loseReads();
  }

  // ---- messages

  /**
   * Never throws on what others say. Ids are checked before the term: a message to a replica that was
   * removed and added again under another id must not even raise its term (rule D01).
   */
  step(message: Message, generation: Generation): void {
    const { replica } = this;
    if (message.to !== replica.id) replica.drop('otherReplica');
    else if (!isWellFormed(message)) replica.drop('malformed');
    else if (!this.passGenerationGate(message, generation)) return;
    else if (this.isOfStrangerToQuiet(message)) replica.drop('stranger');
    else {
      this.wakeFor(message);
      if (this.passTermGate(message)) this.dispatch(message);
    }
  }

  /**
   * Rule D07. Before the term gate and everything else: between generations terms, votes and logs
   * mean nothing to one another, and not even a term may go from one to the other.
   *
   * One that is behind is told so. All of the answer that it will look at is the generation it is
   * sent with; since nothing is said to one that is ahead, two never answer each other for ever.
   */
  private passGenerationGate({ from: to }: Message, generation: Generation): boolean {
    const { replica } = this;
    if (generation < replica.generation) {
      replica.drop('lowerGeneration');
      const { id: from, term } = replica;
      replica.send({ type: 'heartbeatReply', from, to, term, round: 0 });
      return false;
    }
    this.learnGeneration(generation);
    if (replica.outdatedBy === 0) return true;
    replica.drop('outdated');
    return false;
  }

  /** Whoever is outdated leads nobody, and asks and answers nobody: a majority of such is none. */
  learnGeneration(generation: Generation): void {
    const { replica } = this;
    if (generation <= Math.max(replica.generation, replica.outdatedBy)) return;
    replica.outdatedBy = generation;
    this.becomeFollower(noReplica);
  }

  /**
   * A member that was away when it was removed asks whom it knows, and not a leader that came after it
   * (R22). It would wake followers behind the back of a quiet leader, and one of them would depose it.
   * A quiet follower may judge who is a stranger: it had everything when the group fell quiet, and any
   * change since would have woken it.
   */
  private isOfStrangerToQuiet({ type, from }: Message): boolean {
    const { role, replica } = this;
    if (type !== 'vote' && type !== 'preVote') return false;
    return role.kind === 'follower' && role.quiet && !isMember(replica.membership, from);
  }

  /**
   * Rule D05: whatever comes to a member of a quiet group wakes it, above all a candidate, which does
   * not find a leader. Only the message that made the group quiet, and its answer, do not. Before the
   * term gate, so that a follower that wakes honours its leader for an election timeout more, and the
   * leader has the time to speak.
   */
  private wakeFor(message: Message): void {
    if (message.type !== 'heartbeat' && message.type !== 'heartbeatReply') this.wake();
  }

  /** See `RawNode.wake`. */
  wake(): void {
    const { role } = this;
    if (role.kind === 'leader' || role.kind === 'follower') role.wake();
  }

  /** Higher terms are entered, lower ones answered or dropped. False: nothing more to do. */
  private passTermGate(message: Message): boolean {
    const { term } = this.replica;
    if (message.term > term) return this.onHigherTerm(message);
    if (message.term < term) {
      this.onLowerTerm(message);
      return false;
    }
    return true;
  }

  private onHigherTerm(message: Message): boolean {
    const { replica } = this;
    if (message.type === 'vote' || message.type === 'preVote') {
      if (this.ignoresCandidates(message)) {
        replica.drop('leaderIsAlive');
        return false;
      }
      // The asked term is a hypothesis, not a fact: it is not entered (thesis §9.6).
      if (message.type === 'preVote') return true;
    }
    // A granted pre-vote echoes the hypothetical term. A refused one names the voter's own, which is
    // a fact, and is entered: a member that is behind would otherwise ask in vain for ever.
    if (message.type === 'preVoteReply' && message.granted) return true;
    this.enterTerm(message.term, leaderOf(message));
    return true;
  }

  /**
   * Paper §6, third problem. Having heard a leader within an election timeout, members neither help to depose it (thesis
   * §4.2.3, §6.4.1: the lease rests on this) nor let removed ones disturb it (R22). After a restart
   * they have forgotten whom they heard, and keep silent for as long (D03).
   */
  private ignoresCandidates(message: VoteRequest): boolean {
    if (message.transfer) return false;
    const { replica, role } = this;
    const { checkQuorum, preVote, electionTicks } = replica.options;
    if (replica.ticks < this.silentUntil) return true;
    if (!checkQuorum && !preVote) return false;
    return role.kind === 'leader' || replica.ticks - replica.leaderHeardAt < electionTicks;
  }

  private onLowerTerm(message: Message): void {
    const { replica } = this;
    const { id: from, term } = replica;
    switch (message.type) {
      case 'append':
      case 'heartbeat':
      case 'snapshot':
        // Tells a leader of an older term that it is none any more; without this one that came back
        // from a partition with a higher term could neither win nor be heard (etcd: pre-vote).
        // Round 0 is never sent: should the receiver lead *this* term by then, it proves nothing.
        replica.send({ type: 'heartbeatReply', from, to: message.from, term, round: 0 });
        break;
      case 'preVote':
      case 'vote':
        // Tells a candidate that was away in which term the others are (paper, figure 2: reply false).
        replica.send(
          voteReply(replica, { type: message.type, to: message.from, term, granted: false }),
        );
        break;
      default:
        // Answers to what was asked in an older term. What they promised holds for that term only.
        replica.drop('lowerTerm');
    }
  }

  /** Paper §5.1, and figure 2, rules for all servers: a higher term makes anyone a follower. */
  private enterTerm(term: Term, leader: ReplicaId): void {
    this.loseReads();
    this.replica.enterTerm(term);
    this.replica.leader = leader;
    // A candidate of a higher term is no reason to wait anew, unless it gets the vote (§5.2).
    if (leader === noReplica && this.role.kind === 'follower') this.role.quiet = false;
    else this.role = new Follower(this.replica);
  }

  /** From here on the message is of our own term, but for pre-votes and their granted answers. */
  private dispatch(message: Message): void {
    switch (message.type) {
      case 'vote':
      case 'preVote':
        this.onVoteRequest(message);
        break;
      case 'voteReply':
      case 'preVoteReply':
        this.onVoteReply(message);
        break;
      case 'append':
        this.follow(message.from)?.onAppend(message);
        break;
      case 'heartbeat':
        this.follow(message.from)?.onHeartbeat(message);
        break;
      case 'snapshot':
        this.follow(message.from)?.onSnapshot(message);
        break;
      case 'appendReply':
        if (this.role.kind === 'leader') this.role.onAppendReply(message);
        this.afterCommit();
        break;
      case 'heartbeatReply':
        if (this.role.kind === 'leader') this.role.onHeartbeatReply(message);
        break;
      case 'timeoutNow':
        // A member that hangs would only take the leadership to lose it. One that another than the
        // leader sends is late or forged: its transfer is over, and voters would obey it all the same.
        if (this.role.kind === 'follower' && message.from === this.replica.leader && !this.stalled)
          this.campaign('candidate', true);
        break;
      case 'readIndex':
        this.onReadIndex(message.from, message.context, message);
        break;
      case 'readIndexReply':
        if (this.role.kind === 'follower') this.role.onReadIndexReply(message);
        else this.replica.drop('unknownReadContext');
        break;
      default:
        assertNever(message);
    }
  }

  /** The sender leads this term: election safety says that nobody else does. */
  private follow(leader: ReplicaId): Follower | undefined {
    if (this.role.kind === 'leader') {
      this.replica.drop('secondLeader');
      return undefined;
    }
    const known = this.replica.leader;
    if (known !== noReplica && known !== leader) {
      this.replica.drop('secondLeader');
      return undefined;
    }
    if (this.role.kind !== 'follower') this.becomeFollower(leader);
    if (this.role.kind !== 'follower') return undefined;
    this.role.hear(leader);
    return this.role;
  }

  /**
   * Paper, figure 2, RequestVote, receiver: one vote in a term, and none for a log that lacks
   * something ours has (§5.4.1), since ours may be committed. Two majorities share a member, so at
   * most one candidate wins a term, and it has everything committed before (leader completeness).
   *
   * A pre-vote answers the same question as if the term were one higher. It takes nobody's vote away,
   * so any number of members may be told yes, and it is not remembered.
   */
  private onVoteRequest(message: VoteRequest): void {
    const { replica, role } = this;
    const { type, from: to } = message;
    // Also in our own term, which may have been entered without a vote, from a reply that came late.
    const silent = this.ignoresCandidates(message);
    const free =
      type === 'preVote'
        ? message.term > replica.term
        : // Without a vote, but with a leader: the term is decided, and the vote would be wasted.
          replica.vote === to || (replica.vote === noReplica && replica.leader === noReplica);
    // A member that believes itself a learner still grants: it may have missed the entry that made
    // it a voter, and the quorum may need its vote to tell it (see the README's example).
    const granted = free && !silent && replica.log.isUpToDate(message.lastIndex, message.lastTerm);
    if (type === 'preVote') {
      replica.send(
        voteReply(replica, { type, to, term: granted ? message.term : replica.term, granted }),
      );
    } else if (granted) {
      replica.vote = to;
      // Granting is a reason to wait, refusing is none (§5.2): else a candidate that cannot win
      // could keep those that can from ever trying.
      if (role.kind === 'follower') role.elapsed = 0;
      replica.sendAfterPersist(voteReply(replica, { type, to, term: replica.term, granted }));
    } else {
      replica.send(voteReply(replica, { type, to, term: replica.term, granted }));
    }
  }

  /** Also our own vote, once it is durable. Whether a voter counts is decided in `Candidate.result`. */
  private onVoteReply(message: VoteReply): void {
    const { role } = this;
    const awaited = message.type === 'voteReply' ? 'candidate' : 'preCandidate';
    if (role.kind === 'follower' || role.kind === 'leader' || role.kind !== awaited) {
      this.replica.drop('lateVote');
      return;
    }
    // An answer to an earlier rehearsal names another term.
    if (
      message.type === 'preVoteReply' &&
      message.granted &&
      message.term !== this.replica.term + 1
    ) {
      this.replica.drop('lateVote');
      return;
    }
    this.onVotes(role, role.record(message.from, message.granted));
  }

  /** Refused at once by whoever does not lead, so that the asker need not wait for its timeout. */
  private onReadIndex(
    from: ReplicaId,
    context: string,
    message: Extract<Message, { type: 'readIndex' }>,
  ): void {
    const { replica, role } = this;
    if (role.kind === 'leader') role.onReadIndex(message);
    else {
      const { id, term } = replica;
      replica.send({
        type: 'readIndexReply',
        from: id,
        to: from,
        term,
        context,
        index: 0,
        refused: true,
      });
    }
  }

  // ---- reads

  /** See `RawNode.readIndex`. */
  readIndex(context: string, allowLease: boolean): ReadVerdict {
    const { replica, role } = this;
    if (role.kind === 'leader') return role.readIndex(context, allowLease);
    if (role.kind === 'follower') role.wake();
    if (role.kind !== 'follower' || replica.leader === noReplica)
      return { kind: 'notLeader', leader: noReplica };
    // It could be told an index, and would never come to have applied it.
    if (replica.needsSnapshot) return { kind: 'refused', reason: 'noQuorumYet' };
    if (role.readsAsked >= readsMax) return { kind: 'refused', reason: 'overloaded' };
    role.askReadIndex(context);
    return { kind: 'pending' };
  }

  // ---- completions

  /** After anything that may have moved the commit index. */
  afterCommit(): void {
    if (this.role.kind !== 'leader' || !this.role.isRemoved) return;
    // Its last duty is to say that the membership without it is committed.
    this.role.flush();
    this.becomeFollower(noReplica);
  }

  /** Our own copies count from now on: with a majority of others missing one, that may decide. */
  onPersisted(): void {
    if (this.role.kind !== 'leader') return;
    this.role.maybeCommit();
    this.afterCommit();
  }

  /**
   * The acknowledgement waits with the batch that resets the log, so it is true of the disk (D15). The
   * leader of now is told, which need not be the one that sent the image: what is committed is the
   * same for both.
   */
  onRestored(snapshot: SnapshotMeta, ok: boolean): void {
    const { replica } = this;
    const { restoring } = replica;
    if (restoring === undefined || restoring.index !== snapshot.index) return;
    replica.restoring = undefined;
    // A failed install leaves half a state behind: only another snapshot can mend that.
    replica.needsSnapshot = !ok;
    if (!ok) return;
    replica.installSnapshot(snapshot);
    if (replica.leader !== noReplica && replica.leader !== replica.id) {
      replica.acknowledge(replica.leader, snapshot.index);
    }
  }
}

/** Three kinds of message come from leaders only; the others say nothing about who leads. */
function leaderOf(message: Message): ReplicaId {
  return message.type === 'append' || message.type === 'heartbeat' || message.type === 'snapshot'
    ? message.from
    : noReplica;
}

function voteReply(
  replica: Replica,
  {
    type,
    to,
    term,
    granted,
  }: { type: 'vote' | 'preVote'; to: ReplicaId; term: Term; granted: boolean },
): VoteReply {
  return {
    type: type === 'vote' ? 'voteReply' : 'preVoteReply',
    from: replica.id,
    to,
    term,
    granted,
  };
}
