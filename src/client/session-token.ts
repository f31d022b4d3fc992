/**
 * What a session has seen (rule D24): per slot its epoch, its revision and, where expiry was seen,
 * the log time. kv.proto has the bytes; `docs/guarantees.md` says what a token promises.
 */
import { codecOf } from '../../proto/definitions.js';
import type {
  ReplyHeader,
  RequestHeader,
  SessionTokenMessage,
  SlotPositionMessage,
} from '../../proto/messages.js';
import { KvError, type Outcome } from '../errors.js';
import { slotCount, type Slot } from '../router/slot.js';

const codec = codecOf<SessionTokenMessage>('quorate.v1.SessionToken');

/**
 * Given to operations as `token`, it takes in what their replies have seen; reads at level AT_LEAST
 * are answered with no less. As text it goes to other processes.
 */
export class SessionToken {
  /** Empty until something was seen. */
  private clusterId = '';
  private readonly positions = new Map<number, SlotPositionMessage>();
  private readonly pins = new Set<number>();

  /** What `toString` gave; an empty text is a token that has seen nothing. Throws KvError KV_INVALID. */
  static parse(text: string): SessionToken {
    const token = new SessionToken();
    let message: SessionTokenMessage;
    try {
      if (!/^[\w-]*$/.test(text)) throw new RangeError('it has other characters than base64url');
      message = codec.decode(Buffer.from(text, 'base64url'));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new KvError(`this is no session token (${why}): give what an earlier one was as text`, {
        code: 'KV_INVALID',
        outcome: 'notApplied',
      });
    }
    token.take(message);
    return token;
  }

  /** Base64url of a SessionToken message. */
  toString(): string {
    return this.encode([...this.positions.values()]).toString('base64url');
  }

  /**
   * Takes in all that another session has seen. Throws KvError KV_TOKEN_MISMATCH if that was in
   * another cluster.
   */
  merge(other: SessionToken): void {
    this.take({ clusterId: other.clusterId, positions: [...other.positions.values()] });
  }

  /**
   * Takes in what a reply has seen. Throws KvError of that outcome; `unknown` for a write: it was
   * carried out, and must not look as if nothing had been applied.
   */
  learn(header: ReplyHeader | null | undefined, outcome: Outcome = 'notApplied'): void {
    const bytes = header?.token;
    if (bytes === undefined || bytes.byteLength === 0) return;
    try {
      this.take(codec.decode(bytes));
    } catch (cause) {
      const code = cause instanceof KvError ? cause.code : 'KV_INTERNAL';
      const why = cause instanceof Error ? cause.message : String(cause);
      const text = `the node answered, but what it saw does not go into the session: ${why}`;
      throw new KvError(text, { code, outcome, cause });
    }
  }

  /**
   * Of a read: with the position of its hash slot, or of all from one on; and of all pins, since which of
   * them it meets is not for the client to know. A write waits for nothing.
   */
  headerOf(slots: Slot | { readonly from: Slot } | 'none'): RequestHeader {
    return { token: this.encode(this.positionsOf(slots)), returnToken: true };
  }

  private positionsOf(slots: Slot | { readonly from: Slot } | 'none'): SlotPositionMessage[] {
    if (slots === 'none') return [];
    if (typeof slots === 'object')
      return [...this.positions.values()].filter(({ slot }) => slot >= slots.from);
    return [slots, ...this.pins].flatMap((slot) => this.positions.get(slot) ?? []);
  }

  private encode(positions: SlotPositionMessage[]): Buffer {
    return Buffer.from(codec.encode({ clusterId: this.clusterId, positions }));
  }

  private take({ clusterId, positions }: SessionTokenMessage): void {
    if (clusterId === '') return;
    if (this.clusterId !== '' && this.clusterId !== clusterId) {
      throw new KvError(
        `this token is of cluster '${this.clusterId}', the other one of '${clusterId}': ` +
          'have a token for each cluster',
        { code: 'KV_TOKEN_MISMATCH', outcome: 'notApplied' },
      );
    }
    this.clusterId = clusterId;
    for (const { slot, epoch, revision, logTimeMs } of positions) {
      if (slot >= slotCount) this.pins.add(slot);
      const known = this.positions.get(slot);
      this.positions.set(slot, {
        slot,
        epoch: Math.max(epoch, known?.epoch ?? 0),
        revision: Math.max(revision, known?.revision ?? 0),
        logTimeMs: Math.max(logTimeMs, known?.logTimeMs ?? 0),
      });
    }
  }
}
