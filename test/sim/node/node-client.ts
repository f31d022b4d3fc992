/**
 * A client of simulated nodes: routes, attempts and sessions are the SDK's, its connections are not.
 * Every request goes through the bytes of its message.
 */
import { method, type Method } from '../../../src/client/wire.js';
import {
  ReadLevel,
  type DeleteReply,
  type DeleteRequest,
  type GetReply,
  type GetRequest,
  type GetTopologyRequest,
  type IncrementReply,
  type IncrementRequest,
  type PutReply,
  type PutRequest,
  type ReplyHeader,
  type ScanReply,
  type ScanRequest,
  type TopologyReply,
} from '../../../proto/messages.js';
import { Attempts, attemptMsMax } from '../../../src/client/attempts.js';
import { Routes } from '../../../src/client/routes.js';
import { SessionBook } from '../../../src/client/session-book.js';
import { KvError } from '../../../src/errors.js';
import { slotOf, type Slot } from '../../../src/router/slot.js';
import type { SimRandom } from '../random.js';
import { Life } from './life.js';
import type { ClientRecord, Operation } from './record.js';
import { addressOf } from './sim-node.js';
import type { NodeWorld } from './sim-node.js';

const get = method<GetRequest, GetReply>('KV/Get', 'GetRequest', 'GetReply');
const put = method<PutRequest, PutReply>('KV/Put', 'PutRequest', 'PutReply');
const del = method<DeleteRequest, DeleteReply>('KV/Delete', 'DeleteRequest', 'DeleteReply');
const increment = method<IncrementRequest, IncrementReply>(
  'KV/Increment',
  'IncrementRequest',
  'IncrementReply',
);
const scanPage = method<ScanRequest, ScanReply>('KV/ScanPage', 'ScanRequest', 'ScanReply');
const getTopology = method<GetTopologyRequest, TopologyReply>(
  'Admin/GetTopology',
  'GetTopologyRequest',
  'TopologyReply',
);

const firstPlace = 1000;
const timeoutMs = 4000;
/** Of the reads behind the end of a run: everything is well then. */
const patientMs = 20_000;

export class NodeClient {
  readonly place: number;
  readonly life: Life;
  isBusy = false;
  private readonly world: NodeWorld;
  private readonly record: ClientRecord;
  private readonly random: SimRandom;
  private readonly routes: Routes;
  private readonly book: SessionBook;
  private readonly followsMap: boolean;
  private written = 0;

  constructor(world: NodeWorld, number: number, record: ClientRecord, random: SimRandom) {
    this.world = world;
    this.place = firstPlace + number;
    this.record = record;
    this.random = random;
    const { timeline, plan } = world;
    const nowMs = (): number => timeline.now;
    this.life = new Life(timeline, { offsetMs: 0, rate: 1 });
    const seeds = Array.from({ length: plan.nodes }, (_, n) => addressOf(n + 1));
    this.routes = new Routes(random.shuffled(seeds), nowMs);
    this.book = new SessionBook(Buffer.alloc(16, this.place), nowMs);
    this.followsMap = random.chance(0.7);
    this.routes.onBehind = (endpoint) => {
      if (this.followsMap) void this.learnMap(endpoint);
    };
  }

  /** One operation after the other, as long as the storm lasts. */
  async work(): Promise<void> {
    this.isBusy = true;
    while (this.world.isStormy) {
      await this.pause(this.random.tailed(0, this.world.plan.thinkMaxMs * 2));
      await this.operate(this.random.pick(this.world.plan.tags) ?? 'a', timeoutMs);
    }
    this.isBusy = false;
  }

  /** A write and a read of each key of a tag; throws what fails. */
  async conclude(tag: string): Promise<void> {
    await this.put(`{${tag}}reg`, undefined, patientMs, true);
    await this.increment(`{${tag}}ctr`, patientMs, true);
    for (const name of ['reg', 'del', 'list', 'ctr', 'ttl'])
      await this.read(`{${tag}}${name}`, patientMs, true);
    await this.scan(tag, patientMs, true);
  }

  private async operate(tag: string, withinMs: number): Promise<void> {
    const { random } = this;
    if (random.chance(this.world.plan.readShare)) {
      const name = random.pick(['reg', 'del', 'list', 'ctr', 'ttl']) ?? 'reg';
      if (random.chance(0.1)) await this.scan(tag, withinMs);
      else await this.read(`{${tag}}${name}`, withinMs);
      return;
    }
    switch (random.integer(0, 6)) {
      case 0:
      case 1:
        return this.increment(`{${tag}}ctr`, withinMs);
      case 2:
        return this.append(`{${tag}}list`, withinMs);
      case 3:
        return this.delete(`{${tag}}del`, withinMs);
      case 4:
        return this.put(`{${tag}}del`, undefined, withinMs);
      case 5:
        return this.put(`{${tag}}ttl`, { ttlMs: random.integer(100, 3000) }, withinMs);
      default:
        return this.put(`{${tag}}reg`, undefined, withinMs);
    }
  }

