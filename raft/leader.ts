/**
 * A leader: what it appends, what it commits, and the proof that it still leads. How the others are
 * fed is in replication.ts.
 *
 * It never removes or changes an entry of its own log (leader append-only, paper §5.3 and figure 3),
 * and there is at most one in a term (election safety): so (term, index) names one entry for ever.
 *
 * One object per leadership: whatever is known here was learned in this term, and a new term begins
 * with none of it. An answer of an older term can therefore prove nothing by mistake.
 */
import { assert } from './assert.js';
import { entryBytes } from './log.js';
import {
  encodeMembership,
  enterChange,
  isJoint,
  isMember,
  leaveJoint,
  type Change,
} from './membership.js';
import type { AppendReply, HeartbeatReply, ReadIndexRequest } from './message.js';
import type { MembershipChange, ProposeVerdict, ReadVerdict } from './options.js';
import type { Progress } from './progress.js';
import { committedIndex, voteResult } from './quorum.js';
import { Lease, ReadRounds, readsMax, type WaitingRead } from './read-index.js';
import type { Replica } from './replica.js';
import { Replication } from './replication.js';
import {
  EntryKind,
  noReplica,
  type Entry,
  type LogIndex,
  type Membership,
  type ReplicaId,
} from './types.js';

const noData = new Uint8Array(0);

type Refusal = Extract<ProposeVerdict, { kind: 'refused' }>['reason'];

export class Leader {
  readonly kind = 'leader';
  readonly lease: Lease;
  readonly replication: Replication;
  /** Who is to lead next, or `noReplica`. No proposal is taken meanwhile: see `finishTransfer`. */
  transferTo: ReplicaId = noReplica;
  /** To whom TimeoutNow has gone in this attempt; once is enough, it may campaign only once. */
  private timeoutNowSent: ReplicaId = noReplica;
  private transferTicks = 0;
  private heartbeatElapsed = 0;
  private quorumElapsed = 0;
  /** Ticks since something was last asked of this group. */
  private idleTicks = 0;
  /** Nobody expects heartbeats of us (rule D05). */
  quiet = false;
  /** Highest round that a quorum has answered. Never above `replication.round`. */
  private confirmedRound = 0;
  private readonly reads = new ReadRounds();
  /** Index of the no-op of this term: until it is committed, nobody knows how far commits go (R04). */
  private readonly noopIndex: LogIndex;
  /** Own entries not yet committed: their bytes are bounded by `uncommittedBytesMax`. */
  private readonly uncommitted: { readonly index: LogIndex; readonly bytes: number }[] = [];
  private uncommittedBytes = 0;
  private readonly replica: Replica;

  /**
   * Appends the no-op of the term at once (paper §8). Entries of earlier terms are not counted by
   * themselves (§5.4.2), so without an entry of its own a leader of an idle group would never learn
   * what is committed, and could serve no read.
   */
  constructor(replica: Replica) {
    this.replica = replica;
    this.lease = new Lease(replica.options.leaseTicks);
    replica.leader = replica.id;
    this.replication = new Replication(replica);
    this.noopIndex = this.append(EntryKind.noop, noData);
    this.beginRound();
  }

  // ---- time

  /**
   * 'stepDown' when a quorum has not been heard for an election timeout (check-quorum, thesis §6.2).
   * Without it, a leader on the wrong side of a partition would keep its clients waiting for writes
   * that cannot commit, and members that hear it would keep a better one from being elected.
   */
  tick(): 'stepDown' | undefined {
    const { options } = this.replica;
    if (this.quiet) return undefined;
    this.heartbeatElapsed++;
    this.quorumElapsed++;
    this.idleTicks++;
    if (this.transferTo !== noReplica && ++this.transferTicks >= options.electionTicks) {
      // Thesis §3.10: give up after an election timeout and take proposals again. The target may
      // still win later, like every candidate; nothing depends on its losing.
      this.transferTo = noReplica;
    }
    if (this.quorumElapsed >= options.electionTicks) {
      this.quorumElapsed = 0;
      if (options.checkQuorum && !this.hearsQuorum()) return 'stepDown';
      if (this.mayFallQuiet) {
        this.fallQuiet();
        return undefined;
      }
      for (const peer of this.replication.peers) peer.active = false;
    }
    if (this.heartbeatElapsed >= options.heartbeatTicks) this.beginRound();
    return undefined;
  }

