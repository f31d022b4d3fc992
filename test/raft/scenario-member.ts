/**
 * One member of a scenario: the core, a disk that forgets what was not synced, and a driver whose
 * every step can be held back. The driver does what `ready.ts` asks of it and nothing else.
 */
import { RawNode, noReplica } from '../../raft/index.js';
import type {
  Entry,
  Fetch,
  Generation,
  LogIndex,
  Membership,
  Message,
  RaftOptions,
  RaftStatus,
  ReadState,
  Ready,
  ReplicaId,
  SnapshotMeta,
  Term,
} from '../../raft/index.js';
import {
  describeEntry,
  describeFetch,
  describeMessage,
  describePlace,
  describeReplica,
  describeSnapshot,
  persistLines,
} from '../../raft/describe.js';
import { ScenarioDisk } from './scenario-disk.js';
import type { Image, PersistBatch } from './scenario-disk.js';
import type { ScenarioLaws } from './scenario-laws.js';

/** The steps of the driver that `hold-...` stops and that a command of the same name does once. */
export const driverSteps = ['persist', 'apply', 'fetch', 'snapshot', 'restore', 'answer'] as const;
export type DriverStep = (typeof driverSteps)[number];

/** What a member needs from the group around it. */
export interface Surroundings {
  /** Adds one line to the output. */
  readonly print: (line: string) => void;
  readonly send: (message: Message, generation: Generation, image: Image | undefined) => void;
  readonly laws: (generation: Generation) => ScenarioLaws;
}

interface WaitingRead {
  readonly context: string;
  readonly index: LogIndex;
  /** Set for a read by lease: the term in which it has to be valid still. */
  readonly leaseTerm: Term | undefined;
}

/** More Readys than this after one input mean that the core asks for the same thing for ever. */
const readyRoundsMax = 100;

/** How a crash hits: what the engine still has, and whether the batch being written is durable. */
export interface Crash {
  readonly written: boolean;
  readonly applied: LogIndex | undefined;
}

export class ScenarioMember {
  readonly id: ReplicaId;
  readonly disk: ScenarioDisk;
  readonly held = new Set<DriverStep>();
  private readonly around: Surroundings;
  private node: RawNode | undefined;
  private batch: PersistBatch | undefined;
  private committed: Entry[] = [];
  private fetches: Fetch[] = [];
  private snapshotsWanted: ReplicaId[] = [];
  private restore: Ready['restore'];
  /** Bytes that came with snapshot messages, by place. */
  private readonly arrived = new Map<string, Image>();
  private reads: WaitingRead[] = [];
  private seen: RaftStatus | undefined;
  private starts = 0;

  constructor(id: ReplicaId, membership: Membership, around: Surroundings) {
    this.id = id;
    this.around = around;
    this.disk = new ScenarioDisk(membership);
  }

  get running(): RawNode {
    if (this.node === undefined) throw new Error(`member ${this.id} is down`);
    return this.node;
  }

  get isDown(): boolean {
    return this.node === undefined;
  }

  private get laws(): ScenarioLaws {
    return this.around.laws(this.disk.generation);
  }

  start(options: RaftOptions, tailMax: number): void {
    if (this.node !== undefined) throw new Error(`member ${this.id} runs already`);
    this.starts++;
    const seed = options.seed + this.starts * 1000 + this.id;
    const silentTicks = this.starts === 1 ? 0 : options.silentTicks;
    const state = this.disk.restored(tailMax);
    this.node = new RawNode({ ...options, id: this.id, seed, silentTicks }, state);
    this.seen = this.starts === 1 ? this.node.status() : undefined;
    this.settle();
  }

  crash(crash: Crash): void {
    if (crash.written && this.batch !== undefined) this.writeBatch(this.batch);
    this.node = undefined;
    this.batch = undefined;
    this.committed = [];
    this.fetches = [];
    this.snapshotsWanted = [];
    this.restore = undefined;
    this.arrived.clear();
    this.reads = [];
    if (crash.applied !== undefined) this.disk.rewindImage(crash.applied);
  }

  /** One input, and everything that follows from it without I/O. */
  input<T>(act: (node: RawNode) => T): T {
    const result = act(this.running);
    this.settle();
    return result;
  }

