/**
 * A disk in memory that does what real ones do. Written bytes survive the death of the process at
 * once, but a power cut only after a sync: until then any of their sectors may be there or not, in
 * any order. Names behave alike, with the sync of their directory.
 *
 * A failed sync leaves the worst case behind: the file reads back as written and the next sync
 * reports success, but the bytes never reach the disk unless they are written again.
 */
import { dirname } from 'node:path';
import type { Disk, DiskFile } from '../../../storage/index.js';

/** Unsigned 32-bit random numbers. */
export type RandomNumber = () => number;

/** A generator from a seed (xorshift32), so that a failing run can be repeated. */
export function randomFrom(seed: number): RandomNumber {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

/** What a process asks of the disk. */
export interface DiskOperation {
  readonly kind:
    | 'makeDirectory'
    | 'list'
    | 'create'
    | 'open'
    | 'read'
    | 'write'
    | 'truncate'
    | 'remove'
    | 'syncDirectory'
    | 'close';
  readonly path: string;
  /** Of reads and writes. */
  readonly bytes?: number;
}

/** One file's content, apart from its names. */
class Content {
  /** As the file system shows it; capacity grows by doubling. */
  private bytes: Buffer;
  private size: number;
  private durableSize: number;
  /** Sectors written since the last sync, as they were before: a power cut may bring that back. */
  private readonly unsynced = new Map<number, Buffer>();
  /** The same for sectors whose sync failed: a power cut will bring that back. */
  private readonly neverWritten = new Map<number, Buffer>();

  private readonly sectorBytes: number;

  constructor(bytes: Uint8Array, sectorBytes: number) {
    this.sectorBytes = sectorBytes;
    this.bytes = Buffer.alloc(this.wholeSectors(bytes.length));
    this.bytes.set(bytes);
    this.size = bytes.length;
    this.durableSize = bytes.length;
  }

  clone(): Content {
    const clone = new Content(this.visible, this.sectorBytes);
    clone.durableSize = this.durableSize;
    for (const [sector, before] of this.unsynced) clone.unsynced.set(sector, before);
    for (const [sector, before] of this.neverWritten) clone.neverWritten.set(sector, before);
    return clone;
  }

  get visible(): Buffer {
    return this.bytes.subarray(0, this.size);
  }

  write(bytes: Uint8Array, position: number): void {
    if (bytes.length === 0) return;
    const { sectorBytes } = this;
    const end = position + bytes.length;
    if (end > this.bytes.length) {
      const grown = Buffer.alloc(this.wholeSectors(Math.max(end, 2 * this.bytes.length)));
      grown.set(this.visible);
      this.bytes = grown;
    }
    const last = Math.floor((end - 1) / sectorBytes);
    for (let sector = Math.floor(position / sectorBytes); sector <= last; sector++) {
      if (this.unsynced.has(sector)) continue;
      const start = sector * sectorBytes;
      const before =
        this.neverWritten.get(sector) ?? this.bytes.subarray(start, start + sectorBytes);
      this.unsynced.set(sector, Buffer.from(before));
      this.neverWritten.delete(sector);
    }
    this.bytes.set(bytes, position);
    this.size = Math.max(this.size, end);
  }

  truncate(size: number): void {
    this.bytes.fill(0, size, this.size);
    this.size = size;
    this.sync();
  }

  sync(): void {
    this.unsynced.clear();
    this.durableSize = this.size;
  }

  failSync(): void {
    for (const [sector, before] of this.unsynced) this.neverWritten.set(sector, before);
    this.unsynced.clear();
  }

  /** Each unsynced sector is new, old, or (rarely) a part of each. */
  cutPower(random: RandomNumber): void {
    const { sectorBytes } = this;
    const survival = random() % 4;
    const size = random() % 2 === 0 ? this.size : this.durableSize;
    for (const [sector, before] of this.unsynced) {
      if (random() % 4 <= survival) continue;
      const kept = random() % 16 === 0 ? random() % sectorBytes : 0;
      this.bytes.set(before.subarray(kept), sector * sectorBytes + kept);
    }
    for (const [sector, before] of this.neverWritten) this.bytes.set(before, sector * sectorBytes);
    this.neverWritten.clear();
    this.truncate(size);
  }

  private wholeSectors(bytes: number): number {
    return Math.ceil(bytes / this.sectorBytes) * this.sectorBytes;
  }
}

export class SimulatedDisk {
  /** Called before each operation takes effect; it may throw instead, or wait. */
  hook: (operation: DiskOperation) => void | Promise<void> = () => undefined;
  /** Bytes all files together may take; writes beyond it fail with ENOSPC, in part. */
  bytesMax = Infinity;
  readonly operations: DiskOperation[] = [];

  private names = new Map<string, Content>();
  private durableNames = new Map<string, Content>();
  private readonly directories = new Set<string>();
  private life = 0;
  private readonly sectorBytes: number;

  /** `sectorBytes`: what is written whole or not at all; small ones tear small writes too. */
  constructor(sectorBytes = 512) {
    this.sectorBytes = sectorBytes;
  }

  /** The disk as one process sees it: after a kill or a power cut it never answers again. */
  mount(): Disk {
    const { life } = this;
    const enter = (kind: DiskOperation['kind'], path: string): Promise<void> =>
      this.enter({ kind, path }, life);
    return {
      makeDirectory: async (path) => {
        await enter('makeDirectory', path);
        this.directories.add(path);
      },
      list: async (path) => {
        await enter('list', path);
        return this.list(path);
      },
      create: async (path) => {
        await enter('create', path);
        if (this.names.has(path)) throw systemError('EEXIST', path);
        const content = new Content(Buffer.alloc(0), this.sectorBytes);
        this.names.set(path, content);
        return this.fileOf(content, path, life);
      },
      open: async (path) => {
        await enter('open', path);
        return this.fileOf(this.contentOf(path), path, life);
      },
      remove: async (path) => {
        await enter('remove', path);
        if (!this.names.delete(path)) throw systemError('ENOENT', path);
      },
      syncDirectory: async (path) => {
        await enter('syncDirectory', path);
        this.syncNames(path);
      },
    };
  }

  /** kill -9: the process is gone, everything it wrote is there. */
  kill(): void {
    this.life++;
    this.hook = () => undefined;
  }

  /** The power goes: what was not synced is kept or lost, sector by sector and name by name. */
  cutPower(random: RandomNumber): void {
    this.kill();
    const survivors = new Map(this.durableNames);
    for (const [name, content] of this.names) {
      if (!this.durableNames.has(name) && random() % 2 === 0) survivors.set(name, content);
    }
    for (const name of this.durableNames.keys()) {
      if (!this.names.has(name) && random() % 2 === 0) survivors.delete(name);
    }
    for (const content of new Set(survivors.values())) content.cutPower(random);
    this.names = survivors;
    this.durableNames = new Map(survivors);
  }

  /** The bytes of a file, to look at or to damage in place. */
  bytesOf(path: string): Buffer {
    return this.contentOf(path).visible;
  }

  /** Puts a file there, durably. */
  place(path: string, bytes: Uint8Array): void {
    const content = new Content(bytes, this.sectorBytes);
    this.directories.add(dirname(path));
    this.names.set(path, content);
    this.durableNames.set(path, content);
  }

  /** Paths of all files, sorted. */
  paths(): readonly string[] {
    return [...this.names.keys()].sort();
  }

  /** The same disk, with what is synced and what is not, as a test wants to damage it many ways. */
  copy(): SimulatedDisk {
    const copy = new SimulatedDisk(this.sectorBytes);
    for (const directory of this.directories) copy.directories.add(directory);
    const clones = new Map<Content, Content>();
    const cloneOf = (content: Content): Content => {
      const clone = clones.get(content) ?? content.clone();
      clones.set(content, clone);
      return clone;
    };
    for (const [name, content] of this.names) copy.names.set(name, cloneOf(content));
    for (const [name, content] of this.durableNames) copy.durableNames.set(name, cloneOf(content));
    return copy;
  }

  private fileOf(content: Content, path: string, life: number): DiskFile {
    let closed = false;
    // Also at the end of an operation: nobody may close a file under it.
    const assertOpen = (): void => {
      if (closed) throw systemError('EBADF', path);
    };
    return {
      read: async (position, length) => {
        assertOpen();
        await this.enter({ kind: 'read', path, bytes: length }, life);
        assertOpen();
        return Buffer.from(content.visible.subarray(position, position + length));
      },
      writeDurably: async (bytes, position) => {
        if (life !== this.life) return forever();
        assertOpen();
        const grows = Math.max(0, position + bytes.length - content.visible.length);
        const fits = bytes.length - Math.max(0, grows - (this.bytesMax - this.used()));
        content.write(bytes.subarray(0, Math.max(0, fits)), position);
        if (fits < bytes.length) throw systemError('ENOSPC', path);
        // A power cut meets the bytes here: visible and not yet synced.
        try {
          await this.enter({ kind: 'write', path, bytes: bytes.length }, life);
          assertOpen();
        } catch (error) {
          content.failSync();
          throw error;
        }
        content.sync();
      },
      truncateDurably: async (length) => {
        assertOpen();
        await this.enter({ kind: 'truncate', path }, life);
        content.truncate(length);
      },
      size: async () => content.visible.length,
      close: async () => {
        assertOpen();
        await this.enter({ kind: 'close', path }, life);
        closed = true;
      },
    };
  }

  private contentOf(path: string): Content {
    const content = this.names.get(path);
    if (content === undefined) throw systemError('ENOENT', path);
    return content;
  }

  private list(path: string): readonly string[] {
    if (!this.directories.has(path)) throw systemError('ENOENT', path);
    const inside = [...this.names.keys()].filter((name) => dirname(name) === path);
    return inside.map((name) => name.slice(path.length + 1));
  }

  private syncNames(path: string): void {
    for (const name of this.durableNames.keys()) {
      if (dirname(name) === path && !this.names.has(name)) this.durableNames.delete(name);
    }
    for (const [name, content] of this.names) {
      if (dirname(name) === path) this.durableNames.set(name, content);
    }
  }

  private used(): number {
    let bytes = 0;
    for (const content of this.names.values()) bytes += content.visible.length;
    return bytes;
  }

  private async enter(operation: DiskOperation, life: number): Promise<void> {
    if (life !== this.life) return forever();
    this.operations.push(operation);
    await this.hook(operation);
    if (life !== this.life) return forever();
  }
}

/** What a dead process waits for. */
function forever(): Promise<never> {
  return new Promise<never>(() => undefined);
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: simulated, '${path}'`), { code });
}