  // ---- quiet groups

  /**
   * Nothing is asked for, nothing is under way, and everybody has everything and was heard just now.
   * One that is behind or away must find a leader that speaks (rule D05).
   */
  private get mayFallQuiet(): boolean {
    const { options, log, membership } = this.replica;
    return (
      options.quietTicks > 0 &&
      this.idleTicks >= options.quietTicks &&
      this.transferTo === noReplica &&
      this.reads.isEmpty &&
      !isJoint(membership) &&
      log.commitIndex === log.lastIndex &&
      log.persistedIndex === log.lastIndex &&
      this.replication.allCaughtUp
    );
  }

  /**
   * Says so once, and stops. Whoever does not hear it goes on waiting for heartbeats, asks for votes
   * after a while, and that wakes us. Without rounds there is no lease either (rule D03).
   */
  private fallQuiet(): void {
    this.quiet = true;
    this.lease.lapse();
    this.replication.beginRound({ quiet: true });
  }

  /**
   * Something happens: heartbeats begin again at once, and everybody has an election timeout to
   * answer, as after an election.
   */
  wake(): void {
    this.idleTicks = 0;
    if (!this.quiet) return;
    this.quiet = false;
    this.quorumElapsed = 0;
    for (const peer of this.replication.peers) peer.active = false;
    this.beginRound();
  }

  /** In a joint configuration: of both sides, like every decision. */
  private hearsQuorum(): boolean {
    const { id, membership } = this.replica;
    const { replication } = this;
    return (
      voteResult(
        membership,
        (voter) => voter === id || replication.peer(voter)?.active === true,
      ) === 'won'
    );
  }

  /**
   * A round of heartbeats. Reads gathered so far join it now: their index is the commit index before
   * anything is sent, so an answer can only come from after the read arrived (thesis §6.4, steps 2
   * and 3). The lease, too, is counted from here and not from the answers (R32).
   */
  private beginRound(): void {
    const { log, now } = this.replica;
    this.heartbeatElapsed = 0;
    const round = this.replication.beginRound({ quiet: false });
    this.lease.roundSent(round, now);
    if (this.reads.hasGathered && this.servesReads) this.reads.begin(round, log.commitIndex);
    // A single voter is its own quorum: nobody else would bring this about.
    this.confirmRounds();
  }

  // ---- proposals

  /**
   * Accepted means appended here and no more: the entry may still be truncated by another leader,
   * and is decided only when committed (rule D04).
   */
  propose(payload: Uint8Array): ProposeVerdict {
    const { options, term } = this.replica;
    const bytes = payload.byteLength + 24;
    if (payload.byteLength > options.entryBytesMax) return refused('tooLarge');
    if (this.transferTo !== noReplica) return refused('transferring');
    // One is always accepted, or a single large entry could never pass.
    if (this.uncommittedBytes > 0 && this.uncommittedBytes + bytes > options.uncommittedBytesMax) {
      return refused('overloaded');
    }
    return { kind: 'appended', term, index: this.append(EntryKind.command, payload) };
  }

  private append(kind: EntryKind, payload: Uint8Array): LogIndex {
    const { replica } = this;
    this.wake();
    const entry: Entry = {
      index: replica.log.lastIndex + 1,
      term: replica.term,
      kind,
      data: payload,
    };
    replica.append([entry]);
    const bytes = entryBytes(entry);
    this.uncommitted.push({ index: entry.index, bytes });
    this.uncommittedBytes += bytes;
    // In force from the append on (thesis §4.1): already the commit of this very entry is counted by
    // the membership that it brings.
    if (kind === EntryKind.membership) this.replication.followMembership({ newcomersActive: true });
    return entry.index;
  }