  private async put(
    key: string,
    options: Partial<PutRequest> | undefined,
    withinMs: number,
    mustWork = false,
  ): Promise<void> {
    const value = `${this.place}-${this.written++}`.padEnd(this.world.plan.valueBytes, '.');
    const request = { key: Buffer.from(key), value: Buffer.from(value), ...options };
    const operation = this.record.begin(this.place, key, 'put', { value });
    await this.write(put, request, operation, { withinMs, mustWork });
  }

  private async delete(key: string, withinMs: number): Promise<void> {
    const operation = this.record.begin(this.place, key, 'delete');
    await this.write(del, { key: Buffer.from(key) }, operation, { withinMs, mustWork: false });
  }

  private async increment(key: string, withinMs: number, mustWork = false): Promise<void> {
    const operation = this.record.begin(this.place, key, 'increment');
    const request = { key: Buffer.from(key), delta: 1 };
    const reply = await this.write(increment, request, operation, { withinMs, mustWork });
    if (reply !== undefined) operation.value = String(reply.value);
  }

  /** Read, and write what was read with one element more unless somebody was faster. */
  private async append(key: string, withinMs: number): Promise<void> {
    const found = await this.read(key, withinMs);
    if (found === undefined) return;
    const element = `${this.place}-${this.written++}`;
    const { value: before, revision } = found;
    const condition = before === undefined ? { ifAbsent: true } : { ifRevision: revision };
    const value = before === undefined ? element : `${before},${element}`;
    const request = { key: Buffer.from(key), value: Buffer.from(value), ...condition };
    const asked = { value, expected: before ?? null };
    const operation = this.record.begin(this.place, key, 'put', asked);
    await this.write(put, request, operation, { withinMs, mustWork: false });
  }

  private async read(
    key: string,
    withinMs: number,
    mustWork = false,
  ): Promise<Operation | undefined> {
    const operation = this.record.begin(this.place, key, 'read');
    const level = this.world.plan.leases ? ReadLevel.LEASE : ReadLevel.LINEARIZABLE;
    const request = { key: Buffer.from(key), level };
    try {
      const { found, kv } = await this.call(get, request, slotOf(request.key), true, withinMs);
      operation.value = found ? Buffer.from(kv?.value ?? '').toString() : undefined;
      this.record.end(operation, 'ok', found ? (kv?.revision ?? 0) : 0);
      this.world.coverage.count('read ok');
      this.note(operation);
      return operation;
    } catch (error) {
      this.record.end(operation, 'fail');
      this.world.coverage.count('read failed');
      this.rethrow(error, mustWork);
      return undefined;
    }
  }

  /** One page with all of a slot: as good as a read of each key. */
  private async scan(tag: string, withinMs: number, mustWork = false): Promise<void> {
    const keys = ['reg', 'del', 'list', 'ctr'].map((name) => `{${tag}}${name}`);
    const reads = keys.map((key) => this.record.begin(this.place, key, 'read'));
    const slot = slotOf(Buffer.from(`{${tag}}`));
    try {
      const request = { slot, limit: 100, pageBytes: 1024 * 1024 };
      const { kvs = [] } = await this.call(scanPage, request, slot, true, withinMs);
      const found = new Map(kvs.map((kv) => [Buffer.from(kv.key).toString(), kv]));
      for (const read of reads) {
        const kv = found.get(read.key);
        read.value = kv === undefined ? undefined : Buffer.from(kv.value).toString();
        this.record.end(read, 'ok', kv?.revision ?? 0);
      }
      this.world.coverage.count('scan ok');
    } catch (error) {
      for (const read of reads) this.record.end(read, 'fail');
      this.world.coverage.count('read failed');
      this.rethrow(error, mustWork);
    }
  }

