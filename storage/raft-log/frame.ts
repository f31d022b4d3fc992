/**
 * The frame: the unit that is written whole, checked whole and cut whole. One record each.
 *
 * The first 12 bytes keep their place and meaning in every version (rule D16). The checksum covers
 * all that follows it and is seeded with the segment's id, so that a frame is valid in one place of
 * one file only: not in blocks the file system handed over from a removed segment, and not when it
 * was copied there as the payload of an entry.
 *
 * `writeStart` is what tells a torn write from damage (rule D11). Writes follow one another only
 * after a sync, so at a power cut only the last one can be incomplete, in any of its frames. A bad
 * frame before a valid frame of the same write is that; a bad frame before the start of a valid
 * frame's write had been synced, and something destroyed it.
 */
import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import type { ByteSink } from './bytes.js';

/** The version of frames and records this program writes, and the only one it reads. */
export const formatVersion = 3;

/** Bytes before the payload. */
export const frameHeaderBytes = 28;

// Offsets in the header. Bytes 10 and 11 are zero.
const checksumAt = 0;
const lengthAt = 4;
const versionAt = 8;
const kindAt = 9;
const offsetAt = 12;
const writeStartAt = 16;
const writeNumberAt = 20;

/** Offsets are 32-bit. */
export const segmentBytesLimit = 0xffff_ffff;

/** A valid frame. Its payload aliases the buffer it was read from. */
export interface Frame {
  readonly kind: number;
  /** Where it begins in its segment, bytes. */
  readonly offset: number;
  /** Header and payload, bytes. */
  readonly length: number;
  /** Offset of the first frame of the same write; 0 for the write that created the segment. */
  readonly writeStart: number;
  /** Counts the writes of this log from 1, over all segments. */
  readonly writeNumber: number;
  readonly payload: Buffer;
}

/** What all frames of one write share. */
export interface WriteIdentity {
  readonly seed: number;
  readonly writeStart: number;
  readonly writeNumber: number;
}

/** Leaves room for the header; returns where the frame begins in the sink. */
export function beginFrame(sink: ByteSink): number {
  const start = sink.length;
  sink.skip(frameHeaderBytes);
  return start;
}

/**
 * Fills in the header of the frame begun at `start` of the sink. `offset` is where that will be in
 * the segment. Returns the frame's length in bytes.
 */
export function endFrame(
  sink: ByteSink,
  frame: { readonly start: number; readonly offset: number; readonly kind: number },
  write: WriteIdentity,
): number {
  const { start, offset } = frame;
  const length = sink.length - start;
  assert(offset >= write.writeStart, `frame at ${offset} before its write ${write.writeStart}`);
  assert(offset + length <= segmentBytesLimit, 'a segment outgrew 32-bit offsets');
  sink.setU32(start + lengthAt, length - frameHeaderBytes);
  sink.setU8(start + versionAt, formatVersion);
  sink.setU8(start + kindAt, frame.kind);
  sink.setU8(start + 10, 0);
  sink.setU8(start + 11, 0);
  sink.setU32(start + offsetAt, offset);
  sink.setU32(start + writeStartAt, write.writeStart);
  sink.setU64(start + writeNumberAt, write.writeNumber);
  const checksum = crc32(sink.written().subarray(start + lengthAt), write.seed);
  sink.setU32(start + checksumAt, checksum);
  return length;
}

/**
 * The frame that stands at `offset` of its segment and at `offset - base` of `bytes`, or why there
 * is none. Throws on a valid frame of another version: that is no damage, and nothing to cut.
 */
export function readFrame(
  bytes: Buffer,
  place: { readonly offset: number; readonly base: number; readonly seed: number },
): Frame | string {
  const at = place.offset - place.base;
  const left = bytes.length - at;
  if (left < frameHeaderBytes) return `${left} bytes are too few for a frame`;
  if (bytes.readUInt32LE(at + offsetAt) !== place.offset) return 'no frame was written for here';
  const length = frameHeaderBytes + bytes.readUInt32LE(at + lengthAt);
  if (length > left) return `a frame of ${length} bytes, but ${left} are left`;
  const checksum = crc32(bytes.subarray(at + lengthAt, at + length), place.seed);
  if (checksum !== bytes.readUInt32LE(at + checksumAt)) return 'checksum mismatch';
  const version = bytes.readUInt8(at + versionAt);
  if (version !== formatVersion) {
    throw new RangeError(`format version ${version}; this program reads ${formatVersion}`);
  }
  return {
    kind: bytes.readUInt8(at + kindAt),
    offset: place.offset,
    length,
    writeStart: bytes.readUInt32LE(at + writeStartAt),
    writeNumber: numberAt(bytes, at + writeNumberAt),
    payload: bytes.subarray(at + frameHeaderBytes, at + length),
  };
}

/**
 * The offset of the first valid frame after a bad one at `offset` whose write began after it, or
 * undefined. Looks at every byte, because nothing tells where the bad frame ends.
 */
export function findLaterWrite(
  bytes: Buffer,
  place: { readonly offset: number; readonly seed: number },
): number | undefined {
  const last = bytes.length - frameHeaderBytes;
  for (let offset = place.offset + 1; offset <= last; offset++) {
    // The offset field alone rules out all but one place in 2^32.
    if (bytes.readUInt32LE(offset + offsetAt) !== offset) continue;
    const frame = readFrame(bytes, { offset, base: 0, seed: place.seed });
    if (typeof frame !== 'string' && frame.writeStart > place.offset) return offset;
  }
  return undefined;
}

function numberAt(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}
