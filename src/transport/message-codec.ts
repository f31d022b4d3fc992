/**
 * Raft messages as bytes between nodes. Big-endian; 64-bit fields as two halves, asserted to be safe
 * integers when read.
 *
 *   message  = version u8, type u8, group u32, generation u64, from u32, to u32, term u64, body
 *   vote, preVote            lastIndex u64, lastTerm u64, transfer u8
 *   voteReply, preVoteReply  granted u8
 *   append                   prevIndex u64, prevTerm u64, commit u64, count u32, entries
 *   entry                    index u64, term u64, kind u8, length u32, data
 *   appendReply              index u64, rejected u8, hintIndex u64, hintTerm u64
 *   heartbeat                commit u64, round u64, quiet u8                heartbeatReply  round u64
 *   snapshot                 index u64, term u64, membership index u64, length u32, membership
 *   timeoutNow               (nothing)
 *   readIndex                length u16, context          readIndexReply  index u64, refused u8, length u16, context
 *
 * Decoded entries alias the received frame: they keep it alive until they leave the log's window,
 * which is bounded, and a frame holds little else.
 */
import {
  decodeMembership,
  encodeMembership,
  EntryKind,
  groupId,
  replicaId,
  type Entry,
  type Message,
  type MessageType,
  type SnapshotMeta,
} from '../../raft/index.js';
import type { ByteReader, ByteWriter } from '../bytes.js';
import type { GroupMessage } from './transport.js';

const version = 3;

const typeCodes: Readonly<Record<MessageType, number>> = {
  vote: 1,
  preVote: 2,
  voteReply: 3,
  preVoteReply: 4,
  append: 5,
  appendReply: 6,
  heartbeat: 7,
  heartbeatReply: 8,
  snapshot: 9,
  timeoutNow: 10,
  readIndex: 11,
  readIndexReply: 12,
};
const typeOfCode = new Map(
  Object.entries(typeCodes).map(([type, code]) => [code, type as MessageType]),
);
const entryKinds = new Set<number>(Object.values(EntryKind));
/** index, term, kind, length: an entry is at least so long. */
const entryHeadBytes = 21;

/** Bytes that no node of this version sends: the connection they came on is closed. */
export class MalformedMessage extends Error {
  override readonly name = 'MalformedMessage';
}

/** Reads bytes of a peer: whatever is thrown at bad ones becomes the error that closes a connection. */
export function wellFormed<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof MalformedMessage) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new MalformedMessage(`${what}: ${reason}`, { cause: error });
  }
}

export function encodeMessage(
  writer: ByteWriter,
  { group, generation, message }: GroupMessage,
): void {
  writer.u8(version);
  writer.u8(typeCodes[message.type]);
  writer.u32(group);
  writer.u64(generation);
  writer.u32(message.from);
  writer.u32(message.to);
  writer.u64(message.term);
  encodeBody(writer, message);
}

function encodeBody(writer: ByteWriter, message: Message): void {
  switch (message.type) {
    case 'vote':
    case 'preVote':
      writer.u64(message.lastIndex);
      writer.u64(message.lastTerm);
      writer.bool(message.transfer);
      break;
    case 'voteReply':
    case 'preVoteReply':
      writer.bool(message.granted);
      break;
    case 'append':
      writer.u64(message.prevIndex);
      writer.u64(message.prevTerm);
      writer.u64(message.commit);
      writer.u32(message.entries.length);
      for (const entry of message.entries) encodeEntry(writer, entry);
      break;
    case 'appendReply':
      writer.u64(message.index);
      writer.bool(message.rejected);
      writer.u64(message.hintIndex);
      writer.u64(message.hintTerm);
      break;
    case 'heartbeat':
      writer.u64(message.commit);
      writer.u64(message.round);
      writer.bool(message.quiet);
      break;
    case 'heartbeatReply':
      writer.u64(message.round);
      break;
    case 'snapshot':
      encodeSnapshotMeta(writer, message.snapshot);
      break;
    case 'timeoutNow':
      break;
    case 'readIndex':
      writer.text(message.context);
      break;
    case 'readIndexReply':
      writer.u64(message.index);
      writer.bool(message.refused);
      writer.text(message.context);
      break;
  }
}

