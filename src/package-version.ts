/** The version of this software, from package.json, wherever this file was compiled to. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const packageVersion = readVersion();

function readVersion(): string {
  for (const up of ['..', '../..', '../../..']) {
    try {
      const fields: unknown = JSON.parse(
        readFileSync(join(import.meta.dirname, up, 'package.json'), 'utf8'),
      );
      if (typeof fields === 'object' && fields !== null && 'version' in fields)
        return String(fields.version);
    } catch {
      // Not there: one folder further up, in the compiled tree.
    }
  }
  return 'unknown';
}
