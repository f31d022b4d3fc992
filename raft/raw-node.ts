/**
 * The handle on one member of one group: inputs in, one `Ready` out. No I/O, no clock, no Promise.
 *
 * Every input is one synchronous call that changes state and returns nothing or a small verdict;
 * what follows from it is gathered until `ready()` is asked. That is what makes batching free: all
 * proposals of one turn leave in one append, all reads of one turn share one round.
 *
 * This file also watches the driver: one persist batch at a time, entries applied in order and only
 * as fast as they are taken, and how long either has stood still.
 */
import { assert } from './assert.js';
import { Core } from './core.js';
import type { Message } from './message.js';
import type {
  MembershipChange,
  ProposeVerdict,
  RaftOptions,
  RaftStatus,
  ReadVerdict,
  RestoredState,
} from './options.js';
export type * from './options.js';
import type { EntryId, Ready } from './ready.js';
import { Replica } from './replica.js';
import {
  noReplica,
  type Entry,
  type Generation,
  type LogIndex,
  type Membership,
  type MembershipAt,
  type ReplicaId,
  type SnapshotMeta,
  type Term,
} from './types.js';

/**
 * Handed out to be applied at once; the next portion comes when this one is applied. So the driver
 * holds at most one portion (or one entry, if that is larger) per group, and a follower that has a
 * million entries to apply still gets to answer heartbeats in between. A portion is applied in one go on
 * the event loop, some 20 us for a small put: with 1 MiB and more the loop stood still for 100 ms and
 * more under puts in batches (p99.9 of its delay 290 to 450 ms, now 40 to 50).
 */
const applyBytesMax = 64 * 1024;

/**
 * The state of a group that never ran: an empty log and the first membership at index 0. Every first
 * member must be given the same membership, since no entry of the log brings it: two first ones that
 * share no majority would be two groups. A replica added later begins with `membershipOf([])`, and
 * with the generation that its group has by then.
 */
export function newGroupState(membership: Membership, generation: Generation = 0): RestoredState {
  return {
    generation,
    hardState: { term: 0, vote: noReplica, commit: 0 },
    firstIndex: 1,
    lastIndex: 0,
    termRuns: [{ from: 0, term: 0 }],
    memberships: [{ index: 0, membership }],
    tail: [],
    appliedIndex: 0,
    restoring: false,
  };
}

/**
 * One member. Not re-entrant and not shared: all calls come from one driver, none from within another.
 * After a RaftInvariantError out of any of them the state is undefined, and the member must not say
 * another word: throw it away together with its process.
 */
export class RawNode {
  private readonly replica: Replica;
  private readonly core: Core;
  /** A persist batch is out: until it is reported, the next one gathers, and grows with the load. */
  private persisting = false;
  /** The tick in which it was handed out. */
  private persistingSince = 0;
  /** The tick in which the state machine last moved, or was last given something. */
  private applyingSince = 0;
  /** A read of the log for the state machine is out; there is never a second one. */
  private fetchingToApply = false;
  /** Read from disk to be applied, not yet handed out. */
  private fetchedToApply: readonly Entry[] = [];

  /**
   * `state` is what the disk holds, or `newGroupState` for a replica that never ran. Throws
   * RaftInvariantError for options or a state that cannot be.
   */
  constructor(options: RaftOptions, state: RestoredState) {
    checkOptions(options);
    this.replica = new Replica(options, state);
    this.core = new Core(this.replica);
  }

  /** Believes that it leads: true of a deposed one, too, until it hears of it. Proof is `readIndex`. */
  get isLeader(): boolean {
    return this.core.role.kind === 'leader';
  }

  /** Goes with every message of this replica; never changes while it runs (rule D07). */
  get generation(): Generation {
    return this.replica.generation;
  }

  /** See `RaftStatus.outdatedBy`. */
  get outdatedBy(): Generation {
    return this.replica.outdatedBy;
  }

  /** The newest term it has heard of; rises only, and may be ahead of what is durable here. */
  get term(): Term {
    return this.replica.term;
  }

  /** The leader of `term` as far as known, or `noReplica`. A hint for redirects, never a proof. */
  get leader(): ReplicaId {
    return this.replica.leader;
  }

  /**
   * One tick of time has passed. Call at an even pace: elections, heartbeats and leases count ticks,
   * and nothing else in here knows of time.
   */
  tick(): void {
    this.core.tick(this.isStalled());
  }

