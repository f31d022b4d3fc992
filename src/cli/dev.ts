/** `quorate dev`: a local cluster in one command; its data stays for the next time. */
import { mkdirSync } from 'node:fs';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { LocalCluster } from './local-cluster.js';
import { parseInteger } from './options.js';

interface DevFlags {
  readonly nodes: string;
  readonly shards: string;
  readonly data: string;
  readonly port: string;
}

export function devCommand(): Command {
  return new Command('dev')
    .description('run a local cluster until Ctrl-C')
    .option('--nodes <n>', 'how many nodes', '3')
    .option('--shards <n>', 'how many shards, when the cluster is made', '4')
    .option('--data <directory>', 'where the nodes keep their data', 'quorate-data')
    .option('--port <n>', 'first client port; nodes are ten apart', '7400')
    .action(runDev);
}

async function runDev(flags: DevFlags): Promise<void> {
  const directory = resolve(flags.data);
  mkdirSync(directory, { recursive: true });
  const interrupted = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  const cluster = await LocalCluster.start({
    nodes: parseInteger('--nodes', flags.nodes, 1, 9),
    shards: parseInteger('--shards', flags.shards, 1, 1024),
    directory,
    basePort: parseInteger('--port', flags.port, 1024, 65_000),
  });
  for (const node of cluster.nodes) {
    console.log(
      `node ${node.node}: clients ${node.clientAddress}, http ${node.httpAddress}, log ${node.logFile}`,
    );
  }
  console.log(`try: npx quorate status -e ${cluster.endpoints.join(',')}\nserving until Ctrl-C`);
  await interrupted;
  await cluster.stop();
}
