/**
 * Shorthand of the Raft log's tests: ids, entries, and a log on a simulated disk.
 */
import {
  EntryKind,
  encodeMembership,
  groupId,
  membershipOf,
  nodeId,
  replicaId,
} from '../../../raft/index.js';
import type { Entry, GroupId, LogIndex, Membership, ReplicaId, Term } from '../../../raft/index.js';
import { RaftLog } from '../../../storage/index.js';
import type { LogWrite, RaftLogOptions } from '../../../storage/index.js';
import type { SimulatedDisk } from './simulated-disk.js';

export const directory = '/disk/raft-log';

/** A membership of these replicas, each on the node of the same number. */
export function membership(...ids: readonly number[]): Membership {
  return membershipOf(ids.map((id) => ({ id: replicaId(id), node: nodeId(id) })));
}

export function command(index: LogIndex, term: Term, text = `${term}.${index}`): Entry {
  return { index, term, kind: EntryKind.command, data: Buffer.from(text) };
}

/** Commands [from, last] of one term. */
export function commands(from: LogIndex, last: LogIndex, term: Term): readonly Entry[] {
  return Array.from({ length: last - from + 1 }, (_, i) => command(from + i, term));
}

export function membershipEntry(index: LogIndex, term: Term, ...ids: number[]): Entry {
  const data = encodeMembership(membership(...ids));
  return { index, term, kind: EntryKind.membership, data };
}

/** `index:term:payload` of each, to compare. */
export function texts(entries: readonly Entry[]): readonly string[] {
  return entries.map(
    ({ index, term, kind, data }) =>
      `${index}:${term}:${kind}:${Buffer.from(data).toString('latin1')}`,
  );
}

/** A log on a simulated disk; failures are collected, not thrown. */
export interface OpenLog {
  readonly log: RaftLog;
  readonly failures: Error[];
}

export async function openLog(
  disk: SimulatedDisk,
  options: Partial<RaftLogOptions> = {},
): Promise<OpenLog> {
  const failures: Error[] = [];
  const log = await RaftLog.open(
    {
      directory,
      segmentBytes: 1_000_000,
      tailBytesMax: 1_000_000,
      heldSegmentsMax: 4,
      onFailure: (error) => failures.push(error),
      ...options,
    },
    { disk: disk.mount(), schedule: (run) => setImmediate(run) },
  );
  return { log, failures };
}

/** Resolves when the write is durable. */
export function appended(log: RaftLog, write: LogWrite): Promise<void> {
  return new Promise((resolve) => {
    log.append(write, resolve);
  });
}

export const group = (id: number): GroupId => groupId(id);
export const replica = (id: number): ReplicaId => replicaId(id);

export async function createGroup(log: RaftLog, id: number, replicaNumber = 1): Promise<void> {
  await log.createGroup({
    group: group(id),
    replica: replica(replicaNumber),
    membership: membership(1, 2, 3),
  });
}

/** All entries of a group, as the file has them. */
export async function readAll(log: RaftLog, id: number): Promise<readonly Entry[]> {
  const found = log.recovered.find((candidate) => candidate.group === group(id));
  const all: Entry[] = [];
  for (let from = found?.firstIndex ?? 1; ; from = (all.at(-1)?.index ?? 0) + 1) {
    const range = { group: group(id), from, last: Number.MAX_SAFE_INTEGER, bytesMax: 10_000 };
    const part = await log.read(range);
    if (part.length === 0) return all;
    all.push(...part);
  }
}

/** Waits until `condition` holds, at most `timeoutMs`; fails with `what` and the state. */
export async function eventually(
  condition: () => boolean,
  what: () => string,
  timeoutMs = 5_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not in ${timeoutMs} ms: ${what()}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
