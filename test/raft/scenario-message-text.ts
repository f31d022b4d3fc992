/**
 * Messages written by hand: `9->1 append term=5 prev=1@1 commit=1 entries=2@5:x,3@5:y`. Nothing is
 * checked here, because what no honest member sends is just what these are for.
 */
import { EntryKind } from '../../raft/index.js';
import type { Entry, EntryId, Message, ReplicaId } from '../../raft/index.js';

/** `a=1 b c=x` as a map; a word without `=` has the value `on`. */
export function fieldsOf(words: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    words.map((word) => {
      const at = word.indexOf('=');
      return at < 0 ? [word, 'on'] : [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}

/** Bytes of text, one per character. */
export function payloadOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** `7@3`; a missing part is 0. */
export function placeOf(text: string | undefined): EntryId {
  const [index, term] = (text ?? '').split('@');
  return { index: Number(index ?? 0), term: Number(term ?? 0) };
}

/** `7@3:x=1` a command, `7@3:noop`, or `7@3:membership:01ff` with the payload in digits. */
function entryOf(text: string): Entry {
  const [place, content = '', digits = ''] = text.split(':');
  const head = placeOf(place);
  switch (content) {
    case 'noop':
      return { ...head, kind: EntryKind.noop, data: new Uint8Array() };
    case 'membership': {
      const bytes = digits.match(/../g) ?? [];
      const payload = Uint8Array.from(bytes, (byte) => Number.parseInt(byte, 16));
      return { ...head, kind: EntryKind.membership, data: payload };
    }
    default:
      return { ...head, kind: EntryKind.command, data: payloadOf(content) };
  }
}

/** Throws for an unknown type or a missing `from->to`, and checks nothing else. */
export function messageOf(words: readonly string[]): Message {
  const [ends = '', type = '', ...rest] = words;
  const [from, to] = ends.split('->').map((end) => Number(end) as ReplicaId);
  if (from === undefined || to === undefined) throw new Error(`no from->to in "${ends}"`);
  const fields = fieldsOf(rest);
  const numberOf = (name: string): number => Number(fields.get(name) ?? 0);
  const head = { from, to, term: numberOf('term') };
  switch (type) {
    case 'vote':
    case 'preVote': {
      const last = placeOf(fields.get('last'));
      const transfer = fields.has('transfer');
      return { type, ...head, lastIndex: last.index, lastTerm: last.term, transfer };
    }
    case 'voteReply':
    case 'preVoteReply':
      return { type, ...head, granted: fields.has('granted') };
    case 'append': {
      const previous = placeOf(fields.get('prev'));
      const listed = fields.get('entries');
      const entries = listed === undefined ? [] : listed.split(',').map(entryOf);
      const places = { prevIndex: previous.index, prevTerm: previous.term };
      return { type, ...head, ...places, commit: numberOf('commit'), entries };
    }
    case 'appendReply': {
      const hint = placeOf(fields.get('hint'));
      const places = { index: numberOf('index'), hintIndex: hint.index, hintTerm: hint.term };
      return { type, ...head, ...places, rejected: fields.has('rejected') };
    }
    case 'heartbeat':
      return {
        type,
        ...head,
        commit: numberOf('commit'),
        round: numberOf('round'),
        quiet: fields.has('quiet'),
      };
    case 'heartbeatReply':
      return { type, ...head, round: numberOf('round') };
    case 'timeoutNow':
      return { type, ...head, reserved: 0 };
    case 'readIndex':
      return { type, ...head, context: fields.get('context') ?? '' };
    case 'readIndexReply': {
      const context = fields.get('context') ?? '';
      return { type, ...head, context, index: numberOf('index'), refused: fields.has('refused') };
    }
    default:
      throw new Error(`unknown type of message "${type}"`);
  }
}