  /**
   * A leader that can neither write nor apply is worse than none: it answers nothing, and its
   * heartbeats keep everybody else from taking over. Something that moves slowly is not stalled.
   */
  private isStalled(): boolean {
    const { ticks, options, log } = this.replica;
    if (this.persisting && ticks - this.persistingSince >= options.stalledTicksMax) return true;
    return (
      log.applyingIndex > log.appliedIndex && ticks - this.applyingSince >= options.stalledTicksMax
    );
  }

  /**
   * Never throws on remote input: stale, foreign or malformed messages are dropped and counted.
   * `generation`: the sender's, also for a message to itself. Left out it is that of a group that was
   * never recovered: a driver that forgets it is not heard, and breaks nothing.
   */
  step(message: Message, generation: Generation = 0): void {
    this.core.step(message, generation);
  }

  /** Somebody who knows says that the group was recovered: see `RaftStatus.outdatedBy` (rule D07). */
  learnGeneration(generation: Generation): void {
    this.core.learnGeneration(generation);
  }

  /**
   * Campaign now, without pre-vote (tests, and a first start of a single-member group). Does nothing
   * on a leader, and on one that may not campaign: a learner, or a member without its state machine.
   */
  campaign(): void {
    this.core.campaign('candidate', false);
  }

  /**
   * Campaign now, beginning with a pre-vote: an election timeout that comes early, and as harmless.
   * For the birth of a group, in which everybody would wait for one.
   */
  rehearseCampaign(): void {
    this.core.campaign('preCandidate', false);
  }

  /**
   * Appends a command if this member leads. Refused if larger than `entryBytesMax`, while leadership
   * is being handed over, and when too much is uncommitted; in all these cases nothing was appended,
   * and the command can be offered again without harm. `appended` promises nothing yet: the entry counts once
   * it comes back in `Ready.committed` with the same term, and may be truncated before (rule D04).
   * The bytes are the entry's from here on; the giver must not touch them again.
   */
  propose(payload: Uint8Array): ProposeVerdict {
    const { role } = this.core;
    return role.kind === 'leader'
      ? role.propose(payload)
      : { kind: 'notLeader', leader: this.leader };
  }

  /**
   * Begins a change of membership if this member leads; see `MembershipChange` and the README. It is in
   * force as soon as this returns `appended`, and done when the membership is no longer joint and its
   * index is committed. Nothing but time and a quorum on both sides is needed for that.
   */
  proposeMembership(change: MembershipChange): ProposeVerdict {
    const { role } = this.core;
    return role.kind === 'leader'
      ? role.proposeMembership(change)
      : { kind: 'notLeader', leader: this.leader };
  }

  /**
   * Asks from which index on the state machine is new enough for a read that begins now (thesis §6.4).
   * Works on leader and follower; a follower asks its leader and forwards the answer. `pending` is
   * followed by exactly one read state with this context, unless the process dies.
   *
   * `context`: 1 to 256 characters, unique on this replica for ever (rule D08): answers are matched by
   * it alone, and a late one to an earlier use would let a read through with an index that is too low.
   * `allowLease` false: prove leadership by messages also while a lease would do.
   */
  readIndex(context: string, allowLease = true): ReadVerdict {
    return this.core.readIndex(context, allowLease);
  }

  /**
   * Time that passed without `tick()`, in ticks: a stalled loop makes up for no tick, so that its own
   * stall starts no election, ends no promise and makes no disk look hung; but a lease has aged
   * meanwhile (R30), and this ages it. Call before every use of a lease. Throws RaftInvariantError
   * unless `ticks` is a count.
   */
  elapse(ticks: number): void {
    assert(
      Number.isInteger(ticks) && ticks >= 0,
      () => `elapsed ticks must be a count, got ${ticks}`,
    );
    this.replica.missedTicks += ticks;
  }

  /** The group has fallen quiet: no heartbeats, no elections (rule D05; see `RaftOptions.quietTicks`). */
  get isQuiet(): boolean {
    const { role } = this.core;
    return (role.kind === 'leader' || role.kind === 'follower') && role.quiet;
  }

  /**
   * Ends the quiet, here and, through the leader, everywhere. To be called when a node may be lost on
   * which the group has a member: in a quiet group nobody else would notice (rule D05).
   */
  wake(): void {
    this.core.wake();
  }

  /** The membership in force at an applied index (for the head of a snapshot). */
  membershipAt(index: LogIndex): MembershipAt {
    return this.replica.membershipBefore(index);
  }

