/**
 * What the Raft log does when the disk refuses: it stops, says why, and acknowledges nothing more.
 */
import { expect } from 'chai';
import { RaftLogFailed } from '../../storage/index.js';
import {
  appended,
  command,
  commands,
  createGroup,
  directory,
  eventually,
  group,
  membership,
  openLog,
  replica,
  texts,
} from './raft-log/fixture.js';
import { SimulatedDisk } from './raft-log/simulated-disk.js';
import type { DiskOperation } from './raft-log/simulated-disk.js';

function failOn(disk: SimulatedDisk, wanted: DiskOperation['kind'], code = 'EIO'): void {
  disk.hook = ({ kind }) => {
    if (kind === wanted) throw Object.assign(new Error(`${code}: simulated`), { code });
  };
}

describe('Raft log failures', () => {
  it('R45 fsyncgate: a failed sync is fatal once, acknowledges nothing and is not retried', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk);
    await createGroup(log, 1);
    failOn(disk, 'write');
    disk.operations.length = 0;
    const acknowledged: number[] = [];
    const append = (index: number): void => {
      log.append({ group: group(1), entries: [command(index, 1)] }, () => {
        acknowledged.push(index);
      });
    };
    append(1);
    append(2);
    await eventually(
      () => failures.length > 0,
      () => 'a failure',
    );
    disk.hook = () => undefined;
    append(3);
    const refused: unknown = await log
      .createGroup({ group: group(2), replica: replica(1), membership: membership(1) })
      .catch((error: unknown) => error);
    await log.close();

    expect(acknowledged).to.deep.equal([]);
    expect(failures).to.have.length(1);
    expect(failures[0]).to.be.instanceOf(RaftLogFailed);
    expect(failures[0]).to.include({ code: 'EIO', directory });
    expect(refused).to.equal(failures[0]);
    const writes = disk.operations.filter(({ kind }) => kind === 'write');
    expect(writes, 'writes after the failed one').to.have.length(1);
  });

  it('R45: bytes of a failed sync that a restart reads back are written again', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk);
    await createGroup(log, 1);
    failOn(disk, 'write');
    log.append({ group: group(1), entries: commands(1, 9, 1) }, () => undefined);
    await eventually(
      () => failures.length > 0,
      () => 'a failure',
    );
    // The page cache still shows them, and calls them clean.
    disk.kill();
    const { log: again } = await openLog(disk);
    expect(again.recovered[0]?.lastIndex).to.equal(9);
    disk.cutPower(() => 3);
    const { log: third } = await openLog(disk);
    expect(texts(third.recovered[0]?.tail ?? [])).to.deep.equal(texts(commands(1, 9, 1)));
  });

  it('syncs the directory before the first acknowledgement in a new segment', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 300 });
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: [command(1, 1, 'x'.repeat(300))] });
    let release: (() => void) | undefined;
    disk.hook = ({ kind }) =>
      kind === 'syncDirectory'
        ? new Promise((resolve) => {
            release = resolve;
          })
        : undefined;
    disk.operations.length = 0;
    let acknowledged = false;
    log.append({ group: group(1), entries: [command(2, 1)] }, () => {
      acknowledged = true;
    });
    await eventually(
      () => release !== undefined,
      () => 'a directory sync',
    );
    await new Promise((resolve) => setImmediate(resolve));
    expect(acknowledged).to.equal(false);
    const kinds = disk.operations.map(({ kind }) => kind);
    expect(kinds).to.deep.equal(['create', 'write', 'syncDirectory']);
    release?.();
    await eventually(
      () => acknowledged,
      () => 'the acknowledgement',
    );
    disk.cutPower(() => 1);
    expect((await openLog(disk)).log.recovered[0]?.lastIndex).to.equal(2);
  });

  it('a failed directory sync is fatal too', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk, { segmentBytes: 300 });
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: [command(1, 1, 'x'.repeat(300))] });
    failOn(disk, 'syncDirectory');
    let acknowledged = false;
    log.append({ group: group(1), entries: [command(2, 1)] }, () => {
      acknowledged = true;
    });
    await eventually(
      () => failures.length > 0,
      () => 'a failure',
    );
    await log.close();
    expect(acknowledged).to.equal(false);
    expect(failures).to.have.length(1);
  });

  it('a failed removal of an old segment is fatal too', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk, { segmentBytes: 300 });
    await createGroup(log, 1);
    for (let index = 1; index <= 9; index++) {
      await appended(log, { group: group(1), entries: [command(index, 1, 'x'.repeat(100))] });
    }
    failOn(disk, 'remove');
    log.compact({ group: group(1), firstIndex: 9, appliedDurable: 9 });
    await eventually(
      () => failures.length > 0,
      () => 'a failure',
    );
    await log.close();
    expect(failures).to.have.length(1);
  });

  it('R45: a failed read is fatal too: what cannot be read is not told', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: [command(1, 1, 'precious')] });
    failOn(disk, 'read');
    const range = { group: group(1), from: 1, last: 1, bytesMax: 1 };
    const found: unknown = await log.read(range).catch((error: unknown) => error);
    expect(failures).to.have.length(1);
    expect(failures[0]).to.include({ code: 'EIO', directory });
    expect(found).to.include({ code: 'EIO' });
    await log.close();
  });

  it('closes its files only after the write under way, also after a failure', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: [command(1, 1, 'precious')] });
    const path = disk.paths()[0] ?? '';
    disk.bytesOf(path).write('spurious', disk.bytesOf(path).indexOf('precious'));
    const range = { group: group(1), from: 1, last: 1, bytesMax: 1 };
    const read: Promise<unknown> = log.read(range).catch((error: unknown) => error);
    let release: (() => void) | undefined;
    disk.hook = ({ kind }) =>
      kind === 'write'
        ? new Promise((resolve) => {
            release = resolve;
          })
        : undefined;
    log.append({ group: group(1), entries: [command(2, 1)] }, () => {
      failures.push(new Error('acknowledged after a failure'));
    });
    await eventually(
      () => release !== undefined && failures.length > 0,
      () => 'a failure during a write',
    );
    expect(await read).to.equal(failures[0]);
    const closed = log.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(disk.operations.some(({ kind }) => kind === 'close')).to.equal(false);
    release?.();
    await closed;
    expect(disk.operations.at(-1)?.kind).to.equal('close');
    expect(failures).to.have.length(1);
  });

  it('R46 disk full: says where and what to do', async () => {
    const disk = new SimulatedDisk();
    const { log, failures } = await openLog(disk);
    await createGroup(log, 1);
    disk.bytesMax = 500;
    log.append({ group: group(1), entries: [command(1, 1, 'x'.repeat(1_000))] }, () => undefined);
    await eventually(
      () => failures.length > 0,
      () => 'a failure',
    );
    expect(failures[0]).to.include({ code: 'ENOSPC', directory });
    expect(failures[0]?.message).to.include(directory);
    expect(failures[0]?.message).to.match(/full\. Remedy: free space there, then start the node/);
    await log.close();
  });

  it('R46 disk full: at any byte, the log is consistent once there is space again', async () => {
    const need = async (bytesMax: number): Promise<number> => {
      const disk = new SimulatedDisk();
      const options = { segmentBytes: 400 };
      const { log, failures } = await openLog(disk, options);
      await createGroup(log, 1);
      disk.bytesMax = bytesMax;
      let acknowledged = 0;
      let appendedLast = 0;
      while (failures.length === 0 && appendedLast < 12) {
        const index = ++appendedLast;
        log.append({ group: group(1), entries: [command(index, 1)] }, () => {
          acknowledged = index;
        });
        await eventually(
          () => failures.length > 0 || acknowledged === index,
          () => `entry ${index} with ${bytesMax} bytes`,
        );
      }
      await log.close();
      disk.kill();
      disk.bytesMax = Infinity;
      const { log: again } = await openLog(disk, options);
      const found = again.recovered[0];
      const last = found?.lastIndex ?? 0;
      expect(last, `with ${bytesMax} bytes`).to.be.within(acknowledged, appendedLast);
      expect(texts(found?.tail ?? [])).to.deep.equal(texts(commands(1, last, 1)));
      await appended(again, { group: group(1), entries: [command(last + 1, 2)] });
      await again.close();
      const { log: third } = await openLog(disk, options);
      expect(third.recovered[0]?.lastIndex).to.equal(last + 1);
      return acknowledged;
    };
    const reached = new Set<number>();
    for (let bytesMax = 200; bytesMax < 1_700; bytesMax++) reached.add(await need(bytesMax));
    expect([...reached]).to.include.members([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });
});
