/**
 * How a leader feeds the others: what it knows of each of them, what it sends next, and what it makes
 * of the answers (AppendEntries of paper, figure 2; §5.3).
 *
 * Nothing here decides anything. A wrong guess about a follower costs messages and never an entry:
 * every append names the entry before it, the follower compares, and only what it says to be durable
 * and equal raises a `match`. So everything may be lost, doubled or late, and what heals it is always
 * the same: the next heartbeat is answered, and the answer shows who lacks what.
 */
import { entryBytes } from './log.js';
import type { AppendReply, HeartbeatReply } from './message.js';
import type { ProgressView } from './options.js';
import { Progress } from './progress.js';
import type { Replica } from './replica.js';
import type { Entry, LogIndex, ReplicaId, Term } from './types.js';

export class Replication {
  /** Of every other member, in id order: always visited so, or a run could not be repeated. */
  peers: readonly Progress[] = [];
  /**
   * Number of the last heartbeat round sent in this term, from 1. Rounds count the leader's questions
   * "do I still lead?": an answer to one of them proves it for all moments up to its *send*.
   */
  round = 0;
  /** Commit index that the last appends told the followers. */
  private toldCommit: LogIndex;
  private readonly replica: Replica;

  constructor(replica: Replica) {
    this.replica = replica;
    this.toldCommit = replica.log.commitIndex;
    // Nobody has been heard in this term: a leader that nobody hears must not last on old answers.
    this.followMembership({ newcomersActive: false });
  }

  /** What is known of `id`; undefined for this replica itself and for strangers (rule D01). */
  peer(id: ReplicaId): Progress | undefined {
    for (const peer of this.peers) if (peer.id === id) return peer;
    return undefined;
  }

  /**
   * Keeps the progress of those who stay. `newcomersActive`: whoever is added while this member leads
   * could not have been heard yet, and must not cost it the quorum at the next check; it has until
   * the one after that.
   */
  followMembership({ newcomersActive }: { readonly newcomersActive: boolean }): void {
    const { id, membership, log } = this.replica;
    const old = new Map(this.peers.map((peer) => [peer.id, peer]));
    this.peers = membership.members
      .filter((member) => member.id !== id)
      .map((member) => {
        let peer = old.get(member.id);
        if (peer === undefined) {
          // Optimistic, as in figure 2 (nextIndex): most logs agree to the end, and the first
          // refusal says where another one does.
          peer = new Progress(member.id, log.lastIndex + 1, false);
          peer.active = newcomersActive;
        }
        peer.learner = membership.learners.includes(member.id);
        return peer;
      });
  }

  /**
   * A heartbeat to everybody; returns the number of its round. It proves leadership, wakes up probes
   * and carries the commit index, capped for each by what is known to match there: a heartbeat is
   * not preceded by a log check, so without the cap a follower could commit an entry of its own that
   * nobody else has (R07). `quiet`: the last one for now (rule D05).
   */
  beginRound({ quiet }: { readonly quiet: boolean }): number {
    this.round++;
    const { id: from, term, log } = this.replica;
    for (const peer of this.peers) {
      const commit = Math.min(peer.match, log.commitIndex);
      const head = { type: 'heartbeat', from, to: peer.id, term } as const;
      this.replica.send({ ...head, commit, round: this.round, quiet });
    }
    return this.round;
  }

  /** Everybody, learners too, has the whole log and was heard since the last check of the quorum. */
  get allCaughtUp(): boolean {
    const { lastIndex } = this.replica.log;
    return this.peers.every(({ match, active }) => match === lastIndex && active);
  }

  /** Would `flush` send anything now? Costs O(members). */
  get needsFlush(): boolean {
    const { log } = this.replica;
    if (this.toldCommit < log.commitIndex) return true;
    for (const peer of this.peers) {
      if (peer.next <= log.lastIndex && !this.isPaused(peer)) return true;
    }
    return false;
  }

