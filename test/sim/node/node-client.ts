/** A client of simulated nodes: what it does to a few keys of each slot in use. */
import {
  ReadLevel,
  type KeyValueMessage,
  type PutRequest,
  type ReplyHeader,
  type ScanRequest,
} from '../../../proto/messages.js';
import { SessionBook } from '../../../src/client/session-book.js';
import { KvError } from '../../../src/errors.js';
import { anySlot, slotOf, type Slot } from '../../../src/router/slot.js';
import type { SimRandom } from '../random.js';
import {
  ClientCalls,
  del,
  get,
  increment,
  put,
  scanPage,
  type KeyMethod,
  type Together,
} from './client-calls.js';
import { HistoryBroken, type ClientRecord, type Operation } from './record.js';
import type { NodeWorld } from './sim-node.js';

const firstPlace = 1000;
const names = ['reg', 'del', 'list', 'ctr', 'ttl'] as const;

interface Bounds {
  readonly withinMs: number;
  readonly mustWork?: boolean;
  readonly together?: Together;
}

const usual: Bounds = { withinMs: 4000 };
/** Behind the end of a run: everything is well then. */
const patient: Bounds = { withinMs: 20_000, mustWork: true };

export class NodeClient {
  readonly place: number;
  private readonly world: NodeWorld;
  private readonly record: ClientRecord;
  private readonly random: SimRandom;
  private readonly calls: ClientCalls;
  private book: SessionBook;
  private begun = 0;
  private written = 0;

  constructor(world: NodeWorld, number: number, record: ClientRecord, random: SimRandom) {
    this.world = world;
    this.place = firstPlace + number;
    this.record = record;
    this.random = random;
    this.calls = new ClientCalls(world, this.place, random);
    this.book = this.newSessions();
  }

  /** As a new client would. */
  private newSessions(): SessionBook {
    const clientId = Buffer.alloc(16, this.place);
    clientId.writeUInt32BE(this.begun++);
    return new SessionBook(clientId, () => this.world.timeline.now);
  }

  /** One operation after the other, as long as the storm lasts. */
  async work(): Promise<void> {
    const { plan } = this.world;
    while (this.world.isStormy) {
      await this.calls.pause(this.random.tailed(0, plan.thinkMaxMs * 2));
      if (this.random.chance(plan.batchShare)) await this.operateTogether();
      else await this.operate(this.random.pick(plan.tags) ?? 'a');
    }
  }

  /** A write and a read of each key of a tag; throws what fails. */
  async conclude(tag: string): Promise<void> {
    // Clocks may be so far apart that one shard refuses sessions by the time of another.
    this.book = this.newSessions();
    await this.put(`{${tag}}reg`, {}, patient);
    this.book = this.newSessions();
    await this.increment(`{${tag}}ctr`, patient);
    for (const name of names) await this.read(`{${tag}}${name}`, patient);
    await this.scan(tag, patient);
  }

  private async operate(tag: string): Promise<void> {
    const { random } = this;
    const isRead = random.chance(this.world.plan.readShare);
    const name = isRead ? (random.pick(names) ?? 'reg') : '';
    if (isRead && random.chance(0.1)) return this.scan(tag, usual);
    if (isRead) {
      await this.read(`{${tag}}${name}`, usual);
      return;
    }
    const which = random.integer(0, 6);
    if (which === 2) return this.append(`{${tag}}list`);
    return this.writeOne(tag, which, usual);
  }

  /** Operations over several slots that leave in one batch. */
  private async operateTogether(): Promise<void> {
    const { random, world } = this;
    const tags = Array.from(
      { length: random.integer(2, 6) },
      () => random.pick(world.plan.tags) ?? 'a',
    );
    const first = Buffer.from(`{${tags[0] ?? 'a'}}`);
    // All of them must come to be sent together.
    if (!this.book.knowsLogTime) return this.operate(tags[0] ?? 'a');
    const bounds = { ...usual, together: this.calls.batch(tags.length, first) };
    world.coverage.count('batch');
    await Promise.all(
      tags.map((tag) =>
        random.chance(world.plan.readShare)
          ? this.read(`{${tag}}${random.pick(names) ?? 'reg'}`, bounds)
          : this.writeOne(tag, random.pick([0, 3, 4, 5, 6]) ?? 0, bounds),
      ),
    );
  }

  private writeOne(tag: string, which: number, bounds: Bounds): Promise<void> {
    switch (which) {
      case 0:
      case 1:
        return this.increment(`{${tag}}ctr`, bounds);
      case 3:
        return this.delete(`{${tag}}del`, bounds);
      case 4:
        return this.put(`{${tag}}del`, {}, bounds);
      case 5:
        return this.put(`{${tag}}ttl`, { ttlMs: this.random.integer(100, 3000) }, bounds);
      default:
        return this.put(`{${tag}}reg`, {}, bounds);
    }
  }

  private async put(key: string, options: Partial<PutRequest>, bounds: Bounds): Promise<void> {
    const value = `${this.place}-${this.written++}`.padEnd(this.world.plan.valueBytes, '.');
    const request = { key: Buffer.from(key), value: Buffer.from(value), ...options };
    await this.write(put, request, this.record.begin(this.place, key, 'put', { value }), bounds);
  }

  private async delete(key: string, bounds: Bounds): Promise<void> {
    const operation = this.record.begin(this.place, key, 'delete');
    await this.write(del, { key: Buffer.from(key) }, operation, bounds);
  }

  private async increment(key: string, bounds: Bounds): Promise<void> {
    const operation = this.record.begin(this.place, key, 'increment');
    const reply = await this.write(
      increment,
      { key: Buffer.from(key), delta: 1 },
      operation,
      bounds,
    );
    if (reply !== undefined) operation.value = String(reply.value);
  }

