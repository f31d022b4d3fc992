/** What stands around the content of DATA and HEADERS (RFC 9113, 6.1 and 6.2). */
import { ConnectionError, ErrorCode, Flag, streamIdMax, type FrameHead } from './frames.js';

const priorityBytes = 5;

export function unpadded(flags: number, payload: Buffer): Buffer {
  if ((flags & Flag.PADDED) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined) {
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'a padded frame without its length');
  }
  if (padding >= payload.length) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'more padding than payload');
  }
  return payload.subarray(1, payload.length - padding);
}

/** Priorities are not used (RFC 9113, 5.3.2), only checked. */
export function withoutPriority({ flags, streamId }: FrameHead, payload: Buffer): Buffer {
  if ((flags & Flag.PRIORITY) === 0) return payload;
  if (payload.length < priorityBytes) {
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'HEADERS without their priority');
  }
  checkPriority(streamId, payload);
  return payload.subarray(priorityBytes);
}

/** RFC 7540, 5.3.1: no stream depends on itself. `payload` has the 5 bytes of a priority at least. */
export function checkPriority(streamId: number, payload: Buffer): void {
  if ((payload.readUInt32BE(0) & streamIdMax) === streamId) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'a stream that depends on itself');
  }
}
