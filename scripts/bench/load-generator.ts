/**
 * The load of the benchmark, run in a process of its own: real gRPC calls over raw HTTP/2 streams,
 * closed loop (each of connections x streams sends its next request when the last was answered).
 *
 * Reads a LoadSpec as JSON from its argument, prints a LoadResult as JSON.
 */
import { connect, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import { once } from 'node:events';
import { build, type Histogram } from 'hdr-histogram-js';
import { codecOf } from '../../proto/definitions.js';
import type {
  BatchReply,
  BatchRequest,
  GetRequest,
  OperationMessage,
  PutRequest,
} from '../../proto/messages.js';

export interface LoadSpec {
  readonly endpoints: readonly string[];
  readonly operation: 'put' | 'get';
  readonly connections: number;
  /** Requests in flight on each connection. */
  readonly streams: number;
  /** Operations in one request; above 1 the requests are batches on Pipeline streams. */
  readonly batch: number;
  readonly seconds: number;
  /** Ends earlier once so many operations are done; 0: no limit. */
  readonly operationsMax: number;
  /** Keys are `key-%012d` from 0 to keys - 1; puts walk through them, gets draw at random. */
  readonly keys: number;
  readonly valueBytes: number;
  /** Of unary gets; linearizable if absent. */
  readonly level?: number;
  /** Goes with unary gets, and one is asked for in return; base64url. */
  readonly token?: string;
}

export interface LoadResult {
  readonly operations: number;
  readonly errors: number;
  readonly firstError: string;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

const putRequest = codecOf<PutRequest>('quorate.v1.PutRequest');
const getRequest = codecOf<GetRequest>('quorate.v1.GetRequest');
const batchRequest = codecOf<BatchRequest>('quorate.v1.BatchRequest');
const batchReply = codecOf<BatchReply>('quorate.v1.BatchReply');

function frame(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(5 + message.byteLength);
  framed[0] = 0;
  framed.writeUInt32BE(message.byteLength, 1);
  framed.set(message, 5);
  return framed;
}

class Load {
  readonly histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 60_000_000,
    numberOfSignificantValueDigits: 3,
  });
  operations = 0;
  errors = 0;
  firstError = '';
  private issued = 0;
  private readonly spec: LoadSpec;
  private readonly value: Buffer;
  private readonly reads: Omit<GetRequest, 'key'>;
  private readonly endMs: number;

  constructor(spec: LoadSpec) {
    this.spec = spec;
    this.value = Buffer.alloc(spec.valueBytes, 'v');
    const { level, token } = spec;
    this.reads = {
      ...(level === undefined ? {} : { level }),
      ...(token === undefined
        ? {}
        : { header: { token: Buffer.from(token, 'base64url'), returnToken: true } }),
    };
    this.endMs = performance.now() + spec.seconds * 1000;
  }

  get over(): boolean {
    const { operationsMax } = this.spec;
    return performance.now() >= this.endMs || (operationsMax > 0 && this.issued >= operationsMax);
  }

  /** The next operation of the walk. */
  next(): OperationMessage {
    const { operation, keys } = this.spec;
    const n = operation === 'put' ? this.issued % keys : Math.floor(Math.random() * keys);
    this.issued += 1;
    const key = Buffer.from(`key-${String(n).padStart(12, '0')}`);
    return operation === 'put'
      ? { put: { key, value: this.value } }
      : { get: { key, ...this.reads } };
  }

  count(startedMs: number, operations: number, error: string | undefined): void {
    if (error === undefined) {
      this.operations += operations;
      this.histogram.recordValue(Math.max(1, Math.round((performance.now() - startedMs) * 1000)));
    } else {
      this.errors += operations;
      if (this.firstError === '') this.firstError = error;
    }
  }
}

const unaryHeaders = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };

