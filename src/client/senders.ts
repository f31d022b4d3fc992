/** How a batch of operations reaches a node: over the node's stream, or as a call of its own. */
import type { BatchReply, BatchRequest } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import type { Connections } from './connections.js';
import { methods } from './methods.js';
import { Pipeline, type BatchDone } from './pipeline.js';
import { callUnary } from './wire.js';

export interface OutgoingBatch {
  readonly endpoint: string;
  /** `timeoutMs` is for this attempt. */
  readonly request: BatchRequest & { readonly timeoutMs: number };
}

export interface Sender {
  /** Room for one more batch to this endpoint. */
  hasRoom(endpoint: string): boolean;
  /** Calls `done` once, never before it returns. */
  send(batch: OutgoingBatch, done: BatchDone): void;
  close(): void;
}

/** Calls in flight to one node: half of the streams it allows on a connection. */
const callsMax = 512;

/** One stream per endpoint. */
export class PipelineSender implements Sender {
  private readonly connections: Connections;
  private readonly pipelines = new Map<string, Pipeline>();

  constructor(connections: Connections) {
    this.connections = connections;
  }

  hasRoom(endpoint: string): boolean {
    return this.pipelines.get(endpoint)?.hasRoom ?? true;
  }

  send({ endpoint, request }: OutgoingBatch, done: BatchDone): void {
    let pipeline = this.pipelines.get(endpoint);
    if (pipeline === undefined) {
      pipeline = new Pipeline(endpoint, () => this.connections.to(endpoint));
      this.pipelines.set(endpoint, pipeline);
    }
    pipeline.send(request, done);
  }

  close(): void {
    for (const pipeline of this.pipelines.values()) pipeline.close();
    this.pipelines.clear();
  }
}

/** One unary call per batch. */
export class UnarySender implements Sender {
  private readonly connections: Connections;
  private readonly calls = new Map<string, number>();

  constructor(connections: Connections) {
    this.connections = connections;
  }

  hasRoom(endpoint: string): boolean {
    return (this.calls.get(endpoint) ?? 0) < callsMax;
  }

  send({ endpoint, request }: OutgoingBatch, done: BatchDone): void {
    const deadline = Date.now() + request.timeoutMs;
    this.count(endpoint, 1);
    callUnary(this.connections, methods.batch, request, { deadline, endpoint }).then(
      (reply: BatchReply) => {
        this.count(endpoint, -1);
        done(undefined, reply);
      },
      (error: unknown) => {
        this.count(endpoint, -1);
        done(asKvError(error), undefined);
      },
    );
  }

  close(): void {
    // Its calls end with the connections.
  }

  private count(endpoint: string, change: number): void {
    const count = (this.calls.get(endpoint) ?? 0) + change;
    if (count === 0) this.calls.delete(endpoint);
    else this.calls.set(endpoint, count);
  }
}

/** callUnary rejects with KvError only; what else there is would be a bug of this client. */
export function asKvError(error: unknown): KvError {
  if (error instanceof KvError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new KvError(text, { code: 'KV_INTERNAL', outcome: 'unknown', cause: error });
}
