/**
 * Passes a unary call on to the node that leads: the request's bytes as they came, one hop (rule
 * D41), with the time that is left. One HTTP/2 connection to each node.
 *
 * It never sends twice: when the connection breaks after the bytes may have left, a write's outcome
 * is unknown (rule D04).
 */
import {
  connect,
  constants,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
} from 'node:http2';
import { codecOf } from '../../proto/definitions.js';
import { OutcomeCode, type ErrorDetail } from '../../proto/messages.js';
import { KvError, type ErrorCode } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import { formatTimeout, frameMessage, unframeMessage } from './grpc-frame.js';
import { forwardedHeader, type CallContext, type UnaryDone } from './unary.js';

interface StatusDetails {
  details?: { type_url: string; value: Uint8Array }[];
}

const statusCodec = codecOf<StatusDetails>('google.rpc.Status');
const detailCodec = codecOf<ErrorDetail>('quorate.v1.ErrorDetail');
const deadlineStatus = 4;

/** One connection, and whether it ever came up: before that nothing can have left. */
interface Link {
  readonly session: ClientHttp2Session;
  connected: boolean;
}

export interface ForwardRequest {
  /** host:port of the leader's client address. */
  readonly address: string;
  /** "/quorate.v1.KV/Put". */
  readonly path: string;
  readonly request: Uint8Array;
  readonly call: CallContext;
  /** This node asks for itself: whoever is asked may pass it on once. */
  readonly asOrigin?: boolean;
}

/** Calls from this node to the client ports of others. */
export interface NodeCalls {
  /** Calls `done` exactly once, with the reply's bytes or the other's error, or a KvError of ours. */
  forward(request: ForwardRequest, done: UnaryDone): void;
  /** Calls of others that were passed on, since the start. */
  readonly forwarded: number;
  close(): void;
}

export class Forwarder implements NodeCalls {
  private readonly links = new Map<string, Link>();
  private readonly clock: Clock;
  forwarded = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  forward(
    { address, path, request, call, asOrigin = false }: ForwardRequest,
    done: UnaryDone,
  ): void {
    const link = this.linkTo(address);
    if (!asOrigin) this.forwarded++;
    const remainingMs = call.deadlineMs - this.clock.monotonicMs();
    const stream = link.session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc+proto',
      te: 'trailers',
      'grpc-timeout': formatTimeout(remainingMs),
      ...(asOrigin ? {} : { [forwardedHeader]: '1' }),
    });
    // Also when the connection is only being made: it may come up any moment, and a deadline that
    // passes then must not promise that nothing happened.
    call.mayHaveApplied = true;
    new ForwardedCall(
      stream,
      () => link.connected,
      address,
      (error, reply) => {
        if (error?.outcome === 'notApplied') call.mayHaveApplied = false;
        done(error, reply);
      },
    );
    stream.end(frameMessage(request));
  }

  close(): void {
    for (const { session } of this.links.values()) session.destroy();
    this.links.clear();
  }

  private linkTo(address: string): Link {
    const known = this.links.get(address);
    if (known !== undefined && !known.session.destroyed && !known.session.closed) return known;
    const session = connect(`http://${address}`, {
      settings: { initialWindowSize: 1024 * 1024 },
      maxSessionMemory: 128,
    });
    const link: Link = { session, connected: false };
    session.on('connect', () => {
      link.connected = true;
    });
    session.on('error', () => {
      // Its streams fail by themselves and say so to their callers.
      session.destroy();
    });
    session.on('close', () => {
      if (this.links.get(address) === link) this.links.delete(address);
    });
    this.links.set(address, link);
    return link;
  }
}

/** Waits for the answer to one forwarded call. */
class ForwardedCall {
  private readonly chunks: Buffer[] = [];
  private status: IncomingHttpHeaders | undefined;
  private finished = false;
  private readonly mayHaveLeft: () => boolean;
  private readonly address: string;
  private readonly done: UnaryDone;

