/**
 * The last topology a node knew, in its data directory: a node without the metadata group needs to
 * know whom to ask when it starts again.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseTopology, type Topology } from '../meta/topology.js';

const fileName = 'topology.json';

/** Undefined when there is none, or none that can be read: then the nodes of `--join` are asked. */
export function readTopologyCache(directory: string): Topology | undefined {
  try {
    // Written by this program, whole or not at all.
    return parseTopology(readFileSync(join(directory, fileName), 'utf8'));
  } catch {
    return undefined;
  }
}

/** Not synced: losing it costs a question. Throws when the directory cannot be written. */
export function writeTopologyCache(directory: string, topology: Topology): void {
  const path = join(directory, fileName);
  writeFileSync(`${path}.new`, JSON.stringify(topology));
  renameSync(`${path}.new`, path);
}