  /**
   * Sends what may be sent; called once for everything that happened since the last `ready()`, so
   * that all proposals of a turn leave in one append. It does not wait for our own disk: followers
   * write at the same time as we do (thesis §10.2.1).
   */
  flush(): void {
    const { log } = this.replica;
    for (const peer of this.peers) {
      let told = false;
      while (peer.next <= log.lastIndex && !this.isPaused(peer)) {
        if (!this.sendAppend(peer, log.lastIndex)) break;
        told = true;
      }
      // News of the commit index, for those who have nothing else coming. The next heartbeat would
      // bring it as well; a follower that waits to answer a read would wait that long.
      if (!told && this.toldCommit < log.commitIndex && peer.state === 'replicate')
        this.sendAppend(peer, peer.next - 1);
    }
    this.toldCommit = log.commitIndex;
  }

  private isPaused(peer: Progress): boolean {
    const { inflightMessagesMax, inflightBytesMax } = this.replica.options;
    return peer.isPaused(inflightMessagesMax, inflightBytesMax);
  }

  // ---- appends

  /** One append with entries next..last, as many as fit. False when there was nothing to send. */
  private sendAppend(peer: Progress, last: LogIndex): boolean {
    const { log, options } = this.replica;
    const prevIndex = peer.next - 1;
    const prevTerm = log.termAt(prevIndex);
    if (prevTerm === undefined) {
      // Compacted: what follows cannot be checked any more, let alone sent (paper §7).
      this.wantSnapshot(peer);
      return false;
    }
    const entries = peer.next > last ? [] : log.entries(peer.next, last, options.messageBytesMax);
    if (entries === 'belowWindow') {
      this.fetchFor(peer, last);
      return false;
    }
    this.sendEntries(peer, { prevIndex, prevTerm, entries });
    return entries.length > 0;
  }

  private sendEntries(
    peer: Progress,
    content: {
      readonly prevIndex: LogIndex;
      readonly prevTerm: Term;
      readonly entries: readonly Entry[];
    },
  ): void {
    const { log, id: from, term } = this.replica;
    const { prevIndex, prevTerm, entries } = content;
    const commit = log.commitIndex;
    const to = peer.id;
    this.replica.send({ type: 'append', from, to, term, prevIndex, prevTerm, commit, entries });
    // An empty append to one that replicates is news or a question: it fills no window.
    if (entries.length === 0 && peer.state !== 'probe') return;
    let bytes = 0;
    for (const entry of entries) bytes += entryBytes(entry);
    peer.sent(prevIndex + entries.length, bytes);
    peer.probeRound = this.round;
  }

  /**
   * A slow follower wants entries that have left memory. One fetch per follower is out at a time, and
   * it counts as a full window: what would be read behind it waits for the disk anyway.
   */
  private fetchFor(peer: Progress, last: LogIndex): void {
    const { log, options, fetches } = this.replica;
    peer.fetching = true;
    fetches.push({
      purpose: 'send',
      to: peer.id,
      from: peer.next,
      // What is in the window may not be on disk yet.
      last: Math.min(last, log.lastBelowWindow),
      bytesMax: options.messageBytesMax,
    });
  }

  /** The answer to a fetch: entries from `from` on; none when they were compacted away meanwhile. */
  onFetched(to: ReplicaId, from: LogIndex, entries: readonly Entry[]): void {
    const peer = this.peer(to);
    if (peer === undefined || !peer.fetching) return;
    peer.fetching = false;
    // It fell back to probing elsewhere while the disk was read.
    if (peer.next !== from) return;
    const { log } = this.replica;
    // An answer from an earlier leadership of this member may hold what was truncated since.
    if (!entries.every((entry, n) => entry.index === from + n && log.matches(from + n, entry.term)))
      return;
    const prevTerm = log.termAt(from - 1);
    if (entries.length === 0 || prevTerm === undefined) this.wantSnapshot(peer);
    else this.sendEntries(peer, { prevIndex: from - 1, prevTerm, entries });
  }

  // ---- answers

  /** The peer, if the answer raised its match index: then there may be something to commit. */
  onAppendReply(message: AppendReply): Progress | undefined {
    const peer = this.peer(message.from);
    if (peer === undefined) {
      this.replica.drop('replyOfStranger');
      return undefined;
    }
    peer.active = true;
    if (!message.rejected) return this.onAccepted(peer, message.index) ? peer : undefined;
    this.onRefused(peer, message);
    return undefined;
  }

