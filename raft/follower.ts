/**
 * A follower: passive; answers its leader, and asks it for read indexes (paper §5.1, and figure 2,
 * AppendEntries, receiver).
 *
 * All that it says to be accepted is checked against the entry before it, so by induction its log
 * equals the leader's up to there (log matching, §5.3). And all of it waits for its disk: a majority of
 * memories is not a majority of disks, and the power can fail for all of them at once (R02).
 */
import { assert } from './assert.js';
import type { AppendRequest, Heartbeat, ReadIndexReply, SnapshotRequest } from './message.js';
import type { Replica } from './replica.js';
import type { Entry, LogIndex, ReplicaId } from './types.js';

/** A read of this member's clients that has been sent on to the leader. */
interface AskedRead {
  readonly context: string;
  readonly sinceTick: number;
}

/** Built anew whenever a term or a leader changes. */
export class Follower {
  readonly kind = 'follower';
  /** Ticks since the leader was last heard, or a vote granted. */
  elapsed = 0;
  /** The leader has said that it will not speak until something happens (rule D05). */
  quiet = false;
  /**
   * In [electionTicks, 2 * electionTicks), drawn anew after every campaign (paper §5.2): with the same
   * timeouts split votes would repeat for ever.
   */
  readonly timeout: number;
  private asked: AskedRead[] = [];
  private readonly replica: Replica;

  constructor(replica: Replica) {
    this.replica = replica;
    const { electionTicks } = replica.options;
    this.timeout = electionTicks + replica.random.below(electionTicks);
  }

  /**
   * The leader of this term spoke. What follows is answered, and the answer may earn the leader a
   * lease, so the promise begins before it: see `Replica.leaderHeardAt`.
   */
  hear(leader: ReplicaId): void {
    this.elapsed = 0;
    this.quiet = false;
    this.replica.leader = leader;
    this.replica.leaderHeardAt = this.replica.ticks;
  }

  /**
   * Something happens in a quiet group. From here on the leader is expected to speak again, and has a
   * whole election timeout for it: the silence before was agreed.
   */
  wake(): void {
    if (this.quiet) this.hear(this.replica.leader);
  }

  /**
   * Accepts, refuses with a hint, or keeps silent. Works for any append of this term in any order and
   * any number of times: the network promises nothing.
   */
  onAppend(message: AppendRequest): void {
    const { replica } = this;
    const { log } = replica;
    // The log may be about to begin anew: nothing that is said of it now will be true then.
    if (replica.restoring !== undefined) return;
    if (replica.needsSnapshot) {
      this.askForSnapshot(message.from);
      return;
    }
    // Below the commit index the logs agree by the leader completeness property: say how far, and
    // never compare, let alone truncate (R05).
    if (message.prevIndex < log.commitIndex) {
      replica.acknowledge(message.from, log.commitIndex);
      return;
    }
    // Figure 2, step 2: a gap, or another history up to here.
    if (!log.matches(message.prevIndex, message.prevTerm)) {
      const hint = log.lastAtOrBelowTerm(message.prevIndex, message.prevTerm);
      this.refuse(message, hint);
      return;
    }
    // Only this much is verified to equal the leader's log; what may lie behind it here is not (R07).
    const verified = message.prevIndex + message.entries.length;
    this.takeNewEntries(message.entries);
    // Step 5, "index of last new entry": not the last index of this log.
    if (message.commit > log.commitIndex) {
      log.commitTo(Math.max(log.commitIndex, Math.min(message.commit, verified)));
    }
    replica.acknowledge(message.from, verified);
  }

  /**
   * Steps 3 and 4. Truncates only at a conflict: an older, shorter append that comes late changes
   * nothing (R06). What it seems to cut off may have been acknowledged, and a quorum may rest on it.
   */
  private takeNewEntries(entries: readonly Entry[]): void {
    const { replica } = this;
    const { log } = replica;
    for (let n = 0; n < entries.length; n++) {
      const entry = entries[n];
      if (entry === undefined || log.matches(entry.index, entry.term)) continue;
      assert(
        entry.index > log.commitIndex,
        () => `entry ${entry.index} of term ${entry.term} conflicts with a committed one`,
      );
      replica.append(n === 0 ? entries : entries.slice(n));
      return;
    }
  }

  /**
   * A refusal promises nothing, so it does not wait for the disk. The hint is the last place of our
   * log that the leader's entry before could still agree with; see `Replication.onRefused`.
   */
  private refuse(message: AppendRequest, hintIndex: LogIndex): void {
    const { replica } = this;
    replica.send({
      type: 'appendReply',
      from: replica.id,
      to: message.from,
      term: replica.term,
      index: message.prevIndex,
      rejected: true,
      hintIndex,
      hintTerm: replica.log.termAt(hintIndex) ?? 0,
    });
  }

