/**
 * gRPC's own framing: each message is preceded by one byte (0 = not compressed) and its length as
 * u32, big-endian. And the few headers that a unary call needs.
 */
import { KvError } from '../errors.js';

export const framePrefixBytes = 5;

/** The message with its prefix, in one buffer. */
export function frameMessage(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(framePrefixBytes + message.byteLength);
  framed[0] = 0;
  framed.writeUInt32BE(message.byteLength, 1);
  framed.set(message, framePrefixBytes);
  return framed;
}

/** The one message of a unary request body. Throws KvError KV_INVALID or KV_UNIMPLEMENTED. */
export function unframeMessage(body: Buffer): Uint8Array {
  if (body.byteLength < framePrefixBytes) {
    throw new KvError(
      `request body of ${body.byteLength} bytes holds no gRPC message: it needs a 5-byte prefix`,
      { code: 'KV_INVALID', outcome: 'notApplied' },
    );
  }
  if (body[0] !== 0) {
    throw new KvError('compressed requests are not supported: send with identity encoding', {
      code: 'KV_UNIMPLEMENTED',
      outcome: 'notApplied',
    });
  }
  const length = body.readUInt32BE(1);
  if (length !== body.byteLength - framePrefixBytes) {
    throw new KvError(
      `gRPC prefix announces ${length} bytes, the body holds ${body.byteLength - framePrefixBytes}: ` +
        'a unary call sends exactly one message',
      { code: 'KV_INVALID', outcome: 'notApplied' },
    );
  }
  return body.subarray(framePrefixBytes);
}

const unitMs: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000001,
};

/** `grpc-timeout` ("250m") in milliseconds; undefined when absent. Throws KV_INVALID when malformed. */
export function parseTimeoutMs(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  const match = /^(\d{1,8})([HMSmun])$/.exec(header);
  const unit = unitMs[match?.[2] ?? ''];
  if (match === null || unit === undefined) {
    throw new KvError(
      `grpc-timeout '${header}' is malformed: up to 8 digits and one of H M S m u n`,
      {
        code: 'KV_INVALID',
        outcome: 'notApplied',
      },
    );
  }
  return Number(match[1]) * unit;
}

/** A remaining time as a `grpc-timeout` header. */
export function formatTimeout(remainingMs: number): string {
  const whole = Math.max(0, Math.floor(remainingMs));
  return whole <= 99_999_999 ? `${whole}m` : `${Math.min(99_999_999, Math.floor(whole / 1000))}S`;
}

/** `grpc-message` is percent-encoded UTF-8. */
export function encodeGrpcMessage(text: string): string {
  return Array.from(Buffer.from(text, 'utf8'), (byte) =>
    byte >= 0x20 && byte <= 0x7e && byte !== 0x25
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  ).join('');
}
