/**
 * The records of the log: what one frame says, and how that is laid out in its payload.
 *
 * Every record of a group begins with the group and the replica id (rule D01), so that nothing
 * written for a removed replica can be taken for its successor's.
 */
import assert from 'node:assert/strict';
import { EntryKind, decodeMembership, encodeMembership, groupId } from '../../raft/index.js';
import { noReplica, replicaId } from '../../raft/index.js';
import type { Entry, Generation, GroupId, HardState, LogIndex } from '../../raft/index.js';
import type { Membership, MembershipAt, ReplicaId, SnapshotMeta } from '../../raft/index.js';
import type { TermRun } from '../../raft/index.js';
import { ByteSource } from './bytes.js';
import type { ByteSink } from './bytes.js';

/** The numbers of the kinds in frames. Never given anew. */
export const RecordKind = {
  checkpoint: 1,
  append: 2,
  compaction: 3,
  groupCreated: 4,
  groupRemoved: 5,
  relocation: 6,
  closed: 7,
} as const;

/** Everything the log knows of a group but where its entries are. */
export interface GroupCheckpoint {
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly generation: Generation;
  readonly hardState: HardState;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly appliedDurable: LogIndex;
  readonly termRuns: readonly TermRun[];
  readonly memberships: readonly MembershipAt[];
}

/** The highest replica id of a group that was removed on this node. */
export interface RemovedFloor {
  readonly group: GroupId;
  readonly floor: ReplicaId;
}

/** The first record of every segment: the state of all groups, ascending by id. */
export interface CheckpointRecord {
  readonly kind: 'checkpoint';
  readonly groups: readonly GroupCheckpoint[];
  readonly removed: readonly RemovedFloor[];
}

/** In this order: generation, reset, entries (replacing those at or above the first), hard state. */
export interface AppendRecord {
  readonly kind: 'append';
  readonly group: GroupId;
  readonly replica: ReplicaId;
  /** A higher one than before: the group was recovered by force (rule D07). */
  readonly generation: Generation | undefined;
  readonly reset: SnapshotMeta | undefined;
  readonly entries: readonly Entry[];
  readonly hardState: HardState | undefined;
}

/** Entries below `firstIndex` are not needed; the state machine had applied `appliedDurable`. */
export interface CompactionRecord {
  readonly kind: 'compaction';
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly firstIndex: LogIndex;
  readonly appliedDurable: LogIndex;
}

/** A new, empty log. */
export interface GroupCreatedRecord {
  readonly kind: 'groupCreated';
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly generation: Generation;
  readonly membership: Membership;
}

/** The group's log is forgotten; its replica id becomes the floor. */
export interface GroupRemovedRecord {
  readonly kind: 'groupRemoved';
  readonly group: GroupId;
  readonly replica: ReplicaId;
}

/**
 * Entries copied forward from an old segment. They are in the log already and stay what they are:
 * unlike an append, this never truncates (rule D10).
 */
export interface RelocationRecord {
  readonly kind: 'relocation';
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly entries: readonly Entry[];
}

/** Written on a clean close: being a later write, it vouches for everything before it. */
export interface ClosedRecord {
  readonly kind: 'closed';
}

export type LogRecord =
  | CheckpointRecord
  | AppendRecord
  | CompactionRecord
  | GroupCreatedRecord
  | GroupRemovedRecord
  | RelocationRecord
  | ClosedRecord;

/** Bytes of an entry besides its payload: term, kind, length. */
const entryHeaderBytes = 13;

/** What an entry takes in a frame, bytes. */
export function entryBytes(entry: Entry): number {
  return entryHeaderBytes + entry.data.length;
}

const hasReset = 1;
const hasHardState = 2;
const hasGeneration = 4;
const knownFlags = hasReset | hasHardState | hasGeneration;

