/**
 * Exactly-once bookkeeping of one client process: a sequence for every write, and the lowest one
 * that is not finished, which lets the server drop records.
 */
import { randomBytes } from 'node:crypto';
import type { SessionMessage } from '../../proto/messages.js';

/** How long after its first attempt a write may still be carried out, by the server's log time. */
const lifetimeMs = 50_000;

/** What a server told of its time, and when that was, by this process's clock. */
interface Told {
  readonly logTimeMs: number;
  readonly atMs: number;
}

export class SessionBook {
  /** 16 random bytes, one value for the life of this process: never stored, never used again. */
  private readonly clientId: Uint8Array;
  private readonly nowMs: () => number;
  private next = 1;
  private readonly open = new Set<number>();
  /** No sequence below it is open. Asking a set for its first would walk over all that left it. */
  private lowest = 1;
  /** The newest log time that any shard told. */
  private told: Told = { logTimeMs: 0, atMs: 0 };
  /** Shards whose log time is far behind it: their own. */
  private readonly behind = new Map<number, Told>();

  constructor(clientId: Uint8Array = randomBytes(16), nowMs = () => performance.now()) {
    this.clientId = clientId;
    this.nowMs = nowMs;
  }

  /** False until a reply has told the server's log time: `begin` needs it. */
  get knowsLogTime(): boolean {
    return this.told.logTimeMs > 0;
  }

  /** Takes the log time out of a reply's header. */
  learn(logTimeMs: number | undefined): void {
    if (logTimeMs === undefined || logTimeMs <= this.told.logTimeMs) return;
    this.told = { logTimeMs, atMs: this.nowMs() };
  }

  /** The shard has refused a last moment as too far ahead of its log time: from now on that counts there. */
  learnBehind(shard: number, logTimeMs: number): void {
    this.behind.set(shard, { logTimeMs, atMs: this.nowMs() });
  }

  /** The shard has refused a write as too late: it is not behind any more. */
  forgetBehind(shard: number): void {
    this.behind.delete(shard);
  }

  /** The session of a new write: the same object goes with every attempt at it. `shard`: 0 if not known. */
  begin(shard = 0): SessionMessage {
    const sequence = this.next++;
    this.open.add(sequence);
    while (!this.open.has(this.lowest)) this.lowest += 1;
    const { logTimeMs, atMs } = this.behind.get(shard) ?? this.told;
    const serverNow = logTimeMs + (this.nowMs() - atMs);
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