  /** Undefined: it failed, or its condition was not met. */
  private async write<
    Q extends { key: Uint8Array; session?: PutRequest['session'] },
    R extends {
      header?: ReplyHeader | null | undefined;
      revision: number;
      applied?: boolean;
      existed?: boolean;
    },
  >(
    called: Method<Q, R>,
    request: Q,
    operation: Operation,
    { withinMs, mustWork }: { readonly withinMs: number; readonly mustWork: boolean },
  ): Promise<R | undefined> {
    const slot = slotOf(request.key);
    const { coverage, timeline } = this.world;
    const untilMs = timeline.now + withinMs;
    let session: ReturnType<SessionBook['begin']> | undefined;
    try {
      await this.timeKnown(request.key, untilMs);
      session = this.book.begin();
      const left = untilMs - timeline.now;
      const reply = await this.call(called, { ...request, session }, slot, false, left);
      this.book.learn(reply.header?.logTimeMs);
      const isDone = reply.applied !== false && reply.existed !== false;
      coverage.count(isDone ? 'write ok' : 'condition not met');
      this.record.end(operation, isDone ? 'ok' : 'refused', isDone ? reply.revision : 0);
      this.note(operation);
      return isDone ? reply : undefined;
    } catch (error) {
      const isUnknown = !(error instanceof KvError) || error.outcome === 'unknown';
      coverage.count(isUnknown ? 'write unknown' : 'write not applied');
      this.record.end(operation, isUnknown ? 'unknown' : 'fail');
      this.rethrow(error, mustWork);
      return undefined;
    } finally {
      if (session !== undefined) this.book.end(session);
    }
  }

  /** The end of a session's life is said in the server's time. */
  private async timeKnown(key: Uint8Array, untilMs: number): Promise<void> {
    while (!this.book.knowsLogTime) {
      const left = untilMs - this.world.timeline.now;
      const request: GetRequest = { key };
      const { header } = await this.call(get, request, slotOf(key), true, left, {
        wantLogTime: true,
      });
      this.book.learn(header?.logTimeMs);
    }
  }

  private rethrow(error: unknown, mustWork: boolean): void {
    if (mustWork || !(error instanceof KvError)) throw error;
  }

  private note({ revision, ending }: Operation): void {
    this.world.trace.mix(revision);
    this.world.trace.mix(ending.length + this.place);
  }

  /** As the SDK's `RetriedCalls`. */
  private async call<Q extends object, R extends object>(
    { path, encode, decode }: Method<Q, R>,
    request: Q,
    slot: Slot,
    isRead: boolean,
    withinMs: number,
    own: { readonly wantLogTime?: boolean } = {},
  ): Promise<R> {
    const { timeline, coverage } = this.world;
    const attempts = new Attempts(isRead, () => timeline.now);
    const deadline = timeline.now + withinMs;
    for (let attempt = 0; ; attempt++) {
      if (attempt > 0 && !isRead) coverage.count('write tried again');
      const { routes } = this;
      const endpoint = routes.endpointOf(slot);
      const header = { mapVersion: routes.mapVersion, redirect: attempts.redirect, ...own };
      const left = Math.min(deadline - timeline.now, attemptMsMax);
      try {
        const bytes = encode({ ...request, header });
        const reply = decode(Buffer.from(await this.attempt(endpoint, path, bytes, left)));
        const { header: answered }: { header?: ReplyHeader | null | undefined } = reply;
        routes.reached(endpoint, answered?.mapVersion);
        return reply;
      } catch (reason) {
        if (!(reason instanceof KvError)) throw reason;
        const waitMs = attempts.next(endpoint, reason, deadline);
        routes.onFailure(slot, endpoint, reason);
        if (waitMs === undefined) throw attempts.conclude(reason);
        if (waitMs > 0) await this.pause(waitMs);
      }
    }
  }

  private attempt(
    address: string,
    path: string,
    request: Uint8Array,
    timeoutMs: number,
  ): Promise<Uint8Array> {
    const { place, life } = this;
    return new Promise((resolve, reject) => {
      const cancel = life.after(timeoutMs, () => {
        const text = `${address}: no answer within the deadline`;
        reject(new KvError(text, { code: 'KV_DEADLINE', outcome: 'unknown' }));
      });
      const call = { place, life, address, path, request, timeoutMs, forwarded: false };
      this.world.calls.call(call, (error, reply) => {
        cancel();
        if (error !== undefined) reject(error);
        else resolve(reply ?? new Uint8Array());
      });
    });
  }

  private async learnMap(endpoint: string): Promise<void> {
    try {
      const bytes = getTopology.encode({});
      const reply = await this.attempt(endpoint, getTopology.path, bytes, attemptMsMax);
      const topology = getTopology.decode(Buffer.from(reply));
      if (topology.version > 0) this.routes.useTopology(topology);
    } catch (error) {
      // It will be named again.
      if (!(error instanceof KvError)) this.world.fail(error);
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.life.after(ms, resolve);
    });
  }
}
