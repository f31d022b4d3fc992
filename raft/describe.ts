/**
 * One line of text for everything that a member says, keeps or asks for. Scenario files and log
 * lines share these words, so that a line of a server's log can be found in a scenario.
 *
 * Notation: `7@3` is the entry (or place in the log) with index 7 and term 3; `1->2` is a message
 * from replica 1 to replica 2; a member whose node has another number than itself is `4/n2`.
 * Nothing here throws: a log line about a malformed message must not stop the member that drops it.
 */
import { decodeMembership } from './membership.js';
import type { Message } from './message.js';
import type { Fetch, ReadState, Ready } from './ready.js';
import type {
  Entry,
  HardState,
  LogIndex,
  Membership,
  ReplicaId,
  SnapshotMeta,
  Term,
} from './types.js';
import { EntryKind, noReplica } from './types.js';

/** Longer payloads are cut in text: a line is for reading, and a value may have a megabyte. */
const payloadCharactersMax = 48;
const printableMin = 0x20;
const printableMax = 0x7e;

/** `index@term`, the place of an entry. */
export function describePlace(index: LogIndex, term: Term): string {
  return `${index}@${term}`;
}

/** Payload bytes as quoted text when all are printable ASCII, else as hexadecimal digits. */
export function describePayload(payload: Uint8Array): string {
  const shown = payload.subarray(0, payloadCharactersMax);
  const rest = payload.length > shown.length ? `+${payload.length - shown.length} bytes` : '';
  if (shown.every((byte) => byte >= printableMin && byte <= printableMax)) {
    return `"${String.fromCharCode(...shown)}"${rest}`;
  }
  const digits = Array.from(shown, (byte) => byte.toString(16).padStart(2, '0'));
  return `0x${digits.join('')}${rest}`;
}

/** `5@2 noop`, `6@2 "x=1"`, `7@2 voters(1 2 3)`. */
export function describeEntry(entry: Entry): string {
  return `${describePlace(entry.index, entry.term)} ${describeContent(entry)}`;
}

function describeContent(entry: Entry): string {
  switch (entry.kind) {
    case EntryKind.noop:
      return 'noop';
    case EntryKind.command:
      return describePayload(entry.data);
    case EntryKind.membership:
      return describeEncodedMembership(entry.data);
  }
}

function describeEncodedMembership(payload: Uint8Array): string {
  try {
    return describeMembership(decodeMembership(payload));
  } catch {
    // Only a malformed entry of a message gets here; the line says so, and step() drops it.
    return `malformed membership ${describePayload(payload)}`;
  }
}

/** `term=2 vote=1 commit=5`; no vote is `vote=none`. */
export function describeHardState(state: HardState): string {
  return `term=${state.term} vote=${describeReplica(state.vote)} commit=${state.commit}`;
}

/** The id, or `none`. */
export function describeReplica(id: ReplicaId): string {
  return id === noReplica ? 'none' : `${id}`;
}

/**
 * `voters(1 2 3)`, or in a joint configuration `voters(1 2 4)+(1 2 3)`, incoming first; then what
 * is not empty of `learners(5)`, `learnersNext(3)` and `autoLeave`.
 */
export function describeMembership(membership: Membership): string {
  const named = (ids: readonly ReplicaId[]): string =>
    `(${ids.map((id) => describeMember(membership, id)).join(' ')})`;
  const parts = [`voters${named(membership.incoming)}`];
  if (membership.outgoing.length > 0) parts[0] += `+${named(membership.outgoing)}`;
  if (membership.learners.length > 0) parts.push(`learners${named(membership.learners)}`);
  if (membership.learnersNext.length > 0) {
    parts.push(`learnersNext${named(membership.learnersNext)}`);
  }
  if (membership.autoLeave) parts.push('autoLeave');
  return parts.join(' ');
}

/** Never assumes that the membership is well-formed: it may be the reason for the line. */
function describeMember(membership: Membership, id: ReplicaId): string {
  const member = membership.members.find((candidate) => candidate.id === id);
  if (member === undefined) return `${id}/?`;
  return Number(member.node) === Number(id) ? `${id}` : `${id}/n${member.node}`;
}