  /** The membership in force now, committed or not. */
  get membership(): MembershipAt {
    return this.replica.membershipAt;
  }

  /** The state machine is not usable: a snapshot is awaited or being installed. */
  get restoring(): boolean {
    return this.replica.needsSnapshot || this.replica.restoring !== undefined;
  }

  /** What is known here to be committed: never too high, and on a follower usually a little low. */
  get commitIndex(): LogIndex {
    return this.replica.log.commitIndex;
  }

  /** The first index in the log. */
  get firstIndex(): LogIndex {
    return this.replica.log.firstIndex;
  }

  /**
   * Lease only: may a read that was begun in `term` still be answered now? (D03, R30) To be asked after
   * the state machine was read and with nothing between it and the answer: the process may have stood
   * still since `readIndex`, and somebody else may lead. The term is asked for since this member can
   * have lost its leadership and won another one, whose lease says nothing about the old commit index.
   */
  leaseValid(term: Term): boolean {
    const { role } = this.core;
    return role.kind === 'leader' && this.replica.term === term && role.leaseValid;
  }

  /**
   * Hands leadership to `to`, or to the best follower for `noReplica` (thesis §3.10). False when
   * impossible: not leader, not a voter of the incoming side, or itself. True promises an attempt:
   * proposals are refused until it has ended, at the latest after `electionTicks`.
   */
  transferLeadership(to: ReplicaId): boolean {
    const { role } = this.core;
    return role.kind === 'leader' && role.transferLeadership(to);
  }

  /** Cheap: is there anything in `ready()`? */
  hasReady(): boolean {
    const { replica } = this;
    const { role } = this.core;
    if (replica.messages.length > 0 || replica.readStates.length > 0 || replica.fetches.length > 0)
      return true;
    if (replica.snapshotsWanted.length > 0 || replica.restore !== undefined) return true;
    if (!this.persisting && this.hasToPersist()) return true;
    if (this.hasToApply()) return true;
    return role.kind === 'leader' && role.needsFlush;
  }

  /** A commit index that rose is not in here: it is a hint, and not worth a sync of its own. */
  private hasToPersist(): boolean {
    const { replica } = this;
    return (
      replica.hardStateChanged ||
      replica.log.hasUnpersisted ||
      replica.logReset !== undefined ||
      replica.messagesAfterPersist.length > 0
    );
  }

  /**
   * Nothing is applied on top of a state machine that is not there, nor while one portion is out. What
   * is committed but not durable here waits, too (`appliable`, rule D12).
   */
  private hasToApply(): boolean {
    const { log, needsSnapshot, restoring } = this.replica;
    if (needsSnapshot || restoring !== undefined || log.applyingIndex > log.appliedIndex)
      return false;
    if (this.fetchedToApply.length > 0) return true;
    return !this.fetchingToApply && log.applyingIndex < log.appliable;
  }

  /**
   * What is to be done now, for the driver to do in the order of the fields; see `ready.ts`. Sends
   * of a leader are decided here and not at each input, so that one turn makes one append.
   *
   * Everything in it is handed over for good: what the driver loses of it is lost as if the network or
   * the disk had lost it. The leader's sends are decided first: what they ask for (a fetch, a
   * snapshot) belongs into this same Ready.
   */
  ready(): Ready {
    const { replica } = this;
    const { role } = this.core;
    if (role.kind === 'leader') role.flush();
    const batch = this.takePersistBatch();
    const committed = this.takeCommitted();
    const ready: Ready = {
      messages: replica.messages,
      ...batch,
      committed,
      readStates: replica.readStates,
      fetches: replica.fetches,
      snapshotsWanted: replica.snapshotsWanted,
      restore: replica.restore,
    };
    replica.messages = [];
    replica.readStates = [];
    replica.fetches = [];
    replica.snapshotsWanted = [];
    replica.restore = undefined;
    return ready;
  }

