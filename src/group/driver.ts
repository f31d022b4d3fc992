/**
 * Drives one member of one group: takes what the core wants done and does it in the right order.
 *
 * What may be sent at once is sent at once; the persist batch goes to the Raft log in parallel, and
 * what promises something about this disk leaves only after it (thesis §10.2.1). Committed entries
 * go to the state machine, one batch at a time.
 */
import {
  EntryKind,
  noReplica,
  RawNode,
  type Entry,
  type EntryId,
  type Fetch,
  type Generation,
  type GroupId,
  type LogIndex,
  type MembershipAt,
  type MembershipChange,
  type Message,
  type NodeId,
  type RaftOptions,
  type RaftStatus,
  type Ready,
  type ReplicaId,
  type RestoredState,
  type SnapshotMeta,
  type Term,
} from '../../raft/index.js';
import { hashReplica } from '../../storage/index.js';
import type { GroupMessage, IncomingSnapshot } from '../transport/transport.js';
import { Applier } from './applier.js';
import type { DriverSurroundings, GroupContext } from './group-context.js';
import type { Group, GroupFigures, HashAt, ProposeOutcome, ReplicaHash } from './group.js';
import { Pace } from './pace.js';
import { Places } from './places.js';
import { Proposals, reasonOf } from './proposals.js';
import { Reads, type ReadDone } from './reads.js';
import { Snapshots } from './snapshots.js';
import { StateHashes } from './state-hashes.js';
import type { StateMachine } from './state-machine.js';

export interface DriverOptions<R> {
  readonly id: GroupId;
  readonly replica: ReplicaId;
  readonly prefix: Uint8Array;
  readonly machine: StateMachine<R>;
  readonly raft: RaftOptions;
  readonly state: RestoredState;
  /** It is the one of the group's first members that is to lead first: nobody need wait for a timeout. */
  readonly campaignsAtBirth: boolean;
  readonly surroundings: DriverSurroundings;
}

export class Driver<R> implements Group<R>, GroupContext<R> {
  readonly id: GroupId;
  readonly replica: ReplicaId;
  readonly node: RawNode;
  readonly prefix: Uint8Array;
  readonly machine: StateMachine<R>;
  readonly surroundings: DriverSurroundings;
  caughtUpAtMs = Number.NEGATIVE_INFINITY;
  private readonly raft: RaftOptions;
  private readonly proposals = new Proposals<R>();
  private readonly reads: Reads;
  private readonly applier: Applier<R>;
  private readonly pace: Pace;
  private readonly snapshots: Snapshots<R>;
  private readonly hashes: StateHashes<R>;
  readonly places: Places;
  private leading = false;
  closed = false;
  private outdatedBy: Generation = 0;
  private readonly lastOfTurn: (() => void)[] = [];
  private readonly counts = {
    proposals: 0,
    proposalsRefused: 0,
    persistBatches: 0,
  };

  constructor(options: DriverOptions<R>) {
    const { surroundings } = options;
    this.id = options.id;
    this.replica = options.replica;
    this.prefix = options.prefix;
    this.machine = options.machine;
    this.raft = options.raft;
    this.surroundings = surroundings;
    this.node = new RawNode(options.raft, options.state);
    this.pace = new Pace({ ...options, node: this.node });
    this.places = new Places(this.node);
    this.snapshots = new Snapshots(this);
    this.hashes = new StateHashes(this);
    this.applier = new Applier(this, options.state.appliedIndex, this.hashes);
    this.reads = new Reads({
      node: this.node,
      contextPrefix: surroundings.readContexts,
      queueLengthMax: surroundings.limits.readsMax,
      patienceTicks: options.raft.electionTicks * 4,
      now: () => ({ tick: this.pace.ticks, monotonicMs: surroundings.clock.monotonicMs() }),
      accountTime: () => {
        this.pace.account();
      },
      onFresh: (sinceMs) => {
        this.caughtUpAtMs = Math.max(this.caughtUpAtMs, sinceMs);
      },
    });
  }

