/** Small programs in C, compiled for the machine they run on, into the folder of the run. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { missing, run } from './shell.js';

type Source = 'power-cut' | 'bad-disk';

/** Where the compiled program is to be found. */
export function nativePath(folder: string, source: Source): string {
  return join(folder, source === 'bad-disk' ? 'bad-disk.so' : source);
}

/** Why it cannot be compiled here; undefined: it is. */
export async function compile(folder: string, source: Source): Promise<string | undefined> {
  const absent = missing(['cc', 'gcc and libc6-dev']);
  if (process.platform !== 'linux') return 'it is for Linux';
  if (absent !== undefined) return absent;
  const shared = source === 'bad-disk' ? ['-shared', '-fPIC'] : [];
  const input = join(sourceFolder(), `${source}.c`);
  const libraries = source === 'bad-disk' ? ['-ldl'] : [];
  try {
    await run('cc', [
      '-O1',
      '-Wall',
      ...shared,
      '-o',
      nativePath(folder, source),
      input,
      ...libraries,
    ]);
    return undefined;
  } catch (error) {
    return `cc: ${String(error).split('\n')[0] ?? ''} (Debian packages gcc and libc6-dev)`;
  }
}

/** C files stay where they are: they are found from the compiled program as from its source. */
function sourceFolder(): string {
  for (let folder = import.meta.dirname; dirname(folder) !== folder; folder = dirname(folder)) {
    const found = join(folder, 'jepsen', 'native');
    if (existsSync(join(found, 'power-cut.c'))) return found;
  }
  throw new Error('jepsen/native is missing');
}
