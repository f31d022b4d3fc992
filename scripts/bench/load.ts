/** The load generator as a process of its own. */
import { execFile } from 'node:child_process';
import { extname, join } from 'node:path';
import { promisify } from 'node:util';
import type { LoadResult, LoadSpec } from './load-generator.js';

const run = promisify(execFile);

export async function generateLoad(spec: LoadSpec): Promise<LoadResult> {
  const program = join(import.meta.dirname, `load-generator${extname(import.meta.filename)}`);
  const { stdout } = await run(
    process.execPath,
    [...process.execArgv, program, JSON.stringify(spec)],
    { timeout: (spec.seconds + 60) * 1000 },
  );
  // Our own program's output.
  const result = JSON.parse(stdout) as LoadResult;
  if (result.errors > 0)
    throw new Error(`${result.errors} operations failed: ${result.firstError}`);
  return result;
}
