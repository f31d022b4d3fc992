/**
 * What must hold of a member, of a message and of a whole group, whatever happens around them.
 *
 * The core asserts what it can see by itself in O(1). This file sees more: the member before and
 * after each event, the truth about its disk, and the logs of all members at once. It is used by
 * simulation and tests, which call it after every event; so everything here is incremental and
 * costs O(members) at most, except the first look at each entry. Nothing in here reuses the core's
 * own arithmetic (its majority, its idea of what is durable): a check must not share the mistake
 * that it is there to find.
 *
 * Memory grows with the history (one record per entry and term), which a simulated run bounds.
 */
import type { AppendRequest, Message } from './message.js';
import type { RaftOptions, RaftStatus } from './raw-node.js';
import type { EntryId } from './ready.js';
import type { Entry, HardState, LogIndex, Membership, ReplicaId, Term } from './types.js';
import { noReplica } from './types.js';

/** The names under which a violation is reported; the first five are those of paper, figure 3. */
export type Invariant =
  | 'election safety'
  | 'leader append-only'
  | 'log matching'
  | 'leader completeness'
  | 'state machine safety'
  /** The pointers of a log stand in their order (log.ts). */
  | 'index order'
  /** What only rises has risen; a vote stays for its term (paper §5.1, §5.2). */
  | 'monotonic state'
  | 'role'
  /** A leader believes of others only what can be (progress.ts). */
  | 'progress'
  | 'membership form'
  /** At most one change that is not committed (thesis §4.1; R20, R21). */
  | 'one pending membership'
  /** What a message promises is on its sender's disk (R01, R02, D02). */
  | 'durable promise'
  /** What a leader commits is on the disks of a majority of each side (paper §5.3, §6). */
  | 'durable quorum'
  /** Followers commit and apply nothing that no leader has committed (R07). */
  | 'commit known to a leader'
  | 'bounded message'
  | 'message form';

/** Thrown when an invariant does not hold. The message names it and gives the values. */
export class InvariantViolation extends Error {
  readonly invariant: Invariant;

  constructor(invariant: Invariant, detail: string) {
    super(`${invariant}: ${detail}`);
    this.name = 'InvariantViolation';
    this.invariant = invariant;
  }
}

function violated(invariant: Invariant, detail: string): never {
  throw new InvariantViolation(invariant, detail);
}

/** The terms of a log, as its owner knows them; undefined outside of what is present. */
export interface LogTerms {
  termAt(index: LogIndex): Term | undefined;
}

/** The truth about a member's disk: what it would find there if it started at this moment. */
export interface DurableState extends LogTerms {
  readonly hardState: HardState;
  readonly lastIndex: LogIndex;
}

/* ---- One member ------------------------------------------------------------------------- */

/**
 * Checks the status of one member by itself and against its status before the last event.
 * `before` is undefined for the first status after a start: then only the values are compared.
 */
export function checkMember(now: RaftStatus, before: RaftStatus | undefined): void {
  checkIndexOrder(now);
  checkRole(now);
  if (now.role === 'leader') checkProgress(now, before);
  if (before === undefined) {
    checkMembershipForm(now.membership.membership);
    return;
  }
  checkMonotonic(now, before);
  if (now.membership !== before.membership) {
    if (now.membership.membership !== before.membership.membership) {
      checkMembershipForm(now.membership.membership);
    }
    checkOnePending(now, before);
  }
}

/**
 * first - 1 <= applied <= commit <= last, and applied <= persisted <= last (rule D12: what is
 * applied here stands in our own log, so that a crash cannot leave the state machine ahead of it).
 * Commit and persisted have no order: a quorum of others can be faster than our own disk.
 */
function checkIndexOrder(now: RaftStatus): void {
  const { firstIndex, appliedIndex, commitIndex, persistedIndex, lastIndex } = now;
  // A damaged engine (rule D13) stands below its log until a snapshot has been installed.
  const floorHolds = now.restoring || firstIndex - 1 <= appliedIndex;
  if (
    !floorHolds ||
    appliedIndex > commitIndex ||
    commitIndex > lastIndex ||
    appliedIndex > persistedIndex ||
    persistedIndex > lastIndex
  ) {
    violated(
      'index order',
      `member ${now.id}: first ${firstIndex}, applied ${appliedIndex}, commit ${commitIndex}, ` +
        `persisted ${persistedIndex}, last ${lastIndex}`,
    );
  }
}

