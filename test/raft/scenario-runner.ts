/**
 * Reads a scenario file, runs its commands and gives back the same file with what really came out.
 *
 * A file is blocks parted by blank lines. A block is commands, a line `----`, and the expected
 * output; lines that begin with `#` are for the reader, and the first line of a file is one that
 * says the intent. A block of such lines alone has no `----`.
 */
import { ScenarioGroup } from './scenario-group.js';
import { runCommand } from './scenario-commands.js';

const separator = '----';
/** Of what had happened when a law broke. */
const linesOnFailure = 12;

interface Block {
  readonly commands: readonly string[];
  readonly isRemark: boolean;
}

function blocksOf(text: string): readonly Block[] {
  return text
    .trim()
    .split(/\n\s*\n/)
    .map((block) => {
      const lines = block.split('\n').map((line) => line.trimEnd());
      const end = lines.indexOf(separator);
      const commands = end < 0 ? lines : lines.slice(0, end);
      return { commands, isRemark: commands.every((line) => line.startsWith('#')) };
    });
}

/** The first line without its `#`: one sentence. Throws if the file does not begin with one. */
export function intentOf(text: string): string {
  const intent = /^# (.+[.?])$/m.exec(text.split('\n', 1)[0] ?? '')?.[1];
  if (intent === undefined) throw new Error('the first line must be "# " and one sentence');
  return intent;
}

/** Runs a scenario; throws when a law is broken or a command is wrong. */
export function runScenario(text: string): string {
  const group = new ScenarioGroup();
  const blocks = blocksOf(text).map(({ commands, isRemark }) => {
    if (isRemark) return commands.join('\n');
    return [...commands, separator, ...runBlock(group, commands)].join('\n');
  });
  return `${blocks.join('\n\n')}\n`;
}

function runBlock(group: ScenarioGroup, commands: readonly string[]): readonly string[] {
  for (const command of commands) {
    if (command.startsWith('#')) continue;
    try {
      runCommand(group, command);
    } catch (error) {
      const soFar = group.takeLines().slice(-linesOnFailure).join('\n');
      throw new Error(`${command}: ${String(error)}\nafter\n${soFar}`, { cause: error });
    }
  }
  const lines = group.takeLines();
  return lines.length === 0 ? ['ok'] : lines;
}
