/** From grpc-js errors to KvError, and unary and streaming calls as promises and iterators. */
import {
  Metadata,
  status,
  type Client,
  type ClientReadableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { codecOf } from '../../proto/definitions.js';
import { OutcomeCode, type ErrorDetail } from '../../proto/messages.js';
import { KvError, type ErrorCode, type Outcome } from '../errors.js';
import { stopWatching, watchAbort } from './abort-watch.js';

interface StatusDetails {
  details?: { type_url: string; value: Uint8Array }[];
}

const statusCodec = codecOf<StatusDetails>('google.rpc.Status');
const detailCodec = codecOf<ErrorDetail>('quorate.v1.ErrorDetail');

/** An ErrorDetail, from trailers or from the result of a batch, as the error it stands for. */
export function errorOfDetail(detail: ErrorDetail, cause?: unknown): KvError {
  return new KvError(detail.message, {
    // A newer server may know more codes; they reach the caller as they are.
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
    cause,
  });
}

/** A failed call as KvError. Without details the call never reached a Quorate node, or broke. */
export function errorOfCall(error: ServiceError, endpoint: string): KvError {
  const bytes = error.metadata.get('grpc-status-details-bin')[0];
  const value = bytes instanceof Buffer ? statusCodec.decode(bytes).details?.[0]?.value : undefined;
  if (value !== undefined) return errorOfDetail(detailCodec.decode(value), error);
  if (error.code === status.UNAVAILABLE) {
    // grpc-js says this both when it could not connect and when a connection broke in the middle.
    const neverSent = /No connection established|ECONNREFUSED|Name resolution failed/.test(
      error.details,
    );
    return new KvError(`${endpoint}: ${error.details}`, {
      code: neverSent ? 'KV_UNAVAILABLE' : 'KV_UNKNOWN_OUTCOME',
      outcome: neverSent ? 'notApplied' : 'unknown',
      unreachable: true,
      cause: error,
    });
  }
  if (error.code === status.DEADLINE_EXCEEDED) {
    return new KvError(`${endpoint}: no answer within the deadline; the outcome is unknown`, {
      code: 'KV_DEADLINE',
      outcome: 'unknown',
      cause: error,
    });
  }
  return new KvError(`${endpoint}: ${error.details}`, {
    code: plainCodes[error.code] ?? 'KV_INTERNAL',
    outcome: error.code === status.UNIMPLEMENTED ? 'notApplied' : 'unknown',
    cause: error,
  });
}

/** What a status without details means: gRPC itself said it, not Quorate. */
const plainCodes: Readonly<Partial<Record<status, ErrorCode>>> = {
  [status.CANCELLED]: 'KV_CANCELLED',
  // A message over the limit of one side, maybe a reply: then the request was carried out.
  [status.RESOURCE_EXHAUSTED]: 'KV_TOO_LARGE',
  [status.UNIMPLEMENTED]: 'KV_UNIMPLEMENTED',
};

/** An error as it stands among the results of a batch. */
export function detailOfError(error: KvError): ErrorDetail {
  const { leaderNode, leaderAddress, mapVersion, retryAfterMs, limit, size } = error.fields;
  const { shardId, slotEpoch } = error.fields;
  return {
    code: error.code,
    outcome: error.outcome === 'unknown' ? OutcomeCode.UNKNOWN : OutcomeCode.NOT_APPLIED,
    message: error.message,
    leaderNode: leaderNode ?? 0,
    leaderAddress: leaderAddress ?? '',
    mapVersion: mapVersion ?? 0,
    retryAfterMs: retryAfterMs ?? 0,
    limit: limit ?? 0,
    size: size ?? 0,
    shardId: shardId ?? 0,
    slotEpoch: slotEpoch ?? 0,
  };
}

/** `outcome`: whether it may have left before. */
export function cancelledError(outcome: Outcome): KvError {
  return new KvError('cancelled by the signal of its caller', { code: 'KV_CANCELLED', outcome });
}

/** Encodes and decodes the messages of one method. */
export interface Method<Request extends object, Reply extends object> {
  readonly path: string;
  readonly encode: (request: Request) => Buffer;
  readonly decode: (bytes: Buffer) => Reply;
}

/** `name` e.g. "KV/Get"; the types are those of the .proto file, without "quorate.v1.". */
export function method<Request extends object, Reply extends object>(
  name: string,
  requestType: string,
  replyType: string,
): Method<Request, Reply> {
  const request = codecOf<Request>(`quorate.v1.${requestType}`);
  const reply = codecOf<Reply>(`quorate.v1.${replyType}`);
  return {
    path: `/quorate.v1.${name}`,
    encode: (message) => Buffer.from(request.encode(message)),
    decode: (bytes) => reply.decode(bytes),
  };
}

export interface CallOptions {
  /** Milliseconds since 1970. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
}

/** One attempt at one endpoint. Rejects with KvError. */
export function callUnary<Request extends object, Reply extends object>(
  client: Client,
  { path, encode, decode }: Method<Request, Reply>,
  request: Request,
  options: CallOptions & { readonly endpoint: string },
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    if (options.signal?.aborted === true) {
      reject(cancelledError('notApplied'));
      return;
    }
    const call = client.makeUnaryRequest(
      path,
      encode,
      decode,
      request,
      new Metadata(),
      { deadline: options.deadline },
      (error, reply) => {
        if (options.signal) stopWatching(options.signal, cancel);
        if (error !== null) reject(errorOfCall(error, options.endpoint));
        else if (reply !== undefined) resolve(reply);
      },
    );
    const cancel = (): void => {
      call.cancel();
    };
    if (options.signal) watchAbort(options.signal, cancel);
  });
}

/** A server stream as an async iterator that throws KvError; leaving it cancels the call. */
export async function* callStream<Request extends object, Reply extends object>(
  client: Client,
  { path, encode, decode }: Method<Request, Reply>,
  request: Request,
  options: CallOptions & { readonly endpoint: string },
): AsyncGenerator<Reply> {
  const stream: ClientReadableStream<Reply> = client.makeServerStreamRequest(
    path,
    encode,
    decode,
    request,
    new Metadata(),
    { deadline: options.deadline },
  );
  const cancel = (): void => {
    stream.cancel();
  };
  if (options.signal) watchAbort(options.signal, cancel);
  try {
    for await (const reply of stream as AsyncIterable<Reply>) yield reply;
  } catch (error) {
    if (error instanceof Error && 'code' in error && 'metadata' in error) {
      throw errorOfCall(error as ServiceError, options.endpoint);
    }
    throw error;
  } finally {
    if (options.signal) stopWatching(options.signal, cancel);
    stream.cancel();
  }
}