/** What a role says about leader, vote and progress: a role object that outlived its role breaks this. */
function checkRole(now: RaftStatus): void {
  if (now.role === 'leader' && now.leader !== now.id) {
    violated('role', `member ${now.id} leads term ${now.term} but names ${now.leader}`);
  }
  // Whoever leads or campaigns in a term has spent its own vote of that term on itself.
  if ((now.role === 'leader' || now.role === 'candidate') && now.vote !== now.id) {
    violated('role', `${now.role} ${now.id} voted for ${now.vote} in its own term ${now.term}`);
  }
  if (now.role !== 'leader' && now.leader === now.id) {
    violated('role', `${now.role} ${now.id} believes that it leads`);
  }
  if (now.role !== 'leader' && now.progress.length > 0) {
    violated('role', `${now.role} ${now.id} keeps the progress of others`);
  }
}

/**
 * Only a crash may take anything back, and then only what was never promised: see `checkRestart`.
 * A leader cuts nothing off its own log (leader append-only); a follower may.
 */
function checkMonotonic(now: RaftStatus, before: RaftStatus): void {
  const went = (what: string, from: number, to: number): never =>
    violated('monotonic state', `member ${now.id}: ${what} went from ${from} to ${to}`);
  if (now.term < before.term) went('term', before.term, now.term);
  if (now.term === before.term && now.vote !== before.vote && before.vote !== noReplica) {
    went(`vote of term ${now.term}`, before.vote, now.vote);
  }
  if (now.commitIndex < before.commitIndex) went('commit', before.commitIndex, now.commitIndex);
  if (now.appliedIndex < before.appliedIndex)
    went('applied', before.appliedIndex, now.appliedIndex);
  if (now.firstIndex < before.firstIndex) went('first index', before.firstIndex, now.firstIndex);
  const leadsOn = now.role === 'leader' && before.role === 'leader' && now.term === before.term;
  if (leadsOn && now.lastIndex < before.lastIndex) {
    violated(
      'leader append-only',
      `leader ${now.id} of term ${now.term} cut its log from ${before.lastIndex} to ${now.lastIndex}`,
    );
  }
}

/** A match index is knowledge and never goes back in a term; a next index may, but not below it. */
function checkProgress(now: RaftStatus, before: RaftStatus | undefined): void {
  const older = before?.role === 'leader' && before.term === now.term ? before.progress : [];
  let at = 0;
  for (const of of now.progress) {
    if (of.match > now.lastIndex || (of.next <= of.match && of.id !== now.id)) {
      violated(
        'progress',
        `leader ${now.id} (last ${now.lastIndex}) has match ${of.match}, next ${of.next} of ${of.id}`,
      );
    }
    // Its own append counts only when its own disk has it (thesis §10.2.1).
    if (of.id === now.id && of.match > now.persistedIndex) {
      violated(
        'progress',
        `leader ${now.id} counts itself to ${of.match}, persisted ${now.persistedIndex}`,
      );
    }
    while ((older[at]?.id ?? Infinity) < of.id) at++;
    const was = older[at];
    if (was?.id === of.id && of.match < was.match) {
      violated('progress', `match of ${of.id} went from ${was.match} to ${of.match}`);
    }
  }
}

/**
 * A leader appends a configuration only when it knows that the one before is committed; a follower
 * may hold more, because news of the commit index travel behind the entries.
 */
function checkOnePending(now: RaftStatus, before: RaftStatus): void {
  const leads = now.role === 'leader' && before.role === 'leader' && now.term === before.term;
  if (leads && before.membership.index > now.commitIndex) {
    violated(
      'one pending membership',
      `leader ${now.id} appended a configuration at ${now.membership.index} while the one at ` +
        `${before.membership.index} was not committed (commit ${now.commitIndex})`,
    );
  }
}

