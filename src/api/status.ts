/**
 * KvError -> what a gRPC client sees: status code, message, and a google.rpc.Status with an
 * ErrorDetail in the trailer `grpc-status-details-bin`. The one table of codes and statuses.
 */
import { codecOf } from '../../proto/definitions.js';
import { OutcomeCode, type ErrorDetail } from '../../proto/messages.js';
import { KvError, type ErrorCode } from '../errors.js';

/** gRPC status codes (numbers of the gRPC specification). */
export const GrpcStatus = {
  OK: 0,
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const;

const statusOf: Readonly<Record<ErrorCode, number>> = {
  KV_INVALID: GrpcStatus.INVALID_ARGUMENT,
  KV_TOO_LARGE: GrpcStatus.INVALID_ARGUMENT,
  KV_NOT_LEADER: GrpcStatus.UNAVAILABLE,
  KV_WRONG_SHARD: GrpcStatus.UNAVAILABLE,
  KV_MOVING: GrpcStatus.UNAVAILABLE,
  KV_OVERLOADED: GrpcStatus.RESOURCE_EXHAUSTED,
  KV_DISK_FULL: GrpcStatus.RESOURCE_EXHAUSTED,
  KV_DEADLINE: GrpcStatus.DEADLINE_EXCEEDED,
  KV_UNAVAILABLE: GrpcStatus.UNAVAILABLE,
  // Not UNAVAILABLE: libraries retry that by themselves, and a blind retry may write twice.
  KV_UNKNOWN_OUTCOME: GrpcStatus.ABORTED,
  KV_NOT_INTEGER: GrpcStatus.FAILED_PRECONDITION,
  KV_OUT_OF_RANGE: GrpcStatus.OUT_OF_RANGE,
  KV_SESSION_EXPIRED: GrpcStatus.FAILED_PRECONDITION,
  KV_SESSION_FORGOTTEN: GrpcStatus.FAILED_PRECONDITION,
  KV_SESSION_MISMATCH: GrpcStatus.FAILED_PRECONDITION,
  KV_TOKEN_MISMATCH: GrpcStatus.FAILED_PRECONDITION,
  KV_CANCELLED: GrpcStatus.CANCELLED,
  KV_UNIMPLEMENTED: GrpcStatus.UNIMPLEMENTED,
  KV_INTERNAL: GrpcStatus.INTERNAL,
};

interface StatusMessage {
  code: number;
  message: string;
  details: { type_url: string; value: Uint8Array }[];
}

const detailCodec = codecOf<ErrorDetail>('quorate.v1.ErrorDetail');
const statusCodec = codecOf<StatusMessage>('google.rpc.Status');
const detailUrl = 'type.googleapis.com/quorate.v1.ErrorDetail';

/** A failed call as the trailers of its reply. */
export interface StatusTrailers {
  readonly code: number;
  readonly message: string;
  /** Encoded google.rpc.Status. */
  readonly details: Uint8Array;
}

/** Anything thrown inside a call becomes a KvError; what is none is a bug, with unknown outcome. */
export function toKvError(error: unknown): KvError {
  if (error instanceof KvError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new KvError(`internal error: ${text}`, {
    code: 'KV_INTERNAL',
    outcome: 'unknown',
    cause: error,
  });
}

export function grpcStatusOf(code: ErrorCode): number {
  return statusOf[code];
}

/** The ErrorDetail of an error, as it stands in trailers and in the results of a batch. */
export function errorDetail(error: KvError): ErrorDetail {
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

export function statusTrailers(error: KvError): StatusTrailers {
  const code = statusOf[error.code];
  const value = detailCodec.encode(errorDetail(error));
  const details = statusCodec.encode({
    code,
    message: error.message,
    details: [{ type_url: detailUrl, value }],
  });
  return { code, message: error.message, details };
}
