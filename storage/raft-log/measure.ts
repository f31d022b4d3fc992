/**
 * How fast the Raft log is on this disk: what `npm run bench` prints of it.
 */
import { EntryKind, groupId, nodeId, replicaId, membershipOf } from '../../raft/index.js';
import type { Entry } from '../../raft/index.js';
import { RaftLog } from './raft-log.js';

export interface RaftLogMeasurement {
  readonly entriesPerSync: number;
  readonly entryBytes: number;
  readonly groups: number;
  readonly entriesPerSecond: number;
  /** From append to completion of one turn, milliseconds. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU time of this process per entry, microseconds. */
  readonly cpuMicrosPerEntry: number;
  readonly syncs: number;
}

/**
 * Appends turns of `entriesPerSync` entries, spread over `groups`, each turn after the last one is
 * durable, in a new log in `directory` (which must not exist; its parent must). The caller removes
 * it. Memory stays bounded: the log is compacted as it goes.
 */
export async function measureRaftLog(options: {
  readonly directory: string;
  readonly entriesPerSync: number;
  readonly entryBytes: number;
  readonly groups: number;
  readonly turns: number;
}): Promise<RaftLogMeasurement> {
  const { directory, entriesPerSync, entryBytes, groups, turns } = options;
  const log = await RaftLog.open({
    directory,
    segmentBytes: 64 * 2 ** 20,
    tailBytesMax: 0,
    heldSegmentsMax: 4,
    onFailure: (error) => {
      throw error;
    },
  });
  const membership = membershipOf([{ id: replicaId(1), node: nodeId(1) }]);
  for (let id = 0; id < groups; id++) {
    await log.createGroup({ group: groupId(id), replica: replicaId(1), membership });
  }
  const turn = turnOf(log, options);
  const before = log.statistics().syncs;
  const cpuBefore = process.cpuUsage();
  const times: number[] = [];
  for (let i = 0; i < turns; i++) times.push(await turn(i));
  const cpu = process.cpuUsage(cpuBefore);
  const syncs = log.statistics().syncs - before;
  await log.close();

  times.sort((a, b) => a - b);
  const entries = turns * entriesPerSync;
  const totalMs = times.reduce((sum, time) => sum + time, 0);
  return {
    entriesPerSync,
    entryBytes,
    groups,
    entriesPerSecond: Math.round((entries * 1_000) / totalMs),
    p50Ms: times[Math.floor(turns * 0.5)] ?? 0,
    p99Ms: times[Math.floor(turns * 0.99)] ?? 0,
    cpuMicrosPerEntry: (cpu.user + cpu.system) / entries,
    syncs,
  };
}

/** One turn: resolves with its duration in milliseconds. */
function turnOf(
  log: RaftLog,
  options: {
    readonly entriesPerSync: number;
    readonly entryBytes: number;
    readonly groups: number;
  },
): (turn: number) => Promise<number> {
  const { entryBytes, groups } = options;
  const perGroup = Math.ceil(options.entriesPerSync / groups);
  const data = Buffer.alloc(entryBytes, 'x');
  return (turn) =>
    new Promise((resolve) => {
      const from = turn * perGroup + 1;
      const entries: Entry[] = [];
      for (let index = from; index < from + perGroup; index++) {
        entries.push({ index, term: 1, kind: EntryKind.command, data });
      }
      const begin = performance.now();
      let left = groups;
      for (let id = 0; id < groups; id++) {
        log.append({ group: groupId(id), entries }, () => {
          if (--left === 0) resolve(performance.now() - begin);
        });
        if (turn % 256 === 255) {
          log.compact({ group: groupId(id), firstIndex: from, appliedDurable: from });
        }
      }
    });
}