/** Adds the payload of `record` to the sink. */
export function encodeRecord(record: LogRecord, sink: ByteSink): void {
  switch (record.kind) {
    case 'append':
      return encodeAppend(record, sink);
    case 'relocation':
      putOwner(record, sink);
      return putEntries(record.entries, sink);
    case 'compaction':
      putOwner(record, sink);
      sink.u64(record.firstIndex);
      return sink.u64(record.appliedDurable);
    case 'groupCreated':
      putOwner(record, sink);
      sink.u64(record.generation);
      return putMembership(record.membership, sink);
    case 'groupRemoved':
      return putOwner(record, sink);
    case 'checkpoint':
      return encodeCheckpoint(record, sink);
    case 'closed':
      return undefined;
  }
}

/**
 * The record in a frame's payload. Payloads of its entries alias `payload`. Throws RangeError on
 * bytes that are no record of that kind: with a valid checksum that is a bug or another program.
 */
export function decodeRecord(kind: number, payload: Buffer): LogRecord {
  const source = new ByteSource(payload);
  const record = decodeKind(kind, source);
  if (source.left > 0) throw new RangeError(`${source.left} bytes too many in a ${record.kind}`);
  return record;
}

function decodeKind(kind: number, source: ByteSource): LogRecord {
  switch (kind) {
    case RecordKind.append:
      return decodeAppend(source);
    case RecordKind.relocation:
      return { kind: 'relocation', ...takeOwner(source), entries: takeEntries(source) };
    case RecordKind.compaction:
      return {
        kind: 'compaction',
        ...takeOwner(source),
        firstIndex: source.u64(),
        appliedDurable: source.u64(),
      };
    case RecordKind.groupCreated:
      return {
        kind: 'groupCreated',
        ...takeOwner(source),
        generation: source.u64(),
        membership: takeMembership(source),
      };
    case RecordKind.groupRemoved:
      return { kind: 'groupRemoved', ...takeOwner(source) };
    case RecordKind.checkpoint:
      return decodeCheckpoint(source);
    case RecordKind.closed:
      return { kind: 'closed' };
    default:
      throw new RangeError(`unknown record kind ${kind}`);
  }
}

function encodeAppend(record: AppendRecord, sink: ByteSink): void {
  const { generation, reset, hardState } = record;
  putOwner(record, sink);
  const resetFlag = reset === undefined ? 0 : hasReset;
  const generationFlag = generation === undefined ? 0 : hasGeneration;
  sink.u8(resetFlag | generationFlag | (hardState === undefined ? 0 : hasHardState));
  if (generation !== undefined) sink.u64(generation);
  if (reset !== undefined) {
    sink.u64(reset.index);
    sink.u64(reset.term);
    putMembershipAt(reset.membership, sink);
  }
  if (hardState !== undefined) putHardState(hardState, sink);
  putEntries(record.entries, sink);
}

function decodeAppend(source: ByteSource): AppendRecord {
  const owner = takeOwner(source);
  const flags = source.u8();
  if ((flags & ~knownFlags) !== 0) throw new RangeError(`unknown flags ${flags} of an append`);
  const generation = (flags & hasGeneration) === 0 ? undefined : source.u64();
  const reset = (flags & hasReset) === 0 ? undefined : takeSnapshotMeta(source);
  const hardState = (flags & hasHardState) === 0 ? undefined : takeHardState(source);
  const entries = takeEntries(source);
  return { kind: 'append', ...owner, generation, reset, hardState, entries };
}

function encodeCheckpoint(record: CheckpointRecord, sink: ByteSink): void {
  sink.u32(record.removed.length);
  for (const { group, floor } of record.removed) {
    sink.u32(group);
    sink.u32(floor);
  }
  sink.u32(record.groups.length);
  for (const group of record.groups) putGroupCheckpoint(group, sink);
}

function decodeCheckpoint(source: ByteSource): CheckpointRecord {
  const removed: RemovedFloor[] = [];
  for (let left = source.u32(); left > 0; left--) {
    removed.push({ group: groupId(source.u32()), floor: replicaId(source.u32()) });
  }
  const groups: GroupCheckpoint[] = [];
  for (let left = source.u32(); left > 0; left--) groups.push(takeGroupCheckpoint(source));
  return { kind: 'checkpoint', groups, removed };
}

