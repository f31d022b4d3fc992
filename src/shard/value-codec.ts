/**
 * What the engine holds under a user key: a header, then the value.
 *
 *   [version u8][type u8][generation varint][revision varint][expiry varint][value]
 *
 * - type: string (1); hash, list, set and sorted set come later.
 * - generation: 0 for strings. A collection will take its change number at creation, so that the
 *   elements of a deleted one are dead at once (rule D25).
 * - revision: number of the last write to the key (rule D20).
 * - expiry: log time in ms since 1970 from which on the key does not exist; 0: never.
 */
import { ByteReader } from './byte-reader.js';
import { ByteWriter } from './byte-writer.js';

const version = 1;
const typeString = 1;
const stringGeneration = 0;
const writer = new ByteWriter();

export interface StoredValue {
  readonly value: Uint8Array;
  readonly revision: number;
  readonly expiresAtMs: number;
}

export function encodeValue({ value, revision, expiresAtMs }: StoredValue): Uint8Array {
  writer.byte(version);
  writer.byte(typeString);
  writer.varint(stringGeneration);
  writer.varint(revision);
  writer.varint(expiresAtMs);
  writer.raw(value);
  return writer.take();
}

/** Throws MalformedBytes for damage, and for versions and types of a newer program (rule D16). */
export function decodeValue(bytes: Uint8Array): StoredValue {
  const reader = new ByteReader(bytes, 'stored value');
  const found = reader.byte();
  if (found !== version) throw reader.malformed(`has version ${found}, this program knows 1`);
  const type = reader.byte();
  if (type !== typeString) throw reader.malformed(`has type ${type}, this program knows 1`);
  const generation = reader.varint();
  if (generation !== stringGeneration) throw reader.malformed('is a string with a generation');
  const revision = reader.varint();
  const expiresAtMs = reader.varint();
  return { value: reader.rest(), revision, expiresAtMs };
}

/** Does it exist at this log time? Everything that looks at a key asks this (rule D22). */
export function isLive(stored: StoredValue, logTimeMs: number): boolean {
  return stored.expiresAtMs === 0 || stored.expiresAtMs > logTimeMs;
}