  /** No entries can mend this member: see `AppendReply`. */
  private askForSnapshot(to: ReplicaId): void {
    const { id: from, term } = this.replica;
    this.replica.send({
      type: 'appendReply',
      from,
      to,
      term,
      index: 0,
      rejected: true,
      hintIndex: 0,
      hintTerm: 0,
    });
  }

  /**
   * Answered at once, and with the round it asked: that answer is a vote for "you still lead". It says
   * nothing about the log, so a slow disk here does not cost the leader its reads.
   */
  onHeartbeat(message: Heartbeat): void {
    const { replica } = this;
    const { log } = replica;
    if (replica.restoring === undefined && replica.needsSnapshot) {
      // A quiet group sends no appends that could be refused.
      this.askForSnapshot(message.from);
    } else if (replica.restoring === undefined) {
      // The leader knows that we match it up to `commit`: no log check is needed. Beyond our log it
      // cannot know that, unless this disk has lost what it acknowledged: then nothing is verified.
      if (message.commit > log.lastIndex) replica.drop('commitBeyondLog');
      else if (message.commit > log.commitIndex) log.commitTo(message.commit);
      // Only with the whole log, all of it committed: a member that lacks something must ask for it.
      this.quiet = message.quiet && message.commit === log.lastIndex;
    }
    const { id: from, term } = replica;
    replica.send({ type: 'heartbeatReply', from, to: message.from, term, round: message.round });
  }

  /**
   * Paper, figure 13. Three ways out, cheapest first: we have more than it committed; our log has its
   * last entry, and with it all of it; or the state machine is replaced. Only the third throws
   * anything away, and only what cannot have been committed differently.
   */
  onSnapshot({ from, snapshot }: SnapshotRequest): void {
    const { replica } = this;
    // One at a time: a second one that comes meanwhile waits for the leader to ask again (R10).
    if (replica.restoring !== undefined) {
      replica.drop('snapshotWhileRestoring');
      return;
    }
    if (snapshot.index <= replica.log.commitIndex && !replica.needsSnapshot) {
      replica.acknowledge(from, replica.log.commitIndex);
      return;
    }
    if (!replica.needsSnapshot && replica.log.matches(snapshot.index, snapshot.term)) {
      // The log has all that the image has: applying it is cheaper than replacing the state. A
      // snapshot is of committed entries only.
      replica.log.commitTo(snapshot.index);
      replica.acknowledge(from, snapshot.index);
      return;
    }
    // A state machine never goes back: what it has told to readers must stay true. Another one is
    // asked for with the next heartbeat, until the leader has one that is new enough.
    if (snapshot.index < replica.log.appliedIndex) {
      replica.drop('snapshotTooOld');
      return;
    }
    replica.restoring = { ...snapshot, from };
    replica.restore = replica.restoring;
  }

  /**
   * Thesis §6.4, end: the leader proves itself and tells an index, the reading is done here. Not
   * repeated when lost: the same context twice could be answered twice (rule D08).
   */
  askReadIndex(context: string): void {
    const { id: from, leader: to, term } = this.replica;
    this.asked.push({ context, sinceTick: this.replica.ticks });
    this.replica.send({ type: 'readIndex', from, to, term, context });
  }

  /** Of this term, so of the leader that was asked: a change of either ends all that was asked. */
  onReadIndexReply({ context, index, refused }: ReadIndexReply): void {
    const at = this.asked.findIndex((read) => read.context === context);
    if (at < 0) {
      this.replica.drop('unknownReadContext');
      return;
    }
    this.asked.splice(at, 1);
    this.replica.readStates.push({ context, index: refused ? undefined : index });
  }

  /** Reads that the leader never answered: lost messages are not sent again, reads are asked anew. */
  expireReads(): void {
    const { ticks, options, readStates } = this.replica;
    while (
      this.asked.length > 0 &&
      ticks - (this.asked[0]?.sinceTick ?? ticks) >= options.electionTicks
    ) {
      const read = this.asked.shift();
      if (read !== undefined) readStates.push({ context: read.context, index: undefined });
    }
  }

  /** The leader changed: nobody will answer. */
  loseReads(): void {
    for (const { context } of this.asked)
      this.replica.readStates.push({ context, index: undefined });
    this.asked = [];
  }

  /** Bounded by `readsMax`, like those of a leader. */
  get readsAsked(): number {
    return this.asked.length;
  }
}
