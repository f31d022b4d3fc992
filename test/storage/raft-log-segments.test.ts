/**
 * How old segments go: dropped when nobody needs them, emptied when somebody needs too little.
 */
import { basename } from 'node:path';
import { expect } from 'chai';
import { RecordKind } from '../../storage/raft-log/record.js';
import { scanSegment } from '../../storage/raft-log/scan.js';
import {
  appended,
  command,
  commands,
  createGroup,
  eventually,
  group,
  membership,
  openLog,
  readAll,
  texts,
} from './raft-log/fixture.js';
import type { OpenLog } from './raft-log/fixture.js';
import { SimulatedDisk, randomFrom } from './raft-log/simulated-disk.js';

type Log = OpenLog['log'];

/** One entry of 100 bytes per write, from `from` on. */
async function fill(log: Log, id: number, from: number, count: number): Promise<void> {
  for (let index = from; index < from + count; index++) {
    await appended(log, { group: group(id), entries: [command(index, 1, 'x'.repeat(100))] });
  }
}

/** The same, compacting all but the last three entries as it goes. */
async function run(log: Log, id: number, from: number, count: number): Promise<void> {
  for (let index = from; index < from + count; index++) {
    await fill(log, id, index, 1);
    if (index > 3) log.compact({ group: group(id), firstIndex: index - 2, appliedDurable: index });
  }
}

async function segmentsAtMost(log: Log, count: number): Promise<void> {
  await eventually(
    () => log.statistics().segments <= count,
    () => `at most ${count} segments: ${JSON.stringify(log.statistics())}`,
  );
}

const idOf = (path: string): number => Number(basename(path, '.segment'));

function relocationsOn(disk: SimulatedDisk): number {
  const frames = disk.paths().flatMap((path) => scanSegment(disk.bytesOf(path), idOf(path)).frames);
  return frames.filter(({ kind }) => kind === RecordKind.relocation).length;
}

