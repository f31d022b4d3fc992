/**
 * Is a message something that a member could have sent? What is not is dropped and counted: remote
 * input never breaks an assertion.
 */
import { encodeMembership, decodeMembership } from './membership.js';
import type { AppendRequest, Message } from './message.js';
import { EntryKind, type SnapshotMeta } from './types.js';

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
const contextLengthMax = 256;

export function isWellFormed(message: Message): boolean {
  if (!isCount(message.term) || !isCount(message.from) || message.from === 0) return false;
  switch (message.type) {
    case 'vote':
    case 'preVote':
      return (
        isCount(message.lastIndex) && isCount(message.lastTerm) && message.lastTerm <= message.term
      );
    case 'append':
      return areEntriesWellFormed(message);
    case 'appendReply':
      return isCount(message.index) && isCount(message.hintIndex) && isCount(message.hintTerm);
    case 'heartbeat':
      return isCount(message.commit) && isCount(message.round);
    case 'heartbeatReply':
      return isCount(message.round);
    case 'snapshot':
      return isSnapshotWellFormed(message.snapshot);
    case 'readIndex':
      return message.context.length > 0 && message.context.length <= contextLengthMax;
    case 'readIndexReply':
      return isCount(message.index);
    default:
      return true;
  }
}

function areEntriesWellFormed({
  prevIndex,
  prevTerm,
  commit,
  entries,
  term,
}: AppendRequest): boolean {
  if (!isCount(prevIndex) || !isCount(prevTerm) || !isCount(commit) || prevTerm > term)
    return false;
  if (prevIndex === 0 && prevTerm !== 0) return false;
  let index = prevIndex;
  let last = prevTerm;
  for (const entry of entries) {
    index++;
    if (entry.index !== index || !isCount(entry.term) || entry.term < last || entry.term > term)
      return false;
    last = entry.term;
    if (entry.kind === EntryKind.membership && !isMembership(entry.data)) return false;
  }
  return true;
}

function isMembership(bytes: Uint8Array): boolean {
  try {
    decodeMembership(bytes);
    return true;
  } catch {
    // Malformed or of an unknown version: the message is dropped and counted by the caller.
    return false;
  }
}

function isSnapshotWellFormed({ index, term, membership }: SnapshotMeta): boolean {
  if (!isCount(index) || !isCount(term) || index === 0 || membership.index > index) return false;
  return isMembership(encodeMembership(membership.membership));
}