  receive(message: Message, generation: Generation, image: Image | undefined): void {
    if (message.type === 'snapshot' && image !== undefined) {
      const { index, term } = message.snapshot;
      this.arrived.set(describePlace(index, term), image);
    }
    this.input((node) => node.step(message, generation));
  }

  /** Begins reads, all of one turn, and prints the verdicts. */
  read(contexts: readonly string[]): void {
    for (const context of contexts) {
      this.print(`${context} ${this.beginRead(context)}`);
    }
    this.settle();
  }

  private beginRead(context: string): string {
    const verdict = this.running.readIndex(context);
    switch (verdict.kind) {
      case 'pending':
        this.laws.readBegins(context);
        return 'pending';
      case 'lease': {
        const { index, term } = verdict;
        this.laws.readBegins(context);
        this.reads.push({ context, index, leaseTerm: term });
        return `by lease at ${index} term=${term}`;
      }
      case 'notLeader':
        return `not leader, leader=${describeReplica(verdict.leader)}`;
      case 'refused':
        return `refused: ${verdict.reason}`;
    }
  }

  /** Does one step of the driver if there is anything to do; true if it was done. */
  do(step: DriverStep): boolean {
    if (this.node === undefined) return false;
    switch (step) {
      case 'persist':
        return this.persist();
      case 'apply':
        return this.apply();
      case 'fetch':
        return this.fetch();
      case 'snapshot':
        return this.sendSnapshots();
      case 'restore':
        return this.install(true);
      case 'answer':
        return this.answer();
    }
  }

  /** Like `do`, but every step that is not held; true if any was done. */
  work(): boolean {
    let worked = false;
    for (const step of driverSteps) {
      if (!this.held.has(step) && this.do(step)) worked = true;
    }
    return worked;
  }

  /** Ends the restore asked for: with the new image, or with a failure that keeps the old one. */
  install(ok: boolean): boolean {
    const wanted = this.restore;
    if (wanted === undefined) return false;
    this.restore = undefined;
    const meta: SnapshotMeta = {
      index: wanted.index,
      term: wanted.term,
      membership: wanted.membership,
    };
    if (ok) {
      const image = this.arrived.get(describePlace(wanted.index, wanted.term));
      if (image === undefined) throw new Error(`no image for ${describeSnapshot(wanted)}`);
      this.disk.install(image);
      this.committed = [];
      this.laws.installed(this.id, wanted.index);
    }
    this.print(`${ok ? 'installs' : 'fails to install'} ${describeSnapshot(wanted)}`);
    this.input((node) => node.restored(meta, ok));
    return true;
  }

  /** The image of now, as a snapshot message to `to`. False if the core has none to send. */
  sendSnapshot(to: ReplicaId): boolean {
    const image = this.disk.image;
    const message = this.running.snapshotMessage(to, image.at);
    if (message !== undefined) this.around.send(message, this.running.generation, image);
    this.settle();
    return message !== undefined;
  }

  /** What stands on the disk, what is being written, and what the core knows, for `log`. */
  logLines(): readonly string[] {
    const { base, entries, hardState, restoring } = this.disk;
    const lines = persistLines({ hardState, entries, logReset: undefined });
    const pending = this.batch === undefined ? [] : persistLines(this.batch);
    return [
      `after ${describeSnapshot(base)}${restoring ? ' restoring' : ''}`,
      ...lines.map((line) => line.replace('persist ', '  ')),
      ...pending.map((line) => line.replace('persist ', '  unsynced ')),
    ];
  }

  /** Messages that wait for the batch being written. */
  get heldMessages(): readonly Message[] {
    return this.batch?.messagesAfterPersist ?? [];
  }

  private persist(): boolean {
    const batch = this.batch;
    if (batch === undefined) return false;
    this.batch = undefined;
    const last = this.writeBatch(batch);
    for (const message of batch.messagesAfterPersist) {
      if (message.to === this.id) {
        this.print(`votes for itself: ${describeMessage(message)}`);
        this.running.step(message, this.running.generation);
      } else {
        this.send(message);
      }
    }
    this.input((node) => node.persisted(last));
    return true;
  }

  private writeBatch(batch: PersistBatch): ReturnType<ScenarioDisk['write']> {
    for (const line of persistLines(batch)) this.print(line.replace('persist', 'persists'));
    return this.disk.write(batch);
  }