  private takePersistBatch(): Pick<
    Ready,
    'hardState' | 'entries' | 'logReset' | 'messagesAfterPersist'
  > {
    const { replica } = this;
    // Two writes at once could reach the disk in any order, and a completion would not say which.
    // Promises that gather meanwhile wait with the next batch, whether or not they need it: kept in
    // order, none of them can overtake the state that it was made in.
    if (this.persisting) return nothingToPersist;
    const { logReset } = replica;
    const entries = replica.log.takeUnpersisted();
    const withBatch = entries.length > 0 || logReset !== undefined;
    const hardState = replica.takeHardState(withBatch);
    const messagesAfterPersist = replica.messagesAfterPersist;
    replica.messagesAfterPersist = [];
    replica.logReset = undefined;
    if (!withBatch && hardState === undefined) {
      // Everything they promise is durable already: nothing to wait for.
      for (const message of messagesAfterPersist) replica.messages.push(message);
      return nothingToPersist;
    }
    this.persisting = true;
    this.persistingSince = replica.ticks;
    return { hardState, entries, logReset, messagesAfterPersist };
  }

  /**
   * The next entries to apply. Never more than one portion ahead of the state machine, so that the
   * driver's queue is bounded by `applyBytesMax` however fast the group commits.
   */
  private takeCommitted(): readonly Entry[] {
    const { log } = this.replica;
    if (!this.hasToApply()) return [];
    const committed = this.fetchedToApply.length > 0 ? this.takeFetched() : this.windowToApply();
    const last = committed[committed.length - 1];
    if (last === undefined) return [];
    log.applyingIndex = last.index;
    this.applyingSince = this.replica.ticks;
    return committed;
  }

  /** What came from the disk; a snapshot that was installed meanwhile may have overtaken some. */
  private takeFetched(): readonly Entry[] {
    const { log } = this.replica;
    const fetched = this.fetchedToApply;
    this.fetchedToApply = [];
    return fetched.filter(
      (entry) => entry.index > log.applyingIndex && entry.index <= log.appliable,
    );
  }

  /** From memory if they are there still; else they are asked for, and come with a later Ready. */
  private windowToApply(): readonly Entry[] {
    const { log, fetches } = this.replica;
    const from = log.applyingIndex + 1;
    const entries = log.entries(from, log.appliable, applyBytesMax);
    if (entries !== 'belowWindow') return entries;
    this.fetchingToApply = true;
    fetches.push({
      purpose: 'apply',
      to: noReplica,
      from,
      last: log.appliable,
      bytesMax: applyBytesMax,
    });
    return [];
  }

  /**
   * The persist batch of the last `ready()` is durable. `last` is the (term, index) of its last
   * entry (or of its log reset), undefined if it held only a hard state. Throws RaftInvariantError
   * when none is out. To be called for a Ready with a hard state, entries or a log reset, and only
   * then; after its `messagesAfterPersist` were sent or before, which makes no difference.
   *
   * There is no way to report a failure: after a failed sync nobody knows what the disk holds, so the
   * driver stops the process, and a restart reads what is really there.
   */
  persisted(last: EntryId | undefined): void {
    assert(this.persisting, () => 'persisted() answers a batch that is out');
    this.persisting = false;
    if (last !== undefined) this.replica.log.persisted(last);
    this.core.onPersisted();
  }

  /**
   * The state machine has everything up to `index`; it need not be durable there, the log is. Partial
   * progress is fine. Throws RaftInvariantError beyond what was handed out.
   */
  applied(index: LogIndex): void {
    const { log } = this.replica;
    // A batch that was under way when a snapshot was installed.
    if (index < log.appliedIndex) return;
    log.appliedTo(index);
    this.applyingSince = this.replica.ticks;
  }

  /**
   * The answer to one of `Ready.fetches`: entries from `fetch.from` on, as many as were read. None
   * says that the log has been compacted beyond it meanwhile, which ends in a snapshot for `send`
   * and breaks an invariant for `apply`.
   */
  entriesFetched(
    fetch: { readonly purpose: 'send' | 'apply'; readonly to: ReplicaId; readonly from: LogIndex },
    entries: readonly Entry[],
  ): void {
    const { role } = this.core;
    if (fetch.purpose === 'apply') {
      this.fetchingToApply = false;
      // A snapshot was installed meanwhile.
      if (fetch.from !== this.replica.log.applyingIndex + 1) return;
      // Nothing unapplied is ever compacted: without an answer the same question would come for ever.
      assert(entries.length > 0, () => `entry ${fetch.from} to apply is not in the log on disk`);
      this.fetchedToApply = entries;
    } else if (role.kind === 'leader') {
      role.replication.onFetched(fetch.to, fetch.from, entries);
    }
  }

