/** A node whose answers a test scripts, over a real gRPC server: a small store with sessions. */
import {
  Metadata,
  Server,
  ServerCredentials,
  status,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { codecOf, serviceDefinition } from '../../proto/definitions.js';
import type {
  BatchReply,
  BatchRequest,
  ErrorDetail,
  GetRequest,
  NodeInfo,
  OperationMessage,
  OperationResultMessage,
  PutRequest,
  ReplyHeader,
  ScanReply,
  ScanRequest,
  PinInfo,
  ShardInfo,
  SlotRangeInfo,
  TopologyReply,
  WatchEvent,
  WatchRequest,
} from '../../proto/messages.js';
import { OutcomeCode } from '../../proto/messages.js';
import { slot, slotCount, slotOf, type Slot } from '../../src/router/slot.js';

type Stream = ServerDuplexStream<BatchRequest, BatchReply>;
/** One Topology.Watch. */
export type Watcher = ServerWritableStream<WatchRequest, WatchEvent>;

/** What a test does with a batch that came over a stream. */
export interface BatchCall {
  readonly request: BatchRequest;
  /** From 0, of this node. */
  readonly number: number;
  /** Carries the operations out and answers. */
  answer(): void;
  reply(results: OperationResultMessage[]): void;
  /** Carries them out; the client never hears of it. */
  apply(): void;
  /** The stream ends at once, for all that flies on it. */
  breakStream(): void;
  /** The node ends the stream as if all were well, whatever flies on it. */
  endStream(): void;
}

export interface Unary {
  readonly method: string;
  readonly request: object;
}

const detailCodec = codecOf<ErrorDetail>('quorate.v1.ErrorDetail');
const statusCodec = codecOf<object>('google.rpc.Status');

/** Shared by the nodes of one test: what one applied, all have. */
export class FakeStore {
  readonly values = new Map<string, string>();
  readonly records = new Map<number, OperationResultMessage>();
  /** Operations that changed something, in order: "put a=1". */
  readonly applied: string[] = [];
  revision = 0;

  /**
   * One page, of at most so many keys; it ends before the first slot that is not owned. Undefined: its
   * first slot is not.
   */
  page(
    { cursor, afterKey, limit = 0, slot: only }: ScanRequest,
    { owns, lengthMax }: { readonly owns: (slot: Slot) => boolean; readonly lengthMax: number },
  ): ScanReply | undefined {
    // Not what real nodes give: a client must take cursors as they are.
    const told = JSON.parse(text(cursor) || '{}') as { slot?: number; after?: string };
    const after = afterKey?.byteLength ? text(afterKey) : told.after;
    const start = afterKey?.byteLength ? slotOf(afterKey) : slot(told.slot ?? only ?? 0);
    if (!owns(start)) return undefined;
    const behind = (only ?? slotCount - 1) + 1;
    let end: number = start;
    while (end < behind && owns(slot(end))) end += 1;
    const found = this.entries().filter(
      (each) =>
        each.slot < end && (each.slot > start || (each.slot === start && each.key > (after ?? ''))),
    );
    const kvs = found.slice(0, Math.min(limit || lengthMax, lengthMax)).map(({ key }) => ({
      key: Buffer.from(key),
      value: Buffer.from(this.values.get(key) ?? ''),
      revision: 1,
      expiresAtMs: 0,
    }));
    if (kvs.length === found.length && end === behind) return { kvs, done: true };
    const last = found[kvs.length - 1];
    const next =
      kvs.length === found.length ? { slot: end } : { slot: last?.slot, after: last?.key };
    return { kvs, cursor: Buffer.from(JSON.stringify(next)), nextSlot: next.slot ?? 0 };
  }

  /** Keys in the order of a scan. */
  private entries(): { readonly slot: Slot; readonly key: string }[] {
    return [...this.values.keys()]
      .map((key) => ({ slot: slotOf(Buffer.from(key)), key }))
      .sort((a, b) => a.slot - b.slot || (a.key < b.key ? -1 : 1));
  }

  run(operation: OperationMessage): OperationResultMessage {
    if (operation.get) return { get: this.get(operation.get) };
    const write = operation.put ?? operation.delete ?? operation.increment;
    const sequence = write?.session?.sequence ?? 0;
    const known = this.records.get(sequence);
    if (known !== undefined) return known;
    const result = this.write(operation);
    this.records.set(sequence, result);
    return result;
  }

  private get({ key }: GetRequest): NonNullable<OperationResultMessage['get']> {
    const value = this.values.get(text(key));
    if (value === undefined) return { found: false };
    const kv = { key, value: Buffer.from(value), revision: 1, expiresAtMs: 0 };
    return { found: true, kv };
  }

  private write({ put, delete: del, increment }: OperationMessage): OperationResultMessage {
    this.revision += 1;
    const { revision } = this;
    if (put) {
      this.values.set(text(put.key), text(put.value));
      this.applied.push(`put ${text(put.key)}`);
      return { put: { applied: true, revision } };
    }
    if (increment) {
      const value = Number(this.values.get(text(increment.key)) ?? 0) + increment.delta;
      this.values.set(text(increment.key), String(value));
      this.applied.push(`increment ${text(increment.key)}`);
      return { increment: { value, revision } };
    }
    const existed = this.values.delete(text(del?.key ?? new Uint8Array()));
    return { delete: { applied: true, existed, revision } };
  }
}

export class FakeNode {
  readonly store: FakeStore;
  readonly batches: BatchRequest[] = [];
  readonly unary: Unary[] = [];
  streams = 0;
  openStreams = 0;
  /** Scripts a batch; absent: it is answered. */
  onBatch: (call: BatchCall) => void = (call) => {
    call.answer();
  };
  /** Scripts a unary call; a detail is its error, undefined: it is answered. */
  onUnary: (call: Unary) => ErrorDetail | 'silence' | undefined = () => undefined;
  /** Pages of scans are of the slots it owns, and of so many keys at most. */
  owns: (slot: Slot) => boolean = () => true;
  pageLengthMax = 1000;
  /** Go into every header. */
  logTimeMs = (): number => Date.now();
  token: Uint8Array = new Uint8Array();
  version = 0;
  slots: SlotRangeInfo[] = [];
  nodes: NodeInfo[] = [];
  shards: ShardInfo[] = [];
  pins: PinInfo[] = [];
  readonly watches: WatchRequest[] = [];
  readonly watchers = new Set<Watcher>();
  /** Scripts a watch; absent: it is told the topology. */
  onWatch: (watcher: Watcher) => void = (watcher) => {
    this.tell(watcher);
  };
  endpoint = '';
  private server: Server;

  constructor(store: FakeStore = new FakeStore()) {
    this.store = store;
    this.server = this.build();
  }

  async start(port = 0): Promise<this> {
    const bound = await new Promise<number>((resolve, reject) => {
      this.server.bindAsync(
        `127.0.0.1:${port}`,
        ServerCredentials.createInsecure(),
        (error, number) => {
          if (error === null) resolve(number);
          else reject(error);
        },
      );
    });
    this.endpoint = `127.0.0.1:${bound}`;
    return this;
  }

  get topology(): TopologyReply {
    const { version, slots, nodes, shards, pins } = this;
    const rest = { document: '', metadataNodes: [], operations: [], settings: [], migrations: [] };
    return { clusterId: 'fake', version, nodes, shards, slots, pins, ...rest };
  }

  /** An event for one watcher, or for all; with the topology unless the event says otherwise. */
  tell(watcher: Watcher | undefined = undefined, event: WatchEvent = {}): void {
    const { topology, version } = this;
    const told = { ...(version > 0 ? { topology } : {}), version, heartbeatMs: 1000, ...event };
    for (const each of watcher ? [watcher] : this.watchers) each.write(told);
  }

  /** As a process that is killed: connections break, the port is free. */
  kill(): void {
    this.server.forceShutdown();
  }

  async restart(): Promise<void> {
    this.server = this.build();
    await this.start(Number(this.endpoint.split(':')[1]));
  }

  private build(): Server {
    const server = new Server();
    const kv: UntypedServiceImplementation = {
      Pipeline: (stream: Stream) => {
        this.serve(stream);
      },
    };
    for (const name of ['Get', 'Put', 'Increment', 'Batch', 'Txn', 'ScanPage']) {
      kv[name] = (call: ServerUnaryCall<object, object>, done: sendUnaryData<object>) => {
        this.answerUnary(name, call.request, done);
      };
    }
    server.addService(serviceDefinition('KV'), kv);
    const admin: UntypedServiceImplementation = {};
    for (const name of ['GetTopology', 'Status', 'ChangeCluster', 'TransferLeader']) {
      admin[name] = (call: ServerUnaryCall<object, object>, done: sendUnaryData<object>) => {
        const asked = { method: name, request: call.request };
        this.unary.push(asked);
        // Whatever it is that was asked for, it is told the topology.
        if (this.onUnary(asked) !== 'silence') done(null, this.topology);
      };
    }
    server.addService(serviceDefinition('Admin'), admin);
    server.addService(serviceDefinition('Topology'), {
      Watch: (watcher: Watcher) => {
        this.watches.push(watcher.request);
        this.watchers.add(watcher);
        watcher.on('close', () => this.watchers.delete(watcher));
        watcher.on('cancelled', () => this.watchers.delete(watcher));
        this.onWatch(watcher);
      },
    });
    return server;
  }

  private serve(stream: Stream): void {
    this.streams += 1;
    this.openStreams += 1;
    stream.on('data', (request: BatchRequest) => {
      this.batches.push(request);
      this.onBatch(this.callOf(stream, request));
    });
    stream.on('end', () => {
      stream.end();
    });
    stream.on('close', () => (this.openStreams -= 1));
    stream.on('error', () => {
      // The client went away.
    });
  }

  private callOf(stream: Stream, request: BatchRequest): BatchCall {
    const { operations = [], id = 0 } = request;
    const reply = (results: OperationResultMessage[]): void => {
      stream.write({ id, header: this.header, results });
    };
    const apply = (): OperationResultMessage[] => operations.map((each) => this.store.run(each));
    return {
      request,
      number: this.batches.length - 1,
      apply,
      reply,
      answer: () => {
        reply(apply());
      },
      endStream: () => {
        stream.end();
      },
      breakStream: () => {
        stream.emit('error', { code: status.UNAVAILABLE, details: 'the test cut the stream' });
      },
    };
  }

  private get header(): ReplyHeader {
    return { mapVersion: this.version, logTimeMs: this.logTimeMs(), token: this.token };
  }

  private answerUnary(method: string, request: object, done: sendUnaryData<object>): void {
    const call = { method, request };
    this.unary.push(call);
    const answer = this.onUnary(call);
    if (answer === 'silence') return;
    const { header, owns, pageLengthMax: lengthMax } = this;
    const page = method === 'ScanPage' && this.store.page(request, { owns, lengthMax });
    const detail = answer ?? (page === undefined ? refusal('KV_WRONG_SHARD') : undefined);
    if (detail !== undefined) {
      done({ code: 9, details: detail.message, metadata: metadataOf(detail) });
      return;
    }
    if (page) {
      done(null, { header, ...page });
      return;
    }
    if (method === 'Batch') {
      const { operations = [] }: BatchRequest = request;
      done(null, { header, results: operations.map((each) => this.store.run(each)) });
      return;
    }
    const name = method.toLowerCase();
    const result = this.store.run({ [name]: request as GetRequest | PutRequest });
    done(null, { header, ...(result.get ?? result.put ?? result.increment) });
  }
}

export function refusal(code: string, more: Partial<ErrorDetail> = {}): ErrorDetail {
  return { code, outcome: OutcomeCode.NOT_APPLIED, message: `refused: ${code}`, ...more };
}

function metadataOf(detail: ErrorDetail): Metadata {
  const value = detailCodec.encode(detail);
  const metadata = new Metadata();
  const encoded = statusCodec.encode({
    code: 9,
    message: detail.message,
    details: [{ type_url: 'type.googleapis.com/quorate.v1.ErrorDetail', value }],
  });
  metadata.set('grpc-status-details-bin', Buffer.from(encoded));
  return metadata;
}

export function text(value: Uint8Array | undefined): string {
  return Buffer.from(value ?? []).toString('utf8');
}
