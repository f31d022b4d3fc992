/** `quorate node ...`: the nodes of a cluster, one by one. */
import { Command } from 'commander';
import pc from 'picocolors';
import type { TopologyReply } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import {
  nodeIn,
  takePicture,
  topologyOf,
  type NodePicture,
  type Picture,
} from './cluster-picture.js';
import { stateText } from './cluster-status.js';
import { carryOut, change, follow } from './metadata-change.js';
import { addNodeAdd } from './node-add.js';
import {
  parseInteger,
  parseNumber,
  withClient,
  withClientFlags,
  type ClientFlags,
} from './options.js';
import { formatAge, formatBytes, printJson, printTable, UsageError } from './output.js';

interface RemoveFlags extends ClientFlags {
  readonly force?: boolean;
}

interface WaitFlags extends ClientFlags {
  readonly wait?: boolean;
}

const idOf = (text: string): number => parseInteger('node', text, 1, 0xffff_ffff);

export function nodeCommand(): Command {
  const node = new Command('node').description('the nodes of the cluster, one by one').addHelpText(
    'after',
    `
Examples:
  quorate node add --host 10.0.0.4        how to start a node that joins
  quorate node drain 2 --wait             its replicas move away; then: quorate node remove 2
  quorate node replace 2 5 --wait         everything that node 2 has moves to node 5
  quorate node label 4 host=d zone=2      failure domains: no two replicas of a shard on one host`,
  );
  addLooks(node);
  addNodeAdd(node);
  addMoves(node);
  addRemove(node);
  addProperties(node);
  return node;
}

function addLooks(node: Command): void {
  withClientFlags(
    node.command('list').description('all nodes, and how many replicas they have'),
  ).action((flags: ClientFlags) => withClient(flags, (client) => list(client, flags.output)));
  withClientFlags(
    node.command('show <node>').description('one node: what it is, what it has, how it does'),
  ).action((id: string, flags: ClientFlags) =>
    withClient(flags, async (client) => {
      const picture = await takePicture(client);
      show(picture, idOf(id), flags.output);
    }),
  );
}

function addMoves(node: Command): void {
  withClientFlags(
    node
      .command('drain <node>')
      .description('build its replicas elsewhere; it may be removed then'),
  )
    .option('--wait', 'show the progress until it is empty')
    .action((id: string, flags: WaitFlags) => drain(flags, { kind: 'drain', node: idOf(id) }));
  withClientFlags(
    node
      .command('replace <old> <new>')
      .description('drain OLD, with NEW to have everything that it has'),
  )
    .option('--wait', 'show the progress until OLD is empty')
    .addHelpText(
      'after',
      `
NEW must be up, and on no host that has another replica of a shard of OLD. It is waited for while it is
away for a moment; when it is down, the rest goes elsewhere. Then: quorate node remove OLD.`,
    )
    .action((old: string, successor: string, flags: WaitFlags) =>
      drain(flags, { kind: 'drain', node: idOf(old), to: idOf(successor) }),
    );
  withClientFlags(node.command('undrain <node>').description('let it have replicas again')).action(
    (id: string, flags: ClientFlags) =>
      withClient(flags, (client) => change(client, flags, { kind: 'undrain', node: idOf(id) })),
  );
}

function drain(flags: WaitFlags, command: object): Promise<void> {
  return withClient(flags, async (client) => {
    const issued = await carryOut(client, flags, command);
    if (flags.wait === true) await follow(client, flags, issued);
  });
}

function addRemove(node: Command): void {
  withClientFlags(node.command('remove <node>').description('take a drained node out for good'))
    .option('--force', 'also with replicas on it: these copies are given up at once')
    .addHelpText(
      'after',
      `
Refused while the node has replicas: drain it first. By force its copies are given up: a shard whose
other copies are behind or lost loses acknowledged writes. Its id is never used again.`,
    )
    .action((id: string, flags: RemoveFlags) =>
      withClient(flags, async (client) => {
        const force = flags.force ?? false;
        if (force) warnOfLoss(await topologyOf(client), idOf(id));
        await change(client, flags, { kind: 'removeNode', node: idOf(id), force });
      }),
    );
}

/** On standard error, before it is done. */
function warnOfLoss({ shards, metadataNodes }: TopologyReply, id: number): void {
  const left = shards.filter(({ nodes }) => nodes.includes(id));
  const lost = [
    ...(metadataNodes.includes(id) ? ['the metadata group'] : []),
    ...left.map(({ shardId, nodes }) => `shard ${shardId} (${nodes.length - 1} left)`),
  ];
  if (lost.length === 0) return;
  const shown = lost.length > 8 ? [...lost.slice(0, 8), `${lost.length - 8} more`] : lost;
  console.error(
    `${pc.yellow('warning')}: copies on node ${id} are given up: ${shown.join(', ')}. ` +
      'Where the others are behind or lost, acknowledged writes are lost',
  );
}

