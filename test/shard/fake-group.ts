/**
 * A group of one in memory: proposals are applied at once or when the test says so, and every
 * outcome and every kind of read can be had on demand.
 */
import { groupId, noReplica, nodeId, replicaId, type RaftStatus } from '../../raft/index.js';
import type {
  Group,
  GroupFigures,
  HashAt,
  ProposeOutcome,
  ReadOutcome,
  ReplicaHash,
} from '../../src/group/group.js';
import type { Clock } from '../../src/observe/clock.js';
import type { CommandResult } from '../../src/shard/command.js';
import type { Replica } from './replica.js';

type Done = (outcome: ProposeOutcome<CommandResult>) => void;
type ReadDone = (outcome: ReadOutcome) => void;

interface Waiting {
  readonly data: Uint8Array;
  readonly done: Done;
}

export class FakeGroup implements Group<CommandResult> {
  readonly id = groupId(1);
  isRestoring = false;
  readonly replica = replicaId(1);
  readonly generation = 0;
  term = 1;
  leaderNode: Group<CommandResult>['leaderNode'];
  caughtUpAtMs = Number.NEGATIVE_INFINITY;
  /** Apply what is proposed in the next turn. */
  atOnce = true;
  /** Answer reads in the next turn. */
  readsAtOnce = true;
  leaseValid = true;
  /** Everything that was proposed, in order. */
  readonly proposed: Uint8Array[] = [];
  readonly reads: { readonly lease: boolean }[] = [];
  waiting: Waiting[] = [];
  waitingReads: ReadDone[] = [];
  private leading = false;
  private readonly lastOfTurn: (() => void)[] = [];
  private readonly state: Replica;
  private readonly clock: Clock;

  constructor(state: Replica, clock: Clock) {
    this.state = state;
    this.clock = clock;
  }

  get isLeader(): boolean {
    return this.leading;
  }

  get appliedIndex(): number {
    return this.state.index;
  }

  rouse(): void {
    // It is never quiet.
  }

  learnGeneration(): void {
    this.isRestoring = true;
  }

  /** The core knows that it leads; the machine hears of it with `noticed`. */
  elect(): void {
    this.leading = true;
    this.leaderNode = nodeId(1);
    this.term++;
  }

  lead(clockMedianMs = this.clock.wallMs()): void {
    this.elect();
    this.noticed(clockMedianMs);
  }

  noticed(clockMedianMs = this.clock.wallMs()): void {
    this.state.machine.onLeadership({ leading: this.leading, clockMedianMs });
  }

  /** Leadership is lost; what waits gets this outcome. */
  stepDown(outcome: Exclude<ProposeOutcome<CommandResult>, { kind: 'applied' }>): void {
    this.leading = false;
    this.leaderNode = undefined;
    for (const { done } of this.waiting.splice(0)) done(outcome);
    this.noticed();
  }

  atEndOfTurn(run: () => void): void {
    if (this.lastOfTurn.push(run) === 1)
      queueMicrotask(() => {
        this.endTurn();
      });
  }

  endTurn(): void {
    for (const run of this.lastOfTurn.splice(0)) run();
  }

  propose(data: Uint8Array, done: Done): void {
    if (!this.leading) {
      queueMicrotask(() => {
        done({ kind: 'notApplied', reason: 'notLeader' });
      });
      return;
    }
    this.proposed.push(data);
    this.waiting.push({ data, done });
    if (this.atOnce) setImmediate(() => void this.applyWaiting());
  }

  /** Applies what waits, in one batch, and answers in the order asked for. */
  async applyWaiting(order: 'inOrder' | 'backwards' = 'inOrder'): Promise<void> {
    const waiting = this.waiting.splice(0);
    if (waiting.length === 0) return;
    const first = this.state.index + 1;
    const results = await this.state.apply(waiting.map(({ data }) => data));
    const answers = waiting.map(({ done }, n) => (): void => {
      const result = results[n];
      if (result !== undefined)
        done({ kind: 'applied', index: first + n, term: this.term, result });
    });
    for (const answer of order === 'inOrder' ? answers : answers.reverse()) answer();
  }

  readIndex(options: { readonly lease: boolean }, done: ReadDone): void {
    this.reads.push(options);
    this.waitingReads.push(done);
    if (this.readsAtOnce)
      queueMicrotask(() => {
        this.releaseReads();
      });
  }

  /** Confirms the reads that wait, or refuses them. */
  releaseReads(reason?: Extract<ReadOutcome, { kind: 'notReady' }>['reason']): void {
    const reads = this.waitingReads.splice(0);
    if (reason === undefined) this.caughtUpAtMs = this.clock.monotonicMs();
    const index = this.appliedIndex;
    const stillValid = (): boolean => this.leaseValid;
    for (const done of reads)
      done(
        reason === undefined ? { kind: 'ready', index, stillValid } : { kind: 'notReady', reason },
      );
  }

  get membership(): never {
    throw new Error('not of this group');
  }

  changeMembership(): void {
    throw new Error('not of this group');
  }

  transferLeadership(): boolean {
    return false;
  }

  status(): RaftStatus {
    throw new Error(`the status of group ${this.id} is of no interest to ${noReplica}`);
  }

  figures(): GroupFigures {
    return {};
  }

  hash(): Promise<ReplicaHash> {
    const { keys } = this.state.machine;
    return this.state.hash().then((each) => ({ ...each, keys, appliedIndex: this.appliedIndex }));
  }

  hashAt(): HashAt {
    throw new Error('not of this group');
  }
}
