/**
 * What the group layer keeps about a replica in the state engine: how far it has applied, and
 * whether a snapshot is being installed. Not part of the state machine, hence not of its snapshots.
 */
import {
  decodeMembership,
  encodeMembership,
  type LogIndex,
  type SnapshotMeta,
  type Term,
} from '../raft/index.js';
import type { Engine, EngineBatch } from './engine.js';
import { replicaKey } from './keys.js';

const version = 1;
const appliedName = 'applied';
const restoringName = 'restoring';
const installedName = 'installed';
const appliedBytes = 1 + 8 + 8;

/** The last entry whose effects are in the engine: written in the same batch as these (R40). */
export interface AppliedMark {
  readonly index: LogIndex;
  readonly term: Term;
}

function putUint64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  bytes.writeUInt32BE(value >>> 0, at + 4);
}

function takeUint64(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
  if (!Number.isSafeInteger(value))
    throw new RangeError(`replica mark holds ${value}, no safe integer`);
  return value;
}

function checkVersion(bytes: Buffer, name: string): void {
  if (bytes[0] !== version)
    throw new RangeError(`${name} mark has version ${bytes[0]}, this program knows ${version}`);
}

/** Layout: version u8, index u64, term u64. */
export function putAppliedMark(
  batch: EngineBatch,
  prefix: Uint8Array,
  { index, term }: AppliedMark,
): void {
  const bytes = Buffer.allocUnsafe(appliedBytes);
  bytes[0] = version;
  putUint64(bytes, index, 1);
  putUint64(bytes, term, 9);
  batch.put(replicaKey(prefix, appliedName), bytes);
}

/** (0, 0) for a replica that never applied anything. */
export async function readAppliedMark(engine: Engine, prefix: Uint8Array): Promise<AppliedMark> {
  const [value] = await engine.getMany([replicaKey(prefix, appliedName)]);
  if (value === undefined) return { index: 0, term: 0 };
  const bytes = Buffer.from(value);
  checkVersion(bytes, appliedName);
  return { index: takeUint64(bytes, 1), term: takeUint64(bytes, 9) };
}

/** Layout: version u8, index u64, term u64, index of the membership u64, membership bytes. */
function encodeSnapshotMark(snapshot: SnapshotMeta): Uint8Array {
  const membership = encodeMembership(snapshot.membership.membership);
  const bytes = Buffer.allocUnsafe(appliedBytes + 8 + membership.byteLength);
  bytes[0] = version;
  putUint64(bytes, snapshot.index, 1);
  putUint64(bytes, snapshot.term, 9);
  putUint64(bytes, snapshot.membership.index, 17);
  bytes.set(membership, 25);
  return bytes;
}

async function readSnapshotMark(
  engine: Engine,
  prefix: Uint8Array,
  name: string,
): Promise<SnapshotMeta | undefined> {
  const [value] = await engine.getMany([replicaKey(prefix, name)]);
  if (value === undefined) return undefined;
  const bytes = Buffer.from(value);
  checkVersion(bytes, name);
  return {
    index: takeUint64(bytes, 1),
    term: takeUint64(bytes, 9),
    membership: { index: takeUint64(bytes, 17), membership: decodeMembership(bytes.subarray(25)) },
  };
}

/** The install of a snapshot begins: until the mark is gone, the state is not to be used (D15). */
export function putRestoringMark(
  batch: EngineBatch,
  prefix: Uint8Array,
  snapshot: SnapshotMeta,
): void {
  batch.put(replicaKey(prefix, restoringName), encodeSnapshotMark(snapshot));
}

/** The snapshot whose install was begun and not ended; undefined when there is none. */
export function readRestoringMark(
  engine: Engine,
  prefix: Uint8Array,
): Promise<SnapshotMeta | undefined> {
  return readSnapshotMark(engine, prefix, restoringName);
}

/**
 * The install has ended: applied mark, no restoring mark, and the snapshot's head, from which the
 * reset of the Raft log is finished when a crash comes before it (D15). In one synced batch.
 */
export function putInstalled(batch: EngineBatch, prefix: Uint8Array, snapshot: SnapshotMeta): void {
  putAppliedMark(batch, prefix, snapshot);
  batch.delete(replicaKey(prefix, restoringName));
  batch.put(replicaKey(prefix, installedName), encodeSnapshotMark(snapshot));
}

/** The last snapshot that was installed; undefined when there was none. */
export function readInstalledMark(
  engine: Engine,
  prefix: Uint8Array,
): Promise<SnapshotMeta | undefined> {
  return readSnapshotMark(engine, prefix, installedName);
}
