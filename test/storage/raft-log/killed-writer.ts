/**
 * A process that appends to a real Raft log until it is killed: `killed-writer DIRECTORY`. Prints
 * `group index` for every acknowledged entry, one per line, synchronously.
 */
import { writeSync } from 'node:fs';
import { RaftLog } from '../../../storage/index.js';
import { createGroup, group } from './fixture.js';
import { writtenEntry } from './written-entry.js';

const groupCount = 4;
const underWayMax = 32;

const log = await RaftLog.open({
  directory: process.argv[2] ?? '',
  segmentBytes: 200_000,
  tailBytesMax: 0,
  heldSegmentsMax: 3,
  onFailure: (error) => {
    throw error;
  },
});

for (let id = 1; id <= groupCount; id++) {
  const found = log.recovered.find((candidate) => candidate.group === group(id));
  if (found === undefined) await createGroup(log, id);
  write(id, (found?.lastIndex ?? 0) + 1);
}

/** Keeps a number of appends under way; entries depend on group and index only. */
function write(id: number, from: number): void {
  let next = from;
  const more = (): void => {
    const index = next++;
    log.append({ group: group(id), entries: [writtenEntry(id, index)] }, () => {
      writeSync(1, `${id} ${index}\n`);
      // Group 1 lags: its entries are copied forward while the others are compacted.
      if (id > 1 && index % 64 === 0) {
        log.compact({ group: group(id), firstIndex: index - 20, appliedDurable: index });
      }
      // It also stops growing early, so that a relocation pays.
      if (id > 1 || index < 200) more();
    });
  };
  for (let i = 0; i < underWayMax; i++) more();
}
