/** `quorate kv shell`: the kv commands at a prompt, one connection for all of them. */
import { createInterface } from 'node:readline/promises';
import { CommanderError, type Command } from 'commander';
import pc from 'picocolors';
import { reportError } from './output.js';
import type { ClientFlags } from './options.js';

/** Splits a line into words; single and double quotes keep spaces, backslash escapes. */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  const pattern = /"((?:[^"\\]|\\.)*)"|'([^']*)'|((?:[^\s"'\\]|\\.)+)/g;
  let joined = '';
  let end = -1;
  for (const match of line.matchAll(pattern)) {
    const text = match[2] ?? (match[1] ?? match[3] ?? '').replace(/\\(.)/g, '$1');
    if (match.index === end) joined += text;
    else {
      if (end >= 0) words.push(joined);
      joined = text;
    }
    end = match.index + match[0].length;
  }
  if (end >= 0) words.push(joined);
  return words;
}

/** Reads lines until `exit` or the end of input; `commands` builds a fresh command tree for each. */
export async function runShell(flags: ClientFlags, commands: () => Command): Promise<void> {
  const interactive = process.stdin.isTTY;
  const prompt = createInterface({
    input: process.stdin,
    output: interactive ? process.stdout : undefined,
  });
  if (interactive)
    console.log(`connected to ${flags.endpoints}; 'help' lists the commands, 'exit' leaves`);
  prompt.setPrompt(pc.cyan('quorate> '));
  if (interactive) prompt.prompt();
  for await (const line of prompt) {
    const words = splitWords(line);
    if (words[0] === 'exit' || words[0] === 'quit') break;
    if (words.length > 0) await runLine(words, flags, commands());
    if (interactive) prompt.prompt();
  }
  prompt.close();
}

async function runLine(
  words: readonly string[],
  flags: ClientFlags,
  command: Command,
): Promise<void> {
  quiet(command);
  const inherited =
    words[0] === 'help'
      ? []
      : ['-e', flags.endpoints, '--timeout', flags.timeout, '-o', flags.output];
  const [name, ...rest] = words;
  try {
    await command.parseAsync([String(name), ...inherited, ...rest], { from: 'user' });
  } catch (error) {
    // Commander has printed its own message (usage, help) already.
    if (!(error instanceof CommanderError)) reportError(error, flags.output);
  }
}

/** A wrong command must not end the shell. */
function quiet(command: Command): void {
  command.exitOverride();
  for (const sub of command.commands) quiet(sub);
}
