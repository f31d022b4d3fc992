/**
 * Watches the space left for the data directory. Below the reserve, writes that grow the data are
 * refused while reads and deletes go on: a disk that is really full would stop the node.
 */
import type { Cancel, Clock } from './clock.js';

/** A fast disk takes some 50 MB in this time: the reserve must be larger than that. */
const everyMs = 100;

/** While this node writes nothing, only others can fill the disk: a look each second is enough. */
const idleLooks = 10;

export interface DiskSpaceOptions {
  /** Free space for the data directory. */
  readonly measure: () => Promise<number>;
  readonly reserveBytes: number;
  readonly clock: Clock;
  /** Grows with what this node writes there. */
  readonly writtenBytes: () => number;
  readonly onChange: (full: boolean, freeBytes: number) => void;
  readonly onError: (error: unknown) => void;
}

export class DiskSpace {
  freeBytes = Number.POSITIVE_INFINITY;
  full = false;
  private readonly options: DiskSpaceOptions;
  private stop: Cancel = () => undefined;
  private written = 0;
  private looksSkipped = 0;

  private constructor(options: DiskSpaceOptions) {
    this.options = options;
  }

  /** Measures once before it returns, then ten times a second, or once while nothing is written. */
  static async open(options: DiskSpaceOptions): Promise<DiskSpace> {
    const space = new DiskSpace(options);
    await space.measure();
    space.stop = options.clock.every(everyMs, () => {
      if (space.isDue()) space.measure().catch(options.onError);
    });
    return space;
  }

  get reserveBytes(): number {
    return this.options.reserveBytes;
  }

  close(): void {
    this.stop();
  }

  private isDue(): boolean {
    const written = this.options.writtenBytes();
    if (written === this.written && ++this.looksSkipped < idleLooks) return false;
    this.written = written;
    this.looksSkipped = 0;
    return true;
  }

  private async measure(): Promise<void> {
    this.freeBytes = await this.options.measure();
    const full = this.freeBytes < this.options.reserveBytes;
    if (full === this.full) return;
    this.full = full;
    this.options.onChange(full, this.freeBytes);
  }
}