/** Sorted, no duplicates, nobody voter and learner at once, `members` names everybody once. */
export function checkMembershipForm(membership: Membership): void {
  const { incoming, outgoing, learners, learnersNext, members } = membership;
  const ids = members.map((member) => member.id);
  for (const [name, list] of Object.entries({ incoming, outgoing, learners, learnersNext, ids })) {
    for (let at = 1; at < list.length; at++) {
      if ((list[at] ?? 0) <= (list[at - 1] ?? 0)) {
        violated('membership form', `${name} is not sorted or has duplicates: ${list.join(' ')}`);
      }
    }
  }
  const named = new Set([...incoming, ...outgoing, ...learners, ...learnersNext]);
  if (named.size !== ids.length || ids.some((id) => !named.has(id))) {
    violated('membership form', `members ${ids.join(' ')} against ${[...named].join(' ')}`);
  }
  for (const learner of learners) {
    if (incoming.includes(learner) || outgoing.includes(learner)) {
      violated('membership form', `${learner} is voter and learner at once`);
    }
  }
  for (const next of learnersNext) {
    if (!outgoing.includes(next) || incoming.includes(next)) {
      violated('membership form', `${next} is to become a learner without leaving the voters`);
    }
  }
  if (outgoing.length > 0 && incoming.length === 0) {
    violated('membership form', 'a joint configuration leads to nobody');
  }
}

/** After a restart: nothing that was durable before may be forgotten. */
export function checkRestart(
  now: RaftStatus,
  durable: { readonly hardState: HardState; readonly appliedIndex: LogIndex },
): void {
  const { term, vote, commit } = durable.hardState;
  const voteKept = now.term > term || now.vote === vote;
  const appliedKept = now.restoring || now.appliedIndex >= durable.appliedIndex;
  if (now.term < term || !voteKept || now.commitIndex < commit || !appliedKept) {
    violated(
      'monotonic state',
      `member ${now.id} restarted with term ${now.term}, vote ${now.vote}, commit ` +
        `${now.commitIndex}, applied ${now.appliedIndex}; durable were term ${term}, vote ` +
        `${vote}, commit ${commit}, applied ${durable.appliedIndex}`,
    );
  }
}

/* ---- One message ------------------------------------------------------------------------ */

/** Checks a message at the moment of sending: its form, and that it keeps to the limits. */
export function checkMessage(
  message: Message,
  limits: Pick<RaftOptions, 'messageBytesMax' | 'entryBytesMax'>,
): void {
  if (message.from === message.to || message.to === noReplica) {
    violated('message form', `${message.type} from ${message.from} to ${message.to}`);
  }
  if (message.type === 'append') checkAppend(message, limits);
}

function checkAppend(
  message: AppendRequest,
  limits: Pick<RaftOptions, 'messageBytesMax' | 'entryBytesMax'>,
): void {
  let index = message.prevIndex;
  let term = message.prevTerm;
  let bytes = 0;
  for (const entry of message.entries) {
    if (entry.index !== index + 1 || entry.term < term || entry.term > message.term) {
      violated('message form', `append of term ${message.term}: ${entry.index} after ${index}`);
    }
    index = entry.index;
    term = entry.term;
    bytes += entry.data.length;
  }
  // One entry always goes, however large: otherwise it could never be replicated.
  if (message.entries.length > 1 && bytes > limits.messageBytesMax) {
    violated('bounded message', `append of ${bytes} bytes, limit ${limits.messageBytesMax}`);
  }
}

/**
 * Checks that a message promises nothing that its sender's disk does not hold: votes given, votes
 * asked for (a candidate that forgets its term and its log's end could be elected on answers to a
 * longer log than it still has), and entries acknowledged.
 *
 * Once a later term is durable, an older promise cannot be broken any more: the sender will take
 * part in nothing of the older term.
 */
export function checkPromise(message: Message, durable: DurableState): void {
  const { term, vote } = durable.hardState;
  if (term > message.term) return;
  switch (message.type) {
    case 'vote':
    case 'voteReply': {
      const voted = message.type === 'vote' ? message.from : message.to;
      if (message.type === 'voteReply' && !message.granted) return;
      if (term === message.term && vote === voted) return;
      return violated(
        'durable promise',
        `${message.type} of ${message.from} to ${message.to} in term ${message.term}, durable: ` +
          `term ${term}, vote ${vote}`,
      );
    }
    case 'appendReply':
      if (message.rejected || (term === message.term && message.index <= durable.lastIndex)) return;
      return violated(
        'durable promise',
        `${message.from} acknowledged ${message.index} in term ${message.term}, durable: term ` +
          `${term}, last ${durable.lastIndex}`,
      );
    default:
  }
}

