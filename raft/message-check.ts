/**
 * Is a message something that a member could have sent? What is not is dropped and counted: remote
 * input never breaks an assertion. The types promise all this, but they end where bytes begin.
 *
 * Not a defence against liars: Raft trusts its members (paper §2, non-Byzantine). It keeps a damaged or
 * newer peer from stopping a healthy member, and lets the rest of the core take for granted that terms
 * do not fall along an append, that indexes follow one another and that memberships can be decoded.
 */
import { decodeMembership, encodeMembership } from './membership.js';
import type { AppendRequest, Message, SnapshotRequest, VoteRequest } from './message.js';
import { EntryKind, type Entry, type LogIndex, type Term } from './types.js';

/** Characters. A driver's contexts have some 30; the limit bounds what waiting reads can hold. */
const contextLengthMax = 256;
const idMax = 0xffff_ffff;

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
const isId = (value: number): boolean => isCount(value) && value >= 1 && value <= idMax;
const isBoolean = (value: unknown): boolean => typeof value === 'boolean';

/** Index 0 has term 0, and nothing else has. */
function isPlace(place: { readonly index: LogIndex; readonly term: Term }): boolean {
  return isCount(place.index) && isCount(place.term) && (place.index === 0) === (place.term === 0);
}

/** True when some honest member could have sent it in some state. O(size), membership entries decoded. */
export function isWellFormed(message: Message): boolean {
  if (!isCount(message.term) || !isId(message.from)) return false;
  // A member tells itself one thing only: that its own vote is durable (rule D02).
  if (message.from === message.to && message.type !== 'voteReply') return false;
  switch (message.type) {
    case 'vote':
    case 'preVote':
      return isVoteRequest(message);
    case 'voteReply':
    case 'preVoteReply':
      return isBoolean(message.granted);
    case 'append':
      return isAppend(message);
    case 'appendReply':
      return (
        isCount(message.index) &&
        isCount(message.hintIndex) &&
        isCount(message.hintTerm) &&
        isBoolean(message.rejected)
      );
    case 'heartbeat':
      return isCount(message.commit) && isCount(message.round) && isBoolean(message.quiet);
    case 'heartbeatReply':
      return isCount(message.round);
    case 'snapshot':
      return isSnapshot(message);
    case 'timeoutNow':
      return true;
    case 'readIndex':
      return isContext(message.context);
    case 'readIndexReply':
      return isContext(message.context) && isCount(message.index) && isBoolean(message.refused);
    default:
      return false;
  }
}

/** Nobody's log can hold an entry of a term above the one it campaigns in. */
function isVoteRequest({ lastIndex, lastTerm, term, transfer }: VoteRequest): boolean {
  return isPlace({ index: lastIndex, term: lastTerm }) && lastTerm <= term && isBoolean(transfer);
}

function isContext(context: unknown): boolean {
  return typeof context === 'string' && context.length > 0 && context.length <= contextLengthMax;
}

/** Contiguous from prevIndex + 1, with terms from prevTerm up to the sender's own, none below 1. */
function isAppend({ prevIndex, prevTerm, commit, entries, term }: AppendRequest): boolean {
  if (!isPlace({ index: prevIndex, term: prevTerm }) || prevTerm > term) return false;
  if (!isCount(commit) || !Array.isArray(entries)) return false;
  let index = prevIndex;
  let last = prevTerm;
  for (const entry of entries as readonly Entry[]) {
    index++;
    if (entry.index !== index || !isCount(entry.term) || entry.term < Math.max(last, 1))
      return false;
    if (entry.term > term || !isContent(entry)) return false;
    last = entry.term;
  }
  return true;
}

function isContent({ kind, data }: Entry): boolean {
  if (!(data instanceof Uint8Array)) return false;
  switch (kind) {
    case EntryKind.noop:
    case EntryKind.command:
      return true;
    case EntryKind.membership:
      return isMembership(data);
    default:
      return false;
  }
}

/** Known, well-formed, and of a group that can decide something. */
function isMembership(bytes: Uint8Array): boolean {
  try {
    return decodeMembership(bytes).incoming.length > 0;
  } catch {
    // Malformed or of an unknown version: the message is dropped and counted by the caller.
    return false;
  }
}

/** Of index 1 or more, with the membership of that index or of one before. */
function isSnapshot({ snapshot, term }: SnapshotRequest): boolean {
  const { membership } = snapshot;
  if (!isPlace(snapshot) || snapshot.index === 0 || snapshot.term > term) return false;
  if (!isCount(membership.index) || membership.index > snapshot.index) return false;
  return isMembership(encodeMembership(membership.membership));
}
