/** Arbitrary messages of every kind, as large and as odd as the types allow. */
import fc from 'fast-check';
import {
  EntryKind,
  groupId,
  nodeId,
  replicaId,
  type Entry,
  type Membership,
  type Message,
  type MessageType,
  type SnapshotMeta,
} from '../../raft/index.js';
import type { GroupMessage } from '../../src/transport/transport.js';

const idMax = 0xffff_ffff;
const u64 = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 2 ** 32, Number.MAX_SAFE_INTEGER));
const replica = fc.integer({ min: 1, max: idMax }).map(replicaId);
const node = fc.integer({ min: 1, max: idMax }).map(nodeId);
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));

type Part = 'incoming' | 'outgoing' | 'both' | 'learner' | 'next';
const part = fc.constantFrom<Part>('incoming', 'outgoing', 'both', 'learner', 'next');

const member = fc.record({ id: replica, node, part });

const anyMembership: fc.Arbitrary<Membership> = fc
  .tuple(
    fc.uniqueArray(member, { minLength: 1, maxLength: 9, selector: ({ id }) => id }),
    fc.boolean(),
  )
  .map(([chosen, autoLeave]) => {
    const sorted = [...chosen].sort((a, b) => a.id - b.id);
    // Somebody must be a voter of the incoming side.
    const parts = sorted.map((each, n) => (n === 0 ? { ...each, part: 'both' } : each));
    const idsOf = (...wanted: string[]): ReturnType<typeof replicaId>[] =>
      parts.filter((each) => wanted.includes(each.part)).map((each) => each.id);
    return {
      incoming: idsOf('incoming', 'both'),
      outgoing: idsOf('outgoing', 'both', 'next'),
      learners: idsOf('learner'),
      learnersNext: idsOf('next'),
      autoLeave,
      members: parts.map((each) => ({ id: each.id, node: each.node })),
    };
  });

const anyEntry: fc.Arbitrary<Entry> = fc.record({
  index: u64,
  term: u64,
  kind: fc.constantFrom(EntryKind.noop, EntryKind.command, EntryKind.membership),
  data: bytes,
});

export const anySnapshotMeta: fc.Arbitrary<SnapshotMeta> = fc.record({
  index: u64,
  term: u64,
  membership: fc.record({ index: u64, membership: anyMembership }),
});

const head = { from: replica, to: replica, term: u64 };
const context = fc.string({ unit: 'grapheme', maxLength: 60 });
const flag = fc.boolean();

/** One arbitrary for every kind: the type makes a new kind of message be added here. */
const ofType: Readonly<Record<MessageType, fc.Arbitrary<Message>>> = {
  vote: voteOf('vote'),
  preVote: voteOf('preVote'),
  voteReply: voteReplyOf('voteReply'),
  preVoteReply: voteReplyOf('preVoteReply'),
  append: fc.record({
    type: fc.constant('append' as const),
    ...head,
    prevIndex: u64,
    prevTerm: u64,
    commit: u64,
    entries: fc.array(anyEntry, { maxLength: 12 }),
  }),
  appendReply: fc.record({
    type: fc.constant('appendReply' as const),
    ...head,
    index: u64,
    rejected: flag,
    hintIndex: u64,
    hintTerm: u64,
  }),
  heartbeat: fc.record({
    type: fc.constant('heartbeat' as const),
    ...head,
    commit: u64,
    round: u64,
    quiet: flag,
  }),
  heartbeatReply: fc.record({ type: fc.constant('heartbeatReply' as const), ...head, round: u64 }),
  snapshot: fc.record({
    type: fc.constant('snapshot' as const),
    ...head,
    snapshot: anySnapshotMeta,
  }),
  timeoutNow: fc.record({
    type: fc.constant('timeoutNow' as const),
    ...head,
    reserved: fc.constant(0 as const),
  }),
  readIndex: fc.record({ type: fc.constant('readIndex' as const), ...head, context }),
  readIndexReply: fc.record({
    type: fc.constant('readIndexReply' as const),
    ...head,
    context,
    index: u64,
    refused: flag,
  }),
};

function voteOf(type: 'vote' | 'preVote'): fc.Arbitrary<Message> {
  return fc.record({
    type: fc.constant(type),
    ...head,
    lastIndex: u64,
    lastTerm: u64,
    transfer: flag,
  });
}

function voteReplyOf(type: 'voteReply' | 'preVoteReply'): fc.Arbitrary<Message> {
  return fc.record({ type: fc.constant(type), ...head, granted: flag });
}

export const messageTypes = Object.keys(ofType) as MessageType[];

export function anyMessageOf(type: MessageType): fc.Arbitrary<GroupMessage> {
  const group = fc.integer({ min: 0, max: idMax }).map(groupId);
  const generation = fc.maxSafeNat();
  return fc.record({ group, generation, message: ofType[type] });
}

export const anyMessage = fc.oneof(...messageTypes.map(anyMessageOf));