  // ---- what the floors above ask

  get isLeader(): boolean {
    return this.node.isLeader;
  }

  get generation(): Generation {
    return this.node.generation;
  }

  get term(): Term {
    return this.node.term;
  }

  get leaderNode(): NodeId | undefined {
    const { leader } = this.node;
    return leader === noReplica ? undefined : this.places.of(leader);
  }

  get appliedIndex(): LogIndex {
    return this.applier.appliedIndex;
  }

  get membership(): MembershipAt {
    return this.node.membership;
  }

  get isRestoring(): boolean {
    return this.node.restoring || this.node.outdatedBy > 0;
  }

  propose(payload: Uint8Array, done: (outcome: ProposeOutcome<R>) => void): void {
    const refuse = (reason: Extract<ProposeOutcome<R>, { kind: 'notApplied' }>['reason']): void => {
      this.counts.proposalsRefused++;
      queueMicrotask(() => {
        done({ kind: 'notApplied', reason });
      });
    };
    if (this.closed) {
      refuse('closed');
    } else if (this.proposals.length >= this.surroundings.limits.proposalsMax) {
      refuse('overloaded');
    } else {
      const verdict = this.node.propose(payload);
      if (verdict.kind === 'appended') {
        this.counts.proposals++;
        this.proposals.add(verdict, done);
        this.surroundings.wake();
      } else {
        refuse(reasonOf(verdict));
      }
    }
  }

  atEndOfTurn(run: () => void): void {
    if (this.closed) {
      // Nobody pumps any more: what it proposes is refused.
      queueMicrotask(run);
      return;
    }
    this.lastOfTurn.push(run);
    this.surroundings.wake();
  }

  readIndex({ lease }: { readonly lease: boolean }, done: ReadDone): void {
    if (this.closed || this.isRestoring) {
      const reason = this.closed ? 'closed' : 'restoring';
      queueMicrotask(() => {
        done({ kind: 'notReady', reason });
      });
      return;
    }
    this.reads.add(lease, done);
    this.surroundings.wake();
  }

  changeMembership(
    change: MembershipChange,
    done: (outcome: ProposeOutcome<undefined>) => void,
  ): void {
    const verdict = this.closed ? undefined : this.node.proposeMembership(change);
    if (verdict?.kind === 'appended') {
      this.applier.waitForPlace(verdict, done);
      this.surroundings.wake();
      return;
    }
    const reason = verdict === undefined ? 'closed' : reasonOf(verdict);
    queueMicrotask(() => {
      done({ kind: 'notApplied', reason });
    });
  }

  transferLeadership(to: ReplicaId): boolean {
    const accepted = this.node.transferLeadership(to);
    this.surroundings.wake();
    return accepted;
  }

  learnGeneration(generation: Generation): void {
    if (generation <= this.node.generation) return;
    this.node.learnGeneration(generation);
    this.noticeGeneration();
    this.surroundings.wake();
  }

  rouse(): void {
    this.node.wake();
    this.surroundings.wake();
  }

  status(): RaftStatus {
    return this.node.status();
  }

  /** Nodes of all members. */
  memberNodes(): readonly NodeId[] {
    return this.places.nodes();
  }

  figures(): GroupFigures {
    return {
      ...this.counts,
      ...this.snapshots.counts,
      proposalsWaiting: this.proposals.length,
      proposalsApplied: this.proposals.outcomes.applied,
      proposalsOverwritten: this.proposals.outcomes.overwritten,
      proposalsUnknown: this.proposals.outcomes.unknown,
      reads: this.reads.taken,
      readsWaiting: this.reads.length,
      readRounds: this.reads.rounds,
      appliedEntries: this.applier.appliedEntries,
    };
  }

