/**
 * A segment: one file of the log. Header, then frames. Its first frame is a checkpoint of every
 * group (rule D10), so that the segments before it can go once nobody needs their entries.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { ByteSink } from './bytes.js';
import type { Disk, DiskFile } from './disk.js';
import { beginFrame, endFrame, formatVersion } from './frame.js';
import { RecordKind, encodeRecord } from './record.js';
import type { CheckpointRecord } from './record.js';

/** Magic, version and three zeros, id, checksum. */
export const segmentHeaderBytes = 20;

const magic = Buffer.from('quoralog', 'latin1');
const versionAt = 8;
const idAt = 12;
const checksumAt = 16;
const namePattern = /^(\d{10})\.segment$/;

/** A segment of an open log. */
export interface Segment {
  /** Counts from 1 without gaps; never used twice in a log for anything that was acknowledged. */
  readonly id: number;
  readonly path: string;
  readonly file: DiskFile;
  /** Durable bytes. */
  size: number;
  /** Reads under way, each of which needs the file open. */
  readers: number;
  /** Close the file as soon as nobody reads it. */
  closing: boolean;
}

/** `0000000007.segment` */
export function segmentName(id: number): string {
  return `${String(id).padStart(10, '0')}.segment`;
}

/** The id in a file name, or undefined if it is not the name of a segment. */
export function segmentIdOf(name: string): number | undefined {
  const digits = namePattern.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Seed of the checksums of a segment's frames: known from the file's name alone. */
export function segmentSeed(id: number): number {
  return crc32(headerBody(id));
}

export function encodeSegmentHeader(id: number): Buffer {
  const header = Buffer.alloc(segmentHeaderBytes);
  header.set(headerBody(id));
  header.writeUInt32LE(crc32(headerBody(id)), checksumAt);
  return header;
}

/**
 * Why these bytes do not begin a segment; undefined if they do. Throws on a sound header of another
 * version, or of another segment: a renamed or copied file is no torn write.
 */
export function headerProblem(bytes: Buffer, id: number): string | undefined {
  if (bytes.length < segmentHeaderBytes) return `${bytes.length} bytes are no segment header`;
  if (!bytes.subarray(0, magic.length).equals(magic)) return 'not a Raft log segment';
  const checksum = crc32(bytes.subarray(0, checksumAt));
  if (checksum !== bytes.readUInt32LE(checksumAt)) return 'checksum mismatch in the header';
  const version = bytes.readUInt8(versionAt);
  if (version !== formatVersion) {
    throw new RangeError(`format version ${version}; this program reads ${formatVersion}`);
  }
  const found = bytes.readUInt32LE(idAt);
  if (found !== id) throw new RangeError(`the header says segment ${found}, the name ${id}`);
  return undefined;
}

/**
 * Creates a segment with its header and checkpoint, as one write with its directory entry: durable
 * on return, before anything can be acknowledged in it.
 */
export async function createSegment(
  place: { readonly disk: Disk; readonly directory: string },
  content: {
    readonly id: number;
    readonly writeNumber: number;
    readonly checkpoint: CheckpointRecord;
  },
): Promise<Segment> {
  const { id, writeNumber, checkpoint } = content;
  const sink = new ByteSink(4096);
  sink.raw(encodeSegmentHeader(id));
  const start = beginFrame(sink);
  encodeRecord(checkpoint, sink);
  const write = { seed: segmentSeed(id), writeStart: 0, writeNumber };
  endFrame(sink, { start, offset: start, kind: RecordKind.checkpoint }, write);
  const path = join(place.directory, segmentName(id));
  const file = await place.disk.create(path);
  await file.writeDurably(sink.written(), 0);
  // Without this a power cut could lose the whole file, and every entry acknowledged in it.
  await place.disk.syncDirectory(place.directory);
  return { id, path, file, size: sink.length, readers: 0, closing: false };
}

function headerBody(id: number): Buffer {
  const body = Buffer.alloc(checksumAt);
  body.set(magic);
  body.writeUInt8(formatVersion, versionAt);
  body.writeUInt32LE(id, idAt);
  return body;
}