function addProperties(node: Command): void {
  withClientFlags(
    node
      .command('weight <node> <weight>')
      .description('its share of replicas, 1 to 1000 (100 is usual)'),
  ).action((id: string, weight: string, flags: ClientFlags) =>
    withClient(flags, (client) =>
      change(client, flags, {
        kind: 'setWeight',
        node: idOf(id),
        weight: parseNumber('weight', weight),
      }),
    ),
  );
  withClientFlags(
    node
      .command('label <node> <labels...>')
      .description('name=value sets a label, name= takes it away; the others stay'),
  ).action((id: string, texts: string[], flags: ClientFlags) =>
    withClient(flags, async (client) => {
      const topology = await topologyOf(client);
      const { nodeId, labels: now } = nodeIn({ topology }, idOf(id));
      const labels = labelsAfter(now, texts);
      const command = { kind: 'setLabels', node: nodeId, labels };
      await change(client, flags, command, topology.version);
    }),
  );
}

function labelsAfter(now: readonly string[], texts: readonly string[]): Record<string, string> {
  const labels = new Map<string, string>();
  for (const text of [...now, ...texts]) {
    const at = text.indexOf('=');
    if (at < 1)
      throw new UsageError(`a label is name=value (or name= to take it away), got '${text}'`);
    const [name, value] = [text.slice(0, at), text.slice(at + 1)];
    if (value === '') labels.delete(name);
    else labels.set(name, value);
  }
  return Object.fromEntries(labels);
}

async function list(client: QuorateClient, form: string): Promise<void> {
  const { nodes, shards, metadataNodes } = await topologyOf(client);
  if (form === 'json') {
    printJson(nodes);
    return;
  }
  printTable(
    ['node', 'state', 'since', 'clients', 'peers', 'weight', 'shards', 'metadata', 'labels'],
    nodes.map((node) => [
      String(node.nodeId),
      stateText(node.state),
      formatAge(Date.now() - node.stateSinceMs),
      node.clientAddress,
      node.peerAddress,
      String(node.weight),
      String(shards.filter((shard) => shard.nodes.includes(node.nodeId)).length),
      metadataNodes.includes(node.nodeId) ? 'yes' : '',
      node.labels.join(' '),
    ]),
  );
}

function show(picture: Picture, id: number, form: string): void {
  const node = nodeIn(picture, id);
  const found = picture.nodes.find((each) => each.node.nodeId === id);
  if (form === 'json') {
    printJson({ node, status: found?.reply ?? null });
    return;
  }
  const rows: [string, string][] = [
    ['node', `${id}, ${stateText(node.state)} for ${formatAge(Date.now() - node.stateSinceMs)}`],
    ['clients', node.clientAddress],
    ['peers', node.peerAddress],
    ['labels', node.labels.length === 0 ? 'none' : node.labels.join(' ')],
    ['weight', String(node.weight)],
    ...processRows(found),
  ];
  for (const [name, value] of rows) console.log(`${name.padEnd(10)}${value}`);
  printReplicas(picture, id);
  const operations = picture.topology.operations.filter(
    (each) => each.state === 'running' && each.node === id,
  );
  for (const { operationId, what, progress } of operations)
    console.log(`\noperation ${operationId}: ${what}: ${progress}`);
}

function processRows(found: NodePicture | undefined): [string, string][] {
  if (found === undefined) return [];
  const { reply, error } = found;
  if (reply === undefined) return [['process', pc.red(error)]];
  const away = reply.peers.filter(({ connected }) => !connected);
  const full = reply.diskFull ? pc.red(', nearly full: writes are refused') : '';
  return [
    ['process', `${reply.version}, up for ${formatAge(reply.uptimeMs)}`],
    ['memory', formatBytes(reply.rssBytes)],
    ['disk', `${formatBytes(reply.diskFreeBytes)} free${full}`],
    ['Raft log', formatBytes(reply.raftLogBytes)],
    [
      'connected',
      away.length === 0
        ? 'to all other nodes'
        : pc.yellow(`not to node ${away.map((peer) => peer.nodeId).join(', ')}`),
    ],
  ];
}

function printReplicas({ groups }: Picture, id: number): void {
  const rows = groups.flatMap(({ name, replicas, nodes, leader }) => {
    const status = replicas.get(id);
    if (status === undefined)
      return nodes.includes(id) ? [[name, '', pc.yellow('to be built'), '', '', '']] : [];
    const behind = Math.max(0, (leader?.status.commitIndex ?? 0) - status.appliedIndex);
    return [
      [
        name,
        String(status.replicaId),
        status.restoring ? pc.yellow('restoring') : status.role,
        String(status.term),
        String(behind),
        status.kind === 'shard' ? String(status.keys) : '',
      ],
    ];
  });
  if (rows.length === 0) return;
  console.log('');
  printTable(['group', 'replica', 'role', 'term', 'behind', 'keys'], rows);
}
