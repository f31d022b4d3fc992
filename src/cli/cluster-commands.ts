/** `quorate cluster ...`: making a cluster, and looking at it as a whole. */
import { Command } from 'commander';
import type { TopologyReply } from '../../proto/messages.js';
import { change } from './node-commands.js';
import { parseInteger, withClient, withClientFlags, type ClientFlags } from './options.js';
import { printJson, printTable, UsageError } from './output.js';

interface InitFlags extends ClientFlags {
  readonly shards: string;
  readonly replicas: string;
}

export function clusterCommand(): Command {
  const cluster = new Command('cluster').description('make a cluster, and look at it as a whole');
  withClientFlags(cluster.command('init').description('make one cluster of the first nodes (once)'))
    .option('--shards <n>', 'how many shards the slots are divided among, 1 to 1024', '8')
    .option('--replicas <n>', 'replicas of each shard, 1 to 7, each on a host of its own', '3')
    .action((flags: InitFlags) =>
      withClient(flags, async (client) => {
        const topology = await client.initCluster({
          shards: parseInteger('--shards', flags.shards, 1, 1024),
          replicas: parseInteger('--replicas', flags.replicas, 1, 7),
        });
        show(topology, flags.output);
      }),
    );
  withClientFlags(cluster.command('show').description('its nodes, shards and who has them')).action(
    (flags: ClientFlags) =>
      withClient(flags, async (client) => {
        show(await client.topology(), flags.output);
      }),
  );
  withClientFlags(
    cluster
      .command('set <name> <value>')
      .description('change a setting: suspectAfterMs, downAfterMs, replaceAfterMs, repairsMax'),
  ).action((name: string, value: string, flags: ClientFlags) =>
    withClient(flags, (client) =>
      change(client, flags, { kind: 'setSetting', name, value: Number(value) }),
    ),
  );
  withClientFlags(
    cluster.command('change <json>').description('one command of the metadata group, as JSON'),
  ).action((json: string, flags: ClientFlags) =>
    withClient(flags, (client) => change(client, flags, parseCommand(json))),
  );
  return cluster;
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

function show(topology: TopologyReply, form: string): void {
  if (form === 'json') {
    printJson(topology);
    return;
  }
  if (topology.version === 0) {
    console.log('there is no cluster yet: quorate cluster init --shards N --replicas N');
    return;
  }
  printTable(
    ['node', 'clients', 'peers', 'weight', 'state'],
    topology.nodes.map(({ nodeId, clientAddress, peerAddress, weight, state }) => [
      String(nodeId),
      clientAddress,
      peerAddress,
      String(weight),
      state,
    ]),
  );
  console.log('');
  printTable(
    ['shard', 'nodes', 'slots'],
    topology.shards.map(({ shardId, nodes }) => [
      String(shardId),
      nodes.join(' '),
      topology.slots
        .filter((range) => range.shardId === shardId)
        .map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`))
        .join(' '),
    ]),
  );
  console.log(`\ncluster '${topology.clusterId}', map version ${topology.version}`);
}
