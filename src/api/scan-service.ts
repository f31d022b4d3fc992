/**
 * Scan: pages of keys in order, each page one consistent view, read at the level the client asked
 * for. The stream goes only as fast as its client reads.
 */
import { codecOf } from '../../proto/definitions.js';
import type { ScanReply, ScanRequest } from '../../proto/messages.js';
import type { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import { slot, slotCount, type Slot } from '../router/slot.js';
import { checkKey, invalid } from './convert.js';
import type { Deadlines, Expiring } from './deadlines.js';
import type { Dispatch, ScanPage, ScanPageRequest } from './dispatch.js';
import type { ReplySink } from './grpc-server.js';
import type { ApiLimits } from './limits.js';
import { levelOf } from './read-level.js';
import { positionsOf, tokenFor, within } from './session-token.js';
import { toKvError } from './status.js';
import { deadlineError } from './unary-call.js';
import type { CallContext, UnaryMethod } from './unary.js';

export const scanPagePath = '/quorate.v1.KV/ScanPage';

const requestCodec = codecOf<ScanRequest>('quorate.v1.ScanRequest');
const replyCodec = codecOf<ScanReply>('quorate.v1.ScanReply');

const pageBytesDefault = 256 * 1024;
const pageBytesMax = 1024 * 1024;
const pageLengthMax = 10_000;

export interface ScanServiceOptions {
  readonly dispatch: Dispatch;
  readonly limits: ApiLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
}

export class ScanService {
  private readonly options: ScanServiceOptions;

  constructor(options: ScanServiceOptions) {
    this.options = options;
  }

  /** One page as a unary call: what clients ask, and a node of another that has the shard. */
  readonly unaryPage: UnaryMethod = (bytes, call, done) => {
    try {
      const request = decoded(bytes);
      const lengthMax = Math.min(request.limit || pageLengthMax, pageLengthMax);
      this.page({ ...this.firstPage(request), lengthMax }, request, call, (error, page) => {
        if (page === undefined) done(error, undefined);
        else done(undefined, replyCodec.encode(this.replyOf(page, request)));
      });
    } catch (error) {
      done(toKvError(error), undefined);
    }
  };

  private replyOf(page: ScanPage, { header: asked }: ScanRequest): ScanReply {
    const { kvs, cursor, done, positions, logTimeMs } = page;
    const { dispatch } = this.options;
    const token = tokenFor(asked, dispatch.clusterId, () => positions);
    const header = { mapVersion: dispatch.mapVersion(), logTimeMs, ...token };
    const next = cursor.byteLength === 0 ? {} : { nextSlot: this.slotBehind(cursor) };
    return { header, kvs: [...kvs], cursor, done, ...next };
  }

  /** Whom to ask next: a pin's shard, if the keys that follow are pinned. */
  private slotBehind(cursor: Uint8Array): Slot {
    return this.options.dispatch.slotBehind({ cursor, slot: undefined, afterKey: undefined });
  }

  /** Sends pages until the keys, the limit or the client's patience end. Rejects with KvError. */
  async scan(request: ScanRequest, sink: ReplySink<ScanReply>): Promise<void> {
    let page = this.firstPage(request);
    let left = request.limit ?? 0;
    while (!sink.ended) {
      const lengthMax = left === 0 ? pageLengthMax : Math.min(left, pageLengthMax);
      const found = await this.read({ ...page, lengthMax }, request);
      const { kvs, cursor, done } = found;
      const limited = left > 0 && kvs.length >= left;
      left = Math.max(0, left - kvs.length);
      await sink.send(this.replyOf({ ...found, done: done || limited }, request));
      if (done || limited) return;
      page = { ...page, cursor, afterKey: undefined };
    }
  }

  private firstPage(request: ScanRequest): Omit<ScanPageRequest, 'lengthMax'> {
    const cursor = request.cursor?.byteLength === 0 ? undefined : request.cursor;
    const afterKey = request.afterKey?.byteLength === 0 ? undefined : request.afterKey;
    if (cursor !== undefined && afterKey !== undefined) {
      throw invalid('cursor and after_key exclude each other: send one of them');
    }
    if (afterKey !== undefined) checkKey(afterKey, this.options.limits);
    if ((request.prefix?.byteLength ?? 0) > this.options.limits.keyBytesMax) {
      throw invalid(
        `prefix is longer than a key can be (${this.options.limits.keyBytesMax} bytes)`,
      );
    }
    const pageBytes =
      request.pageBytes === undefined || request.pageBytes === 0
        ? pageBytesDefault
        : request.pageBytes;
    const slot = slotOfRequest(request.slot);
    const positions = positionsOf(request.header, this.options.dispatch.clusterId);
    return {
      prefix: request.prefix ?? new Uint8Array(),
      slot,
      cursor,
      afterKey,
      bytesMax: Math.min(pageBytes, pageBytesMax),
      keysOnly: request.keysOnly ?? false,
      level: levelOf(request, slot === undefined ? positions : within(positions, slot)),
    };
  }

  private read(page: ScanPageRequest, request: ScanRequest): Promise<ScanPage> {
    const { clock, limits, deadlines } = this.options;
    return new Promise((resolve, reject) => {
      const call = new PageCall(clock.monotonicMs() + limits.timeoutMsDefault, reject);
      deadlines.enter(call);
      this.page(page, request, call, (error, result) => {
        if (call.ended) return;
        call.ended = true;
        deadlines.leave(call);
        if (result === undefined) reject(error ?? invalid('no page'));
        else resolve(result);
      });
    });
  }

  private page(
    page: ScanPageRequest,
    { header, level, maxStalenessMs }: ScanRequest,
    call: CallContext,
    done: (error: KvError | undefined, page: ScanPage | undefined) => void,
  ): void {
    const { slot, cursor, afterKey, prefix, keysOnly } = page;
    this.options.dispatch.onMapVersion(header?.mapVersion);
    const redirect = header?.redirect === true;
    const request = (): Uint8Array =>
      requestCodec.encode({
        header,
        prefix,
        keysOnly,
        limit: page.lengthMax,
        pageBytes: page.bytesMax,
        ...(slot === undefined ? {} : { slot }),
        ...(cursor === undefined ? {} : { cursor }),
        ...(afterKey === undefined ? {} : { afterKey }),
        ...(level === undefined ? {} : { level }),
        ...(maxStalenessMs === undefined ? {} : { maxStalenessMs }),
      });
    this.options.dispatch.scan(
      { page, call, redirect, path: scanPagePath, request },
      (error, result, forwarded) => {
        if (forwarded === undefined) done(error, result);
        else done(undefined, this.pageOf(replyCodec.decode(forwarded)));
      },
    );
  }

  /** A page that another node has read. */
  private pageOf({ header, kvs, cursor, done }: ScanReply): ScanPage {
    return {
      kvs: kvs ?? [],
      cursor: cursor ?? new Uint8Array(),
      done: done ?? false,
      positions: [...positionsOf(header, this.options.dispatch.clusterId).values()],
      logTimeMs: header?.logTimeMs ?? 0,
    };
  }
}

function decoded(bytes: Uint8Array): ScanRequest {
  try {
    return requestCodec.decode(bytes);
  } catch (error) {
    throw invalid(`malformed protobuf: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function slotOfRequest(value: number | null | undefined): Slot | undefined {
  if (value === null || value === undefined) return undefined;
  if (value < slotCount) return slot(value);
  throw invalid(`slot must be an integer from 0 to ${slotCount - 1}, got ${value}`);
}

/** The wait for one page, with a deadline of its own. */
class PageCall implements CallContext, Expiring {
  readonly forwarded = false;
  mayHaveApplied = false;
  ended = false;
  readonly deadlineMs: number;
  private readonly reject: (error: KvError) => void;

  constructor(deadlineMs: number, reject: (error: KvError) => void) {
    this.deadlineMs = deadlineMs;
    this.reject = reject;
  }

  expire(): void {
    this.ended = true;
    this.reject(deadlineError(false));
  }
}
