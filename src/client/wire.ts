/** From grpc-js errors to KvError, and unary calls as promises. */
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { codecOf } from '../../proto/definitions.js';
import { OutcomeCode, type ErrorDetail } from '../../proto/messages.js';
import { KvError, type ErrorCode, type Outcome } from '../errors.js';
import { stopWatching, watchAbort } from './abort-watch.js';
import { closedError, type Connections } from './connections.js';

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
    pinSlot: detail.pinSlot ?? 0,
    cause,
  });
}

/** A failed call as KvError. Without details the call never reached a Quorate node, or broke. */
export function errorOfCall(error: ServiceError, endpoint: string): KvError {
  const detail = detailOfCall(error);
  if (detail !== undefined) return errorOfDetail(detail, error);
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

/** Undefined: the node sent none, or bytes that are none; nobody would catch a throw here. */
function detailOfCall({ metadata }: ServiceError): ErrorDetail | undefined {
  const [bytes] = metadata.get('grpc-status-details-bin');
  if (!(bytes instanceof Buffer)) return undefined;
  try {
    const value = statusCodec.decode(bytes).details?.[0]?.value;
    return value && detailCodec.decode(value);
  } catch {
    return undefined;
  }
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
  const { shardId, slotEpoch, pinSlot } = error.fields;
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
    pinSlot: pinSlot ?? 0,
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

/** One attempt at one endpoint. Rejects with KvError, also when the client is closed meanwhile. */
export function callUnary<Request extends object, Reply extends object>(
  connections: Connections,
  { path, encode, decode }: Method<Request, Reply>,
  request: Request,
  { endpoint, deadline, signal }: CallOptions & { readonly endpoint: string },
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) throw cancelledError('notApplied');
    const { closed } = connections;
    const call = connections
      .to(endpoint)
      .makeUnaryRequest(
        path,
        encode,
        decode,
        request,
        new Metadata(),
        { deadline },
        (error, reply) => {
          for (const each of [signal, closed]) stopWatching(each, cancel);
          if (reply !== undefined) resolve(reply);
          else if (error?.code === status.CANCELLED && closed.aborted)
            reject(closedError('unknown'));
          else if (error) reject(errorOfCall(error, endpoint));
        },
      );
    const cancel = (): void => {
      call.cancel();
    };
    for (const each of [signal, closed]) watchAbort(each, cancel);
  });
}