  async hash(): Promise<ReplicaHash> {
    // Between two batches the engine holds exactly what appliedIndex says.
    await this.applier.idle();
    const { appliedIndex } = this.applier;
    const { keys, range } = this.machine;
    return { appliedIndex, keys, ...(await hashReplica(this.surroundings.engine, range)) };
  }

  hashAt(index: LogIndex): HashAt {
    return this.hashes.at(index);
  }

  // ---- what the host brings

  tick(): void {
    this.pace.tick();
    this.proposals.tick(this.pace.ticks);
    this.reads.tick(this.pace.ticks);
    this.pace.watch();
    // A quiet group with nothing to do costs no more than these counters.
    const { node, reads, surroundings } = this;
    if (!node.isQuiet || node.hasReady() || reads.length > 0) surroundings.wake();
  }

  /**
   * Quiet, with nobody waiting, and looked at since: ticks would do nothing. The host gives it none
   * until it is woken, or a connection comes or goes.
   */
  get sleeps(): boolean {
    return (
      this.closed || (this.pace.restful && this.reads.length === 0 && this.proposals.length === 0)
    );
  }

  /** `from`: the node the message came from; its replica lives there. */
  step(from: NodeId, { message, generation }: Omit<GroupMessage, 'group'>): void {
    this.pace.heard();
    this.places.learn(message.from, from);
    this.node.step(message, generation);
    this.noticeGeneration();
    this.surroundings.wake();
  }

  /** A snapshot is offered; taken if the core accepts it, refused otherwise. */
  onSnapshot(incoming: IncomingSnapshot): void {
    if (!this.snapshots.hold(incoming)) return;
    const { generation, from, to, term, snapshot } = incoming.header;
    this.step(incoming.node, {
      generation,
      message: { type: 'snapshot', from, to, term, snapshot },
    });
    this.pump();
    this.snapshots.refuseUnwanted();
  }

  onDisconnected(node: NodeId): void {
    for (const member of this.node.membership.membership.members) {
      if (member.node === node && member.id !== this.replica) this.node.unreachable(member.id);
    }
  }

  private endTurn(): void {
    for (const run of this.lastOfTurn.splice(0)) run();
  }

  /** Everything the core wants done now. Called by the host at the end of a turn. */
  pump(): void {
    if (this.closed) return;
    try {
      this.endTurn();
      this.reads.ask();
      while (this.node.hasReady()) this.carryOut(this.node.ready());
      this.noticeLeadership();
      this.reads.applied(this.applier.appliedIndex);
    } catch (error) {
      this.fatal(error);
    }
  }

  close(): void {
    this.closed = true;
    // Its keys may be about to go: a read or scan under way must not take what is left for the whole.
    this.caughtUpAtMs = Number.NEGATIVE_INFINITY;
    this.endTurn();
    this.proposals.loseAll('closed');
    this.reads.failAll('closed');
    this.applier.loseWaiters('closed');
    this.hashes.close();
    this.snapshots.close();
  }

  /** Resolves when nothing of this group is under way any more. */
  async idle(): Promise<void> {
    // What failed of it has been reported by `fatal`.
    await Promise.allSettled([this.applier.idle(), this.snapshots.idle()]);
    await this.hashes.idle();
  }

  // ---- carrying out

  private carryOut(ready: Ready): void {
    for (const message of ready.messages) this.send(message);
    this.persist(ready);
    this.applier.apply(ready.committed);
    for (const { context, index } of ready.readStates) this.reads.answered(context, index);
    for (const fetch of ready.fetches) this.fetch(fetch);
    for (const to of ready.snapshotsWanted) this.snapshots.offer(to);
    if (ready.restore !== undefined) this.snapshots.restore(ready.restore);
  }

  private send(message: Message): void {
    const node = this.places.of(message.to);
    if (node === undefined) return;
    const { generation } = this.node;
    this.surroundings.transport.send(node, { group: this.id, generation, message });
  }

