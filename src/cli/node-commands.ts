/** `quorate node ...`: the nodes of a cluster, one by one. */
import { Command } from 'commander';
import type { QuorateClient } from '../client/index.js';
import { parseInteger, withClient, withClientFlags, type ClientFlags } from './options.js';
import { printJson, printTable } from './output.js';

interface RemoveFlags extends ClientFlags {
  readonly force?: boolean;
}

const idOf = (text: string): number => parseInteger('node', text, 1, 0xffff_ffff);

export function nodeCommand(): Command {
  const node = new Command('node').description('the nodes of the cluster, one by one');
  withClientFlags(
    node.command('list').description('all nodes, and how many replicas they have'),
  ).action((flags: ClientFlags) => withClient(flags, (client) => list(client, flags.output)));
  addChange(node, 'drain', 'build its replicas elsewhere; it may be removed then', (id) => ({
    kind: 'drain',
    node: id,
  }));
  addChange(node, 'undrain', 'let it have replicas again', (id) => ({ kind: 'undrain', node: id }));
  withClientFlags(node.command('remove <node>').description('take a drained node out for good'))
    .option(
      '--force',
      'also with replicas on it: they are lost, and the others must make up for it',
    )
    .action((id: string, flags: RemoveFlags) =>
      withClient(flags, (client) =>
        change(client, flags, { kind: 'removeNode', node: idOf(id), force: flags.force ?? false }),
      ),
    );
  withClientFlags(
    node
      .command('weight <node> <weight>')
      .description('its share of replicas, 1 to 1000 (100 is usual)'),
  ).action((id: string, weight: string, flags: ClientFlags) =>
    withClient(flags, (client) =>
      change(client, flags, { kind: 'setWeight', node: idOf(id), weight: Number(weight) }),
    ),
  );
  return node;
}

function addChange(
  node: Command,
  name: string,
  description: string,
  commandOf: (id: number) => object,
): void {
  withClientFlags(node.command(`${name} <node>`).description(description)).action(
    (id: string, flags: ClientFlags) =>
      withClient(flags, (client) => change(client, flags, commandOf(idOf(id)))),
  );
}

/** Carries out one command of the metadata group and says what became of it. */
export async function change(
  client: QuorateClient,
  flags: ClientFlags,
  command: object,
): Promise<void> {
  const { changed, version, issued } = await client.changeCluster(command);
  const ids = JSON.parse(issued) as Record<string, number>;
  if (flags.output === 'json') {
    printJson({ changed, version, issued: ids });
    return;
  }
  const given = Object.entries(ids).map(([name, id]) => `, ${name} ${id}`);
  console.log(`${changed ? 'ok' : 'nothing to change'}, map version ${version}${given.join('')}`);
}

async function list(client: QuorateClient, form: string): Promise<void> {
  const { nodes, shards } = await client.topology();
  if (form === 'json') {
    printJson(nodes);
    return;
  }
  printTable(
    ['node', 'state', 'clients', 'weight', 'replicas', 'labels'],
    nodes.map(({ nodeId, state, clientAddress, weight, labels }) => [
      String(nodeId),
      state,
      clientAddress,
      String(weight),
      String(shards.filter((shard) => shard.nodes.includes(nodeId)).length),
      labels.join(' '),
    ]),
  );
}
