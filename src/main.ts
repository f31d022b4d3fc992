/**
 * The server's entry: options, node, signals; nothing else.
 */
import { Command } from 'commander';
import {
  ConfigInvalid,
  environmentName,
  loadConfig,
  optionNames,
  type Config,
} from './config/config.js';
import { IdentityMismatch } from './config/identity.js';
import { KvError } from './errors.js';
import { openLog, type Log } from './observe/log.js';
import { systemClock } from './observe/clock.js';
import { QuorateNode } from './node.js';

/** Exit codes of a server: 1 for a failure while it runs, 2 for wrong options or a wrong place. */
const exitCode = { failed: 1, usage: 2 } as const;

const kebab = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

function parseArguments(args: readonly string[]): { config: Config; print: boolean } {
  const command = new Command('quorate server')
    .description(
      'Runs one node. Every option can also be set in the environment or in a TOML file.',
    )
    .option(
      '--config <file>',
      'TOML file with options (QUORATE_CONFIG)',
      process.env['QUORATE_CONFIG'],
    )
    .option('--print-config', 'print the options in force as JSON, and exit')
    .showHelpAfterError();
  for (const name of optionNames) command.option(`--${kebab(name)} <value>`, environmentName(name));
  command.parse([...args], { from: 'user' });
  const { config: file, printConfig, ...flags } = command.opts<Record<string, unknown>>();
  const config = loadConfig({
    flags,
    environment: process.env,
    file: typeof file === 'string' ? file : undefined,
  });
  return { config, print: printConfig === true };
}

/** Runs a node until it is told to stop, or fails. Resolves after a clean stop. */
export async function runServer(args: readonly string[]): Promise<void> {
  let parsed;
  try {
    parsed = parseArguments(args);
  } catch (error) {
    if (!(error instanceof ConfigInvalid)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = exitCode.usage;
    return;
  }
  if (parsed.print) {
    process.stdout.write(`${JSON.stringify(parsed.config, undefined, 2)}\n`);
    return;
  }
  let { nodeId } = parsed.config;
  const log = openLog({ level: parsed.config.logLevel, node: () => nodeId });
  stopOnBugs(log);
  await serve(parsed.config, log, (id) => {
    nodeId = id;
  });
}

async function serve(
  config: Config,
  log: Log,
  onIdentity: (nodeId: number) => void,
): Promise<void> {
  let node: QuorateNode;
  try {
    node = await QuorateNode.open({
      config,
      log,
      clock: systemClock,
      onIdentity,
      onFatal: (error) => stopAtOnce(log, error),
    });
  } catch (error) {
    stopAtOnce(log, error);
    return;
  }
  await new Promise<void>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  log('info', {}, 'stopping: handing leadership over');
  await node.close();
  log('info', {}, 'stopped');
}

/**
 * After a failed disk, a broken invariant or damage met, nothing may be acknowledged any more: the
 * process ends here and now, without any attempt to close things in order.
 */
function stopAtOnce(log: Log, error: unknown): void {
  const cause =
    error instanceof Error && error.cause instanceof Error ? error.cause.message : undefined;
  log(
    'error',
    {
      error: error instanceof Error ? error.name : 'Error',
      cause,
      // Where in the program it was found out is nothing to an operator's mistake.
      stack: error instanceof Error && !isMistake(error) ? error.stack : undefined,
    },
    error instanceof Error ? error.message : String(error),
  );
  process.exit(exitCode.failed);
}

/** It says itself what to do about it. */
function isMistake(error: Error): boolean {
  return error instanceof IdentityMismatch || error instanceof KvError;
}

function stopOnBugs(log: Log): void {
  process.on('uncaughtException', (error) => stopAtOnce(log, error));
  process.on('unhandledRejection', (error) => stopAtOnce(log, error));
}

// Run as a program (not imported by the command line).
if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) {
  await runServer(process.argv.slice(2));
}