  private persist({ hardState, entries, logReset: reset, messagesAfterPersist }: Ready): void {
    if (hardState === undefined && entries.length === 0 && reset === undefined) return;
    if (reset !== undefined || entries.some((entry) => entry.kind === EntryKind.membership)) {
      this.places.follow();
    }
    const lastEntry = entries[entries.length - 1];
    const last: EntryId | undefined = lastEntry ?? reset;
    this.counts.persistBatches++;
    this.surroundings.log.append({ group: this.id, hardState, entries, reset }, () => {
      this.onDurable(messagesAfterPersist, last);
    });
  }

  private onDurable(messages: readonly Message[], last: EntryId | undefined): void {
    if (this.closed) return;
    try {
      for (const message of messages) {
        // Our own vote, now that it is durable (D02).
        if (message.to === this.replica) this.node.step(message, this.node.generation);
        else this.send(message);
      }
      this.node.persisted(last === undefined ? undefined : { term: last.term, index: last.index });
      this.surroundings.wake();
    } catch (error) {
      this.fatal(error);
    }
  }

  private fetch(fetch: Fetch): void {
    const { log } = this.surroundings;
    this.background(
      log
        .read({ group: this.id, from: fetch.from, last: fetch.last, bytesMax: fetch.bytesMax })
        .then((entries) => {
          // Role and log may have changed meanwhile: the core checks whom and what it asked for.
          if (!this.closed) this.node.entriesFetched(fetch, entries);
          this.surroundings.wake();
        }),
    );
  }

  // ---- what snapshots ask

  onInstalling(): void {
    this.reads.failAll('restoring');
    // No stale read may look at the part of a state that is there meanwhile.
    this.caughtUpAtMs = Number.NEGATIVE_INFINITY;
  }

  onInstalled(snapshot: SnapshotMeta): void {
    this.applier.reset(snapshot);
    // Their entries may be inside the snapshot, applied or not: nobody can tell.
    this.proposals.loseAll('snapshotInstalled');
  }

  /** Waits until no entry is being applied. */
  applierIdle(): Promise<void> {
    return this.applier.idle();
  }

  // ---- applied

  /** Called by the applier after the batch of `entries` was written. */
  onApplied(entries: readonly Entry[], results: readonly R[]): void {
    let next = 0;
    for (const entry of entries) {
      if (entry.kind === EntryKind.command) {
        const result = results[next++];
        if (result !== undefined) this.proposals.applied(entry.term, entry.index, result);
      } else {
        this.proposals.passed(entry.term, entry.index);
      }
    }
    const last = entries[entries.length - 1];
    if (last !== undefined) this.node.applied(last.index);
    this.reads.applied(this.applier.appliedIndex);
    this.surroundings.wake();
  }

  // ---- small stuff

  /** Once: what it holds may be told to nobody any more, not even as an old value (rule D07). */
  private noticeGeneration(): void {
    const { generation, outdatedBy } = this.node;
    if (outdatedBy === this.outdatedBy) return;
    this.outdatedBy = outdatedBy;
    this.caughtUpAtMs = Number.NEGATIVE_INFINITY;
    this.surroundings.logLine(
      'warn',
      { group: this.id, replica: this.replica, generation, outdatedBy },
      'this group was recovered without this replica: it is silent from now on',
    );
  }

  private noticeLeadership(): void {
    const leading = this.node.isLeader;
    if (leading === this.leading) return;
    this.leading = leading;
    if (leading) this.proposals.leading();
    else this.proposals.steppedDown(this.pace.ticks + this.raft.electionTicks * 2);
    const { logLine, clockMedianMs } = this.surroundings;
    logLine(
      'info',
      { group: this.id, term: this.node.term, leading },
      leading ? 'leads' : 'leads no more',
    );
    this.machine.onLeadership({ leading, clockMedianMs: clockMedianMs(this.memberNodes()) });
  }

  background(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.fatal(error);
    });
  }

  fatal(error: unknown): void {
    if (this.closed) return;
    this.surroundings.onFatal(error instanceof Error ? error : new Error(String(error)));
  }
}
