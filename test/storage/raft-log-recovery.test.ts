/**
 * What a restart makes of a log that a power cut or a broken disk has changed: cut, or refused.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { expect } from 'chai';
import { RaftLogDamaged } from '../../storage/index.js';
import { ByteSink } from '../../storage/raft-log/bytes.js';
import { beginFrame, endFrame } from '../../storage/raft-log/frame.js';
import { RecordKind, encodeRecord } from '../../storage/raft-log/record.js';
import type { LogRecord } from '../../storage/raft-log/record.js';
import { scanSegment } from '../../storage/raft-log/scan.js';
import { encodeSegmentHeader, segmentName, segmentSeed } from '../../storage/raft-log/segment.js';
import {
  appended,
  command,
  commands,
  createGroup,
  directory,
  eventually,
  group,
  openLog,
  readAll,
  replica,
  texts,
} from './raft-log/fixture.js';
import { SimulatedDisk, randomFrom } from './raft-log/simulated-disk.js';

const first = join(directory, segmentName(1));

/** A segment with one group and one entry per write; where each write begins, and the end. */
async function oneSegment(count: number): Promise<{ disk: SimulatedDisk; starts: number[] }> {
  const disk = new SimulatedDisk();
  const { log } = await openLog(disk);
  await createGroup(log, 1);
  const starts: number[] = [];
  for (let index = 1; index <= count; index++) {
    starts.push(disk.bytesOf(first).length);
    await appended(log, { group: group(1), entries: [command(index, 1)] });
  }
  starts.push(disk.bytesOf(first).length);
  disk.kill();
  return { disk, starts };
}

/** Segments that hold group 1's entries 1 to `count`, all needed. */
async function manySegments(count: number): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk();
  const { log } = await openLog(disk, { segmentBytes: 500 });
  await createGroup(log, 1);
  for (let index = 1; index <= count; index++) {
    await appended(log, { group: group(1), entries: [command(index, 1)] });
  }
  disk.kill();
  return disk;
}

async function damageOf(disk: SimulatedDisk): Promise<RaftLogDamaged> {
  const before = disk.paths().map((path) => disk.bytesOf(path).toString('hex'));
  const error: unknown = await openLog(disk).then(
    () => 'it opened',
    (reason: unknown) => reason,
  );
  if (!(error instanceof RaftLogDamaged)) throw new Error(`not refused: ${String(error)}`);
  const after = disk.paths().map((path) => disk.bytesOf(path).toString('hex'));
  expect(after, 'the files are left as they are').to.deep.equal(before);
  return error;
}

async function recoveredTexts(disk: SimulatedDisk): Promise<readonly string[]> {
  const { log } = await openLog(disk);
  return texts(log.recovered[0]?.tail ?? []);
}

const nothing = { generation: undefined, reset: undefined, hardState: undefined };

/** Adds a record as a write of its own, as a faulty or newer program might have. */
function addWrite(disk: SimulatedDisk, record: LogRecord, version?: number): void {
  const bytes = disk.bytesOf(first);
  const frame = scanSegment(bytes, 1).frames.at(-1);
  const sink = new ByteSink(1_000);
  const start = beginFrame(sink);
  encodeRecord(record, sink);
  const offset = bytes.length;
  const writeNumber = (frame?.writeNumber ?? 0) + 1;
  const write = { seed: segmentSeed(1), writeStart: offset, writeNumber };
  endFrame(sink, { start, offset, kind: RecordKind[record.kind] }, write);
  const added = Buffer.from(sink.written());
  if (version !== undefined) {
    added.writeUInt8(version, 8);
    added.writeUInt32LE(crc32(added.subarray(4), segmentSeed(1)), 0);
  }
  disk.place(first, Buffer.concat([bytes, added]));
}

