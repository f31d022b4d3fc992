/**
 * The checks between the members and `raft/invariants.ts`: what to compare after which event, and
 * the few that only a simulation can make, because it knows every disk and every state machine.
 */
import { noReplica } from '../../raft/index.js';
import type {
  Entry,
  EntryId,
  Generation,
  LogIndex,
  Message,
  RaftStatus,
  RawNode,
  ReplicaId,
  SnapshotMeta,
} from '../../raft/index.js';
import {
  GroupInvariants,
  checkMember,
  checkMessage,
  checkPromise,
  checkRestart,
} from '../../raft/invariants.js';
import type { Coverage } from './coverage.js';
import type { PersistBatch, SimDisk } from './sim-disk.js';
import type { EngineState, Image, SimEngine } from './sim-engine.js';
import type { GroupOptions } from './swarm.js';
import type { Trace } from './trace.js';

/** What the checks look at in a member. */
export interface CheckedMember {
  readonly id: ReplicaId;
  readonly disk: SimDisk;
  readonly engine: SimEngine;
  /** The running core, undefined while the process is down. */
  readonly core: RawNode | undefined;
  /** The status after the last event of this run of the process; written by the checks. */
  seen: RaftStatus | undefined;
}

const roleNumbers = { follower: 1, preCandidate: 2, candidate: 3, leader: 4 } as const;

/** What holds among the members of one generation, and not between two (rule D07). */
interface GenerationChecks {
  readonly invariants: GroupInvariants;
  /** The hash of the state machine after each index, from whoever got there first. */
  readonly hashes: number[];
}

export class GroupChecks {
  private readonly generations = new Map<Generation, GenerationChecks>([
    [0, { invariants: new GroupInvariants(), hashes: [] }],
  ]);
  /** The last transfer of leadership that was seen under way. */
  private transfer: RaftStatus | undefined;
  private readonly options: GroupOptions;
  private readonly members: ReadonlyMap<ReplicaId, CheckedMember>;
  private readonly coverage: Coverage;
  private readonly trace: Trace;

  constructor(
    options: GroupOptions,
    members: ReadonlyMap<ReplicaId, CheckedMember>,
    coverage: Coverage,
    trace: Trace,
  ) {
    this.options = options;
    this.members = members;
    this.coverage = coverage;
    this.trace = trace;
  }

  of(generation: Generation): GenerationChecks {
    const found = this.generations.get(generation);
    if (found === undefined) throw new Error(`nobody began generation ${generation}`);
    return found;
  }

  /**
   * `survivor` was recovered by force, and is of a new generation by now. Gives back its whole log,
   * also what it had compacted.
   */
  generationBegins({ disk, engine }: CheckedMember, before: Generation): readonly Entry[] {
    const { invariants, hashes } = this.of(before);
    const index = Math.max(disk.hardState.commit, engine.state.index);
    const next = invariants.after({
      // The last entry is the recovery's own: the earlier generation may have another one of its term.
      holds: (place) => place.index < disk.lastIndex && disk.holds(place),
      commit: { index, term: disk.termAt(index) ?? 0 },
      term: disk.hardState.term,
    });
    const kept = hashes.slice(0, next.applied.length + 1);
    this.generations.set(disk.generation, { invariants: next, hashes: kept });
    const range = { from: disk.firstIndex, last: disk.lastIndex, bytesMax: Infinity };
    return [...invariants.applied.slice(0, disk.firstIndex - 1), ...disk.read(range)];
  }

  /**
   * A message of another generation came: it may silence its receiver, and changes nothing that
   * the receiver's own generation rests on.
   */
  crossed(before: RaftStatus, now: RaftStatus): void {
    this.coverage.count('message of another generation');
    const same =
      now.term === before.term &&
      now.vote === before.vote &&
      now.lastIndex === before.lastIndex &&
      now.commitIndex === before.commitIndex &&
      now.membership.index === before.membership.index;
    if (!same) throw new Error(`generations mix: a message of another one changed ${now.id}`);
  }

  /** A core was built from what its disk and engine gave back. */
  started(member: CheckedMember, core: RawNode): void {
    const status = core.status();
    const { hardState } = member.disk;
    checkRestart(status, { hardState, appliedIndex: member.engine.state.index });
    checkMember(status, undefined);
    if (status.commitIndex > 0 && !status.restoring) this.checkCommit(status, undefined, core);
    member.seen = status;
  }

  /** After every event of a member. */
  afterEvent(member: CheckedMember, core: RawNode): void {
    const status = core.status();
    const before = member.seen;
    checkMember(status, before);
    if (status.role === 'leader') {
      if (before?.role !== 'leader' || before.term !== status.term) this.countElection(status);
      if (status.transferTo !== noReplica) this.transfer = status;
      this.of(status.generation).invariants.leads(status, core);
    }
    if (before !== undefined) {
      if (status.commitIndex > before.commitIndex) this.checkCommit(status, before, core);
      if (status.lastIndex < before.lastIndex) this.coverage.count('log truncated');
      if (status.membership !== before.membership) this.countMembership(status, before);
      if (this.trace.isRead) this.traceChanges(status, before);
    }
    if (!status.restoring && status.appliedIndex > member.engine.state.index) {
      throw new Error(
        `member ${member.id} believes to have applied ${status.appliedIndex}, its state machine ` +
          `stands at ${member.engine.state.index}`,
      );
    }
    member.seen = status;
    this.mix(status);
  }