  // ---- membership

  /** Refused unless it could begin now; see `mayChange` for why only one may be under way. */
  proposeMembership(change: MembershipChange): ProposeVerdict {
    const reason = this.refusalOf(change);
    if (reason !== undefined) return refused(reason);
    return this.changeTo(change);
  }

  private refusalOf(change: MembershipChange): Refusal | undefined {
    const { index } = this.replica.membershipAt;
    // Compare and set: computed from another membership than the one in force (rule D06).
    if (change.basedOn !== index) return 'staleMembership';
    if (this.transferTo !== noReplica) return 'transferring';
    return this.mayChange ? undefined : 'membershipPending';
  }

  /**
   * At most one change at a time, and none before an entry of this term is committed: an earlier
   * leader's change may still be undecided, and two majorities that do not overlap would be possible
   * (R20; Ongaro's correction of 2015 to thesis §4.1).
   *
   * Changes without a joint step show it. Four voters 1 to 4. Leader 1 appends "without 4" and is cut
   * off with it alone. Leader 2 of the next term appends "with 5" and commits it by 2, 4 and 5, three
   * of five. 1 comes back and wins by 1 and 3, two of its three: two majorities with nobody in common.
   * Had 2 first committed an entry of its own term, 3 would have it and refuse 1 its vote. Ours always
   * share the outgoing majority, but the proof is simpler when nothing undecided lies below a change.
   */
  private get mayChange(): boolean {
    const { log, membership, membershipAt } = this.replica;
    return !isJoint(membership) && membershipAt.index <= log.commitIndex && this.servesReads;
  }

  private changeTo(change: Change): ProposeVerdict {
    const next = enterChange(this.replica.membership, change);
    if (next === undefined) return refused('invalidMembership');
    return this.appendMembership(next);
  }

  private appendMembership(next: Membership): ProposeVerdict {
    const index = this.append(EntryKind.membership, encodeMembership(next));
    return { kind: 'appended', term: this.replica.term, index };
  }

  /**
   * The second half of every change of voters (paper §6, C-new): due when the joint configuration is
   * committed, for from then on no leader can be elected that does not know it, and neither side can
   * decide alone. Looked at with every commit, so a new leader ends what it found (R23).
   */
  private maybeLeaveJoint(): void {
    const { membership, membershipAt, log } = this.replica;
    if (!isJoint(membership) || !membership.autoLeave || membershipAt.index > log.commitIndex)
      return;
    this.appendMembership(leaveJoint(membership));
  }

  /**
   * A leader that the committed membership does not count any more has done its last duty (thesis
   * §4.2.2). Until that commit it leads on, counting everybody but itself: nobody else could commit
   * its removal without first winning an election.
   */
  get isRemoved(): boolean {
    const { id, membership, membershipAt, log } = this.replica;
    return (
      membershipAt.index <= log.commitIndex &&
      !isJoint(membership) &&
      !membership.incoming.includes(id)
    );
  }

  /**
   * A learner that has caught up becomes a voter; a round at a time, as in thesis §4.2.1. A round ends
   * when the learner has what was the last index at its begin. That it is near the end at that moment
   * shows that it keeps up with the present load, and will not hold up commits as a voter.
   */
  private maybePromote(peer: Progress): void {
    if (!peer.learner) return;
    const { log, membership, options } = this.replica;
    if (peer.catchUpTo === 0) peer.catchUpTo = log.lastIndex;
    if (peer.match < peer.catchUpTo) return;
    peer.catchUpTo = log.lastIndex;
    const member = membership.members.find(({ id }) => id === peer.id);
    if (log.lastIndex - peer.match > options.promoteLagMax || member === undefined) return;
    if (!this.mayChange || this.transferTo !== noReplica) return;
    this.changeTo({ addVoters: [member], addLearners: [], remove: [] });
  }

