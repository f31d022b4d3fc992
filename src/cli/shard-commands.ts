/** `quorate shard ...`: the shards of a cluster, their replicas and leaders. */
import { Command } from 'commander';
import type { QuorateClient } from '../client/index.js';
import {
  shardIn,
  slotsOf,
  takePicture,
  topologyOf,
  type GroupPicture,
  type Picture,
} from './cluster-picture.js';
import { groupRow } from './cluster-status.js';
import { change } from './metadata-change.js';
import {
  parseInteger,
  parseNumber,
  withClient,
  withClientFlags,
  type ClientFlags,
} from './options.js';
import { ExitCode, formatCount, printJson, printTable } from './output.js';
import { addReshaping } from './shard-reshaping.js';

interface NodeFlags extends ClientFlags {
  readonly node: string;
}

interface TransferFlags extends ClientFlags {
  readonly to?: string;
}

interface CreateFlags extends ClientFlags {
  readonly replicas: string;
}

const idMax = 0xffff_ffff;
const idOf = (text: string): number => parseInteger('shard', text, 1, idMax);
const nodeOf = (name: string, text: string): number => parseInteger(name, text, 1, idMax);

export function shardCommand(): Command {
  const shard = new Command('shard')
    .description('the shards of the cluster: their replicas and leaders')
    .addHelpText(
      'after',
      `
Examples:
  quorate shard show 3                          who has it, who leads, who lags
  quorate shard transfer-leader 3 --to 2        node 2 leads it from now on, whenever it can
  quorate shard add-replica 3 --node 5          one copy more; remove-replica takes one away
  quorate shard split 3 --wait                  half of its slots go to a new shard
  quorate shard merge 3 --into 1,2 --wait       all of them go to others, and it is removed`,
    );
  addLooks(shard);
  addTransfer(shard);
  addReplicas(shard);
  addReshaping(shard);
  return shard;
}

function addLooks(shard: Command): void {
  withClientFlags(
    shard.command('list').description('all shards: slots, leader, replicas, keys'),
  ).action((flags: ClientFlags) =>
    withClient(flags, async (client) => {
      const picture = await takePicture(client);
      const groups = picture.groups.slice(1);
      if (groups.some(({ problem }) => problem !== '')) process.exitCode = ExitCode.unhealthy;
      if (flags.output === 'json') printJson(groups.map((group) => jsonOf(picture, group)));
      else
        printTable(
          ['shard', 'slots', 'leader', 'nodes', 'there', 'behind', 'keys'],
          groups.map((group) => [
            String(group.id),
            ...groupRow(group, slotsOf(picture.topology, group.id)).slice(1),
          ]),
        );
    }),
  );
  withClientFlags(
    shard.command('show <shard>').description('one shard: its slots, and each of its replicas'),
  ).action((id: string, flags: ClientFlags) =>
    withClient(flags, async (client) => {
      show(await takePicture(client), idOf(id), flags.output);
    }),
  );
}

function show(picture: Picture, id: number, form: string): void {
  shardIn(picture, id);
  const group = picture.groups.find((each) => each.id === id);
  if (group === undefined) return;
  if (group.problem !== '') process.exitCode = ExitCode.unhealthy;
  if (form === 'json') {
    printJson(jsonOf(picture, group));
    return;
  }
  const slots = slotsOf(picture.topology, id);
  console.log(`shard ${id}, slots ${slots === '' ? 'none' : slots}\n`);
  const nodes = [...new Set([...group.nodes, ...group.replicas.keys()])].sort((a, b) => a - b);
  printTable(
    ['node', 'replica', 'role', 'term', 'last', 'commit', 'applied', 'keys'],
    nodes.map((node) => replicaRow(group, node)),
  );
  console.log(group.problem === '' ? '\nall replicas are there' : `\n! ${group.problem}`);
}

function replicaRow({ replicas, leader }: GroupPicture, node: number): string[] {
  const status = replicas.get(node);
  if (status === undefined) return [String(node), '', 'none, or no answer', '', '', '', '', ''];
  const { term, lastIndex, commitIndex, appliedIndex, keys } = status;
  const isLearner = leader?.status.learners.includes(node) === true;
  return [
    String(node),
    String(status.replicaId),
    status.restoring ? 'restoring' : isLearner ? 'learner' : status.role,
    String(term),
    ...[lastIndex, commitIndex, appliedIndex].map(String),
    formatCount(keys),
  ];
}

function jsonOf({ topology }: Picture, group: GroupPicture): object {
  return {
    id: group.id,
    slots: topology.slots.filter(({ shardId }) => shardId === group.id),
    leader: group.leader?.node ?? null,
    nodes: group.nodes,
    present: group.present,
    replication: group.replication,
    problem: group.problem,
    replicas: [...group.replicas].map(([node, status]) => ({ node, status })),
  };
}

function addTransfer(shard: Command): void {
  withClientFlags(
    shard
      .command('transfer-leader <shard>')
      .description('let another replica lead, now and from now on'),
  )
    .option('--to <node>', 'the node that is to lead; without it: whoever is furthest along')
    .addHelpText('after', '\nIt stays so: leadership goes back to that node whenever it can lead.')
    .action((id: string, flags: TransferFlags) =>
      withClient(flags, (client) => transfer(client, idOf(id), flags)),
    );
}

async function transfer(client: QuorateClient, id: number, flags: TransferFlags): Promise<void> {
  const topology = await topologyOf(client);
  const { nodes, replicas } = shardIn({ topology }, id);
  const to = flags.to === undefined ? 0 : nodeOf('--to', flags.to);
  // First what stays: the shard would hand leadership back to the one that was named before.
  if (to > 0) await client.changeCluster({ kind: 'setLeader', shard: id, node: to });
  const toReplica = to > 0 ? (replicas[nodes.indexOf(to)] ?? 0) : 0;
  const { leaderNode } = await client.transferLeader({ groupId: id, toReplica });
  if (to === 0) await client.changeCluster({ kind: 'setLeader', shard: id, node: leaderNode });
  if (flags.output === 'json') printJson({ shard: id, leader: leaderNode });
  else console.log(`ok, node ${leaderNode} leads shard ${id}`);
}

function addReplicas(shard: Command): void {
  withClientFlags(
    shard.command('create').description('one more shard, without slots until some are migrated'),
  )
    .requiredOption('--replicas <n>', 'how many, 1 to 7, each on a host of its own')
    .action((flags: CreateFlags) =>
      withClient(flags, async (client) => {
        const replication = parseNumber('--replicas', flags.replicas);
        await change(client, flags, { kind: 'createShard', replication });
      }),
    );
  for (const [name, kind, description] of [
    ['add-replica', 'addReplica', 'one more replica, on a node that has none of this shard'],
    ['remove-replica', 'removeReplica', 'one replica less, the one on this node'],
  ] as const)
    withClientFlags(shard.command(`${name} <shard>`).description(description))
      .requiredOption('--node <id>', 'the node')
      .action((id: string, flags: NodeFlags) =>
        withClient(flags, async (client) => {
          await change(client, flags, {
            kind,
            shard: idOf(id),
            node: nodeOf('--node', flags.node),
          });
        }),
      );
}