function encodeEntry(writer: ByteWriter, { index, term, kind, data }: Entry): void {
  writer.u64(index);
  writer.u64(term);
  writer.u8(kind);
  writer.u32(data.byteLength);
  writer.raw(data);
}

export function encodeSnapshotMeta(
  writer: ByteWriter,
  { index, term, membership }: SnapshotMeta,
): void {
  writer.u64(index);
  writer.u64(term);
  writer.u64(membership.index);
  const encoded = encodeMembership(membership.membership);
  writer.u32(encoded.byteLength);
  writer.raw(encoded);
}

/** Reads one message. Throws MalformedMessage; then nothing of the frame may be used. */
export function decodeMessage(reader: ByteReader): GroupMessage {
  try {
    return decode(reader);
  } catch (error) {
    if (error instanceof RangeError) throw new MalformedMessage(error.message, { cause: error });
    throw error;
  }
}

function decode(reader: ByteReader): GroupMessage {
  const found = reader.u8();
  if (found !== version)
    throw new MalformedMessage(`message version ${found}, this program knows ${version}`);
  const code = reader.u8();
  const type = typeOfCode.get(code);
  if (type === undefined) throw new MalformedMessage(`message type ${code}`);
  const [group, generation] = [groupId(reader.u32()), reader.u64()];
  const head = { from: replicaId(reader.u32()), to: replicaId(reader.u32()), term: reader.u64() };
  return { group, generation, message: decodeBody(reader, type, head) };
}

type Head = Pick<Message, 'from' | 'to' | 'term'>;

function decodeBody(reader: ByteReader, type: MessageType, { from, to, term }: Head): Message {
  switch (type) {
    case 'vote':
    case 'preVote':
      return {
        type,
        from,
        to,
        term,
        lastIndex: reader.u64(),
        lastTerm: reader.u64(),
        transfer: reader.bool(),
      };
    case 'voteReply':
    case 'preVoteReply':
      return { type, from, to, term, granted: reader.bool() };
    case 'append': {
      const [prevIndex, prevTerm, commit] = [reader.u64(), reader.u64(), reader.u64()];
      return { type, from, to, term, prevIndex, prevTerm, commit, entries: decodeEntries(reader) };
    }
    case 'appendReply':
      return {
        type,
        from,
        to,
        term,
        index: reader.u64(),
        rejected: reader.bool(),
        hintIndex: reader.u64(),
        hintTerm: reader.u64(),
      };
    case 'heartbeat':
      return {
        type,
        from,
        to,
        term,
        commit: reader.u64(),
        round: reader.u64(),
        quiet: reader.bool(),
      };
    case 'heartbeatReply':
      return { type, from, to, term, round: reader.u64() };
    case 'snapshot':
      return { type, from, to, term, snapshot: decodeSnapshotMeta(reader) };
    case 'timeoutNow':
      return { type, from, to, term, reserved: 0 };
    case 'readIndex':
      return { type, from, to, term, context: reader.text() };
    case 'readIndexReply': {
      const [index, refused] = [reader.u64(), reader.bool()];
      return { type, from, to, term, context: reader.text(), index, refused };
    }
  }
}

function decodeEntries(reader: ByteReader): readonly Entry[] {
  const count = reader.u32();
  // A length that promises more than is there must not allocate first.
  if (count * entryHeadBytes > reader.left)
    throw new MalformedMessage(`${count} entries in ${reader.left} bytes`);
  const entries: Entry[] = [];
  for (let n = 0; n < count; n++) {
    const [index, term, kind] = [reader.u64(), reader.u64(), reader.u8()];
    if (!entryKinds.has(kind)) throw new MalformedMessage(`entry kind ${kind}`);
    // One of the numbers of EntryKind, as just checked.
    entries.push({ index, term, kind: kind as EntryKind, data: reader.raw(reader.u32()) });
  }
  return entries;
}

export function decodeSnapshotMeta(reader: ByteReader): SnapshotMeta {
  const [index, term, membershipIndex] = [reader.u64(), reader.u64(), reader.u64()];
  const membership = decodeMembership(reader.raw(reader.u32()));
  return { index, term, membership: { index: membershipIndex, membership } };
}
