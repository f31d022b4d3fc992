/** Replicas come and go: one is added and another removed, or a node is drained and let in again. */
import type { ShardInfo } from '../../src/client/index.js';
import { attempt, type Fault, type Field, type Nemesis } from './nemesis.js';
import type { Random } from '../random.js';

const timeoutMs = 5000;

export const membership: Nemesis = {
  name: 'membership',
  holdMs: [500, 6000],
  gapMs: [2000, 8000],
  probe: () => Promise.resolve(undefined),
  inject: (field, random) => (random.chance(0.4) ? drain(field, random) : exchange(field, random)),
};

async function drain(field: Field, random: Random): Promise<Fault | undefined> {
  const { admin } = field.cluster;
  const node = random.pick(field.nodes);
  const said = await attempt(() => admin.changeCluster({ kind: 'drain', node }, { timeoutMs }));
  return {
    what: 'drain, then undrain',
    target: `node ${node}`,
    heal: async () => {
      // Said anyway: of one that was not heard in time nobody knows whether it holds. If nobody hears
      // this either, the node is let in again when all is healed.
      await attempt(() => admin.changeCluster({ kind: 'undrain', node }, { timeoutMs }));
    },
    verifyEffect: () => Promise.resolve(said?.changed === true),
  };
}

/** A replica more, and when it is there another one less. */
async function exchange(field: Field, random: Random): Promise<Fault | undefined> {
  const { admin } = field.cluster;
  const topology = await attempt(() => admin.topology({ timeoutMs }));
  if (topology === undefined || topology.shards.length === 0) return undefined;
  const { shardId: shard, nodes }: ShardInfo = random.pick(topology.shards);
  const free = field.nodes.filter((node) => !nodes.includes(node));
  if (free.length === 0 || nodes.length === 0) return undefined;
  const [added, removed] = [random.pick(free), random.pick(nodes)];
  const change = (kind: string, node: number): Promise<{ changed: boolean } | undefined> =>
    attempt(() => admin.changeCluster({ kind, shard, node }, { timeoutMs }));
  const came = await change('addReplica', added);
  return {
    what: 'a replica added, another removed',
    target: `shard ${shard}: node ${added}, node ${removed}`,
    heal: async () => {
      // Refused as long as it would leave too few: then the shard has one more for good.
      if (came !== undefined) await change('removeReplica', removed);
    },
    verifyEffect: () => Promise.resolve(came?.changed === true),
  };
}