  private onAccepted(peer: Progress, index: LogIndex): boolean {
    const { log } = this.replica;
    if (index > log.lastIndex) {
      // Nobody can match entries that this leader does not have.
      this.replica.drop('acknowledgedBeyondLog');
      return false;
    }
    const news = peer.acknowledged(index);
    // While probing, only the answer to the probe itself ends it: a late answer to something older
    // says nothing about the place that is being tried.
    if (peer.state === 'probe' && (news || index === peer.next - 1)) peer.becomeReplicate();
    // Wherever the snapshot is: the log reaches back to what it has now.
    if (peer.state === 'snapshot' && index + 1 >= log.firstIndex) peer.becomeReplicate();
    return news;
  }

  /**
   * The consistency check failed there. Both sides skip whole terms instead of single entries (paper
   * §5.3, end): the follower names the last place of its log whose term is not above ours, and the
   * logs can agree at most where our own log has that term or a lower one. So one round trip is paid
   * per term of conflict, however many entries it has.
   */
  private onRefused(peer: Progress, message: AppendReply): void {
    const { log } = this.replica;
    if (message.index === 0) {
      // Its state machine is gone, whatever its log has acknowledged: see `AppendReply`.
      this.wantSnapshot(peer);
      return;
    }
    // Late: what it refused has been acknowledged since, or is not what is being tried now.
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

  /** The peer that answered; undefined if the answer is to be ignored. */
  onHeartbeatReply(message: HeartbeatReply): Progress | undefined {
    const peer = this.peer(message.from);
    if (peer === undefined) {
      this.replica.drop('replyOfStranger');
      return undefined;
    }
    peer.active = true;
    if (message.round > this.round) {
      this.replica.drop('roundFromTheFuture');
      return undefined;
    }
    peer.round = Math.max(peer.round, message.round);
    return peer;
  }

  /**
   * It is alive: was something lost on the way to it? Lost messages are noticed only here, so one
   * heartbeat interval is what a loss costs; no timer of its own runs for any message.
   */
  wake(peer: Progress, answeredRound: number): void {
    const { log } = this.replica;
    if (peer.state === 'probe') {
      // Only a round begun after the probe shows that its answer is overdue: the heartbeat of an
      // election overtakes the first append, which would go out twice.
      if (answeredRound <= peer.probeRound) return;
      peer.probing = false;
      if (peer.next > log.lastIndex && peer.match < log.lastIndex)
        this.sendAppend(peer, log.lastIndex);
    } else if (peer.state === 'replicate' && peer.match < peer.next - 1 && !peer.fetching) {
      // Is what was sent there? If an append was lost, this empty one behind it is refused.
      this.sendAppend(peer, peer.next - 1);
    }
  }

  /** Its connection broke: what was in flight is probably lost, so do not pile up more behind it. */
  unreachable(id: ReplicaId): void {
    const peer = this.peer(id);
    if (peer?.state !== 'replicate') return;
    peer.becomeProbe(peer.match + 1);
    peer.probing = true;
  }

  // ---- snapshots

  /** Asked for once; until `onSnapshotSent` or an acknowledgement nothing else is sent there. */
  private wantSnapshot(peer: Progress): void {
    if (peer.state === 'snapshot') return;
    peer.becomeSnapshot();
    this.replica.snapshotsWanted.push(peer.id);
  }

  /**
   * The transfer ended. Whatever became of it, the follower says where it is when it is probed. After
   * a failure that waits for the next heartbeat, so that a broken follower is not offered snapshots
   * in a loop; after a success, too, since the bytes have still to be installed.
   */
  onSnapshotSent(to: ReplicaId, index: LogIndex, ok: boolean): void {
    const peer = this.peer(to);
    if (peer?.state !== 'snapshot') return;
    peer.becomeProbe(ok ? index + 1 : peer.match + 1);
    peer.probing = true;
  }

  /** A copy for `RawNode.status()`. */
  view(): readonly ProgressView[] {
    return this.peers.map(({ id, match, next, state, learner, active }) => ({
      id,
      match,
      next,
      state,
      learner,
      recentlyActive: active,
    }));
  }
}