  /** Read, and write what was read with one element more unless somebody was faster. */
  private async append(key: string): Promise<void> {
    const found = await this.read(key, usual);
    if (found === undefined) return;
    const element = `${this.place}-${this.written++}`;
    const { value: before, revision } = found;
    const condition = before === undefined ? { ifAbsent: true } : { ifRevision: revision };
    const value = before === undefined ? element : `${before},${element}`;
    const request = { key: Buffer.from(key), value: Buffer.from(value), ...condition };
    const asked = { value, expected: before ?? null };
    await this.write(put, request, this.record.begin(this.place, key, 'put', asked), usual);
  }

  private async read(key: string, bounds: Bounds): Promise<Operation | undefined> {
    const operation = this.record.begin(this.place, key, 'read');
    const level = this.world.plan.leases ? ReadLevel.LEASE : ReadLevel.LINEARIZABLE;
    const request = { key: Buffer.from(key), level };
    try {
      const { found, kv } = await this.call(get, request, true, bounds);
      operation.value = found ? Buffer.from(kv?.value ?? '').toString() : undefined;
      this.record.end(operation, 'ok', found ? (kv?.revision ?? 0) : 0);
      this.world.coverage.count('read ok');
      this.note(operation);
      return operation;
    } catch (error) {
      this.readFailed([operation], error, bounds);
      return undefined;
    }
  }

  /** All of a slot: as good as a read of each key at some moment, whatever is pinned meanwhile. */
  private async scan(tag: string, bounds: Bounds): Promise<void> {
    const keys = ['reg', 'del', 'list', 'ctr'].map((name) => `{${tag}}${name}`);
    const reads = keys.map((key) => this.record.begin(this.place, key, 'read'));
    try {
      const found = new Map<string, KeyValueMessage>();
      for (const kv of await this.scanned(slotOf(Buffer.from(`{${tag}}`)), bounds)) {
        const key = Buffer.from(kv.key).toString();
        if (found.has(key)) throw new HistoryBroken(`${key}: it is in a scan twice`);
        found.set(key, kv);
      }
      for (const read of reads) {
        const kv = found.get(read.key);
        read.value = kv === undefined ? undefined : Buffer.from(kv.value).toString();
        this.record.end(read, 'ok', kv?.revision ?? 0);
      }
      this.world.coverage.count('scan ok');
    } catch (error) {
      this.readFailed(reads, error, bounds);
    }
  }

  /** As the SDK's `scanPages`: a page ends where the keys of a pin begin or end. */
  private async scanned(slot: Slot, { withinMs }: Bounds): Promise<readonly KeyValueMessage[]> {
    const { timeline, coverage } = this.world;
    const untilMs = timeline.now + withinMs;
    const found: KeyValueMessage[] = [];
    let request: ScanRequest = { slot, limit: 100, pageBytes: 1024 * 1024 };
    let place = slot;
    for (;;) {
      const bounds = { slot: place, isRead: true, withinMs: untilMs - timeline.now };
      const page = await this.calls.call(scanPage, request, bounds);
      found.push(...(page.kvs ?? []));
      if (page.done === true) return found;
      coverage.count('scan over several pages');
      request = { ...request, cursor: page.cursor ?? new Uint8Array() };
      place = anySlot(page.nextSlot ?? slot);
    }
  }

  private readFailed(reads: readonly Operation[], error: unknown, bounds: Bounds): void {
    for (const read of reads) this.record.end(read, 'fail');
    this.world.coverage.count('read failed');
    rethrow(error, bounds);
  }

  /** Undefined: it failed, or its condition was not met. */
  private async write<Q extends WriteRequest, R extends WriteReply>(
    called: KeyMethod<Q, R>,
    request: Q,
    operation: Operation,
    bounds: Bounds,
  ): Promise<R | undefined> {
    const { coverage, timeline } = this.world;
    const untilMs = timeline.now + bounds.withinMs;
    let session: ReturnType<SessionBook['begin']> | undefined;
    try {
      while (!this.book.knowsLogTime) await this.askTime(request.key, untilMs - timeline.now);
      session = this.book.begin();
      const withinMs = untilMs - timeline.now;
      const sent = { ...request, session };
      const reply = await this.call(called, sent, false, { ...bounds, withinMs });
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
      rethrow(error, bounds);
      return undefined;
    } finally {
      if (session !== undefined) this.book.end(session);
    }
  }

  /** The end of a session's life is said in the server's time. */
  private async askTime(key: Uint8Array, withinMs: number): Promise<void> {
    const options = { key, isRead: true, withinMs, wantLogTime: true };
    const { header } = await this.calls.call(get, { key }, options);
    this.book.learn(header?.logTimeMs);
  }

  private call<Q extends { readonly key: Uint8Array }, R extends object>(
    called: KeyMethod<Q, R>,
    request: Q,
    isRead: boolean,
    { withinMs, together }: Bounds,
  ): Promise<R> {
    const options = { key: request.key, isRead, withinMs };
    return together === undefined
      ? this.calls.call(called, request, options)
      : this.calls.callTogether(called, request, { ...options, together });
  }

  private note({ revision, ending }: Operation): void {
    this.world.trace.mix(revision);
    this.world.trace.mix(ending.length + this.place);
  }
}

interface WriteRequest {
  readonly key: Uint8Array;
  readonly session?: PutRequest['session'];
}

interface WriteReply {
  readonly header?: ReplyHeader | null | undefined;
  readonly revision: number;
  readonly applied?: boolean;
  readonly existed?: boolean;
}

/** What is no answer of a cluster, or must not happen. */
function rethrow(error: unknown, { mustWork = false }: Bounds): void {
  if (mustWork || !(error instanceof KvError)) throw error;
}