  // ---- what the others say

  /** Sends what may be sent; called once for everything that happened since the last `ready()`. */
  flush(): void {
    if (this.reads.hasGathered && this.servesReads) this.beginRound();
    this.replication.flush();
    this.finishTransfer();
  }

  get needsFlush(): boolean {
    return (
      (this.reads.hasGathered && this.servesReads) ||
      this.transferIsDue ||
      this.replication.needsFlush
    );
  }

  onAppendReply(message: AppendReply): void {
    const advanced = this.replication.onAppendReply(message);
    if (advanced === undefined) return;
    this.maybeCommit();
    this.maybePromote(advanced);
  }

  onHeartbeatReply(message: HeartbeatReply): void {
    const peer = this.replication.onHeartbeatReply(message);
    if (peer === undefined) return;
    this.confirmRounds();
    // The acknowledgement that made it ready may have come while another change was pending.
    this.maybePromote(peer);
    this.replication.wake(peer, message.round);
  }

  // ---- commit

  /**
   * After own persistence or an acknowledgement. Our own copy counts once it is durable here, like
   * everybody's, and is not waited for: with a majority of others a write commits before our own
   * sync ends (thesis §10.2.1).
   */
  maybeCommit(): void {
    const { replica, replication } = this;
    const { log, id, membership } = replica;
    const index = committedIndex(membership, (voter) =>
      voter === id ? log.persistedIndex : (replication.peer(voter)?.match ?? 0),
    );
    // Only entries of our own term are counted; older ones become committed with them. Counting an
    // older one alone can be undone by a later leader (paper §5.4.2, figure 8): one that has never
    // seen it wins by a higher last term, which an entry of *our* term on a majority forbids.
    if (index <= log.commitIndex || log.termAt(index) !== replica.term) return;
    log.commitTo(index);
    while (this.uncommitted.length > 0 && (this.uncommitted[0]?.index ?? Infinity) <= index) {
      this.uncommittedBytes -= this.uncommitted.shift()?.bytes ?? 0;
    }
    assert(
      this.uncommittedBytes >= 0,
      () => `uncommitted bytes ${this.uncommittedBytes} after the commit of ${index}`,
    );
    this.maybeLeaveJoint();
  }

  // ---- reads

  /**
   * The no-op is committed: the commit index is known to be current. Before that it is what this
   * member knew as a follower, which may be behind what the last leader told its clients (thesis
   * §6.4, step 1; R04).
   */
  get servesReads(): boolean {
    return this.replica.log.commitIndex >= this.noopIndex;
  }

  /** By the lease at once, or by the round that begins with the next `ready()`. */
  readIndex(context: string, allowLease: boolean): ReadVerdict {
    const { replica } = this;
    this.wake();
    if (!this.servesReads) return { kind: 'refused', reason: 'noQuorumYet' };
    if (allowLease && this.leaseValid)
      return { kind: 'lease', index: replica.log.commitIndex, term: replica.term };
    if (this.reads.length >= readsMax) return { kind: 'refused', reason: 'overloaded' };
    this.reads.add({ context, from: replica.id });
    return { kind: 'pending' };
  }

  /** Not while a transfer is under way: its target ignores the promises that the lease rests on. */
  get leaseValid(): boolean {
    return (
      this.servesReads && this.transferTo === noReplica && this.lease.isValid(this.replica.now)
    );
  }

  /** Asked by a follower for one of its reads (thesis §6.4, last paragraphs). */
  onReadIndex({ from, context }: ReadIndexRequest): void {
    const { replica } = this;
    if (!isMember(replica.membership, from)) {
      replica.drop('readOfStranger');
    } else if (this.servesReads && this.reads.length < readsMax) {
      this.reads.add({ context, from });
    } else {
      this.answerRead({ context, from }, undefined);
    }
  }

