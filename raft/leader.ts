/**
 * A leader: what it knows of every other member, what it feeds them, what it commits, and the proof
 * that it still leads.
 *
 * It never removes or changes an entry of its own log (leader append-only, paper §5.3).
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
import type { MembershipChange, ProgressView, ProposeVerdict, ReadVerdict } from './options.js';
import { Progress } from './progress.js';
import { committedIndex, voteResult } from './quorum.js';
import { Lease, ReadRounds, readsMax, type WaitingRead } from './read-index.js';
import type { Replica } from './replica.js';
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
  transferTo: ReplicaId = noReplica;
  private transferTicks = 0;
  private heartbeatElapsed = 0;
  private quorumElapsed = 0;
  /** Number of the last heartbeat round sent in this term. */
  private round = 0;
  private confirmedRound = 0;
  private readonly reads = new ReadRounds();
  /** Index of the no-op of this term: until it is committed, nobody knows how far commits go (R04). */
  private readonly noopIndex: LogIndex;
  /** Of every other member, in id order. */
  private peers: Progress[] = [];
  /** Commit index that the last appends told the followers. */
  private toldCommit = 0;
  /** Own entries not yet committed: their bytes are bounded. */
  private readonly uncommitted: { readonly index: LogIndex; readonly bytes: number }[] = [];
  private uncommittedBytes = 0;
  private readonly replica: Replica;

  constructor(replica: Replica) {
    this.replica = replica;
    this.lease = new Lease(replica.options.leaseTicks);
    replica.leader = replica.id;
    // Nobody has been heard in this term: a leader that nobody hears must not last on old answers.
    this.followMembership({ newcomersActive: false });
    this.noopIndex = this.append(EntryKind.noop, noData);
    this.toldCommit = replica.log.commitIndex;
    this.beginRound();
  }

  // ---- time

  /** 'stepDown' when a quorum has not been heard for an election timeout. */
  tick(): 'stepDown' | undefined {
    const { options } = this.replica;
    this.heartbeatElapsed++;
    this.quorumElapsed++;
    if (this.transferTo !== noReplica && ++this.transferTicks >= options.electionTicks) {
      // Thesis §3.10: give up after an election timeout and take proposals again.
      this.transferTo = noReplica;
    }
    if (this.quorumElapsed >= options.electionTicks) {
      this.quorumElapsed = 0;
      if (options.checkQuorum && !this.hearsQuorum()) return 'stepDown';
      for (const peer of this.peers) peer.active = false;
    }
    if (this.heartbeatElapsed >= options.heartbeatTicks) this.beginRound();
    return undefined;
  }

  private hearsQuorum(): boolean {
    const { id, membership } = this.replica;
    return (
      voteResult(membership, (voter) => voter === id || this.peer(voter)?.active === true) === 'won'
    );
  }

  /** A heartbeat to everybody: proves leadership, wakes up probes, carries the commit index. */
  private beginRound(): void {
    this.heartbeatElapsed = 0;
    this.round++;
    this.lease.roundSent(this.round, this.replica.now);
    const { id: from, term, log } = this.replica;
    if (this.reads.hasGathered && this.servesReads) this.reads.begin(this.round, log.commitIndex);
    for (const peer of this.peers) {
      const commit = Math.min(peer.match, log.commitIndex);
      this.replica.send({ type: 'heartbeat', from, to: peer.id, term, commit, round: this.round });
    }
    this.confirmRounds();
  }

  // ---- proposals

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
    if (kind === EntryKind.membership) this.followMembership({ newcomersActive: true });
    return entry.index;
  }

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
   * (R20; Ongaro's correction of 2015).
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
   * Keeps the progress of those who stay; in force from the append on (thesis §4.1).
   * `newcomersActive`: whoever is added while this member leads could not have been heard yet, and
   * must not cost it the quorum at the next check; it has until the one after that.
   */
  private followMembership({ newcomersActive }: { readonly newcomersActive: boolean }): void {
    const { id, membership, log } = this.replica;
    const old = new Map(this.peers.map((peer) => [peer.id, peer]));
    this.peers = membership.members
      .filter((member) => member.id !== id)
      .map((member) => {
        let peer = old.get(member.id);
        if (peer === undefined) {
          peer = new Progress(member.id, log.lastIndex + 1, false);
          peer.active = newcomersActive;
        }
        peer.learner = membership.learners.includes(member.id);
        return peer;
      });
  }

  // ---- replication

  peer(id: ReplicaId): Progress | undefined {
    for (const peer of this.peers) if (peer.id === id) return peer;
    return undefined;
  }

  /** Sends what may be sent; called once for everything that happened since the last `ready()`. */
  flush(): void {
    const { log } = this.replica;
    if (this.reads.hasGathered && this.servesReads) this.beginRound();
    for (const peer of this.peers) {
      let told = false;
      while (peer.next <= log.lastIndex && !this.isPaused(peer)) {
        if (!this.sendAppend(peer, log.lastIndex)) break;
        told = true;
      }
      // News of the commit index, for those who have nothing else coming.
      if (!told && this.toldCommit < log.commitIndex && peer.state === 'replicate')
        this.sendAppend(peer, peer.next - 1);
    }
    this.toldCommit = log.commitIndex;
    this.finishTransfer();
  }

  private isPaused(peer: Progress): boolean {
    const { inflightMessagesMax, inflightBytesMax } = this.replica.options;
    return peer.isPaused(inflightMessagesMax, inflightBytesMax);
  }

  /** One append with entries next..last, as many as fit. False when there was nothing to send. */
  private sendAppend(peer: Progress, last: LogIndex): boolean {
    const { log, id: from, term, options } = this.replica;
    const prevIndex = peer.next - 1;
    const prevTerm = log.termAt(prevIndex);
    if (prevTerm === undefined) {
      this.wantSnapshot(peer);
      return false;
    }
    const entries = peer.next > last ? [] : log.entries(peer.next, last, options.messageBytesMax);
    if (entries === 'belowWindow') {
      const fetch = {
        purpose: 'send',
        to: peer.id,
        from: peer.next,
        // What is in the window may not be on disk yet.
        last: Math.min(last, log.lastBelowWindow),
        bytesMax: options.messageBytesMax,
      } as const;
      peer.fetching = true;
      this.replica.fetches.push(fetch);
      return false;
    }
    const commit = log.commitIndex;
    this.replica.send({
      type: 'append',
      from,
      to: peer.id,
      term,
      prevIndex,
      prevTerm,
      commit,
      entries,
    });
    if (entries.length > 0 || peer.state === 'probe') {
      let bytes = 0;
      for (const entry of entries) bytes += entryBytes(entry);
      peer.sent(prevIndex + entries.length, bytes);
      peer.probeRound = this.round;
    }
    return entries.length > 0;
  }

  onFetched(to: ReplicaId, from: LogIndex, entries: readonly Entry[]): void {
    const peer = this.peer(to);
    if (peer === undefined || !peer.fetching) return;
    peer.fetching = false;
    if (peer.next !== from) return;
    const { log, id, term } = this.replica;
    // An answer from an earlier leadership of this member may hold what was truncated since.
    if (!entries.every((entry, n) => entry.index === from + n && log.matches(from + n, entry.term)))
      return;
    const prevTerm = log.termAt(from - 1);
    if (entries.length === 0 || prevTerm === undefined) {
      this.wantSnapshot(peer);
      return;
    }
    const commit = log.commitIndex;
    this.replica.send({
      type: 'append',
      from: id,
      to,
      term,
      prevIndex: from - 1,
      prevTerm,
      commit,
      entries,
    });
    let bytes = 0;
    for (const entry of entries) bytes += entryBytes(entry);
    peer.sent(from - 1 + entries.length, bytes);
    peer.probeRound = this.round;
  }

  private wantSnapshot(peer: Progress): void {
    if (peer.state === 'snapshot') return;
    peer.becomeSnapshot();
    this.replica.snapshotsWanted.push(peer.id);
  }

  onSnapshotSent(to: ReplicaId, index: LogIndex, ok: boolean): void {
    const peer = this.peer(to);
    if (peer?.state !== 'snapshot') return;
    // Whatever became of it, the follower says where it is when it is probed. After a failure that
    // waits for the next heartbeat, so that a broken follower is not offered snapshots in a loop.
    peer.becomeProbe(ok ? index + 1 : peer.match + 1);
    peer.probing = true;
  }

  onAppendReply(message: AppendReply): void {
    const peer = this.peer(message.from);
    if (peer === undefined) {
      this.replica.drop('replyOfStranger');
      return;
    }
    peer.active = true;
    if (message.rejected) this.onRefused(peer, message);
    else this.onAccepted(peer, message.index);
  }

  private onAccepted(peer: Progress, index: LogIndex): void {
    const { log } = this.replica;
    if (index > log.lastIndex) {
      // Nobody can match entries that this leader does not have.
      this.replica.drop('acknowledgedBeyondLog');
      return;
    }
    const news = peer.acknowledged(index);
    if (peer.state === 'probe' && (news || index === peer.next - 1)) peer.becomeReplicate();
    if (peer.state === 'snapshot' && index + 1 >= log.firstIndex) peer.becomeReplicate();
    if (!news) return;
    this.maybeCommit();
    this.maybePromote(peer);
  }

  private onRefused(peer: Progress, message: AppendReply): void {
    const { log } = this.replica;
    if (message.index === 0) {
      // Its state machine is gone, whatever its log has acknowledged: see `AppendReply`.
      this.wantSnapshot(peer);
      return;
    }
    if (message.index <= peer.match || peer.state === 'snapshot') return;
    if (peer.state === 'probe' && message.index !== peer.next - 1) return;
    const floor = log.firstIndex - 1;
    if (message.hintIndex < floor || message.index <= floor) {
      // The logs part below our first index: what it needs is compacted away.
      this.wantSnapshot(peer);
      return;
    }
    const agreed = log.lastAtOrBelowTerm(
      Math.min(message.hintIndex, message.index - 1),
      message.hintTerm,
    );
    peer.becomeProbe(Math.max(agreed + 1, 1));
  }

  onHeartbeatReply(message: HeartbeatReply): void {
    const peer = this.peer(message.from);
    if (peer === undefined) {
      this.replica.drop('replyOfStranger');
      return;
    }
    peer.active = true;
    if (message.round > this.round) {
      this.replica.drop('roundFromTheFuture');
      return;
    }
    peer.round = Math.max(peer.round, message.round);
    this.confirmRounds();
    // The acknowledgement that made it ready may have come while another change was pending.
    this.maybePromote(peer);
    if (peer.state === 'probe') {
      // Only a round begun after the probe shows that its answer is overdue: the heartbeat of an
      // election overtakes the first append, which would go out twice.
      if (message.round <= peer.probeRound) return;
      peer.probing = false;
      if (peer.next > this.replica.log.lastIndex && peer.match < this.replica.log.lastIndex) {
        this.sendAppend(peer, this.replica.log.lastIndex);
      }
    } else if (peer.state === 'replicate' && peer.match < peer.next - 1 && !peer.fetching) {
      // Is what was sent there? If an append was lost, this empty one behind it is refused.
      this.sendAppend(peer, peer.next - 1);
    }
  }

  unreachable(id: ReplicaId): void {
    const peer = this.peer(id);
    if (peer?.state === 'replicate') {
      peer.becomeProbe(peer.match + 1);
      peer.probing = true;
    }
  }

  // ---- commit

  /** After own persistence or an acknowledgement. */
  maybeCommit(): void {
    const { replica } = this;
    const { log, id, membership } = replica;
    const index = committedIndex(membership, (voter) =>
      // Our own copy counts once it is durable here, like everybody's.
      voter === id ? log.persistedIndex : (this.peer(voter)?.match ?? 0),
    );
    // Only entries of our own term are counted; older ones become committed with them. Counting an
    // older one alone can be undone by a later leader (paper §5.4.2, figure 8).
    if (index <= log.commitIndex || log.termAt(index) !== replica.term) return;
    log.commitTo(index);
    while (this.uncommitted.length > 0 && (this.uncommitted[0]?.index ?? Infinity) <= index) {
      this.uncommittedBytes -= this.uncommitted.shift()?.bytes ?? 0;
    }
    this.maybeLeaveJoint();
  }

  private maybeLeaveJoint(): void {
    const { membership, membershipAt, log } = this.replica;
    if (!isJoint(membership) || !membership.autoLeave || membershipAt.index > log.commitIndex)
      return;
    this.appendMembership(leaveJoint(membership));
  }

  /** A leader that the committed membership does not count any more has done its last duty (§4.2.2). */
  get isRemoved(): boolean {
    const { id, membership, membershipAt, log } = this.replica;
    return (
      membershipAt.index <= log.commitIndex &&
      !isJoint(membership) &&
      !membership.incoming.includes(id)
    );
  }

  /** A learner that has caught up becomes a voter; a round at a time, as in thesis §4.2.1. */
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

  // ---- reads

  /** The no-op is committed: the commit index is known to be current. */
  get servesReads(): boolean {
    return this.replica.log.commitIndex >= this.noopIndex;
  }

  readIndex(context: string, allowLease: boolean): ReadVerdict {
    const { replica } = this;
    if (!this.servesReads) return { kind: 'refused', reason: 'noQuorumYet' };
    if (allowLease && this.leaseValid)
      return { kind: 'lease', index: replica.log.commitIndex, term: replica.term };
    if (this.reads.length >= readsMax) return { kind: 'refused', reason: 'overloaded' };
    this.reads.add({ context, from: replica.id });
    return { kind: 'pending' };
  }

  get leaseValid(): boolean {
    return (
      this.servesReads && this.transferTo === noReplica && this.lease.isValid(this.replica.now)
    );
  }

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

  private confirmRounds(): void {
    const { id, membership } = this.replica;
    const confirmed = committedIndex(membership, (voter) =>
      voter === id ? this.round : (this.peer(voter)?.round ?? 0),
    );
    if (confirmed <= this.confirmedRound) return;
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

  /** Stepping down: nobody confirms these reads any more. */
  loseReads(): void {
    for (const read of this.reads.takeAll()) {
      if (read.from === this.replica.id) this.answerRead(read, undefined);
    }
  }

  get hasGatheredReads(): boolean {
    return this.reads.hasGathered;
  }

  // ---- transfer

  transferLeadership(to: ReplicaId): boolean {
    const { membership, id } = this.replica;
    const chosen = to === noReplica ? this.bestFollower() : this.peer(to);
    if (chosen === undefined || !membership.incoming.includes(chosen.id) || chosen.id === id)
      return false;
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
    for (const peer of this.peers) {
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

  /** Once the target has everything it may campaign at once; from then on our lease is worth nothing. */
  private finishTransfer(): void {
    const { log, id: from, term } = this.replica;
    const peer = this.transferTo === noReplica ? undefined : this.peer(this.transferTo);
    if (peer === undefined || peer.match < log.lastIndex || this.timeoutNowSent === peer.id) return;
    this.timeoutNowSent = peer.id;
    this.lease.end();
    this.replica.send({ type: 'timeoutNow', from, to: peer.id, term, reserved: 0 });
  }

  private timeoutNowSent: ReplicaId = noReplica;

  progress(): readonly ProgressView[] {
    return this.peers.map(({ id, match, next, state, learner, active }) => ({
      id,
      match,
      next,
      state,
      learner,
      recentlyActive: active,
    }));
  }

  get needsFlush(): boolean {
    const { log } = this.replica;
    if (this.toldCommit < log.commitIndex || (this.reads.hasGathered && this.servesReads))
      return true;
    if (this.transferTo !== noReplica && this.timeoutNowSent !== this.transferTo) {
      if ((this.peer(this.transferTo)?.match ?? -1) >= log.lastIndex) return true;
    }
    for (const peer of this.peers)
      if (peer.next <= log.lastIndex && !this.isPaused(peer)) return true;
    return false;
  }

  check(): void {
    assert(
      this.confirmedRound <= this.round,
      () => `round ${this.confirmedRound} confirmed before it was sent`,
    );
  }
}

function refused(reason: Refusal): ProposeVerdict {
  return { kind: 'refused', reason };
}
