/**
 * Data directories that are file systems of their own: ext4 in a file each, over a loop device. A power
 * cut drops what was not synced, which no kill -9 does: the kernel keeps what a process has written.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { compile, nativePath } from './native.js';
import { sandbox } from './sandbox.js';
import { missing, run } from './shell.js';

const mebibytes = 512;
/** Made by the power cut itself, just before. */
const marker = 'not-synced';

export class Volumes {
  private readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** A sentence that says why there can be none here, or volumes, mounted. */
  static async open(folder: string, nodes: readonly number[]): Promise<Volumes | string> {
    if (sandbox() !== 'root') return 'mounting a file system needs root';
    const absent = missing(
      ['mkfs.ext4', 'e2fsprogs'],
      ['mount', 'mount'],
      ['truncate', 'coreutils'],
    );
    const problem = absent ?? (await compile(folder, 'power-cut'));
    if (problem !== undefined) return problem;
    const volumes = new Volumes(folder);
    try {
      for (const node of nodes) await volumes.make(node);
      const [first] = nodes;
      if (first === undefined) return 'there are no nodes';
      await volumes.cut(first);
      return (await volumes.restore(first)) ? volumes : 'a power cut loses nothing here';
    } catch (error) {
      return `ext4 in a file cannot be used here (${String(error).split('\n')[0] ?? ''})`;
    }
  }

  directoryOf(node: number): string {
    return join(this.mountPoint(node), 'data');
  }

  /** Nothing reaches the disk any more. The node may stand still meanwhile, but must not go on. */
  async cut(node: number): Promise<void> {
    await run(nativePath(this.folder, 'power-cut'), [this.mountPoint(node)]);
  }

  /** What was synced is there again. The node must not run. True: something that was not is gone. */
  async restore(node: number): Promise<boolean> {
    await run('umount', [this.mountPoint(node)]);
    await run('mount', ['-o', 'loop', this.image(node), this.mountPoint(node)]);
    return !existsSync(join(this.mountPoint(node), marker));
  }

  async close(nodes: readonly number[]): Promise<void> {
    for (const node of nodes) await run('umount', [this.mountPoint(node)]);
  }

  private async make(node: number): Promise<void> {
    await run('truncate', ['-s', `${mebibytes}M`, this.image(node)]);
    await run('mkfs.ext4', ['-q', '-m', '0', this.image(node)]);
    mkdirSync(this.mountPoint(node));
    await run('mount', ['-o', 'loop', this.image(node), this.mountPoint(node)]);
  }

  private image(node: number): string {
    return join(this.folder, `node-${node}.img`);
  }

  private mountPoint(node: number): string {
    return join(this.folder, `volume-${node}`);
  }
}
