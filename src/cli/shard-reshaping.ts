/** `quorate shard split|merge|remove`: more shards, fewer shards. */
import type { Command } from 'commander';
import type { QuorateClient } from '../client/index.js';
import { carryOut, change, follow } from './metadata-change.js';
import { followMigrations } from './migration-progress.js';
import {
  parseInteger,
  parseNumber,
  withClient,
  withClientFlags,
  type ClientFlags,
} from './options.js';

interface SplitFlags extends ClientFlags {
  readonly into: string;
  readonly replicas?: string;
  readonly wait?: boolean;
}

interface MergeFlags extends ClientFlags {
  readonly into: string;
  readonly wait?: boolean;
}

const idOf = (text: string): number => parseInteger('shard', text, 1, 0xffff_ffff);

export function addReshaping(shard: Command): void {
  withClientFlags(
    shard.command('split <shard>').description('equal shares of its slots go to new shards'),
  )
    .option('--into <n>', 'how many shards it becomes, itself among them, 2 to 64', '2')
    .option('--replicas <n>', 'of each new shard; without it: as many as it has')
    .option('--wait', 'show the progress until the slots have moved')
    .action((id: string, flags: SplitFlags) => {
      const command = {
        kind: 'splitShard',
        shard: idOf(id),
        into: parseNumber('--into', flags.into),
        ...(flags.replicas === undefined
          ? {}
          : { replication: parseNumber('--replicas', flags.replicas) }),
      };
      return withClient(flags, (client) => reshape(client, flags, command));
    });
  withClientFlags(
    shard
      .command('merge <shard>')
      .description('all its slots go to other shards, and then it is removed'),
  )
    .requiredOption('--into <shards>', 'shards that get equal shares of them: 2,3')
    .option('--wait', 'show the progress until it is removed')
    .action((id: string, flags: MergeFlags) => {
      const into = flags.into
        .split(',')
        .map((text) => parseInteger('--into', text, 1, 0xffff_ffff));
      const command = { kind: 'mergeShard', shard: idOf(id), into };
      return withClient(flags, (client) => reshape(client, flags, command));
    });
  withClientFlags(
    shard.command('remove <shard>').description('take away a shard that has no slots'),
  ).action((id: string, flags: ClientFlags) =>
    withClient(flags, (client) => change(client, flags, { kind: 'removeShard', shard: idOf(id) })),
  );
}

async function reshape(
  client: QuorateClient,
  flags: ClientFlags & { readonly wait?: boolean },
  command: object,
): Promise<void> {
  const issued = await carryOut(client, flags, command);
  if (flags.wait !== true) return;
  const { migrations = [] } = issued;
  if (migrations.length > 0) await followMigrations(client, flags, migrations);
  await follow(client, flags, issued);
}
