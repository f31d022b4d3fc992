/** Asks for the server's log time once for all writes that wait for it. */
import { KvError } from '../errors.js';
import { stopWatching, watchAbort } from './abort-watch.js';
import { attemptMsMax, isPassing } from './attempts.js';
import { asKvError } from './senders.js';
import type { SessionBook } from './session-book.js';
import type { SessionToken } from './session-token.js';
import { cancelledError } from './wire.js';

export interface CallBounds {
  /** Milliseconds since 1970. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly token?: SessionToken | undefined;
}

/** Any read of the key, by the leader of its shard; the reply teaches the book. Rejects with KvError. */
type Ask = (key: Uint8Array, deadline: number) => Promise<void>;

const againMs = 25;

interface Failure {
  readonly key: Uint8Array;
  readonly error: KvError;
}

export class LogTime {
  private readonly book: SessionBook;
  private readonly ask: Ask;
  /** Of the writes that wait, by their bounds. */
  private readonly keys = new Map<CallBounds, Uint8Array>();
  private turn = 0;
  private asking: Promise<Failure | undefined> | undefined;
  private lastError: KvError | undefined;

  constructor(book: SessionBook, ask: Ask) {
    this.book = book;
    this.ask = ask;
  }

  /** A write of the key carries a last moment in the server's log time, so that must be known before. */
  async known(key: Uint8Array, bounds: CallBounds): Promise<void> {
    this.keys.set(bounds, key);
    try {
      while (!this.book.knowsLogTime) {
        if (Date.now() >= bounds.deadline) throw this.lastError ?? lateError();
        this.asking ??= this.askNext(bounds.deadline);
        const failure = await this.within(this.asking, bounds);
        if (failure !== undefined && isFinal(failure, key)) throw failure.error;
      }
    } finally {
      this.keys.delete(bounds);
    }
  }

  /**
   * The keys take turns, each for the time of one attempt: a shard without a leader holds up its own
   * writes and no others.
   */
  private async askNext(deadline: number): Promise<Failure | undefined> {
    const keys = [...this.keys.values()];
    const key = keys[this.turn++ % keys.length] ?? new Uint8Array();
    try {
      await this.ask(key, Math.min(deadline, Date.now() + attemptMsMax));
      return undefined;
    } catch (reason) {
      const error = asKvError(reason);
      this.lastError = error;
      // A question that fails at once must not be asked again before any timer could run.
      await new Promise((resolve) => setTimeout(resolve, againMs));
      return { key, error };
    } finally {
      this.asking = undefined;
    }
  }

  /** Rejects when the bounds are passed before. */
  private within<T>(promise: Promise<T>, { deadline, signal }: CallBounds): Promise<T> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        stopWatching(signal, abort);
      };
      const abort = (): void => {
        end();
        reject(cancelledError('notApplied'));
      };
      const timer = setTimeout(() => {
        end();
        reject(this.lastError ?? lateError());
      }, deadline - Date.now());
      watchAbort(signal, abort);
      void promise.then(resolve, reject).finally(end);
    });
  }
}

/** For the write of this key: it cannot be had in time. What is wrong with a key ends its own write. */
function isFinal({ key, error }: Failure, own: Uint8Array): boolean {
  const ofKey = error.code === 'KV_INVALID' || error.code === 'KV_TOO_LARGE';
  return ofKey ? key === own : !isPassing(error);
}

function lateError(): KvError {
  return new KvError('the deadline passed before a node told its time', {
    code: 'KV_DEADLINE',
    outcome: 'notApplied',
  });
}
