import { expect } from 'chai';
import { groupId } from '../../raft/index.js';
import { ownerTold } from '../../src/cluster/local-shards.js';
import { slot } from '../../src/router/slot.js';
import { encodeMigrationStep } from '../../src/shard/command-codec.js';
import { noTerms, type SlotStepKind, type SlotTerms } from '../../src/shard/migration-step.js';
import { absentSlotState, type SlotState } from '../../src/shard/slot-state.js';
import { sourceShard, targetShard, TwoShards } from '../shard/two-shards.js';
import { withShardCluster, type ShardCluster } from './shard-cluster.js';

/** Nobody writes to it: what the target would report of it is nothing. */
const empty = slot(7);

/** A step about that slot, at the source; gives back its log time. */
async function say(
  cluster: ShardCluster,
  kind: SlotStepKind,
  terms: Partial<SlotTerms> = {},
): Promise<number> {
  let logTimeMs = 0;
  let state: 'open' | 'asked' | 'done' = 'open';
  await cluster.until(`${kind} is applied`, () => {
    const local = cluster.leader?.shard;
    if (state === 'open' && local !== undefined) {
      state = 'asked';
      const slots = [{ ...noTerms, slot: empty, ...terms }];
      logTimeMs = local.shard.nowMs;
      const step = encodeMigrationStep({ kind, id: 1, peer: 2, slots }, logTimeMs);
      local.group.propose(step, (outcome) => {
        state = outcome.kind === 'applied' ? 'done' : 'open';
      });
    }
    return state === 'done';
  });
  return logTimeMs;
}

describe('whose a slot is, by the shard itself', () => {
  it('D31: every replica tells its node the new owner at the handover, and again after a restart', () =>
    withShardCluster({}, async (cluster) => {
      const replicas = cluster.nodes.filter(({ shard }) => shard !== undefined);
      await say(cluster, 'exportBegin');
      const logTimeMs = await say(cluster, 'freeze');
      const gone = `${empty}: 2@2`;
      for (const { owners } of replicas) expect(owners).to.not.include(gone);
      await say(cluster, 'handover', { logTimeMs });
      await cluster.until('all have applied it', () =>
        replicas.every(({ owners }) => owners.at(-1) === gone),
      );
      const [restarted] = replicas;
      restarted?.kill();
      restarted?.owners.splice(0);
      await restarted?.start();
      expect(restarted?.owners.at(-1)).to.equal(gone);
    }));

  it('D31: no write makes it say anything', () =>
    withShardCluster({}, async (cluster) => {
      await cluster.write(20);
      for (const { owners } of cluster.nodes) expect(owners).to.deep.equal([]);
    }));

  it('D31: the source names the target from the handover on, the target itself from the activation on', async () => {
    const two = new TwoShards([slot(7)]);
    const told: string[] = [];
    const tell = (shard: number) => (_: unknown, state: SlotState) => {
      const owner = ownerTold(groupId(shard), state);
      if (owner !== undefined) told.push(`${shard} says ${owner.shard}@${owner.epoch}`);
    };
    two.source.machine.onOwnership = tell(sourceShard);
    two.target.machine.onOwnership = tell(targetShard);
    await two.migrate();
    expect([...new Set(told)]).to.deep.equal(['1 says 1@1', '1 says 2@2', '2 says 2@2']);
    expect(ownerTold(groupId(1), absentSlotState), 'never here').to.equal(undefined);
  });
});