  private apply(): boolean {
    const entries = this.committed;
    const last = entries.at(-1);
    if (last === undefined) return false;
    this.committed = [];
    for (const entry of entries) {
      this.print(`applies ${describeEntry(entry)}`);
      this.laws.applied(this.id, entry);
      this.disk.apply(entry);
    }
    this.input((node) => node.applied(last.index));
    return true;
  }

  private fetch(): boolean {
    const fetch = this.fetches.shift();
    if (fetch === undefined) return false;
    this.print(`reads its log: ${describeFetch(fetch)}`);
    const entries = this.disk.read(fetch);
    this.input((node) => node.entriesFetched(fetch, entries));
    return true;
  }

  private sendSnapshots(): boolean {
    const wanted = this.snapshotsWanted;
    this.snapshotsWanted = [];
    let sent = false;
    for (const to of wanted) sent = this.sendSnapshot(to) || sent;
    return sent;
  }

  /** Answers the reads that the applied index allows. */
  private answer(): boolean {
    const applied = this.disk.image.at.index;
    const due = this.reads.filter((read) => read.index <= applied);
    this.reads = this.reads.filter((read) => read.index > applied);
    for (const read of due) {
      if (read.leaseTerm !== undefined && !this.running.leaseValid(read.leaseTerm)) {
        this.print(`must not answer ${read.context}: its lease has ended`);
        continue;
      }
      this.laws.readAnswered(read.context, applied);
      const commands = this.disk.image.commands.join(' ');
      this.print(`answers ${read.context} with [${commands}]`);
    }
    return due.length > 0;
  }

  /** Takes every Ready, shows what changed, and leaves what needs I/O to the steps. */
  private settle(): void {
    const node = this.running;
    this.printChanges(node.status());
    for (let round = 0; node.hasReady(); round++) {
      if (round === readyRoundsMax) throw new Error(`member ${this.id} is never done`);
      this.takeReady(node.ready());
      this.printChanges(node.status());
    }
  }

  private takeReady(ready: Ready): void {
    for (const message of ready.messages) this.send(message);
    const { hardState, entries, logReset, messagesAfterPersist } = ready;
    const somethingToKeep = hardState !== undefined || entries.length > 0 || logReset !== undefined;
    if (somethingToKeep || messagesAfterPersist.length > 0) {
      if (this.batch !== undefined) throw new Error(`member ${this.id}: two batches at once`);
      this.batch = { hardState, entries, logReset, messagesAfterPersist };
    }
    this.committed.push(...ready.committed);
    this.fetches.push(...ready.fetches);
    this.snapshotsWanted.push(...ready.snapshotsWanted);
    for (const read of ready.readStates) this.releaseRead(read);
    if (ready.restore !== undefined) {
      this.restore = ready.restore;
      this.disk.restoring = true;
      this.print(`begins to restore ${describeSnapshot(ready.restore)}`);
    }
  }

  private releaseRead(read: ReadState): void {
    if (read.index === undefined) {
      this.print(`read ${read.context} refused`);
      return;
    }
    this.print(`read ${read.context} at ${read.index}`);
    this.reads.push({ context: read.context, index: read.index, leaseTerm: undefined });
  }

  private send(message: Message): void {
    if (message.to === this.id) throw new Error(`member ${this.id} sends to itself`);
    this.laws.sent(this.id, message, this.disk);
    this.around.send(message, this.running.generation, undefined);
  }

  private printChanges(now: RaftStatus): void {
    const before = this.seen;
    this.seen = now;
    if (now.role === 'leader') this.laws.leads(this.id, now.term);
    if (before?.role !== now.role || before.term !== now.term) {
      const leader =
        now.leader === noReplica || now.leader === this.id ? '' : ` leader=${now.leader}`;
      this.print(`becomes ${now.role} term=${now.term}${leader}`);
    } else if (before.leader !== now.leader) {
      this.print(now.leader === noReplica ? 'knows no leader' : `follows ${now.leader}`);
    }
    if (before !== undefined && before.outdatedBy !== now.outdatedBy)
      this.print(`is outdated by generation ${now.outdatedBy}`);
    const commitBefore = before?.commitIndex ?? 0;
    if (commitBefore !== now.commitIndex) this.print(`commits ${now.commitIndex}`);
  }

  private print(line: string): void {
    this.around.print(`${this.id} ${line}`);
  }
}