  constructor(
    stream: ClientHttp2Stream,
    mayHaveLeft: () => boolean,
    address: string,
    done: UnaryDone,
  ) {
    this.mayHaveLeft = mayHaveLeft;
    this.address = address;
    this.done = done;
    stream.on('response', (headers) => {
      if (headers['grpc-status'] !== undefined) this.status = headers;
    });
    stream.on('data', (chunk: Buffer) => this.chunks.push(chunk));
    stream.on('trailers', (trailers) => {
      this.status = trailers;
    });
    stream.on('error', (error) => {
      this.finish(this.broken(error, stream.rstCode), undefined);
    });
    stream.on('close', () => {
      this.onClose(stream.rstCode);
    });
  }

  private onClose(rstCode: number): void {
    if (this.finished) return;
    const { status } = this;
    if (status === undefined) {
      this.finish(this.broken(new Error(`stream closed with code ${rstCode}`), rstCode), undefined);
    } else if (status['grpc-status'] === '0') {
      this.finishWithReply();
    } else {
      this.finish(errorOf(status), undefined);
    }
  }

  private finishWithReply(): void {
    try {
      this.finish(undefined, unframeMessage(Buffer.concat(this.chunks)));
    } catch (error) {
      this.finish(this.broken(error), undefined);
    }
  }

  private broken(cause: unknown, rstCode?: number): KvError {
    // Refused, or above the last stream that a closing node announced: it was never looked at.
    const untouched =
      !this.mayHaveLeft() || rstCode === constants.NGHTTP2_REFUSED_STREAM || isGoaway(cause);
    const text = cause instanceof Error ? cause.message : String(cause);
    return new KvError(
      untouched
        ? `cannot reach the leader at ${this.address}: ${text}`
        : `connection to the leader at ${this.address} broke while a request was under way: ${text}`,
      {
        code: untouched ? 'KV_UNAVAILABLE' : 'KV_UNKNOWN_OUTCOME',
        outcome: untouched ? 'notApplied' : 'unknown',
        cause,
      },
    );
  }

  private finish(error: KvError | undefined, reply: Uint8Array | undefined): void {
    if (this.finished) return;
    this.finished = true;
    this.done(error, reply);
  }
}

function isGoaway(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_HTTP2_GOAWAY_SESSION';
}

/** The leader's error, as it told it; without details (an old or foreign server) as unknown. */
function errorOf(status: IncomingHttpHeaders): KvError {
  const header = status['grpc-status-details-bin'];
  const message = decodeURIComponent(String(status['grpc-message'] ?? 'the leader refused'));
  const detail = typeof header === 'string' ? decodeDetail(header) : undefined;
  if (detail === undefined) {
    const deadline = Number(status['grpc-status']) === deadlineStatus;
    return new KvError(message, {
      code: deadline ? 'KV_DEADLINE' : 'KV_INTERNAL',
      outcome: 'unknown',
    });
  }
  const { pinSlot = 0 } = detail;
  return new KvError(detail.message, {
    // The peer runs this same table of codes; an unknown one still reaches the client as it is.
    code: detail.code as ErrorCode,
    outcome: detail.outcome === OutcomeCode.UNKNOWN ? 'unknown' : 'notApplied',
    leaderNode: detail.leaderNode ?? 0,
    leaderAddress: detail.leaderAddress ?? '',
    mapVersion: detail.mapVersion ?? 0,
    retryAfterMs: detail.retryAfterMs ?? 0,
    limit: detail.limit ?? 0,
    size: detail.size ?? 0,
    shardId: detail.shardId ?? 0,
    slotEpoch: detail.slotEpoch ?? 0,
    // Without it the error would speak of the key's hash slot, whose owner is another.
    ...(pinSlot > 0 ? { pinSlot } : {}),
  });
}

function decodeDetail(header: string): ErrorDetail | undefined {
  try {
    const value = statusCodec.decode(Buffer.from(header, 'base64')).details?.[0]?.value;
    return value === undefined ? undefined : detailCodec.decode(value);
  } catch {
    // Malformed details of a peer: the caller falls back to the plain status.
    return undefined;
  }
}