  /**
   * A quorum has answered round n, or later ones. Had another leader been elected before that round
   * was sent, one of the quorum would have voted for it, and with its higher term would have refused
   * our heartbeat instead. So there was none at the moment of the send, and nobody had committed more
   * than we had: that is what a read of this round may rely on (thesis §6.4).
   */
  private confirmRounds(): void {
    const { id, membership } = this.replica;
    const { replication } = this;
    const confirmed = committedIndex(membership, (voter) =>
      voter === id ? replication.round : (replication.peer(voter)?.round ?? 0),
    );
    if (confirmed <= this.confirmedRound) return;
    assert(
      confirmed <= replication.round,
      () => `round ${confirmed} is confirmed before it was sent`,
    );
    this.confirmedRound = confirmed;
    this.lease.roundConfirmed(confirmed);
    this.reads.confirm(confirmed, (read, index) => {
      this.answerRead(read, index);
    });
  }

  private answerRead({ context, from: to }: WaitingRead, index: LogIndex | undefined): void {
    const { id: from, term } = this.replica;
    if (to === from) this.replica.readStates.push({ context, index });
    else {
      this.replica.send({
        type: 'readIndexReply',
        from,
        to,
        term,
        context,
        index: index ?? 0,
        refused: index === undefined,
      });
    }
  }

  /**
   * Stepping down: nobody confirms these reads any more. Those of followers are not answered: they
   * notice the change of leader, or that no answer comes, by themselves.
   */
  loseReads(): void {
    for (const read of this.reads.takeAll()) {
      if (read.from === this.replica.id) this.answerRead(read, undefined);
    }
  }

  // ---- transfer

  /**
   * Thesis §3.10, step 1: stop taking proposals, so that the target can reach the end of the log. The
   * rest follows from `flush`. To `noReplica`: to the follower that is furthest on.
   */
  transferLeadership(to: ReplicaId): boolean {
    const { membership, id } = this.replica;
    const chosen = to === noReplica ? this.bestFollower() : this.replication.peer(to);
    if (chosen === undefined || !membership.incoming.includes(chosen.id) || chosen.id === id)
      return false;
    this.wake();
    if (this.transferTo === chosen.id) return true;
    this.transferTo = chosen.id;
    this.transferTicks = 0;
    // An earlier TimeoutNow to the same target may have been lost.
    this.timeoutNowSent = noReplica;
    return true;
  }

  private bestFollower(): Progress | undefined {
    const { incoming } = this.replica.membership;
    let best: Progress | undefined;
    for (const peer of this.replication.peers) {
      if (!incoming.includes(peer.id) || peer.state === 'snapshot') continue;
      // Of equal logs, the one that answered last: in an idle group a dead member has all entries, too.
      const isBetter =
        best === undefined ||
        peer.match > best.match ||
        (peer.match === best.match && peer.round > best.round);
      if (isBetter) best = peer;
    }
    return best;
  }

  /** The target has everything, and has not been told yet. */
  private get transferIsDue(): boolean {
    const { transferTo } = this;
    if (transferTo === noReplica || this.timeoutNowSent === transferTo) return false;
    return (this.replication.peer(transferTo)?.match ?? -1) >= this.replica.log.lastIndex;
  }

  /**
   * Step 3: once the target has everything it may campaign at once, and nobody's log is newer, so it
   * wins unless votes are lost. Voters grant in spite of hearing us (`transfer` in its requests); from
   * then on our lease is worth nothing, also if it should lose (rule D03).
   */
  private finishTransfer(): void {
    if (!this.transferIsDue) return;
    const { id: from, term } = this.replica;
    const to = this.transferTo;
    this.timeoutNowSent = to;
    this.lease.end();
    this.replica.send({ type: 'timeoutNow', from, to, term, reserved: 0 });
  }
}

function refused(reason: Refusal): ProposeVerdict {
  return { kind: 'refused', reason };
}
