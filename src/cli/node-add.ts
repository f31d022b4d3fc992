/** `quorate node add`: a node joins by being started; this says how. */
import type { Command } from 'commander';
import type { TopologyReply } from '../../proto/messages.js';
import { parseAddress } from '../config/address.js';
import { topologyOf } from './cluster-picture.js';
import { parseInteger, withClient, withClientFlags, type ClientFlags } from './options.js';
import { printJson, UsageError } from './output.js';

/** Nodes named after --join: any one that answers will do. */
const joinMax = 3;

interface AddFlags extends ClientFlags {
  readonly host: string;
  readonly port: string;
  readonly dataDirectory: string;
  readonly labels?: string;
  readonly weight?: string;
}

export function addNodeAdd(node: Command): void {
  withClientFlags(
    node.command('add').description('print the command that makes a new node join this cluster'),
  )
    .option('--host <address>', 'where the others and the clients reach it', '127.0.0.1')
    .option('--port <n>', 'its first port: clients; peers and HTTP take the next two', '7400')
    .option('--data-directory <path>', 'its own, empty', '/var/lib/quorate')
    .option('--labels <list>', 'e.g. host=d,zone=2')
    .option('--weight <n>', 'its share of replicas, 1 to 1000')
    .addHelpText(
      'after',
      `
A node joins by being started with the printed command; it is given its id then, and keeps it as long as
it has its data directory. It gets replicas when nodes are drained, replaced or lost.`,
    )
    .action((flags: AddFlags) =>
      withClient(flags, async (client) => {
        const words = commandFor(await topologyOf(client), flags);
        if (flags.output === 'json') printJson({ command: words });
        else console.log(words.map(quoted).join(' '));
      }),
    );
}

function commandFor(topology: TopologyReply, flags: AddFlags): readonly string[] {
  const first = parseInteger('--port', flags.port, 1, 65_533);
  const [client = '', peer = '', http = ''] = [0, 1, 2].map((n) => `${flags.host}:${first + n}`);
  if (parseAddress(client) === undefined)
    throw new UsageError(`--host must be a name or an address, got '${flags.host}'`);
  const present = topology.nodes.filter(({ state }) => state !== 'removed');
  for (const address of [client, peer, http]) refuseTaken(present, address);
  const join = present.filter(({ state }) => state === 'up').slice(0, joinMax);
  return [
    ...['npx', 'quorate', 'server'],
    ...['--cluster-id', topology.clusterId],
    ...['--join', join.map(({ clientAddress }) => clientAddress).join(',')],
    ...['--data-directory', flags.dataDirectory],
    ...['--client-address', client, '--peer-address', peer, '--http-address', http],
    ...(flags.labels === undefined ? [] : ['--labels', flags.labels]),
    ...(flags.weight === undefined
      ? []
      : ['--weight', String(parseInteger('--weight', flags.weight, 1, 1000))]),
  ];
}

function refuseTaken(nodes: TopologyReply['nodes'], address: string): void {
  const owner = nodes.find(
    ({ clientAddress, peerAddress }) => clientAddress === address || peerAddress === address,
  );
  if (owner === undefined) return;
  throw new UsageError(
    `${address} is the address of node ${owner.nodeId}: give the new one another --host or --port`,
  );
}

/** For a shell. */
function quoted(word: string): string {
  return /^[\w./:=,@-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
