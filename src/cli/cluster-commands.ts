/** `quorate cluster ...`: making a cluster, and looking at it as a whole. */
import { Command } from 'commander';
import type { TopologyReply } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import { clusterCheck, type CheckFlags } from './cluster-check.js';
import { slotsOf, topologyOf } from './cluster-picture.js';
import { rebalance, type RebalanceFlags } from './cluster-rebalance.js';
import { clusterStatus, clusterVersion } from './cluster-status.js';
import { change } from './metadata-change.js';
import {
  parseInteger,
  parseNumber,
  withClient,
  withClientFlags,
  type ClientFlags,
} from './options.js';
import { printJson, printTable, UsageError } from './output.js';

interface InitFlags extends ClientFlags {
  readonly shards: string;
  readonly replicas: string;
}

interface ChangeFlags extends ClientFlags {
  readonly ifVersion: string;
}

export function clusterCommand(): Command {
  const cluster = new Command('cluster')
    .description('make a cluster, look at it as a whole, check it, change its settings')
    .addHelpText(
      'after',
      `
Examples:
  quorate cluster init --shards 8 --replicas 3     once, when the first nodes run
  quorate cluster status                           is everything well? exit code 3 when not
  quorate cluster check                            are all replicas equal? ends in a line to paste
  quorate cluster rebalance --dry-run              which slots would move where
  quorate cluster settings replaceAfterMs 60000    rebuild lost replicas after a minute`,
    );
  addInit(cluster);
  addStatus(cluster);
  addCheck(cluster);
  addRebalance(cluster);
  addSettings(cluster);
  addChange(cluster);
  return cluster;
}

function addInit(cluster: Command): void {
  withClientFlags(cluster.command('init').description('make one cluster of the first nodes (once)'))
    .option('--shards <n>', 'how many shards the slots are divided among, 1 to 1024', '8')
    .option('--replicas <n>', 'replicas of each shard, 1 to 7, each on a host of its own', '3')
    .addHelpText(
      'after',
      '\nThe same init again changes nothing; a different one is refused (exit code 1).',
    )
    .action((flags: InitFlags) =>
      withClient(flags, async (client) => {
        const topology = await client.initCluster({
          shards: parseInteger('--shards', flags.shards, 1, 1024),
          replicas: parseInteger('--replicas', flags.replicas, 1, 7),
        });
        printTopology(topology, flags.output);
      }),
    );
}

function addStatus(cluster: Command): void {
  withClientFlags(
    cluster
      .command('status')
      .alias('show')
      .description('nodes, shards, what is under way, and whether all is well, on one screen'),
  )
    .addHelpText(
      'after',
      `
there: replicas that vote and are whole, of those the shard is to have.
behind: entries that the slowest replica has still to apply.
Exit code 3 when a node does not answer or is down, or a shard has no leader or lacks a replica.`,
    )
    .action((flags: ClientFlags) => withClient(flags, (client) => clusterStatus(client, flags)));
  withClientFlags(
    cluster
      .command('version')
      .description('the cluster, the version of its map, and of the program on each node'),
  ).action((flags: ClientFlags) => withClient(flags, (client) => clusterVersion(client, flags)));
}

function addCheck(cluster: Command): void {
  withClientFlags(
    cluster
      .command('check')
      .description('compare all replicas of every shard and of the metadata, under load too'),
  )
    .option('--within <seconds>', 'how long replicas may take, 1 to 3600', '60')
    .addHelpText(
      'after',
      `
Every group logs a command at which each of its replicas takes the hash of its state, so they are
compared at one index. Each node reads all its data once. The last line can be pasted.
Exit code 3 when replicas differ, or one could not be compared.`,
    )
    .action((flags: CheckFlags) => {
      const withinMs = 1000 * parseInteger('--within', flags.within, 1, 3600);
      return withClient(flags, (client) => clusterCheck(client, flags, withinMs));
    });
}

function addRebalance(cluster: Command): void {
  withClientFlags(
    cluster.command('rebalance').description('move slots until every shard has its share of them'),
  )
    .option('--weights <list>', 'shares of shards: 1=100,2=50; 0: it is to have no slots')
    .option('--threshold <percent>', 'how far from its share a shard may be, 0 to 100', '2')
    .option('--dry-run', 'show the plan and begin nothing')
    .option('--wait', 'show the progress until all slots have moved')
    .addHelpText(
      'after',
      `
A shard that is not weighed weighs as much as the nodes of its replicas, on average. As few slots move
as that takes. They are migrations like others: quorate migration list, pause, cancel.`,
    )
    .action((flags: RebalanceFlags) => withClient(flags, (client) => rebalance(client, flags)));
}

function addSettings(cluster: Command): void {
  withClientFlags(
    cluster
      .command('settings [name] [value]')
      .alias('set')
      .description('list what can be changed of a running cluster, or change one'),
  ).action((name: string | undefined, value: string | undefined, flags: ClientFlags) =>
    withClient(flags, async (client) => {
      if (value === undefined) await listSettings(client, flags, name);
      else {
        const command = { kind: 'setSetting', name, value: parseNumber('value', value) };
        await change(client, flags, command);
      }
    }),
  );
}

async function listSettings(
  client: QuorateClient,
  flags: ClientFlags,
  name: string | undefined,
): Promise<void> {
  const { settings } = await topologyOf(client);
  const shown = settings.filter((setting) => name === undefined || setting.name === name);
  if (shown.length === 0)
    throw new UsageError(
      `there is no setting '${name ?? ''}': use one of ${settings.map((each) => each.name).join(', ')}`,
    );
  if (flags.output === 'json') {
    printJson(shown);
    return;
  }
  printTable(
    ['setting', 'value', 'from', 'to', 'at first', 'meaning'],
    shown.map((setting) => [
      setting.name,
      String(setting.value),
      String(setting.min),
      String(setting.max),
      String(setting.first),
      setting.meaning,
    ]),
  );
}

function addChange(cluster: Command): void {
  withClientFlags(
    cluster.command('change <json>').description('one command of the metadata group, as JSON'),
  )
    .option('--if-version <n>', 'only at this version of the map; 0: at any', '0')
    .action((json: string, flags: ChangeFlags) => {
      const ifVersion = parseInteger('--if-version', flags.ifVersion, 0, Number.MAX_SAFE_INTEGER);
      return withClient(flags, (client) => change(client, flags, parseCommand(json), ifVersion));
    });
}

function parseCommand(json: string): object {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    throw new UsageError(`the command is not JSON: ${error instanceof Error ? error.message : ''}`);
  }
  if (typeof parsed === 'object' && parsed !== null) return parsed;
  throw new UsageError('the command must be a JSON object, e.g. {"kind": "drain", "node": 3}');
}

function printTopology(topology: TopologyReply, form: string): void {
  if (form === 'json') {
    printJson(topology);
    return;
  }
  printTable(
    ['shard', 'nodes', 'slots'],
    topology.shards.map(({ shardId, nodes }) => [
      String(shardId),
      nodes.join(' '),
      slotsOf(topology, shardId),
    ]),
  );
  console.log(`\ncluster '${topology.clusterId}', map version ${topology.version}`);
}