  /** A message leaves its sender. */
  sent(member: CheckedMember, message: Message): void {
    checkMessage(message, this.options);
    checkPromise(message, member.disk);
    if (message.type === 'appendReply' && !message.rejected)
      this.checkAcknowledged(member, message);
  }

  /** What is acknowledged is what this leader has there, not what another one left behind. */
  private checkAcknowledged(member: CheckedMember, message: Message & { index: LogIndex }): void {
    const core = this.members.get(message.to)?.core;
    if (core === undefined || !core.isLeader || core.term !== message.term) return;
    if (core.generation !== member.disk.generation) return;
    const leaderTerm = core.termAt(message.index);
    if (leaderTerm === undefined || member.disk.hardState.term > message.term) return;
    if (!member.disk.holds({ index: message.index, term: leaderTerm })) {
      throw new Error(
        `${message.from} acknowledged ${message.index} to ${message.to} in term ${message.term}: ` +
          `durable there is term ${member.disk.termAt(message.index) ?? 'none'}, not ${leaderTerm}`,
      );
    }
  }

  /** A batch is handed to the disk. */
  written(member: CheckedMember, batch: PersistBatch): void {
    const first = batch.entries[0];
    if (first === undefined) return;
    const { logReset } = batch;
    const behindReset = logReset !== undefined && logReset.index === first.index - 1;
    let previous = behindReset ? logReset.term : member.disk.termAt(first.index - 1);
    if (previous === undefined) {
      throw new Error(`member ${member.id} persists ${first.index} behind a gap`);
    }
    const { invariants } = this.of(member.disk.generation);
    for (const entry of batch.entries) {
      invariants.appended(entry, previous);
      previous = entry.term;
    }
  }

  applied(member: CheckedMember, entry: Entry, state: EngineState): void {
    const { invariants, hashes } = this.of(member.disk.generation);
    invariants.appliedBy(member.id, entry);
    const durable = member.disk.holds(entry);
    if (!durable) throw new Error(`D12: ${member.id} applied ${entry.index} before it was durable`);
    const known = hashes[state.index];
    if (known === undefined) hashes[state.index] = state.hash;
    else if (known !== state.hash) {
      throw new Error(`state of member ${member.id} differs from the others at ${state.index}`);
    }
  }

  /** A snapshot is about to replace the state machine. */
  installed(member: CheckedMember, image: Image, meta: SnapshotMeta): void {
    const { state } = image;
    if (this.of(member.disk.generation).hashes[state.index] !== state.hash) {
      throw new Error(`member ${member.id} installs a state at ${state.index} that nobody had`);
    }
    if (image.membership.index !== meta.membership.index) {
      throw new Error(`member ${member.id} installs ${meta.index} with another membership`);
    }
  }

  private checkCommit(status: RaftStatus, before: RaftStatus | undefined, core: RawNode): void {
    const membership = (before ?? status).membership.membership;
    // Whoever led before the event committed as a leader, also if it stepped down by that commit.
    const led = before?.role === 'leader' && before.term === status.term;
    const judged: RaftStatus = led ? { ...status, role: 'leader' } : status;
    this.of(status.generation).invariants.commitAdvanced(judged, core, membership, this.durablyHas);
  }

  private readonly durablyHas = (id: ReplicaId, place: EntryId): boolean =>
    this.members.get(id)?.disk.holds(place) === true;

  private countElection(status: RaftStatus): void {
    this.coverage.count('leader elected');
    const { transfer } = this;
    if (transfer?.transferTo === status.id && transfer.term === status.term - 1) {
      this.coverage.count('transfer done');
    }
  }

  private countMembership(status: RaftStatus, before: RaftStatus): void {
    if (status.role !== 'leader' || before.role !== 'leader') return;
    const now = status.membership.membership;
    const was = before.membership.membership;
    if (was.outgoing.length > 0 && now.outgoing.length === 0) {
      this.coverage.count('joint configuration left');
    }
    if (was.learners.some((id) => now.incoming.includes(id))) {
      this.coverage.count('learner promoted');
    }
  }

  private traceChanges(now: RaftStatus, before: RaftStatus): void {
    if (now.role !== before.role || now.term !== before.term) {
      this.trace.line(`${now.id} becomes ${now.role} term=${now.term}`);
    }
    if (now.commitIndex !== before.commitIndex) {
      this.trace.line(`${now.id} commits ${now.commitIndex}`);
    }
    if (now.appliedIndex !== before.appliedIndex) {
      this.trace.line(`${now.id} applied ${now.appliedIndex}`);
    }
  }

  private mix(status: RaftStatus): void {
    const { trace } = this;
    trace.mix(status.id);
    trace.mix(status.term * 8 + roleNumbers[status.role]);
    trace.mix(status.lastIndex);
    trace.mix(status.commitIndex);
    trace.mix(status.appliedIndex);
    if (status.generation > 0) trace.mix(status.generation);
  }
}
