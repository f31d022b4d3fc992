/**
 * Exactly-once bookkeeping of one client process: a sequence for every write, and the lowest one
 * that is not finished, which lets the server drop records.
 */
import { randomBytes } from 'node:crypto';
import type { SessionMessage } from '../../proto/messages.js';

/** How long after its first attempt a write may still be carried out, by the server's log time. */
const lifetimeMs = 50_000;

export class SessionBook {
  /** 16 random bytes, one value for the life of this process: never stored, never used again. */
  private readonly clientId: Uint8Array;
  private readonly nowMs: () => number;
  private next = 1;
  private readonly open = new Set<number>();
  /** No sequence below it is open. Asking a set for its first would walk over all that left it. */
  private lowest = 1;
  private logTimeMs = 0;
  private learnedAtMs = 0;

  constructor(clientId: Uint8Array = randomBytes(16), nowMs = () => performance.now()) {
    this.clientId = clientId;
    this.nowMs = nowMs;
  }

  /** False until a reply has told the server's log time: `begin` needs it. */
  get knowsLogTime(): boolean {
    return this.logTimeMs > 0;
  }

  /** Takes the log time out of a reply's header. */
  learn(logTimeMs: number | undefined): void {
    if (logTimeMs === undefined || logTimeMs <= this.logTimeMs) return;
    this.logTimeMs = logTimeMs;
    this.learnedAtMs = this.nowMs();
  }

  /** The session of a new write: the same object goes with every attempt at it. */
  begin(): SessionMessage {
    const sequence = this.next++;
    this.open.add(sequence);
    while (!this.open.has(this.lowest)) this.lowest += 1;
    const serverNow = this.logTimeMs + (this.nowMs() - this.learnedAtMs);
    return {
      clientId: this.clientId,
      sequence,
      firstUnacknowledged: this.lowest,
      notAfterMs: Math.floor(serverNow + lifetimeMs),
    };
  }

  /** The write is finished, one way or another: nobody will retry it. */
  end(session: SessionMessage): void {
    this.open.delete(session.sequence);
  }
}
