/** `quorate server`: one node in this process; the same options as src/main.ts. */
import { Command } from 'commander';

export function serverCommand(): Command {
  return new Command('server')
    .description('run one node (options: quorate server --help)')
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false)
    .action(async (_flags: unknown, command: Command) => {
      // Loaded only here: the other commands need no server code.
      const { runServer } = await import('../main.js');
      await runServer(command.args);
    });
}
