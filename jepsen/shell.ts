/** Programs of the system that a run calls: ip, nft, mount, cc. */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const timeoutMs = 30_000;
const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  /** Exit codes that are no failure; 0 if absent. */
  readonly codes?: readonly number[];
}

/** Its standard output. Rejects with what it printed when it fails. */
export function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: options.timeoutMs ?? timeoutMs, maxBuffer: 2 ** 26 };
    const child = execFile(pathOf(program) ?? program, [...args], limits, (error, out, err) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === 'number' && (options.codes ?? [0]).includes(code)) resolve(out);
      else reject(new Error(`${program} ${args.join(' ')}: ${err.trim() || error?.message}`));
    });
    // One that ends without reading its input says why by its exit code.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}

/** Where a program is; undefined: it is not installed. */
export function pathOf(program: string): string | undefined {
  return folders.map((folder) => join(folder, program)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The same command, but it is killed when this process ends, however that ends. */
export function tiedToThis(command: readonly string[]): readonly string[] {
  const setpriv = pathOf('setpriv');
  return setpriv === undefined ? command : [setpriv, '--pdeathsig', 'KILL', ...command];
}

/** Why these programs cannot be used, with the Debian package that has them; undefined: all are there. */
export function missing(...programs: readonly (readonly [string, string])[]): string | undefined {
  const absent = programs.filter(([program]) => pathOf(program) === undefined);
  if (absent.length === 0) return undefined;
  return absent.map(([program, pack]) => `no ${program} (Debian package ${pack})`).join(', ');
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until `done`; false at the deadline. */
export async function within(
  ms: number,
  done: () => boolean | Promise<boolean>,
  pollMs = 50,
): Promise<boolean> {
  const deadline = performance.now() + ms;
  while (!(await done())) {
    if (performance.now() > deadline) return false;
    await sleep(pollMs);
  }
  return true;
}