/* ---- The whole group -------------------------------------------------------------------- */

/** An entry and what it stood behind when it was first seen. */
interface KnownEntry {
  readonly entry: Entry;
  readonly previousTerm: Term;
}

/** One advance of the group's commit index, by whichever leader. */
interface CommitStep {
  readonly index: LogIndex;
  readonly term: Term;
  /** The term of the leader that committed up to here. */
  readonly committedIn: Term;
}

/** Does the majority of every active configuration satisfy `holds`? The slow, obvious way. */
export function everyQuorum(membership: Membership, holds: (id: ReplicaId) => boolean): boolean {
  const majority = (ids: readonly ReplicaId[]): boolean => {
    let count = 0;
    for (const id of ids) if (holds(id)) count++;
    return ids.length === 0 || 2 * count > ids.length;
  };
  return majority(membership.incoming) && majority(membership.outgoing);
}

/** The history of a group, against which every step of every member is checked. */
export class GroupInvariants {
  /** Who led a term. */
  private readonly leaders = new Map<Term, ReplicaId>();
  /** Every entry that ever stood in a log: by index, then by term. */
  private readonly entries: KnownEntry[][] = [];
  /** Committed entries by index; filled as they are applied for the first time. */
  private readonly committed: Entry[] = [];
  /** Advances of the group's commit index, ascending. */
  private readonly commits: CommitStep[] = [];

  /**
   * Of the next generation (rule D07), which begins with what its survivor has: `holds` tells what that
   * is, `commit` is the newest entry that it knows to be committed, `term` the one it was recovered in.
   * What was applied before and stands in its log has to be applied there again as it was.
   */
  after(survivor: {
    readonly holds: (place: EntryId) => boolean;
    readonly commit: EntryId;
    readonly term: Term;
  }): GroupInvariants {
    const next = new GroupInvariants();
    for (let index = 1; index < this.committed.length; index++) {
      const entry = this.committed[index];
      if (entry === undefined || !survivor.holds(entry)) break;
      next.committed[index] = entry;
    }
    next.commits.push({ ...survivor.commit, committedIn: survivor.term });
    return next;
  }

  /** The highest index that any leader has committed. */
  get commitIndex(): LogIndex {
    return this.commits.at(-1)?.index ?? 0;
  }

  /** The highest term that had a leader. */
  leaderOf(term: Term): ReplicaId | undefined {
    return this.leaders.get(term);
  }

  /** The entry that was applied at `index`, or undefined if nobody has applied it yet. */
  appliedAt(index: LogIndex): Entry | undefined {
    return this.committed[index];
  }

  /** Every entry applied anywhere so far, in order of their indexes. */
  get applied(): readonly Entry[] {
    return this.committed.filter((entry) => entry !== undefined);
  }

  /**
   * Log matching (paper, figure 3): an entry stands in a log behind an entry of `previousTerm`.
   * If two logs agree on (index, term) they agree on the entry and on the term of the one before;
   * by induction they agree on everything before. Call for every entry that enters a log.
   */
  appended(entry: Entry, previousTerm: Term): void {
    const known = this.entries[entry.index];
    if (known === undefined) {
      this.entries[entry.index] = [{ entry, previousTerm }];
      return;
    }
    for (const other of known) {
      if (other.entry.term !== entry.term) continue;
      if (other.previousTerm !== previousTerm || !sameEntry(other.entry, entry)) {
        violated(
          'log matching',
          `two entries ${entry.index} of term ${entry.term}, behind terms ${other.previousTerm} ` +
            `and ${previousTerm}`,
        );
      }
      return;
    }
    known.push({ entry, previousTerm });
  }

