/**
 * The last topology a node knew, in its data directory: a node without the metadata group needs to
 * know whom to ask when it starts again.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseTopology, type Topology } from '../meta/topology.js';
import type { Cancel, Clock } from '../observe/clock.js';

const fileName = 'topology.json';

/** Between two writes: each writes the whole, which takes the event loop 40 ms at 16,384 shards. */
const writeEveryMs = 1000;

/**
 * Keeps the newest topology: the first is written at once, later ones at most once a second. A node that
 * is killed in between begins with an older one, as one that was away does.
 */
export class TopologyKeeper {
  private readonly clock: Clock;
  private readonly write: (topology: Topology) => void;
  private waiting: Topology | undefined;
  /** Set for a second after each write. */
  private stopPause: Cancel | undefined;

  constructor(clock: Clock, write: (topology: Topology) => void) {
    this.clock = clock;
    this.write = write;
  }

  keep(topology: Topology): void {
    this.waiting = topology;
    if (this.stopPause === undefined) this.writeWaiting();
  }

  /** What waits is written. */
  close(): void {
    this.stopPause?.();
    if (this.waiting !== undefined) this.write(this.waiting);
    this.waiting = undefined;
  }

  private writeWaiting(): void {
    const { waiting } = this;
    this.stopPause = undefined;
    if (waiting === undefined) return;
    this.waiting = undefined;
    this.write(waiting);
    this.stopPause = this.clock.after(writeEveryMs, () => {
      this.writeWaiting();
    });
  }
}

/** Undefined when there is none, or none that can be read: then others are asked, by `--join` or `--initial-cluster`. */
export function readTopologyCache(directory: string): Topology | undefined {
  try {
    // Written by this program, whole or not at all.
    return parseTopology(readFileSync(join(directory, fileName), 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * Synced: after a power cut of several nodes there may be nobody to ask, and without a topology none of
 * them knows which slots its shards serve. Throws when the directory cannot be written.
 */
export function writeTopologyCache(directory: string, topology: Topology): void {
  const path = join(directory, fileName);
  writeFileSync(`${path}.new`, JSON.stringify(topology), { flush: true });
  renameSync(`${path}.new`, path);
}
