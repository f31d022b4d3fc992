/** How late the event loop runs: the one figure that tells whether something blocks it. */
import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks';

export interface LoopDelay {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
}

/** Each look wakes the process, also an idle one: a delay that is shorter is seen now and then only. */
const resolutionMsUsual = 20;

/** Measures from its construction, or from the last `reset`. */
export class LoopDelayMeter {
  private readonly histogram: IntervalHistogram;
  private readonly resolutionMs: number;

  constructor(resolutionMs = resolutionMsUsual) {
    this.resolutionMs = resolutionMs;
    this.histogram = monitorEventLoopDelay({ resolution: resolutionMs });
    this.histogram.enable();
  }

  /** The histogram counts the timer's own interval as well: it is taken off. */
  read(): LoopDelay {
    const { histogram, resolutionMs } = this;
    const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - resolutionMs);
    return {
      p50Ms: ms(histogram.percentile(50)),
      p99Ms: ms(histogram.percentile(99)),
      p999Ms: ms(histogram.percentile(99.9)),
      maxMs: ms(histogram.max),
    };
  }

  reset(): void {
    this.histogram.reset();
  }

  close(): void {
    this.histogram.disable();
  }
}