  /**
   * Election safety and leader completeness (paper, figure 3), for a member that leads. Cheap when
   * the term's leader is known already. Only what was committed in *earlier* terms is asked of a
   * new leader: a slow old leader may become visible after a later one has committed.
   */
  leads(status: Pick<RaftStatus, 'id' | 'term' | 'firstIndex'>, log: LogTerms): void {
    const known = this.leaders.get(status.term);
    if (known === status.id) return;
    if (known !== undefined) {
      violated('election safety', `${known} and ${status.id} both lead term ${status.term}`);
    }
    this.leaders.set(status.term, status.id);
    for (let at = this.commits.length - 1; at >= 0; at--) {
      const step = this.commits[at];
      if (step === undefined || step.committedIn >= status.term) continue;
      requireEntry(status, log, step);
      return;
    }
  }

  /**
   * The commit index of a member advanced to `status.commitIndex`.
   *
   * A leader's advance must stand on a durable majority of every active configuration, where
   * `durablyHas(id)` tells whether that member's disk holds this very entry (or a snapshot beyond
   * it). `before` is the membership before the event: an event may both commit and append the next
   * configuration. Everybody else must not know more than some leader did, nor mean another entry.
   */
  commitAdvanced(
    status: RaftStatus,
    log: LogTerms,
    before: Membership,
    durablyHas: (id: ReplicaId, place: { index: LogIndex; term: Term }) => boolean,
  ): void {
    const index = status.commitIndex;
    const term = log.termAt(index);
    if (term === undefined) {
      violated('index order', `member ${status.id} has no term for its commit index ${index}`);
    }
    if (status.role === 'leader' && index > this.commitIndex) {
      const holds = (id: ReplicaId): boolean => durablyHas(id, { index, term });
      if (!everyQuorum(before, holds) && !everyQuorum(status.membership.membership, holds)) {
        violated(
          'durable quorum',
          `leader ${status.id} of term ${status.term} committed (${index}, term ${term}) ` +
            `without a durable majority`,
        );
      }
      this.commits.push({ index, term, committedIn: status.term });
      return;
    }
    this.requireCommitted(status, { index, term });
  }

  /** What a member believes committed was committed by a leader, and is the same entry. */
  private requireCommitted(status: RaftStatus, place: { index: LogIndex; term: Term }): void {
    if (place.index > this.commitIndex) {
      violated(
        'commit known to a leader',
        `${status.role} ${status.id} has commit ${place.index}, leaders committed ${this.commitIndex}`,
      );
    }
    const entry = this.committed[place.index];
    if (entry !== undefined && entry.term !== place.term) {
      violated(
        'state machine safety',
        `member ${status.id} takes (${place.index}, term ${place.term}) for committed, the ` +
          `group applied term ${entry.term}`,
      );
    }
  }

  /** State machine safety (paper, figure 3): the same entry at this index on every member. */
  appliedBy(id: ReplicaId, entry: Entry): void {
    if (entry.index > this.commitIndex) {
      violated(
        'commit known to a leader',
        `member ${id} applied ${entry.index}, leaders committed ${this.commitIndex}`,
      );
    }
    const known = this.committed[entry.index];
    if (known === undefined) {
      this.committed[entry.index] = entry;
      return;
    }
    if (!sameEntry(known, entry)) {
      violated(
        'state machine safety',
        `member ${id} applied (${entry.index}, term ${entry.term}), another applied term ${known.term}`,
      );
    }
  }
}

/** The commit's own entry is enough: log matching makes everything below it equal, too. */
function requireEntry(
  status: Pick<RaftStatus, 'id' | 'term' | 'firstIndex'>,
  log: LogTerms,
  step: CommitStep,
): void {
  // Below its first index stands a snapshot of its own state machine, checked entry by entry.
  if (step.index < status.firstIndex - 1) return;
  const term = log.termAt(step.index);
  if (term !== step.term) {
    violated(
      'leader completeness',
      `leader ${status.id} of term ${status.term} has term ${term ?? 'none'} at ${step.index}, ` +
        `term ${step.term} was committed there in term ${step.committedIn}`,
    );
  }
}

/** By content: that (term, index) names one entry is what is being checked. */
function sameEntry(one: Entry, other: Entry): boolean {
  if (one === other) return true;
  if (one.term !== other.term || one.kind !== other.kind) return false;
  if (one.data.length !== other.data.length) return false;
  for (let at = 0; at < one.data.length; at++) if (one.data[at] !== other.data[at]) return false;
  return true;
}