/** `7@3 voters(1 2 3) since 4`: the image up to 7@3, under the membership that entry 4 brought. */
export function describeSnapshot(snapshot: SnapshotMeta): string {
  const { index, membership } = snapshot.membership;
  const place = describePlace(snapshot.index, snapshot.term);
  return `${place} ${describeMembership(membership)} since ${index}`;
}

/** `1->2 append term=3 prev=6@2 commit=5 [7@3 "x=1"]`. */
export function describeMessage(message: Message): string {
  const head = `${message.from}->${message.to} ${message.type} term=${message.term}`;
  const body = describeBody(message);
  return body === '' ? head : `${head} ${body}`;
}

/** Fields that are usual in every message of the kind are always named, rare ones only when set. */
function describeBody(message: Message): string {
  switch (message.type) {
    case 'vote':
    case 'preVote': {
      const last = `last=${describePlace(message.lastIndex, message.lastTerm)}`;
      return message.transfer ? `${last} transfer` : last;
    }
    case 'voteReply':
    case 'preVoteReply':
      return message.granted ? 'granted' : 'refused';
    case 'append': {
      const previous = `prev=${describePlace(message.prevIndex, message.prevTerm)}`;
      const entries = message.entries.map(describeEntry).join(', ');
      return `${previous} commit=${message.commit} [${entries}]`;
    }
    case 'appendReply': {
      if (!message.rejected) return `index=${message.index}`;
      const hint = describePlace(message.hintIndex, message.hintTerm);
      return `rejected prev=${message.index} hint=${hint}`;
    }
    case 'heartbeat':
      return `commit=${message.commit} round=${message.round}${message.quiet ? ' quiet' : ''}`;
    case 'heartbeatReply':
      return `round=${message.round}`;
    case 'snapshot':
      return describeSnapshot(message.snapshot);
    case 'timeoutNow':
      return '';
    case 'readIndex':
      return `context=${message.context}`;
    case 'readIndexReply': {
      const answer = message.refused ? 'refused' : `index=${message.index}`;
      return `context=${message.context} ${answer}`;
    }
  }
}

/** `read r1 at 5`, or `read r1 refused`. */
export function describeReadState(read: ReadState): string {
  return `read ${read.context} ${read.index === undefined ? 'refused' : `at ${read.index}`}`;
}

/** `fetch 3..9 to send to 2 (1024 bytes at most)`. */
export function describeFetch(fetch: Fetch): string {
  const purpose = fetch.purpose === 'send' ? `to send to ${fetch.to}` : 'to apply';
  return `fetch ${fetch.from}..${fetch.last} ${purpose} (${fetch.bytesMax} bytes at most)`;
}

/** One line for each duty of a Ready, in the order in which the driver has to see to them. */
export function readyLines(ready: Ready): readonly string[] {
  const lines: string[] = [];
  for (const message of ready.messages) lines.push(`send ${describeMessage(message)}`);
  lines.push(...persistLines(ready));
  for (const message of ready.messagesAfterPersist) {
    lines.push(`then send ${describeMessage(message)}`);
  }
  for (const entry of ready.committed) lines.push(`apply ${describeEntry(entry)}`);
  for (const read of ready.readStates) lines.push(describeReadState(read));
  for (const fetch of ready.fetches) lines.push(describeFetch(fetch));
  for (const to of ready.snapshotsWanted) lines.push(`send a snapshot to ${to}`);
  if (ready.restore !== undefined) {
    lines.push(`restore ${describeSnapshot(ready.restore)} from ${ready.restore.from}`);
  }
  return lines;
}

/** The lines of the persist batch alone: what must be durable together. */
export function persistLines(
  batch: Pick<Ready, 'hardState' | 'entries' | 'logReset'>,
): readonly string[] {
  const lines: string[] = [];
  if (batch.hardState !== undefined) lines.push(`persist ${describeHardState(batch.hardState)}`);
  if (batch.logReset !== undefined) {
    lines.push(`persist log reset ${describeSnapshot(batch.logReset)}`);
  }
  for (const entry of batch.entries) lines.push(`persist ${describeEntry(entry)}`);
  return lines;
}

/** The whole Ready in one line, for a log line. */
export function describeReady(ready: Ready): string {
  return readyLines(ready).join('; ');
}
