/**
 * One unary call, whatever carries it: collects its body, keeps its deadline, and gives exactly one
 * answer. gRPC over HTTP/2 is a POST whose body is one framed message, answered by headers, one framed
 * message and trailers with the status.
 */
import { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { Deadlines, Expiring } from './deadlines.js';
import {
  encodeGrpcMessage,
  framePrefixBytes,
  parseTimeoutMs,
  unframeMessage,
} from './grpc-frame.js';
import type { ApiLimits } from './limits.js';
import { statusTrailers, toKvError } from './status.js';
import { stepMigrationPath, type CallContext, type UnaryMethod } from './unary.js';

export const replyContentType = 'application/grpc+proto';

/** The error of a call whose deadline passed. */
export function deadlineError(mayHaveApplied: boolean): KvError {
  const outcome = mayHaveApplied ? 'unknown' : 'notApplied';
  const text = mayHaveApplied
    ? 'deadline passed while the request was under way: it may have been applied; ' +
      'retry with the same session, or read'
    : 'deadline passed before the request was carried out: nothing was applied';
  return new KvError(text, { code: 'KV_DEADLINE', outcome });
}

/** A timeout from a client as an absolute, bounded deadline. */
export function deadlineOf(timeoutMs: number | undefined, now: number, limits: ApiLimits): number {
  return now + Math.min(timeoutMs ?? limits.timeoutMsDefault, limits.timeoutMsMax);
}

export function tooLarge(what: string, size: number, limit: number): KvError {
  return new KvError(`${what} is ${size} bytes, the limit is ${limit}`, {
    code: 'KV_TOO_LARGE',
    outcome: 'notApplied',
    limit,
    size,
  });
}

/** The fields of a response that is an error and nothing else. */
export function refusalFields(error: KvError): Readonly<Record<string, string>> {
  const { code, message, details } = statusTrailers(error);
  return {
    'content-type': replyContentType,
    'grpc-status': String(code),
    'grpc-message': encodeGrpcMessage(message),
    'grpc-status-details-bin': Buffer.from(details).toString('base64'),
  };
}

/** What calls have in common. */
export interface CallTerms {
  readonly limits: ApiLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
}

/** Where the one answer of a call goes; called once at most, while there is somebody to answer. */
export interface Answers {
  reply(message: Uint8Array): void;
  refuse(error: KvError): void;
}

/** What the fields of a request say of the call. */
export interface CallHead {
  readonly path: string;
  /** The header grpc-timeout. */
  readonly timeout: string | undefined;
  readonly forwarded: boolean;
}

export class UnaryCall implements CallContext, Expiring {
  deadlineMs = 0;
  forwarded = false;
  ended = false;
  mayHaveApplied = false;
  private first: Buffer | undefined;
  private rest: Buffer[] | undefined;
  private bytes = 0;
  private bytesMax = 0;
  private readonly terms: CallTerms;
  private readonly method: UnaryMethod;
  private readonly answers: Answers;

  constructor(terms: CallTerms, method: UnaryMethod, answers: Answers) {
    this.terms = terms;
    this.method = method;
    this.answers = answers;
  }

  begin(head: CallHead): void {
    const { clock, limits, deadlines } = this.terms;
    this.bytesMax = head.path === stepMigrationPath ? limits.stepBytesMax : limits.requestBytesMax;
    this.forwarded = head.forwarded;
    try {
      this.deadlineMs = deadlineOf(parseTimeoutMs(head.timeout), clock.monotonicMs(), limits);
    } catch (error) {
      this.fail(toKvError(error));
      return;
    }
    deadlines.enter(this);
  }

  /** A piece of the body, which is kept until the call ends. */
  onData(chunk: Buffer): void {
    if (this.ended) return;
    this.bytes += chunk.byteLength;
    if (this.bytes > this.bytesMax + framePrefixBytes) {
      this.fail(tooLarge('request', this.bytes - framePrefixBytes, this.bytesMax));
      return;
    }
    if (this.first === undefined) this.first = chunk;
    else (this.rest ??= []).push(chunk);
  }

  /** The body is whole. */
  onEnd(): void {
    if (this.ended) return;
    const first = this.first ?? Buffer.alloc(0);
    const body = this.rest === undefined ? first : Buffer.concat([first, ...this.rest]);
    let request: Uint8Array;
    try {
      request = unframeMessage(body);
    } catch (error) {
      this.fail(toKvError(error));
      return;
    }
    if (this.deadlineMs <= this.terms.clock.monotonicMs()) {
      this.fail(deadlineError(false));
      return;
    }
    this.method(request, this, (error, reply) => {
      if (error !== undefined) this.fail(error);
      else if (reply !== undefined && this.leave()) this.answers.reply(reply);
    });
  }

  /** Called by the watch of the deadlines. */
  expire(): void {
    this.fail(deadlineError(this.mayHaveApplied));
  }

  fail(error: KvError): void {
    if (this.leave()) this.answers.refuse(error);
  }

  /** There is nobody left to answer. */
  abandon(): void {
    this.leave();
  }

  /** Ends the call once; false when it has ended already. */
  private leave(): boolean {
    if (this.ended) return false;
    this.ended = true;
    this.terms.deadlines.leave(this);
    return true;
  }
}
