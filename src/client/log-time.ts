/** Asks for the server's log time once for all writes that wait for it. */
import { KvError } from '../errors.js';
import { stopWatching, watchAbort } from './abort-watch.js';
import type { SessionBook } from './session-book.js';
import type { SessionToken } from './session-token.js';
import { cancelledError } from './wire.js';

export interface CallBounds {
  /** Milliseconds since 1970. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly token?: SessionToken | undefined;
}

export class LogTime {
  private readonly book: SessionBook;
  private readonly ask: (bounds: CallBounds) => Promise<void>;
  private asking: Promise<KvError | undefined> | undefined;

  /** `ask` makes any read, whose reply teaches the book. */
  constructor(book: SessionBook, ask: (bounds: CallBounds) => Promise<void>) {
    this.book = book;
    this.ask = ask;
  }

  /** A write carries a last moment in the server's log time, so that must be known before. */
  async known(bounds: CallBounds): Promise<void> {
    while (!this.book.knowsLogTime) {
      if (this.asking === undefined) {
        await this.askFor(bounds);
        continue;
      }
      const failure = await within(this.asking, bounds);
      // The one who asked may only have had less time, or have been cancelled.
      if (failure !== undefined && !this.book.knowsLogTime && Date.now() >= bounds.deadline)
        throw failure;
    }
  }

  private async askFor(bounds: CallBounds): Promise<void> {
    const asked = this.ask(bounds);
    this.asking = asked.then(
      () => undefined,
      (error: unknown) => (error instanceof KvError ? error : undefined),
    );
    try {
      await asked;
    } finally {
      this.asking = undefined;
    }
  }
}

/** Rejects when the bounds are passed before. */
function within<T>(promise: Promise<T>, { deadline, signal }: CallBounds): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => {
      end();
      reject(
        new KvError('the deadline passed before a node told its time', {
          code: 'KV_DEADLINE',
          outcome: 'notApplied',
        }),
      );
    };
    const abort = (): void => {
      end();
      reject(cancelledError('notApplied'));
    };
    // A little later than the one who asked: its error says what each endpoint did.
    const timer = setTimeout(late, deadline - Date.now() + 5);
    if (signal) watchAbort(signal, abort);
    const end = (): void => {
      clearTimeout(timer);
      if (signal) stopWatching(signal, abort);
    };
    void promise.then((value) => {
      end();
      resolve(value);
    });
  });
}
