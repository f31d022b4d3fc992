/** Files of seeds that once found a bug: run by every `npm test`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../scripts/project-root.js';

/** Lines of a file in this folder: a seed, and after `#` what it found. */
export function keptSeeds(
  file: string,
): readonly { readonly seed: number; readonly found: string }[] {
  return readFileSync(join(projectRoot, 'test/sim', file), 'utf8')
    .split('\n')
    .filter((line) => /^\d/.test(line))
    .map((line) => {
      const [seed = '', found = ''] = line.split('#');
      return { seed: Number(seed), found: found.trim() };
    });
}
