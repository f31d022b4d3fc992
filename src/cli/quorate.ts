#!/usr/bin/env node
/** The command line: one program for servers, operators and users. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { benchCommand } from './bench/bench-command.js';
import { clusterCommand } from './cluster-commands.js';
import { runDemo } from './demo.js';
import { devCommand } from './dev.js';
import { kvCommand } from './kv-commands.js';
import { migrationCommand } from './migration-commands.js';
import { nodeCommand } from './node-commands.js';
import { parseInteger } from './options.js';
import { ExitCode, reportError, type OutputForm } from './output.js';
import { recoverCommand } from './recover-command.js';
import { serverCommand } from './server-command.js';
import { shardCommand } from './shard-commands.js';
import { slotCommand } from './slot-commands.js';
import { statusCommand } from './status-command.js';
import { findUp } from './find-up.js';

function demoCommand(): Command {
  return new Command('demo')
    .description('a local cluster loads real records, loses its leader, loses nothing')
    .option('--keep', 'keep serving until Ctrl-C')
    .option('--nodes <n>', 'how many nodes', '3')
    .option('--reshard', 'add two nodes and four shards under load, and rebalance')
    .action((flags: { keep?: boolean; nodes: string; reshard?: boolean }) => {
      const { keep = false, reshard = false } = flags;
      return runDemo({ keep, reshard, nodes: parseInteger('--nodes', flags.nodes, 1, 9) });
    });
}

function version(): string {
  const fields: unknown = JSON.parse(readFileSync(findUp('package.json'), 'utf8'));
  return typeof fields === 'object' && fields !== null && 'version' in fields
    ? String(fields.version)
    : '';
}

function program(): Command {
  return new Command('quorate')
    .description('A sharded, Raft-replicated, linearizable key-value service.')
    .version(version())
    .addHelpText(
      'after',
      '\nExit codes: 0 ok, 1 error, 2 usage, 3 unhealthy or partial, 4 unknown outcome of a write.',
    )
    .addCommand(demoCommand())
    .addCommand(devCommand())
    .addCommand(serverCommand())
    .addCommand(clusterCommand())
    .addCommand(nodeCommand())
    .addCommand(shardCommand())
    .addCommand(slotCommand())
    .addCommand(migrationCommand())
    .addCommand(recoverCommand())
    .addCommand(statusCommand())
    .addCommand(kvCommand())
    .addCommand(benchCommand())
    .showHelpAfterError('(--help shows how)');
}

function exitOnUsage(command: Command): void {
  command.exitOverride();
  for (const sub of command.commands) exitOnUsage(sub);
}

async function main(): Promise<void> {
  let form: OutputForm = 'table';
  const command = program().hook('preAction', (_program, action) => {
    const { output } = action.opts<{ output?: OutputForm }>();
    form = output ?? 'table';
  });
  exitOnUsage(command);
  try {
    await command.parseAsync();
  } catch (error) {
    // Commander has printed usage or help already.
    if (error instanceof CommanderError)
      process.exitCode = error.exitCode === 0 ? ExitCode.ok : ExitCode.usage;
    else process.exitCode = reportError(error, form);
  }
}

// A reader that went away (`quorate kv scan | head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(ExitCode.ok);
});

await main();
