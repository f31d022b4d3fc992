/** D07: the generation of a replica is as durable as its log. */
import { expect } from 'chai';
import {
  appended,
  command,
  createGroup,
  group,
  membership,
  openLog,
  replica,
} from './raft-log/fixture.js';
import { SimulatedDisk } from './raft-log/simulated-disk.js';

describe('D07: the generation in the Raft log', () => {
  it('is given back after a restart, also from the checkpoint of a later segment', async () => {
    const disk = new SimulatedDisk();
    const { log } = await openLog(disk, { segmentBytes: 1_000 });
    await createGroup(log, 1);
    await log.createGroup({
      group: group(2),
      replica: replica(4),
      membership: membership(4),
      generation: 1_900_000_000 * 2 ** 20,
    });
    await appended(log, { group: group(1), generation: 3, entries: [command(1, 1)] });
    for (let index = 2; index <= 100; index++)
      await appended(log, { group: group(1), entries: [command(index, 1)] });
    log.compact({ group: group(1), firstIndex: 100, appliedDurable: 100 });
    await appended(log, { group: group(1), entries: [command(101, 1)] });
    await log.close();
    const again = await openLog(disk, { segmentBytes: 1_000 });
    expect(again.log.recovered.map(({ generation }) => generation)).to.deep.equal([
      3,
      1_900_000_000 * 2 ** 20,
    ]);
    expect(() => {
      again.log.append({ group: group(1), generation: 3 }, () => undefined);
    }).to.throw('generations rise: 3 after 3');
    await again.log.close();
  });
});