/** One stream after another until the load is over. */
async function unaryLoop(session: ClientHttp2Session, load: Load): Promise<void> {
  await new Promise<void>((resolve) => {
    const send = (): void => {
      if (load.over || session.destroyed) {
        resolve();
        return;
      }
      const { put, get } = load.next();
      const [path, bytes] = put
        ? ['/quorate.v1.KV/Put', putRequest.encode(put)]
        : ['/quorate.v1.KV/Get', getRequest.encode(get ?? { key: new Uint8Array() })];
      const started = performance.now();
      const stream = session.request({ ...unaryHeaders, ':path': path });
      let status: string | undefined;
      stream.on('response', (headers) => (status = statusOf(headers) ?? status));
      stream.on('trailers', (trailers) => (status = statusOf(trailers) ?? status));
      stream.on('error', () => undefined);
      stream.on('close', () => {
        load.count(started, 1, status === '0' ? undefined : `grpc-status ${status ?? 'missing'}`);
        send();
      });
      stream.resume();
      stream.end(frame(bytes));
    };
    send();
  });
}

function statusOf(headers: Record<string, unknown>): string | undefined {
  const status = headers['grpc-status'];
  return typeof status === 'string' ? status : undefined;
}

/** Batches on one Pipeline stream, `streams` of them in flight. */
async function pipelineLoop(
  session: ClientHttp2Session,
  load: Load,
  spec: LoadSpec,
): Promise<void> {
  const stream = session.request({ ...unaryHeaders, ':path': '/quorate.v1.KV/Pipeline' });
  const started = new Map<number, number>();
  let id = 0;
  const send = (): void => {
    if (load.over) {
      if (started.size === 0 && !stream.writableEnded) stream.end();
      return;
    }
    id += 1;
    started.set(id, performance.now());
    const operations = Array.from({ length: spec.batch }, () => load.next());
    stream.write(frame(batchRequest.encode({ id, operations })));
  };
  readFrames(stream, (bytes) => {
    const reply = batchReply.decode(bytes);
    const startedMs = started.get(reply.id ?? 0) ?? performance.now();
    started.delete(reply.id ?? 0);
    const failed = (reply.results ?? []).find((result) => result.error);
    load.count(startedMs, reply.results?.length ?? 0, failed?.error?.message);
    send();
  });
  stream.on('error', () => undefined);
  for (let n = 0; n < spec.streams; n++) send();
  await once(stream, 'close');
}

function readFrames(stream: ClientHttp2Stream, take: (message: Buffer) => void): void {
  let pending: Buffer = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    while (pending.length >= 5 && pending.length >= 5 + pending.readUInt32BE(1)) {
      const end = 5 + pending.readUInt32BE(1);
      take(pending.subarray(5, end));
      pending = pending.subarray(end);
    }
  });
}

async function run(spec: LoadSpec): Promise<LoadResult> {
  const sessions = await Promise.all(
    Array.from({ length: spec.connections }, async (_, n) => {
      const session = connect(`http://${spec.endpoints[n % spec.endpoints.length]}`, {
        settings: { initialWindowSize: 8 * 1024 * 1024 },
      });
      session.on('error', () => undefined);
      await once(session, 'connect');
      return session;
    }),
  );
  const load = new Load(spec);
  const started = performance.now();
  await Promise.all(
    sessions.flatMap((session) =>
      spec.batch > 1
        ? [pipelineLoop(session, load, spec)]
        : Array.from({ length: spec.streams }, () => unaryLoop(session, load)),
    ),
  );
  const seconds = (performance.now() - started) / 1000;
  for (const session of sessions) session.close();
  return {
    operations: load.operations,
    errors: load.errors,
    firstError: load.firstError,
    seconds,
    p50Us: load.histogram.getValueAtPercentile(50),
    p99Us: load.histogram.getValueAtPercentile(99),
    p999Us: load.histogram.getValueAtPercentile(99.9),
  };
}

const spec = process.argv[2];
if (spec !== undefined) {
  // The program that starts this one wrote it.
  process.stdout.write(`${JSON.stringify(await run(JSON.parse(spec) as LoadSpec))}\n`);
}
