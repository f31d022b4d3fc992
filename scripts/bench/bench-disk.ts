/**
 * Other disks under the Raft log, for the price of durability. Given to node with `--import` before the
 * server, so that the server itself has no way to be unsafe. BENCH_DISK chooses:
 *
 *   memory    files are in memory
 *   no-sync   files are written and never synced
 *   sync-each the bytes of each operation of the benchmark are written and synced by themselves, one
 *             after the other
 */
import * as fs from 'node:fs/promises';
import { realDisk, type Disk, type DiskFile } from '../../storage/index.js';

type BenchDisk = 'memory' | 'no-sync' | 'sync-each';

/** What a put of 256 bytes takes in the log when many share a write; 390 when it is alone. */
const operationBytes = 295;

class MemoryFile implements DiskFile {
  private bytes = Buffer.alloc(0);
  private length = 0;

  async read(position: number, length: number): Promise<Buffer> {
    const end = Math.min(this.length, position + length);
    return Promise.resolve(Buffer.from(this.bytes.subarray(position, end)));
  }

  async writeDurably(bytes: Uint8Array, position: number): Promise<void> {
    const end = position + bytes.length;
    if (end > this.bytes.length) {
      const grown = Buffer.alloc(2 * end);
      this.bytes.copy(grown);
      this.bytes = grown;
    }
    this.bytes.set(bytes, position);
    this.length = Math.max(this.length, end);
    return Promise.resolve();
  }

  async truncateDurably(length: number): Promise<void> {
    this.length = length;
    return Promise.resolve();
  }

  async size(): Promise<number> {
    return Promise.resolve(this.length);
  }

  async close(): Promise<void> {
    return Promise.resolve();
  }
}

class UnsyncedFile implements DiskFile {
  private readonly file: fs.FileHandle;

  constructor(file: fs.FileHandle) {
    this.file = file;
  }

  async read(position: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(length);
    const { bytesRead } = await this.file.read(bytes, 0, length, position);
    return bytes.subarray(0, bytesRead);
  }

  async writeDurably(bytes: Uint8Array, position: number): Promise<void> {
    const { bytesWritten } = await this.file.write(bytes, 0, bytes.length, position);
    if (bytesWritten < bytes.length) throw new Error('the disk of the benchmark is full');
  }

  truncateDurably(length: number): Promise<void> {
    return this.file.truncate(length);
  }

  async size(): Promise<number> {
    return (await this.file.stat()).size;
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

function memoryDisk(): Partial<Disk> {
  const files = new Map<string, MemoryFile>();
  return {
    list: (path) =>
      Promise.resolve(
        [...files.keys()]
          .filter((name) => name.startsWith(`${path}/`))
          .map((name) => name.slice(path.length + 1)),
      ),
    create: (path) => {
      const file = new MemoryFile();
      files.set(path, file);
      return Promise.resolve(file);
    },
    open: (path) => {
      const file = files.get(path);
      return file === undefined ? Promise.reject(new Error(`no ${path}`)) : Promise.resolve(file);
    },
    remove: (path) => {
      files.delete(path);
      return Promise.resolve();
    },
    syncDirectory: () => Promise.resolve(),
  };
}

const unsyncedDisk: Partial<Disk> = {
  create: async (path) => new UnsyncedFile(await fs.open(path, 'wx+')),
  open: async (path) => new UnsyncedFile(await fs.open(path, 'r+')),
  syncDirectory: () => Promise.resolve(),
};

/** The whole write is durable when its last piece is. */
function syncedInPieces(file: DiskFile): DiskFile {
  return {
    read: (position, length) => file.read(position, length),
    truncateDurably: (length) => file.truncateDurably(length),
    size: () => file.size(),
    close: () => file.close(),
    writeDurably: async (bytes, position) => {
      const pieces = Math.max(1, Math.round(bytes.length / operationBytes));
      const length = Math.ceil(bytes.length / pieces);
      for (let at = 0; at < bytes.length; at += length)
        await file.writeDurably(bytes.subarray(at, at + length), position + at);
    },
  };
}

/** As it was before any of it was exchanged. */
const machine: Disk = { ...realDisk };

function benchDisk(kind: BenchDisk): Disk {
  switch (kind) {
    case 'memory':
      return { ...machine, ...memoryDisk() };
    case 'no-sync':
      return { ...machine, ...unsyncedDisk };
    case 'sync-each':
      return {
        ...machine,
        create: async (path) => syncedInPieces(await machine.create(path)),
        open: async (path) => syncedInPieces(await machine.open(path)),
      };
  }
}

const kind = process.env['BENCH_DISK'];
if (kind === 'memory' || kind === 'no-sync' || kind === 'sync-each') {
  // The object that the server's log opens its files with.
  Object.assign(realDisk, benchDisk(kind));
}
