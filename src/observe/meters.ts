/** What is counted where it happens: durations and sizes, of which only buckets are kept. */
import { Counter, Histogram } from 'prom-client';
import type { Clock } from './clock.js';

const KiB = 1024;

export class Meters {
  readonly calls = new Counter({
    name: 'quorate_client_requests_total',
    help: 'Calls of the client port answered, by method and gRPC status code',
    labelNames: ['method', 'code'] as const,
    registers: [],
  });
  readonly callSeconds = new Histogram({
    name: 'quorate_client_request_duration_seconds',
    help: 'From the headers of a call to the end of its reply',
    labelNames: ['method'] as const,
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers: [],
  });
  readonly syncSeconds = new Histogram({
    name: 'quorate_raft_log_sync_duration_seconds',
    help: 'One write of the Raft log with its fdatasync',
    buckets: [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1],
    registers: [],
  });
  readonly syncBytes = new Histogram({
    name: 'quorate_raft_log_sync_size_bytes',
    help: 'What one write of the Raft log makes durable',
    buckets: [256, KiB, 4 * KiB, 16 * KiB, 64 * KiB, 256 * KiB, 1024 * KiB, 4096 * KiB],
    registers: [],
  });
  readonly frameBytes = new Histogram({
    name: 'quorate_peer_frame_size_bytes',
    help: 'Frames sent to other nodes',
    buckets: [128, KiB, 4 * KiB, 16 * KiB, 64 * KiB, 256 * KiB, 1024 * KiB, 8192 * KiB],
    registers: [],
  });
  private readonly clock: Clock;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  get all(): readonly (Counter<string> | Histogram<string>)[] {
    const { calls, callSeconds, syncSeconds, syncBytes, frameBytes } = this;
    return [calls, callSeconds, syncSeconds, syncBytes, frameBytes];
  }

  /** A write of the Raft log begins; the function is to be called when it is durable. */
  writing(bytes: number): () => void {
    const begunMs = this.clock.monotonicMs();
    this.syncBytes.observe(bytes);
    return () => {
      this.syncSeconds.observe((this.clock.monotonicMs() - begunMs) / 1000);
    };
  }

  /** A call begins; the function is to be called with its status when it has ended. */
  calling(method: string): (code: string) => void {
    const begunMs = this.clock.monotonicMs();
    return (code) => {
      this.calls.inc({ method, code });
      this.callSeconds.observe({ method }, (this.clock.monotonicMs() - begunMs) / 1000);
    };
  }
}
