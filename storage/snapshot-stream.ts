/**
 * A state machine image as a stream of checksummed chunks.
 *
 * Chunk: version u8, kind u8 (0 pairs, 1 end), sequence u32, then for pairs: key length u32, key
 * without the replica's prefix, value length u32, value, and so on; for the end: the number of pairs
 * u64. The last 4 bytes are the CRC-32 of everything before. A stream that was cut has no end chunk,
 * one that lost a chunk has a gap in its sequence: neither is ever taken for whole.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { Engine, EngineIterator, KeyRange, Pair } from './engine.js';

const version = 1;
const chunkKind = { pairs: 0, end: 1 } as const;
const headBytes = 6;
const crcBytes = 4;
const pageBytesMax = 256 * 1024;
const prefixBytes = 8;
/** Import: bytes gathered before they are written to the engine. */
const importBatchBytes = 1024 * 1024;

/** The stream is damaged, cut or out of order: nothing of it may be used. */
export class SnapshotDamaged extends Error {
  override readonly name = 'SnapshotDamaged';
}

/**
 * The pairs of a range as chunks, from a view taken now (synchronously). The caller iterates to the
 * end or leaves the loop; either closes the view.
 */
export function exportSnapshot(
  engine: Engine,
  range: KeyRange,
): AsyncIterable<Uint8Array> & { discard(): Promise<void> } {
  const view = engine.iterate({ ...range, pageBytesMax });
  return { [Symbol.asyncIterator]: () => chunksOf(view), discard: () => view.close() };
}

async function* chunksOf(view: EngineIterator): AsyncGenerator<Uint8Array> {
  let sequence = 0;
  let pairs = 0;
  try {
    for (let page = await view.next(); page.length > 0; page = await view.next()) {
      pairs += page.length;
      yield encodePairs(sequence++, page);
    }
    yield encodeEnd(sequence, pairs);
  } finally {
    await view.close();
  }
}

function seal(chunk: Buffer, kind: number, sequence: number): Uint8Array {
  chunk[0] = version;
  chunk[1] = kind;
  chunk.writeUInt32BE(sequence, 2);
  const end = chunk.byteLength - crcBytes;
  chunk.writeUInt32BE(crc32(chunk.subarray(0, end)), end);
  return chunk;
}

function encodePairs(sequence: number, pairs: readonly Pair[]): Uint8Array {
  let bytes = headBytes + crcBytes;
  for (const { key, value } of pairs) bytes += 8 + key.byteLength - prefixBytes + value.byteLength;
  const chunk = Buffer.allocUnsafe(bytes);
  let at = headBytes;
  for (const { key, value } of pairs) {
    at = chunk.writeUInt32BE(key.byteLength - prefixBytes, at);
    chunk.set(key.subarray(prefixBytes), at);
    at += key.byteLength - prefixBytes;
    at = chunk.writeUInt32BE(value.byteLength, at);
    chunk.set(value, at);
    at += value.byteLength;
  }
  return seal(chunk, chunkKind.pairs, sequence);
}

function encodeEnd(sequence: number, pairs: number): Uint8Array {
  const chunk = Buffer.allocUnsafe(headBytes + 8 + crcBytes);
  chunk.writeUInt32BE(Math.floor(pairs / 2 ** 32), headBytes);
  chunk.writeUInt32BE(pairs >>> 0, headBytes + 4);
  return seal(chunk, chunkKind.end, sequence);
}

/** One chunk taken apart; `end` has the number of pairs of the whole stream. */
type Chunk =
  | { readonly kind: 'pairs'; readonly pairs: readonly Pair[] }
  | { readonly kind: 'end'; readonly count: number };

function decodeChunk(bytes: Uint8Array, sequence: number): Chunk {
  const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = chunk.byteLength - crcBytes;
  if (end < headBytes || crc32(chunk.subarray(0, end)) !== chunk.readUInt32BE(end)) {
    throw new SnapshotDamaged(`snapshot chunk ${sequence}: checksum does not match`);
  }
  if (chunk[0] !== version)
    throw new SnapshotDamaged(`snapshot chunk version ${chunk[0]}, this program knows ${version}`);
  if (chunk.readUInt32BE(2) !== sequence) {
    throw new SnapshotDamaged(`snapshot chunk ${chunk.readUInt32BE(2)} where ${sequence} was due`);
  }
  if (chunk[1] === chunkKind.end) {
    return {
      kind: 'end',
      count: chunk.readUInt32BE(headBytes) * 2 ** 32 + chunk.readUInt32BE(headBytes + 4),
    };
  }
  return { kind: 'pairs', pairs: decodePairs(chunk.subarray(headBytes, end), sequence) };
}

function decodePairs(body: Buffer, sequence: number): readonly Pair[] {
  const pairs: Pair[] = [];
  let at = 0;
  const take = (): Buffer => {
    const length = at + 4 <= body.byteLength ? body.readUInt32BE(at) : Infinity;
    if (at + 4 + length > body.byteLength)
      throw new SnapshotDamaged(`snapshot chunk ${sequence}: a length passes its end`);
    at += 4 + length;
    return body.subarray(at - length, at);
  };
  while (at < body.byteLength) pairs.push({ key: take(), value: take() });
  return pairs;
}

/**
 * Replaces all keys of `range` (of the replica with `prefix`) by the stream's. Not synced, and not
 * atomic: the caller has written a restoring mark before, and removes it in a synced batch after.
 * Throws SnapshotDamaged; then the range holds a part, and the mark must stay.
 */
export async function importSnapshot(
  engine: Engine,
  target: { readonly prefix: Uint8Array; readonly range: KeyRange },
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  await engine.clear(target.range);
  let batch = engine.batch();
  let sequence = 0;
  let count = 0;
  let announced: number | undefined;
  for await (const bytes of chunks) {
    if (announced !== undefined) throw new SnapshotDamaged('snapshot goes on after its end');
    const chunk = decodeChunk(bytes, sequence++);
    if (chunk.kind === 'end') {
      announced = chunk.count;
      continue;
    }
    count += chunk.pairs.length;
    for (const { key, value } of chunk.pairs) batch.put(Buffer.concat([target.prefix, key]), value);
    if (batch.bytes >= importBatchBytes) {
      await engine.write(batch, { sync: false });
      batch = engine.batch();
    }
  }
  if (announced !== count) {
    throw new SnapshotDamaged(
      `snapshot was cut: ${count} pairs came, ${announced ?? 'no end'} announced`,
    );
  }
  await engine.write(batch, { sync: false });
}

/**
 * SHA-256 (hexadecimal) over keys without their prefix and values, in key order, and their number, from
 * a view taken now (synchronously). `betweenPages`, some 256 KiB apart: to let others have their turn;
 * if it rejects, so does this.
 */
export async function hashReplica(
  engine: Engine,
  range: KeyRange,
  betweenPages: () => Promise<void> = () => Promise.resolve(),
): Promise<{ readonly hash: string; readonly pairs: number }> {
  const view = engine.iterate({ ...range, pageBytesMax });
  const hash = createHash('sha256');
  const lengths = Buffer.allocUnsafe(8);
  let pairs = 0;
  try {
    for (let page = await view.next(); page.length > 0; page = await view.next()) {
      pairs += page.length;
      for (const { key, value } of page) {
        lengths.writeUInt32BE(key.byteLength - prefixBytes, 0);
        lengths.writeUInt32BE(value.byteLength, 4);
        hash.update(lengths).update(key.subarray(prefixBytes)).update(value);
      }
      await betweenPages();
    }
  } finally {
    await view.close();
  }
  return { hash: hash.digest('hex'), pairs };
}