function putGroupCheckpoint(group: GroupCheckpoint, sink: ByteSink): void {
  putOwner(group, sink);
  sink.u64(group.generation);
  putHardState(group.hardState, sink);
  sink.u64(group.firstIndex);
  sink.u64(group.lastIndex);
  sink.u64(group.appliedDurable);
  sink.u32(group.termRuns.length);
  for (const run of group.termRuns) {
    sink.u64(run.from);
    sink.u64(run.term);
  }
  sink.u32(group.memberships.length);
  for (const at of group.memberships) putMembershipAt(at, sink);
}

function takeGroupCheckpoint(source: ByteSource): GroupCheckpoint {
  const owner = takeOwner(source);
  const generation = source.u64();
  const hardState = takeHardState(source);
  const firstIndex = source.u64();
  const lastIndex = source.u64();
  const appliedDurable = source.u64();
  const termRuns: TermRun[] = [];
  for (let left = source.u32(); left > 0; left--) {
    termRuns.push({ from: source.u64(), term: source.u64() });
  }
  const memberships: MembershipAt[] = [];
  for (let left = source.u32(); left > 0; left--) memberships.push(takeMembershipAt(source));
  const bounds = { firstIndex, lastIndex, appliedDurable };
  return { ...owner, generation, hardState, ...bounds, termRuns, memberships };
}

interface Owner {
  readonly group: GroupId;
  readonly replica: ReplicaId;
}

function putOwner(owner: Owner, sink: ByteSink): void {
  sink.u32(owner.group);
  sink.u32(owner.replica);
}

function takeOwner(source: ByteSource): Owner {
  return { group: groupId(source.u32()), replica: replicaId(source.u32()) };
}

function putHardState(hardState: HardState, sink: ByteSink): void {
  sink.u64(hardState.term);
  sink.u32(hardState.vote);
  sink.u64(hardState.commit);
}

function takeHardState(source: ByteSource): HardState {
  const term = source.u64();
  const vote = source.u32();
  return { term, vote: vote === 0 ? noReplica : replicaId(vote), commit: source.u64() };
}

function putMembership(membership: Membership, sink: ByteSink): void {
  const bytes = encodeMembership(membership);
  sink.u32(bytes.length);
  sink.raw(bytes);
}

function takeMembership(source: ByteSource): Membership {
  return decodeMembership(source.raw(source.u32()));
}

function putMembershipAt(at: MembershipAt, sink: ByteSink): void {
  sink.u64(at.index);
  putMembership(at.membership, sink);
}

function takeMembershipAt(source: ByteSource): MembershipAt {
  return { index: source.u64(), membership: takeMembership(source) };
}

function takeSnapshotMeta(source: ByteSource): SnapshotMeta {
  return { index: source.u64(), term: source.u64(), membership: takeMembershipAt(source) };
}

/** The index of the first stands once; the others follow without gaps. */
function putEntries(entries: readonly Entry[], sink: ByteSink): void {
  const first = entries[0]?.index ?? 0;
  sink.u32(entries.length);
  sink.u64(first);
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i];
    assert(entry?.index === first + i, 'entries of one record must be contiguous');
    sink.u64(entry.term);
    sink.u8(entry.kind);
    sink.u32(entry.data.length);
    sink.raw(entry.data);
  }
}

function takeEntries(source: ByteSource): readonly Entry[] {
  const count = source.u32();
  const first = source.u64();
  const entries: Entry[] = [];
  for (let i = 0; i < count; i++) {
    const term = source.u64();
    const kind = entryKind(source.u8());
    entries.push({ index: first + i, term, kind, data: source.raw(source.u32()) });
  }
  return entries;
}

function entryKind(value: number): EntryKind {
  switch (value) {
    case EntryKind.noop:
    case EntryKind.command:
    case EntryKind.membership:
      return value;
    default:
      throw new RangeError(`unknown entry kind ${value}`);
  }
}
