/** Bugs of the disk side: what is durable when, and what is believed after a restart. */
import { tests, type Mutant } from './mutant.js';

const failures = tests('storage/raft-log-failure');
const recovery = tests('storage/raft-log-recovery');
const model = tests('storage/raft-log-model');
const segments = tests('storage/raft-log-segments');
const groupRecovery = tests('group/recovery');
const install = tests('group/snapshot-install');

export const storageMutants: readonly Omit<Mutant, 'section'>[] = [
  {
    name: 'applied-index-not-in-the-batch',
    breaks: 'R40: the applied index is written before the data, on its own',
    file: 'src/group/applier.ts',
    find: 'putAppliedMark(batch, prefix, last);',
    replace:
      'const early = engine.batch();\n    putAppliedMark(early, prefix, last);\n    await engine.write(early, { sync: false });',
    checks: [groupRecovery],
  },
  {
    name: 'applied-index-behind-the-batch',
    breaks: 'R40: the applied index is written after the data, on its own',
    file: 'src/group/applier.ts',
    find: 'putAppliedMark(batch, prefix, last);\n    // Nothing can have changed meanwhile: the next batch waits for this one, and so does an install.\n    await engine.write(batch, { sync: false });',
    replace:
      'await engine.write(batch, { sync: false });\n    const late = engine.batch();\n    putAppliedMark(late, prefix, last);\n    await engine.write(late, { sync: false });',
    checks: [groupRecovery],
  },
  {
    name: 'checksum-off',
    breaks: 'R44: the checksum of a frame is not compared',
    file: 'storage/raft-log/frame.ts',
    find: "if (checksum !== bytes.readUInt32LE(at + checksumAt)) return 'checksum mismatch';",
    replace: '',
    checks: [recovery],
  },
  {
    name: 'damage-taken-for-a-torn-tail',
    breaks: 'R44, D11: a bad frame ends the log, whatever stands behind it',
    file: 'storage/raft-log/recovery.ts',
    find: 'if (laterFrame !== undefined) {',
    replace: 'if (laterFrame !== undefined && laterFrame < 0) {',
    checks: [recovery],
  },
  {
    name: 'damage-in-a-sealed-segment-ignored',
    breaks: 'R44: a sealed segment may end anywhere',
    file: 'storage/raft-log/recovery.ts',
    find: 'if (!isLast) throw this.damage(',
    replace: 'if (id < 0) throw this.damage(',
    checks: [recovery],
  },
  {
    name: 'torn-tail-refused',
    breaks: 'R43: a write that a power cut tore makes the node unbootable',
    file: 'storage/raft-log/recovery.ts',
    find: 'if (laterFrame !== undefined) {',
    replace: 'if (laterFrame !== undefined || reason !== undefined) {',
    checks: [recovery],
  },
  {
    name: 'sync-error-swallowed',
    breaks: 'R45: a failed write or sync of the log counts as done',
    file: 'storage/raft-log/writer.ts',
    find: 'await active.file.writeDurably(this.sink.written(), writeStart);',
    replace:
      'await active.file.writeDurably(this.sink.written(), writeStart).catch(() => undefined);',
    checks: [failures],
  },
  {
    name: 'completed-before-the-sync',
    breaks: 'R02: the log calls a write durable while it is under way',
    file: 'storage/raft-log/writer.ts',
    find: 'await active.file.writeDurably(this.sink.written(), writeStart);',
    replace: 'void active.file.writeDurably(Buffer.from(this.sink.written()), writeStart);',
    checks: [failures],
  },
  {
    name: 'engine-goes-on-after-a-failed-write',
    breaks: 'R45: the state engine takes writes after one has failed',
    file: 'storage/rocks-engine.ts',
    find: 'if (this.broken !== undefined) throw this.broken;',
    replace: '',
    checks: [tests('storage/engine/rocks-engine', 'R45')],
  },
  {
    name: 'directory-not-synced',
    breaks: 'a power cut takes the name of a new segment, and all that is acknowledged in it',
    file: 'storage/raft-log/segment.ts',
    find: 'await place.disk.syncDirectory(place.directory);',
    replace: '',
    checks: [segments],
  },
  {
    name: 'dropped-segments-not-synced',
    breaks: 'a power cut leaves a hole in the sequence of segments',
    file: 'storage/raft-log/segment-set.ts',
    find: 'await this.disk.remove(oldest.path);\n      await this.disk.syncDirectory(this.directory);',
    replace: 'await this.disk.remove(oldest.path);',
    checks: [segments],
  },
  {
    name: 'last-write-not-repeated',
    breaks: 'R45: bytes that a failed sync left in the page cache are taken for durable',
    file: 'storage/raft-log/recovery.ts',
    find: 'await active.file.writeDurably(this.lastWrite.bytes, this.lastWrite.start);',
    replace: '',
    checks: [recovery],
  },
  {
    name: 'torn-tail-not-cut',
    breaks: 'D11: what is torn stays in the file, behind what is written next',
    file: 'storage/raft-log/recovery.ts',
    find: 'await active.file.truncateDurably(active.size);',
    replace: '',
    checks: [model],
  },
  {
    name: 'log-reset-ignored',
    breaks: 'D15: a snapshot is installed, and the log keeps its old entries',
    file: 'storage/raft-log/log-state.ts',
    find: 'if (record.reset !== undefined) index.reset(record.reset);',
    replace: '',
    checks: [tests('storage/raft-log')],
  },
  {
    name: 'relocation-replayed-as-append',
    breaks: 'D10: entries that were copied forward cut off the log behind them',
    file: 'storage/raft-log/log-state.ts',
    find: 'return this.owned(record).relocate(record.entries, place);',
    replace: 'return this.owned(record).append(record.entries, place);',
    checks: [segments],
  },
  {
    name: 'removed-replica-comes-back',
    breaks: 'D01: the log forgets which replica it removed',
    file: 'storage/raft-log/log-state.ts',
    find: 'this.floors.set(record.group, record.replica);',
    replace: '',
    checks: [tests('storage/raft-log')],
  },
  {
    name: 'compacted-before-the-state-is-durable',
    breaks: 'D14: the mark that allows a compaction is not synced',
    file: 'src/group/applier.ts',
    find: 'await surroundings.engine.write(mark, { sync: true });',
    replace: 'await surroundings.engine.write(mark, { sync: false });',
    checks: [groupRecovery],
  },
  {
    name: 'install-without-its-mark',
    breaks: 'D15: a crash in the middle of an install leaves half a state that looks whole',
    file: 'src/group/snapshots.ts',
    find: 'await engine.write(begin, { sync: true });',
    replace: '',
    checks: [install],
  },
  {
    name: 'snapshot-acknowledged-before-it-is-durable',
    breaks: 'D15: an installed snapshot is not synced before it is acknowledged',
    file: 'src/group/snapshots.ts',
    find: 'await engine.write(end, { sync: true });',
    replace: 'await engine.write(end, { sync: false });',
    checks: [install],
  },
  {
    name: 'cut-snapshot-taken-for-whole',
    breaks: 'D15: a snapshot whose stream broke counts as installed',
    file: 'src/group/snapshots.ts',
    find: "'snapshot was cut or damaged: another one is needed',\n    );\n    return false;",
    replace: "'snapshot was cut or damaged: another one is needed',\n    );",
    checks: [install],
  },
];