describe('Raft log segments', () => {
  it('drops segments behind the compaction, oldest first, each durably before the next', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 1_000 });
    await createGroup(log, 1);
    await fill(log, 1, 1, 60);
    const before = disk.paths();
    expect(before.length).to.be.above(5);
    disk.operations.length = 0;
    log.compact({ group: group(1), firstIndex: 58, appliedDurable: 60 });
    await segmentsAtMost(log, 2);
    const changes = disk.operations.filter(
      ({ kind }) => kind === 'remove' || kind === 'syncDirectory',
    );
    const removed = changes.filter(({ kind }) => kind === 'remove').map(({ path }) => path);
    expect(removed).to.deep.equal(before.slice(0, removed.length));
    expect(removed.length).to.be.at.least(before.length - 2);
    changes.forEach(({ kind }, i) => {
      expect(kind).to.equal(i % 2 === 0 ? 'remove' : 'syncDirectory');
    });
    expect(log.statistics().bytes).to.be.below(3_000);
    disk.kill();
    const { log: again } = await openLog(disk);
    expect(again.recovered[0]).to.include({ firstIndex: 58, lastIndex: 60 });
  });

  it('keeps every segment that somebody needs', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 1_000, heldSegmentsMax: 2 });
    await createGroup(log, 1);
    await fill(log, 1, 1, 60);
    await log.close();
    expect(relocationsOn(disk), 'a log that is needed as a whole is not copied').to.equal(0);
    expect(await openLog(disk).then(({ log: again }) => readAll(again, 1))).to.have.length(60);
  });

  it('drops what a reset and a removal leave behind', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 1_000 });
    await createGroup(log, 1);
    await createGroup(log, 2);
    await fill(log, 1, 1, 30);
    await fill(log, 2, 1, 30);
    const at = { index: 50, membership: membership(1) };
    await appended(log, { group: group(1), reset: { index: 50, term: 2, membership: at } });
    await log.removeGroup(group(2));
    await segmentsAtMost(log, 2);
  });

  it('D10: a lagging group holds back a bounded number of segments and loses nothing', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 2_000, heldSegmentsMax: 3 });
    await createGroup(log, 1);
    await createGroup(log, 2);
    // Group 1 stops with live entries in the first segment; group 2 goes on and compacts.
    await appended(log, { group: group(1), entries: commands(1, 8, 1) });
    let most = 0;
    for (let round = 0; round < 30; round++) {
      await run(log, 2, round * 20 + 1, 20);
      most = Math.max(most, log.statistics().segments);
    }
    expect(most).to.be.within(4, 6);
    expect(texts(await readAll(log, 1))).to.deep.equal(texts(commands(1, 8, 1)));
    expect(disk.paths().map(idOf)[0], 'the first segment is gone').to.be.above(20);
    disk.kill();
    const { log: again } = await openLog(disk);
    expect(texts(again.recovered[0]?.tail ?? [])).to.deep.equal(texts(commands(1, 8, 1)));
  });

  it('D10: relocated entries, later in the file, do not truncate newer ones', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 2_000, heldSegmentsMax: 2 });
    await createGroup(log, 1);
    await createGroup(log, 2);
    await appended(log, { group: group(1), entries: commands(1, 8, 1) });
    await run(log, 2, 1, 20);
    // Newer entries of the same group, acknowledged before the old ones are copied forward.
    await appended(log, { group: group(1), entries: [...commands(7, 12, 3)] });
    const expected = texts([...commands(1, 6, 1), ...commands(7, 12, 3)]);
    await run(log, 2, 21, 60);
    await eventually(
      () => idOf(disk.paths()[0] ?? '') > 2,
      () => `segments ${disk.paths().join(' ')}`,
    );
    expect(relocationsOn(disk)).to.be.above(0);
    expect(texts(await readAll(log, 1))).to.deep.equal(expected);
    disk.kill();
    const { log: again } = await openLog(disk);
    expect(texts(again.recovered[0]?.tail ?? [])).to.deep.equal(expected);
    // And on top of the relocated log, life goes on.
    await appended(again, { group: group(1), entries: [command(5, 4)] });
    expect(texts(await readAll(again, 1))).to.deep.equal(
      texts([...commands(1, 4, 1), command(5, 4)]),
    );
  });

  it('D10: a power cut at any step of a relocation loses nothing', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 2_000, heldSegmentsMax: 2 });
    await createGroup(log, 1);
    await createGroup(log, 2);
    await appended(log, { group: group(1), entries: commands(1, 8, 1) });
    await appended(log, { group: group(1), entries: commands(7, 9, 2) });
    const expected = texts([...commands(1, 6, 1), ...commands(7, 9, 2)]);
    const steps: { readonly image: SimulatedDisk; readonly kind: string }[] = [];
    disk.hook = ({ kind }) => {
      if (kind !== 'read') steps.push({ image: disk.copy(), kind });
    };
    await run(log, 2, 1, 80);
    disk.kill();
    const kinds = new Set(steps.map(({ kind }) => kind));
    expect([...kinds]).to.include.members(['write', 'create', 'syncDirectory', 'remove']);
    for (const [i, { image, kind }] of steps.entries()) {
      image.cutPower(randomFrom(i + 1));
      const { log: again } = await openLog(image);
      const found = again.recovered[0];
      expect(texts(found?.tail ?? []), `before step ${i}, ${kind}`).to.deep.equal(expected);
    }
  });

  it('D10: the copy is durable before the old segment is removed', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 2_000, heldSegmentsMax: 1 });
    await createGroup(log, 1);
    await createGroup(log, 2);
    await appended(log, { group: group(1), entries: commands(1, 8, 1) });
    let removals = 0;
    let relocations = 0;
    let pending: Promise<void> | undefined;
    disk.hook = ({ kind, path }) => {
      if (kind !== 'remove') return;
      removals++;
      // What the disk holds for sure at this moment must do without the segment.
      const image = disk.copy();
      image.cutPower(randomFrom(removals));
      const without = new SimulatedDisk();
      for (const name of image.paths()) if (name !== path) without.place(name, image.bytesOf(name));
      relocations += relocationsOn(without);
      pending = (pending ?? Promise.resolve()).then(async () => {
        const { log: again } = await openLog(without);
        expect(texts(again.recovered[0]?.tail ?? [])).to.deep.equal(texts(commands(1, 8, 1)));
      });
    };
    await run(log, 2, 1, 120);
    await pending;
    expect(removals).to.be.above(3);
    expect(relocations).to.be.above(0);
  });

  it('copies a byte at most about once per byte it frees', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 4_000, heldSegmentsMax: 1 });
    for (const id of [1, 2]) await createGroup(log, id);
    // A large live log behind which a busy one turns over ten times its size.
    await fill(log, 1, 1, 100);
    const appendedBytes = log.statistics().writtenBytes;
    await run(log, 2, 1, 1_000);
    const busyBytes = log.statistics().writtenBytes - appendedBytes;
    expect(log.statistics().bytes, 'on disk').to.be.below(4 * log.statistics().liveBytes + 20_000);
    expect(busyBytes, 'written').to.be.below(2.5 * 1_000 * 250);
    expect(await readAll(log, 1)).to.have.length(100);
  });

  it('finishes a read whose segment is dropped meanwhile', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 500 });
    await createGroup(log, 1);
    await fill(log, 1, 1, 20);
    let release: (() => void) | undefined;
    disk.hook = ({ kind }) => {
      if (kind !== 'read' || release !== undefined) return undefined;
      return new Promise((resolve) => {
        release = resolve;
      });
    };
    const read = log.read({ group: group(1), from: 1, last: 5, bytesMax: 10_000 });
    await eventually(
      () => release !== undefined,
      () => 'a read under way',
    );
    log.compact({ group: group(1), firstIndex: 20, appliedDurable: 20 });
    await segmentsAtMost(log, 2);
    release?.();
    expect((await read).map(({ index }) => index)).to.deep.equal([1, 2, 3, 4, 5]);
    const range = { group: group(1), from: 5, last: 9, bytesMax: 1_000 };
    expect(await log.read(range)).to.deep.equal([]);
  });
});
