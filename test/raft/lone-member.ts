/**
 * One member alone, for the tests that check a rule of the paper at a single server: messages are
 * written by hand, and everything it says is collected. Its disk and its state machine are done at
 * once unless they are held.
 */
import {
  EntryKind,
  RawNode,
  membershipOf,
  newGroupState,
  nodeId,
  replicaId,
} from '../../raft/index.js';
import type {
  Entry,
  EntryId,
  Fetch,
  Member,
  Membership,
  Message,
  MessageType,
  RaftOptions,
  ReadState,
  Ready,
  ReplicaId,
  RestoredState,
} from '../../raft/index.js';

export const usualOptions: Omit<RaftOptions, 'id'> = {
  electionTicks: 10,
  heartbeatTicks: 2,
  leaseTicks: 0,
  preVote: false,
  checkQuorum: false,
  entryBytesMax: 1024,
  messageBytesMax: 4096,
  inflightMessagesMax: 8,
  inflightBytesMax: 65536,
  uncommittedBytesMax: 65536,
  windowBytesMax: 65536,
  stalledTicksMax: 40,
  silentTicks: 0,
  quietTicks: 0,
  promoteLagMax: 0,
  seed: 1,
};

export const ids = (...numbers: number[]): ReplicaId[] => numbers.map((id) => replicaId(id));

export const members = (...numbers: number[]): Member[] =>
  numbers.map((id) => ({ id: replicaId(id), node: nodeId(id) }));

export const voters = (...numbers: number[]): Membership => membershipOf(members(...numbers));

/** A command entry; its payload is its own place, so that two different entries differ. */
export function entry(index: number, term: number): Entry {
  return { index, term, kind: EntryKind.command, data: Uint8Array.of(index, term) };
}

/** A state with a log of the given terms, one per entry from index 1, all of it durable. */
export function stateWith(
  logTerms: readonly number[],
  more: Partial<RestoredState> & { readonly membership?: Membership } = {},
): RestoredState {
  const { membership = voters(1, 2, 3), ...rest } = more;
  const tail = logTerms.map((term, at) => entry(at + 1, term));
  const termRuns = [{ from: 0, term: 0 }];
  for (const { index, term } of tail) {
    if (termRuns.at(-1)?.term !== term) termRuns.push({ from: index, term });
  }
  const term = logTerms.at(-1) ?? 0;
  const fresh = newGroupState(membership);
  const hardState = { ...fresh.hardState, term };
  return { ...fresh, hardState, termRuns, tail, lastIndex: tail.length, ...rest };
}

export class LoneMember {
  readonly node: RawNode;
  applied: Entry[] = [];
  reads: ReadState[] = [];
  fetches: Fetch[] = [];
  snapshotsWanted: ReplicaId[] = [];
  restore: Ready['restore'];
  holdsPersist = false;
  holdsApply = false;
  /** The batch that is being written while persisting is held. */
  batch: Ready | undefined;
  private sent: Message[] = [];

  constructor(options: Partial<RaftOptions> = {}, state: RestoredState = stateWith([])) {
    this.node = new RawNode({ ...usualOptions, id: replicaId(1), ...options }, state);
  }

  /** Runs an input, and everything that follows from it. */
  do<T>(act: (node: RawNode) => T): T {
    const result = act(this.node);
    this.settle();
    return result;
  }

  step(message: Message): void {
    this.do((node) => node.step(message));
  }

  tick(count = 1): void {
    for (let ticked = 0; ticked < count; ticked++) this.do((node) => node.tick());
  }

  /** What was sent since the last call, of one type or of all. */
  take(): Message[];
  take<T extends MessageType>(type: T): OfType<T>[];
  take(type?: MessageType): Message[] {
    const taken = this.sent;
    this.sent = [];
    return type === undefined ? taken : taken.filter((message) => message.type === type);
  }

  /** The batch being written is durable now. */
  persist(): void {
    const { batch } = this;
    if (batch === undefined) throw new Error('nothing is being written');
    this.batch = undefined;
    this.finish(batch);
    this.settle();
  }

  /** Leads: elected by the others, its no-op on disk and acknowledged up to `matched` by them. */
  lead(others: readonly number[], matched = true): void {
    this.do((node) => node.campaign());
    for (const other of others) this.answer(other, { type: 'voteReply', granted: true });
    if (!this.node.isLeader) throw new Error('not elected');
    if (matched) for (const other of others) this.acknowledge(other);
    this.take();
  }

  /** `from` has everything up to `index`, our last by default. */
  acknowledge(from: number, index = this.node.status().lastIndex): void {
    this.answer(from, { type: 'appendReply', index, rejected: false, hintIndex: 0, hintTerm: 0 });
  }

  /** A message of our own term from `from`. */
  answer(from: number, body: Body): void {
    this.step(message(from, this.node.term, body));
  }

  private settle(): void {
    for (let round = 0; this.node.hasReady(); round++) {
      if (round > 100) throw new Error('never done');
      this.carryOut(this.node.ready());
    }
  }

  private carryOut(ready: Ready): void {
    this.sent.push(...ready.messages);
    this.reads.push(...ready.readStates);
    this.fetches.push(...ready.fetches);
    this.snapshotsWanted.push(...ready.snapshotsWanted);
    this.restore = ready.restore ?? this.restore;
    this.applied.push(...ready.committed);
    const last = ready.committed.at(-1);
    if (last !== undefined && !this.holdsApply) this.node.applied(last.index);
    const { hardState, entries, logReset } = ready;
    if (hardState === undefined && entries.length === 0 && logReset === undefined) return;
    if (this.batch !== undefined) throw new Error('two batches at once');
    if (this.holdsPersist) this.batch = ready;
    else this.finish(ready);
  }

  private finish(batch: Ready): void {
    for (const promised of batch.messagesAfterPersist) {
      if (promised.to === promised.from) this.node.step(promised);
      else this.sent.push(promised);
    }
    this.node.persisted(lastOf(batch));
  }
}

function lastOf({ entries, logReset }: Ready): EntryId | undefined {
  const last = entries.at(-1) ?? logReset;
  return last === undefined ? undefined : { term: last.term, index: last.index };
}

/** Votes and pre-votes share an interface, which `Extract` would not find by one of its types. */
type OfType<T extends MessageType, M = Message> = M extends { type: infer K }
  ? T extends K
    ? M
    : never
  : never;

type WithoutHead<M> = M extends Message ? Omit<M, 'from' | 'to' | 'term'> : never;
export type Body = WithoutHead<Message>;

/** A message to member 1. */
export function message(from: number, term: number, body: Body): Message {
  return { from: replicaId(from), to: replicaId(1), term, ...body };
}

export function append(
  prev: readonly [index: number, term: number],
  entries: readonly Entry[],
  commit = 0,
): Body {
  const [prevIndex, prevTerm] = prev;
  return { type: 'append', prevIndex, prevTerm, commit, entries };
}

export function vote(last: readonly [index: number, term: number], transfer = false): Body {
  const [lastIndex, lastTerm] = last;
  return { type: 'vote', lastIndex, lastTerm, transfer };
}

export function preVote(last: readonly [index: number, term: number]): Body {
  const [lastIndex, lastTerm] = last;
  return { type: 'preVote', lastIndex, lastTerm, transfer: false };
}

export const heartbeat = (commit = 0, round = 1): Body => ({
  type: 'heartbeat',
  commit,
  round,
  quiet: false,
});
