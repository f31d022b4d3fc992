/**
 * The Raft log's promises on a good disk: what it gives back, while it runs and after a restart.
 */
import { expect } from 'chai';
import { EntryKind, noReplica } from '../../raft/index.js';
import {
  appended,
  command,
  commands,
  createGroup,
  eventually,
  group,
  membership,
  membershipEntry,
  openLog,
  readAll,
  replica,
  texts,
} from './raft-log/fixture.js';
import { SimulatedDisk } from './raft-log/simulated-disk.js';

describe('Raft log', () => {
  it('gives back after a restart what was appended', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 7);
    const hardState = { term: 2, vote: replica(3), commit: 2 };
    await appended(log, { group: group(7), entries: [command(1, 1), command(2, 2)], hardState });
    await appended(log, { group: group(7), entries: [membershipEntry(3, 2, 1, 2)] });
    await log.close();

    const [found] = (await openLog(disk)).log.recovered;
    expect(found).to.deep.include({
      group: 7,
      replica: 1,
      hardState,
      firstIndex: 1,
      lastIndex: 3,
      appliedDurable: 0,
      termRuns: [
        { from: 0, term: 0 },
        { from: 1, term: 1 },
        { from: 2, term: 2 },
      ],
      memberships: [
        { index: 0, membership: membership(1, 2, 3) },
        { index: 3, membership: membership(1, 2) },
      ],
    });
    expect(found?.tail.map((entry) => entry.kind)).to.deep.equal([
      EntryKind.command,
      EntryKind.command,
      EntryKind.membership,
    ]);
    expect(texts(found?.tail ?? [])[1]).to.equal('2:2:1:2.2');
  });

  it('replaces what is at or above the first appended entry', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: commands(1, 5, 1) });
    await appended(log, { group: group(1), entries: [membershipEntry(6, 1, 1)] });
    await appended(log, { group: group(1), entries: [command(3, 4)] });
    const expected = ['1:1:1:1.1', '2:1:1:1.2', '3:4:1:4.3'];
    expect(texts(await readAll(log, 1))).to.deep.equal(expected);
    await log.close();

    const [found] = (await openLog(disk)).log.recovered;
    expect(texts(found?.tail ?? [])).to.deep.equal(expected);
    expect(found?.termRuns.at(-1)).to.deep.equal({ from: 3, term: 4 });
    expect(found?.memberships.map((at) => at.index)).to.deep.equal([0]);
  });

  it('reads ranges within a frame and over many, by bytes', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: commands(1, 10, 1) });
    for (let index = 11; index <= 40; index++) {
      await appended(log, { group: group(1), entries: [command(index, 1, 'x'.repeat(100))] });
    }
    const read = async (from: number, last: number, bytesMax: number): Promise<number[]> =>
      (await log.read({ group: group(1), from, last, bytesMax })).map((entry) => entry.index);
    expect(await read(4, 6, 1_000)).to.deep.equal([4, 5, 6]);
    expect(await read(9, 12, 1_000)).to.deep.equal([9, 10, 11, 12]);
    expect(await read(20, 40, 0)).to.deep.equal([20]);
    expect(await read(20, 40, 450)).to.have.length.within(1, 4);
    expect(await read(40, 99, 1_000)).to.deep.equal([40]);
    expect(await read(41, 99, 1_000)).to.deep.equal([]);
  });

  it('a read among many groups keeps no more memory than it gives back', async () => {
    const { log } = await openLog(new SimulatedDisk());
    for (let id = 0; id < 64; id++) await createGroup(log, id);
    for (let index = 1; index <= 20; index++) {
      for (let id = 0; id < 64; id++) {
        log.append({ group: group(id), entries: [command(index, 1)] }, () => undefined);
      }
    }
    const entries = await log.read({ group: group(5), from: 1, last: 20, bytesMax: 10_000 });
    expect(texts(entries)).to.deep.equal(texts(commands(1, 20, 1)));
    const kept = new Set(entries.map(({ data }) => data.buffer));
    const keptBytes = [...kept].reduce((sum, buffer) => sum + buffer.byteLength, 0);
    // Small copies share pool blocks of 8 KiB; the span that was read is 100 KiB.
    expect(keptBytes).to.be.at.most(3 * 8_192);
  });

  it('forgets what it recovered when it is told to', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    await log.close();
    const { log: again } = await openLog(disk);
    expect(again.recovered).to.have.length(1);
    again.forgetRecovered();
    expect(again.recovered).to.deep.equal([]);
  });

  it('waits in a read for the write it overlaps', async () => {
    const { log } = await openLog(new SimulatedDisk());
    await createGroup(log, 1);
    log.append({ group: group(1), entries: commands(1, 3, 1) }, () => undefined);
    log.append({ group: group(1), entries: [command(2, 2)] }, () => undefined);
    const range = { group: group(1), from: 1, last: 9, bytesMax: 1_000 };
    expect(texts(await log.read(range))).to.deep.equal(['1:1:1:1.1', '2:2:1:2.2']);
  });

  it('completes appends in their order and shares one sync between 64 groups', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    for (let id = 0; id < 64; id++) await createGroup(log, id);
    const before = log.statistics().syncs;
    const order: number[] = [];
    for (let id = 0; id < 64; id++) {
      log.append({ group: group(id), entries: [command(1, 1)] }, () => order.push(id));
    }
    expect(order, 'nothing completes within append').to.deep.equal([]);
    await eventually(
      () => order.length === 64,
      () => `${order.length} of 64`,
    );
    expect(order).to.deep.equal(Array.from({ length: 64 }, (_, i) => i));
    expect(log.statistics().syncs - before).to.equal(1);
  });

  it('gathers what is appended during a write for the next', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    let release: (() => void) | undefined;
    disk.hook = ({ kind }) =>
      kind === 'write'
        ? new Promise((resolve) => {
            release = resolve;
            disk.hook = () => undefined;
          })
        : undefined;
    const done: number[] = [];
    const before = log.statistics().syncs;
    log.append({ group: group(1), entries: [command(1, 1)] }, () => done.push(1));
    await eventually(
      () => release !== undefined,
      () => 'a write under way',
    );
    for (let index = 2; index <= 9; index++) {
      log.append({ group: group(1), entries: [command(index, 1)] }, () => done.push(index));
    }
    expect(done).to.deep.equal([]);
    release?.();
    await log.close();
    expect(done).to.deep.equal([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(
      log.statistics().syncs - before,
      'the first, then all others with the close mark',
    ).to.equal(2);
  });

  it('splits what is queued into writes of bounded size, in order', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 2 ** 30 });
    await createGroup(log, 1);
    disk.operations.length = 0;
    const done: number[] = [];
    for (let index = 1; index <= 20; index++) {
      const entries = [command(index, 1, 'x'.repeat(1_000_000))];
      log.append({ group: group(1), entries }, () => done.push(index));
    }
    await log.close();
    expect(done).to.deep.equal(Array.from({ length: 20 }, (_, i) => i + 1));
    const writes = disk.operations.filter(({ kind }) => kind === 'write');
    expect(writes.length).to.be.within(4, 6);
    for (const { bytes } of writes) expect(bytes).to.be.below(6_000_000);
  });

  it('writes one large append as frames that a read of one entry can afford', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 2 ** 30 });
    await createGroup(log, 1);
    const entries = Array.from({ length: 40 }, (_, i) =>
      command(i + 1, 1, String(i % 10).repeat(100_000)),
    );
    await appended(log, { group: group(1), entries });
    disk.operations.length = 0;
    const [one] = await log.read({ group: group(1), from: 25, last: 25, bytesMax: 1 });
    expect(one?.data).to.deep.equal(Buffer.from('4'.repeat(100_000)));
    const reads = disk.operations.filter(({ kind }) => kind === 'read');
    expect(reads.map(({ bytes }) => bytes)).to.have.length(1);
    expect(reads[0]?.bytes).to.be.below(1_100_000);
    await log.close();
    const [found] = (await openLog(disk, { tailBytesMax: 350_000 })).log.recovered;
    expect(found?.lastIndex).to.equal(40);
    expect(found?.tail.map((entry) => entry.index)).to.deep.equal([38, 39, 40]);
  });

  it('D13: carries the durable applied index in the compaction mark', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: commands(1, 4, 1) });
    await appended(log, { group: group(1), entries: [membershipEntry(5, 2, 1, 2)] });
    await appended(log, { group: group(1), entries: commands(6, 9, 2) });
    log.compact({ group: group(1), firstIndex: 7, appliedDurable: 8 });
    expect(() => {
      log.compact({ group: group(1), firstIndex: 8, appliedDurable: 6 });
    }).to.throw('only 6 is applied durably');
    await log.close();

    const [found] = (await openLog(disk)).log.recovered;
    expect(found).to.deep.include({ firstIndex: 7, lastIndex: 9, appliedDurable: 8 });
    expect(found?.termRuns).to.deep.equal([{ from: 6, term: 2 }]);
    expect(found?.memberships).to.deep.equal([{ index: 5, membership: membership(1, 2) }]);
    expect(found?.tail.map((entry) => entry.index)).to.deep.equal([7, 8, 9]);
  });

  it('D15: a reset empties the log, which then begins after the snapshot', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    await appended(log, { group: group(1), entries: commands(1, 4, 1) });
    const at = { index: 90, membership: membership(4, 5) };
    const reset = { index: 100, term: 6, membership: at };
    const hardState = { term: 6, vote: noReplica, commit: 100 };
    await appended(log, { group: group(1), reset, hardState, entries: [command(101, 6)] });
    expect(await log.read({ group: group(1), from: 2, last: 4, bytesMax: 99 })).to.deep.equal([]);
    await log.close();

    const [found] = (await openLog(disk)).log.recovered;
    expect(found).to.deep.include({ firstIndex: 101, lastIndex: 101, appliedDurable: 100 });
    expect(found?.hardState).to.deep.equal(hardState);
    expect(found?.memberships).to.deep.equal([at]);
    expect(found?.termRuns).to.deep.equal([{ from: 100, term: 6 }]);
    expect(texts(found?.tail ?? [])).to.deep.equal(['101:6:1:6.101']);
  });

  it('D01: a removed replica is not created again, its successor starts empty', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1, 5);
    await appended(log, { group: group(1), entries: commands(1, 4, 1) });
    await log.removeGroup(group(1));
    expect(log.removedFloor(group(1))).to.equal(5);
    await log.close();

    const { log: again } = await openLog(disk);
    expect(again.recovered).to.deep.equal([]);
    expect(again.removedFloor(group(1))).to.equal(5);
    expect(again.removedFloor(group(2))).to.equal(noReplica);
    for (const id of [4, 5]) {
      const outcome = await createGroup(again, 1, id).then(
        () => 'created',
        (error: unknown) => String(error),
      );
      expect(outcome).to.include('was removed here (floor 5)');
    }
    await createGroup(again, 1, 6);
    await again.close();
    const [found] = (await openLog(disk)).log.recovered;
    expect(found).to.deep.include({ replica: 6, firstIndex: 1, lastIndex: 0 });
  });

  it('refuses bugs of its caller before they reach the file', async () => {
    const { log } = await openLog(new SimulatedDisk());
    await createGroup(log, 1);
    const at = group(1);
    const ignore = (): void => undefined;
    const refused = (write: Parameters<typeof log.append>[0], why: string): void => {
      expect(() => {
        log.append(write, ignore);
      }, why).to.throw(why);
    };
    refused({ group: at, entries: [command(2, 1)] }, 'entry 2 appended to a log of [1, 0]');
    log.append({ group: at, entries: commands(1, 9, 3) }, ignore);
    refused({ group: at, entries: [command(4, 3), command(6, 3)] }, 'not contiguous');
    log.append({ group: at, hardState: { term: 3, vote: replica(1), commit: 0 } }, ignore);
    refused({ group: at, hardState: { term: 2, vote: noReplica, commit: 0 } }, 'term goes back');
    refused({ group: at, hardState: { term: 3, vote: replica(2), commit: 0 } }, 'second vote');
    refused({ group: group(2), entries: [command(1, 1)] }, 'no group 2');
    await log.close();
    expect(() => {
      log.append({ group: at, entries: [] }, ignore);
    }).to.throw('closed');
  });

  it('never gives back a commit index above the last index', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk);
    await createGroup(log, 1);
    const hardState = { term: 1, vote: noReplica, commit: 12 };
    await appended(log, { group: group(1), entries: commands(1, 10, 1), hardState });
    await log.close();
    const [found] = (await openLog(disk)).log.recovered;
    expect(found?.hardState.commit).to.equal(10);
  });
});
