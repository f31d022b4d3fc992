import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The nearest file of this name at or above this folder. Throws when there is none. */
export function findUp(name: string): string {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    const candidate = join(folder, name);
    if (existsSync(candidate)) return candidate;
    if (dirname(folder) === folder)
      throw new Error(`${name} not found above ${import.meta.dirname}`);
  }
}