describe('Raft log recovery', () => {
  it('R43 torn tail: opens after a cut at any byte and goes on from the last whole write', async () => {
    const { disk, starts } = await oneSegment(6);
    const bytes = Buffer.from(disk.bytesOf(first));
    for (let length = starts[3] ?? 0; length < bytes.length; length++) {
      const cut = new SimulatedDisk();
      cut.place(first, bytes.subarray(0, length));
      const whole = starts.filter((start) => start <= length).length - 1;
      const { log } = await openLog(cut);
      const expected = texts(commands(1, whole, 1));
      expect(texts(log.recovered[0]?.tail ?? []), `cut at ${length}`).to.deep.equal(expected);
      await appended(log, { group: group(1), entries: [command(whole + 1, 9)] });
      cut.cutPower(randomFrom(length));
      const next = texts([command(whole + 1, 9)]);
      expect(await recoveredTexts(cut), `after ${length}`).to.deep.equal([...expected, ...next]);
    }
  });

  it('R44 damage in the middle: a flip of any byte before the last write is refused', async () => {
    const { disk, starts } = await oneSegment(5);
    const bytes = Buffer.from(disk.bytesOf(first));
    const { frames } = scanSegment(bytes, 1);
    const lastWrite = starts[4] ?? 0;
    for (let offset = 0; offset < bytes.length; offset++) {
      const flipped = new SimulatedDisk();
      flipped.place(first, bytes);
      const byte = flipped.bytesOf(first)[offset] ?? 0;
      flipped.bytesOf(first)[offset] = byte ^ (1 << (offset % 8));
      if (offset < lastWrite) {
        const error = await damageOf(flipped);
        const hit = frames.findLast((frame) => frame.offset <= offset)?.offset ?? 0;
        expect({ file: error.file, offset: error.offset }).to.deep.equal({
          file: first,
          offset: hit,
        });
      } else {
        // Nothing tells the last write from one that a power cut tore.
        expect(await recoveredTexts(flipped)).to.deep.equal(texts(commands(1, 4, 1)));
      }
    }
  });

  it('a clean close vouches for the last write: then damage to it is refused too', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    const start = disk.bytesOf(first).length;
    await appended(log, { group: group(1), entries: [command(1, 1)] });
    await log.close();
    disk.bytesOf(first).fill(0xff, start + 30, start + 31);
    expect((await damageOf(disk)).offset).to.equal(start);
  });

  it('names file, offset, reason and remedy', async () => {
    const { disk, starts } = await oneSegment(3);
    const offset = starts[1] ?? 0;
    disk.bytesOf(first).fill(0xff, offset + 30, offset + 34);
    const error = await damageOf(disk);
    expect(error.message).to.include(`${first} at byte ${offset}: checksum mismatch`);
    expect(error.message).to.include('a valid frame of a later write');
    expect(error.message).to.match(/Remedy: .*rebuilt from their peers/);
  });

  it('D11: a write whose first pages were lost and later ones kept is torn, not damaged', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    for (const id of [1, 2, 3]) await createGroup(log, id);
    await appended(log, { group: group(1), entries: [command(1, 1)] });
    const start = disk.bytesOf(first).length;
    log.append({ group: group(1), entries: [command(2, 1)] }, () => undefined);
    log.append({ group: group(2), entries: [command(1, 1)] }, () => undefined);
    await appended(log, { group: group(3), entries: [command(1, 1)] });
    const inOneWrite = scanSegment(disk.bytesOf(first), 1).frames.filter(
      ({ writeStart }) => writeStart === start,
    );
    expect(inOneWrite).to.have.length(3);
    disk.kill();

    const torn = disk.copy();
    torn.bytesOf(first).fill(0, start, start + 28);
    const { log: again } = await openLog(torn);
    expect(again.recovered.map(({ lastIndex }) => lastIndex)).to.deep.equal([1, 0, 0]);
    await again.close();
    expect((await openLog(torn)).log.recovered).to.have.length(3);

    // The same bytes with a later write behind them had been synced: that is damage.
    const { log: more } = await openLog(disk);
    await appended(more, { group: group(3), entries: [command(2, 1)] });
    disk.kill();
    disk.bytesOf(first).fill(0, start, start + 28);
    expect((await damageOf(disk)).offset).to.equal(start);
  });

  it('D11: keeps the whole frames before the torn one of the same write', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    for (const id of [1, 2]) await createGroup(log, id);
    log.append({ group: group(1), entries: [command(1, 1)] }, () => undefined);
    await appended(log, { group: group(2), entries: [command(1, 1)] });
    disk.kill();
    disk.bytesOf(first).fill(0xee, disk.bytesOf(first).length - 3);
    const { log: again } = await openLog(disk);
    expect(again.recovered.map(({ lastIndex }) => lastIndex)).to.deep.equal([1, 0]);
    await appended(again, { group: group(2), entries: [command(1, 7)] });
    disk.kill();
    const last = (await openLog(disk)).log.recovered[1];
    expect(texts(last?.tail ?? [])).to.deep.equal(['1:7:1:7.1']);
  });

  it('R44: damage at the end of a sealed segment is refused', async () => {
    const disk = await manySegments(40);
    const sealed = disk.paths()[1] ?? '';
    const bytes = disk.bytesOf(sealed);
    bytes.fill(0, bytes.length - 1);
    const error = await damageOf(disk);
    expect(error.file).to.equal(sealed);
    expect(error.reason).to.include('sealed segment');
  });

  it('refuses a sealed segment that ends early, also at the end of a frame', async () => {
    const disk = await manySegments(40);
    const sealed = disk.paths()[1] ?? '';
    const last = scanSegment(disk.bytesOf(sealed), 2).frames.at(-1)?.offset ?? 0;
    disk.place(sealed, disk.bytesOf(sealed).subarray(0, last));
    const error = await damageOf(disk);
    expect(error.file).to.equal(disk.paths()[2]);
    expect(error.reason).to.match(/write \d+ .*after write \d+/);
  });

  it('refuses a sealed segment that lost a frame in the middle of its last write', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 1_000 });
    for (const id of [1, 2]) await createGroup(log, id);
    for (let index = 1; disk.paths().length < 2; index++) {
      log.append({ group: group(1), entries: [command(index, 1)] }, () => undefined);
      await appended(log, { group: group(2), entries: [command(index, 1)] });
    }
    disk.kill();
    const last = scanSegment(disk.bytesOf(first), 1).frames.at(-1);
    expect(last?.writeStart).to.be.below(last?.offset ?? 0);
    disk.place(first, disk.bytesOf(first).subarray(0, last?.offset));
    const error = await damageOf(disk);
    expect(error.file).to.equal(disk.paths()[1]);
    expect(error.reason).to.include('the checkpoint does not say what the segments before it say');
  });

  it('refuses a sequence with a missing segment and names it', async () => {
    const disk = await manySegments(40);
    const without = new SimulatedDisk();
    const missing = disk.paths()[1] ?? '';
    for (const path of disk.paths()) {
      if (path !== missing) without.place(path, disk.bytesOf(path));
    }
    const error = await damageOf(without);
    expect(error.file).to.equal(missing);
    expect(error.reason).to.include('missing');
  });

  it('R11 gap: refuses a log whose first entries are in no segment', async () => {
    const disk = await manySegments(40);
    const without = new SimulatedDisk();
    for (const path of disk.paths().slice(1)) without.place(path, disk.bytesOf(path));
    const error = await damageOf(without);
    expect(error.file).to.equal(disk.paths()[1]);
    expect(error.reason).to.match(/entries \[1, \d+\] of group 1 are in no segment/);
  });

  it('R11 gap: refuses entries that do not follow the log', async () => {
    const { disk } = await oneSegment(3);
    const owner = { group: group(1), replica: replica(1) };
    const gap = { ...owner, ...nothing, entries: [command(5, 1)] };
    const offset = disk.bytesOf(first).length;
    addWrite(disk, { kind: 'append', ...gap });
    const error = await damageOf(disk);
    expect({ offset: error.offset, reason: error.reason }).to.deep.equal({
      offset,
      reason: 'gap: entry 5 in a log of [1, 3]',
    });
  });

  it('D01: refuses a record of another replica of the group', async () => {
    const { disk } = await oneSegment(3);
    const owner = { group: group(1), replica: replica(2) };
    const foreign = { ...owner, ...nothing, entries: [command(4, 1)] };
    addWrite(disk, { kind: 'append', ...foreign });
    expect((await damageOf(disk)).reason).to.equal('group 1 is replica 1, not 2');
  });

  it('D16: refuses a sound frame of another version instead of cutting it', async () => {
    const { disk } = await oneSegment(3);
    addWrite(disk, { kind: 'closed' }, 1);
    expect((await damageOf(disk)).reason).to.equal('format version 1; this program reads 3');
  });

  it('removes a last segment whose creation was never completed, and uses its number', async () => {
    const disk = await manySegments(40);
    const id = disk.paths().length + 1;
    const next = join(directory, segmentName(id));
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(300), encodeSegmentHeader(id)]) {
      const copy = disk.copy();
      copy.place(next, bytes);
      const { log } = await openLog(copy, { segmentBytes: 500 });
      expect(copy.paths()).to.not.include(next);
      expect(await readAll(log, 1)).to.have.length(40);
      for (let index = 41; index <= 60; index++) {
        await appended(log, { group: group(1), entries: [command(index, 1)] });
      }
      expect(copy.paths()).to.include(next);
      copy.kill();
      expect(await recoveredTexts(copy)).to.deep.equal(texts(commands(1, 60, 1)));
    }
  });

  it('refuses a damaged header with writes behind it, and a renamed segment', async () => {
    const disk = await manySegments(40);
    const last = disk.paths().at(-1) ?? '';
    const damaged = disk.copy();
    damaged.bytesOf(last).fill(0, 0, 4);
    expect((await damageOf(damaged)).file).to.equal(last);

    const next = join(directory, segmentName(disk.paths().length + 1));
    disk.place(next, disk.bytesOf(last));
    const error = await damageOf(disk);
    expect(error.file).to.equal(next);
    expect(error.reason).to.include('the header says segment');
  });

  it('R02: what a restart gives back is durable, also if it was never synced before', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    const before = disk.operations.length;
    disk.hook = ({ kind }) => (kind === 'write' ? new Promise(() => undefined) : undefined);
    log.append({ group: group(1), entries: commands(1, 9, 1) }, () => {
      throw new Error('acknowledged without a sync');
    });
    await eventually(
      () => disk.operations.length > before,
      () => 'a write under way',
    );
    disk.kill();
    const { log: again } = await openLog(disk);
    expect(again.recovered[0]?.lastIndex).to.equal(9);
    disk.cutPower(() => 3);
    expect(await recoveredTexts(disk)).to.deep.equal(texts(commands(1, 9, 1)));
  });

  it('R44: bytes that rot while the log is open are never served', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: commands(1, 3, 1) });
    const offset = disk.bytesOf(first).length;
    await appended(log, { group: group(1), entries: [command(4, 1, 'precious')] });
    const at = disk.bytesOf(first).indexOf('precious');
    disk.bytesOf(first).write('spurious', at);
    const range = { group: group(1), from: 1, last: 9, bytesMax: 1_000 };
    const error: unknown = await log.read(range).catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(RaftLogDamaged);
    expect(error).to.include({ file: first, offset, reason: 'checksum mismatch' });
    expect(failures, 'the node must stop').to.deep.equal([error]);
    let acknowledged = false;
    log.append({ group: group(1), entries: [command(5, 1)] }, () => {
      acknowledged = true;
    });
    await log.close();
    expect(acknowledged).to.equal(false);
  });

  it('R44: 300 random flips in many segments are refused, or hit the last write', async () => {
    const disk = await manySegments(60);
    const last = disk.paths().at(-1) ?? '';
    const lastId = disk.paths().length;
    const lastWrite = scanSegment(disk.bytesOf(last), lastId).frames.at(-1)?.writeStart ?? 0;
    const seed = Number(process.env['SEED'] ?? 20_240_607);
    const random = randomFrom(seed);
    for (let round = 0; round < 300; round++) {
      const flipped = disk.copy();
      const path = flipped.paths()[random() % flipped.paths().length] ?? '';
      const bytes = flipped.bytesOf(path);
      const offset = random() % bytes.length;
      bytes[offset] = (bytes[offset] ?? 0) ^ (1 << (random() % 8));
      const where = `SEED=${seed}, round ${round}: ${path} at ${offset}`;
      if (path === last && offset >= lastWrite) {
        expect(await recoveredTexts(flipped), where).to.deep.equal(texts(commands(1, 59, 1)));
      } else {
        const error = await damageOf(flipped);
        expect(error.file, where).to.equal(path);
        expect(error.offset, where).to.be.at.most(offset);
      }
    }
  });
});
