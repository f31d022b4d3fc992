import { expect } from 'chai';
import { decide } from '../../src/cluster/decisions.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import type { Topology } from '../../src/meta/topology.js';
import { after, clusterOf } from '../meta/clusters.js';
import { situationOf } from './decision-cases.js';

const nowMs = 1;

/** What the metadata leader does until it does nothing more. */
function settled(topology: Topology): Topology {
  let now = topology;
  for (let round = 0; round < 5; round++) {
    const commands = decide(situationOf({ topology: now }));
    if (commands.length === 0) return now;
    now = after(now, ...commands);
  }
  throw new Error('the metadata leader finds no end');
}

function moved(id: number, first: number, last: number): MetaCommand {
  const slots = [{ first, last }];
  return { kind: 'moveSlots', id, slots, keys: 1, bytes: 1, freezeMs: 1, nowMs };
}

const cancel = (id: number): MetaCommand => ({
  kind: 'setMigration',
  id,
  action: 'cancel',
  reason: 'no time',
  nowMs,
});

describe('decisions about shards that are merged or split', () => {
  const merging = after(clusterOf(3), { kind: 'mergeShard', shard: 2, into: [3, 4], nowMs });

  it('say how far a merge is, and remove the shard when nothing is left in it', () => {
    const begun = settled(merging);
    expect(begun.operations[0]?.progress).to.equal(
      '0 of 4096 slots have moved; migrations: 1 running, 1 queued',
    );
    const half = settled(after(begun, moved(1, 4096, 6143)));
    expect(half.operations[0]?.progress).to.equal(
      '2048 of 4096 slots have moved; migrations: 1 running',
    );
    const whole = settled(after(half, moved(2, 6144, 8191)));
    expect(whole.operations[0]).to.deep.include({ state: 'done' });
    expect(whole.shards.map(({ id }) => id)).to.deep.equal([1, 3, 4]);
    expect(whole.removedShards).to.deep.equal([2]);
  });

  it('go on where another leader stopped, between the removal and the end of the operation', () => {
    const whole = after(merging, moved(1, 4096, 6143), moved(2, 6144, 8191), {
      kind: 'removeShard',
      shard: 2,
    });
    expect(settled(whole).operations[0]?.state).to.equal('done');
  });

  it('end an operation as failed with the first of its migrations that ends badly', () => {
    const failed = settled(after(merging, cancel(2)));
    expect(failed.operations[0]).to.deep.include({
      state: 'failed',
      progress: 'migration 2 was cancelled: no time; what moved stays moved',
    });
    // The other one goes on, and the shard stays.
    expect(failed.migrations[0]?.state).to.equal('running');
    expect(failed.shards).to.have.length(4);
  });

  it('remove a shard that had no slots at the first look', () => {
    const created = after(clusterOf(3), { kind: 'createShard', replication: 1 });
    const merged = settled(after(created, { kind: 'mergeShard', shard: 5, into: [1], nowMs }));
    expect(merged.removedShards).to.deep.equal([5]);
    expect(merged.operations[0]?.state).to.equal('done');
  });

  it('end a split when the new shards have their slots', () => {
    const splitting = after(clusterOf(3), { kind: 'splitShard', shard: 1, into: 2, nowMs });
    expect(settled(splitting).operations[0]?.state).to.equal('running');
    const done = settled(after(splitting, moved(1, 2048, 4095)));
    expect(done.operations[0]?.state).to.equal('done');
    expect(done.shards).to.have.length(5);
  });
});
