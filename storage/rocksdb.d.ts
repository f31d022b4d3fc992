/**
 * The part of the RocksDB binding (@nxtedition/rocksdb 12.2.12) that rocks-engine.ts uses. The
 * package ships no types. Methods with an underscore are its synchronous or raw forms.
 */
declare module 'rocksdb' {
  export interface RocksOptions {
    readonly createIfMissing: boolean;
    readonly keyEncoding: 'buffer';
    readonly valueEncoding: 'buffer';
    /** Bytes; a quarter of it is one memtable. */
    readonly memtableMemoryBudget: number;
    /** Bytes of the block cache. */
    readonly cacheSize: number;
    readonly cacheIndexAndFilterBlocks: boolean;
    readonly compaction: 'level' | 'universal';
    readonly compression: boolean;
    readonly walCompression: boolean;
    readonly optimize: 'point-lookup';
    readonly parallelism: number;
  }

  export interface RocksBatch {
    _put(key: Uint8Array, value: Uint8Array, options: object): void;
    _del(key: Uint8Array, options: object): void;
    _writeSync(options: { readonly sync: boolean }): void;
    _closeSync(): void;
  }

  export interface RocksIterator {
    /** Keys and values alternate. */
    _nextvSync(
      size: number,
      options: object,
    ): {
      readonly rows: readonly (Uint8Array | undefined)[];
      readonly finished: boolean;
    };
    close(): Promise<void>;
  }

  export class RocksLevel {
    constructor(directory: string, options: RocksOptions);
    open(): Promise<void>;
    close(): Promise<void>;
    batch(): RocksBatch;
    iterator(options: object): RocksIterator;
    clear(options: object): Promise<void>;
    getProperty(name: string): string;
    _getManySync(keys: readonly Uint8Array[], options: object): readonly (Uint8Array | undefined)[];
  }
}
