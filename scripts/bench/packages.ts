/** Programs that are not part of the project: only races with other stores need any. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** `packages`: program -> Debian's package. Throws with the command that installs what is missing. */
export function requirePrograms(packages: Readonly<Record<string, string>>): void {
  const missing = Object.entries(packages).filter(([program]) => !isInstalled(program));
  if (missing.length === 0) return;
  const [programs, names] = [0, 1].map((at) => missing.map((each) => each[at]).join(' '));
  throw new Error(`not installed: ${programs}. On Debian: apt-get install ${names}`);
}
