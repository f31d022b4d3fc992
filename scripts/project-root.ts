/** The folder of package.json, found by walking up from this file (source or compiled). */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function find(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error('package.json not found above ' + import.meta.dirname);
  return find(parent);
}

export const projectRoot = find(import.meta.dirname);
