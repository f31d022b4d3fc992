/**
 * The only place of the server that reads time or sets timers. Everything else is given a `Clock`,
 * so that a simulator can hand out its own.
 */

/** Stops a timer; calling it twice, or after it fired, does nothing. */
export type Cancel = () => void;

export interface Clock {
  /** Milliseconds on a clock that never goes back; only differences mean anything. */
  monotonicMs(): number;
  /** Milliseconds since 1970; may jump. */
  wallMs(): number;
  /** Calls `tick` about every `intervalMs`; a late call is not made up for. */
  every(intervalMs: number, tick: () => void): Cancel;
  after(delayMs: number, fire: () => void): Cancel;
  /** Calls `run` at the end of this event-loop turn, after the input at hand has been read. */
  endOfTurn(run: () => void): void;
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  every(intervalMs, tick) {
    const timer = setInterval(tick, intervalMs);
    return () => {
      clearInterval(timer);
    };
  },
  after(delayMs, fire) {
    const timer = setTimeout(fire, delayMs);
    return () => {
      clearTimeout(timer);
    };
  },
  endOfTurn(run) {
    setImmediate(run);
  },
};