  /**
   * The message that offers a snapshot to `to`, in the current term; undefined if not leader. Asked for
   * when the image is ready, which may be long after `snapshotsWanted`: in an old term it would be
   * taken for the word of a deposed leader.
   */
  snapshotMessage(to: ReplicaId, snapshot: SnapshotMeta): Message | undefined {
    const { id: from, term } = this.replica;
    return this.isLeader ? { type: 'snapshot', from, to, term, snapshot } : undefined;
  }

  /**
   * The transfer to `to` ended: all bytes arrived, or not. Only then is it offered another one, so
   * each of `snapshotsWanted` must come to this in the end, also when no image could be made.
   */
  snapshotSent(result: {
    readonly to: ReplicaId;
    readonly index: LogIndex;
    readonly ok: boolean;
  }): void {
    const { role } = this.core;
    if (role.kind === 'leader') role.replication.onSnapshotSent(result.to, result.index, result.ok);
  }

  /**
   * The restore asked for by `Ready.restore` ended; `ok` false: ask for another snapshot. With `ok` the
   * image must be durable already, its applied index included: the log reset follows it and never goes
   * ahead (rule D15, steps 3 and 4). Ignored for a snapshot other than the one being restored.
   */
  restored(snapshot: SnapshotMeta, ok: boolean): void {
    this.core.onRestored(snapshot, ok);
  }

  /**
   * The log on disk now begins at `firstIndex` (paper §7). Allowed up to the applied index + 1, throws
   * RaftInvariantError beyond; the driver stays below what the state machine has *durably* (D14).
   * How many entries to keep for slow followers is its choice: below, they cost a snapshot.
   */
  compacted(firstIndex: LogIndex): void {
    this.replica.compact(firstIndex);
  }

  /** The replica's node became unreachable: its progress falls back to probing. Only a hint. */
  unreachable(replica: ReplicaId): void {
    const { role } = this.core;
    if (role.kind === 'leader') role.replication.unreachable(replica);
  }

  /** The term of an index that is in the log, or the one just before its first; else undefined. */
  termAt(index: LogIndex): Term | undefined {
    return this.replica.log.termAt(index);
  }

  /** A copy of what can be seen from outside. Costs O(members): for status, metrics and tests. */
  status(): RaftStatus {
    const { replica } = this;
    const { log } = replica;
    const { role } = this.core;
    return {
      id: replica.id,
      role: role.kind,
      generation: replica.generation,
      outdatedBy: replica.outdatedBy,
      term: replica.term,
      vote: replica.vote,
      leader: replica.leader,
      firstIndex: log.firstIndex,
      lastIndex: log.lastIndex,
      persistedIndex: log.persistedIndex,
      commitIndex: log.commitIndex,
      appliedIndex: log.appliedIndex,
      membership: replica.membershipAt,
      transferTo: role.kind === 'leader' ? role.transferTo : noReplica,
      restoring: replica.needsSnapshot || replica.restoring !== undefined,
      quiet: this.isQuiet,
      progress: role.kind === 'leader' ? role.replication.view() : [],
      dropped: { ...replica.dropped },
    };
  }
}

const nothingToPersist = {
  hardState: undefined,
  entries: [],
  logReset: undefined,
  messagesAfterPersist: [],
} as const;

/** Relations between options that the rules rely on. Values out of range are the caller's own check. */
function checkOptions(options: RaftOptions): void {
  const { electionTicks, heartbeatTicks, leaseTicks } = options;
  assert(
    heartbeatTicks >= 1 && heartbeatTicks < electionTicks,
    () => `heartbeatTicks ${heartbeatTicks} must lie below electionTicks ${electionTicks}`,
  );
  assert(options.quietTicks >= 0, () => `quietTicks ${options.quietTicks} must not be negative`);
  // Followers wait at least electionTicks by their clock; ours may run slower (R31, R33). What is
  // left between the two is the drift that clocks may have: the README has the arithmetic.
  assert(
    leaseTicks < electionTicks,
    () => `leaseTicks ${leaseTicks} must lie below electionTicks ${electionTicks}`,
  );
  // A lease rests on voters that ignore candidates while they hear a leader, which check-quorum
  // switches on, and on a leader that steps down when it hears nobody.
  assert(leaseTicks === 0 || options.checkQuorum, () => 'a lease needs check-quorum');
  assert(
    options.messageBytesMax >= 1 && options.inflightMessagesMax >= 1,
    () => 'windows hold at least one message',
  );
  assert(options.stalledTicksMax >= 1, () => 'stalledTicksMax must be at least 1');
}
