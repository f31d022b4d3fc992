/** The `quorate` command as a person or a script runs it. */
import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';

const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const quorate = join(import.meta.dirname, `../../src/cli/quorate.${extension}`);

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export class QuorateCommand {
  private readonly env: Readonly<Record<string, string | undefined>>;

  /** `endpoints`: what -e would say; undefined: nothing but the default. */
  constructor(endpoints?: readonly string[]) {
    const named = endpoints === undefined ? {} : { QUORATE_ENDPOINTS: endpoints.join(',') };
    this.env = { ...process.env, ...named, NO_COLOR: '1' };
  }

  /** `onOutput`: with all of the standard output so far. */
  run(
    args: readonly string[],
    input = '',
    onOutput: (out: string, child: ChildProcess) => void = () => undefined,
  ): Promise<Ended> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [...process.execArgv, quorate, ...args], {
        env: this.env,
      });
      let [out, err] = ['', ''];
      child.stdout.on('data', (piece: Buffer) => {
        out += piece.toString();
        onOutput(out, child);
      });
      child.stderr.on('data', (piece: Buffer) => (err += piece.toString()));
      child.on('error', reject);
      child.on('close', (code) => {
        resolve({ code, out, err });
      });
      child.stdin.end(input);
    });
  }

  /** The code it must end with, and what it must show on either output. */
  async expect(line: string, code: number, shown: RegExp, input?: string): Promise<Ended> {
    const ended = await this.run(wordsOf(line), input);
    expect(`${ended.out}${ended.err}`, line).to.match(shown);
    expect(ended.code, `${line}\n${ended.out}${ended.err}`).to.equal(code);
    return ended;
  }

  async json(line: string): Promise<unknown> {
    const { out } = await this.run([...wordsOf(line), '-o', 'json']);
    return JSON.parse(out);
  }
}

/** Words are apart by spaces; single quotes keep them together. */
function wordsOf(line: string): readonly string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? '');
}
