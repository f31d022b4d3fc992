/**
 * Scan: pages of keys in order, each page one consistent view, read at the level the client asked
 * for. The stream goes only as fast as its client reads.
 */
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
import { deadlineError } from './unary-door.js';
import type { CallContext } from './unary.js';

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

  /** Sends pages until the keys, the limit or the client's patience end. Rejects with KvError. */
  async scan(request: ScanRequest, sink: ReplySink<ScanReply>): Promise<void> {
    let page = this.firstPage(request);
    let left = request.limit ?? 0;
    while (!sink.ended) {
      const lengthMax = left === 0 ? pageLengthMax : Math.min(left, pageLengthMax);
      const { kvs, cursor, done, logTimeMs } = await this.read({ ...page, lengthMax });
      const limited = left > 0 && kvs.length >= left;
      left = Math.max(0, left - kvs.length);
      const header = { mapVersion: this.options.dispatch.mapVersion(), logTimeMs };
      await sink.send({ header, kvs: [...kvs], cursor, done: done || limited });
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
    return {
      prefix: request.prefix ?? new Uint8Array(),
      slot: slotOfRequest(request.slot),
      cursor,
      afterKey,
      bytesMax: Math.min(pageBytes, pageBytesMax),
      keysOnly: request.keysOnly ?? false,
      level: levelOf(request.level, request.maxStalenessMs),
    };
  }

  private read(page: ScanPageRequest): Promise<ScanPage> {
    const { clock, limits, deadlines, dispatch } = this.options;
    return new Promise((resolve, reject) => {
      const call = new PageCall(clock.monotonicMs() + limits.timeoutMsDefault, reject);
      deadlines.enter(call);
      dispatch.scan(page, call, (error, result) => {
        if (call.ended) return;
        call.ended = true;
        deadlines.leave(call);
        if (result === undefined) reject(error ?? invalid('no page'));
        else resolve(result);
      });
    });
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
