/**
 * The engine as one apply batch sees it: everything it needs read at once, its own writes on top,
 * and each changed key written once at the end.
 */
import type { Engine, EngineBatch } from '../../storage/index.js';

/** latin1 keeps each byte as one code unit. */
const textOf = (key: Uint8Array): string =>
  Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1');

/** One key and what stands there; not to be changed but through `Overlay.set`. */
export interface Cell {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
}

type OwnCell = { -readonly [K in keyof Cell]: Cell[K] } & { changed: boolean };

export class Overlay {
  private readonly cells = new Map<string, OwnCell>();

  private constructor(keys: readonly Uint8Array[], values: readonly (Uint8Array | undefined)[]) {
    for (const [n, key] of keys.entries()) {
      this.cells.set(textOf(key), { key, value: values[n], changed: false });
    }
  }

  /** Reads all keys a batch will ask for. */
  static async load(engine: Engine, keys: readonly Uint8Array[]): Promise<Overlay> {
    return new Overlay(keys, keys.length === 0 ? [] : await engine.getMany(keys));
  }

  /** Throws for a key that was not loaded: the batch did not say that it needs it. */
  find(key: Uint8Array): Cell {
    const cell = this.cells.get(textOf(key));
    if (cell === undefined)
      throw new RangeError('overlay: a key was not loaded before it was read');
    return cell;
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.find(key).value;
  }

  /** `cell`: from `find`. */
  set(cell: Cell, value: Uint8Array | undefined): void {
    // Every cell is one of this class.
    const own = cell as OwnCell;
    own.value = value;
    own.changed = true;
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.write(key, value);
  }

  delete(key: Uint8Array): void {
    this.write(key, undefined);
  }

  writeTo(batch: EngineBatch): void {
    for (const { key, value, changed } of this.cells.values()) {
      if (!changed) continue;
      if (value === undefined) batch.delete(key);
      else batch.put(key, value);
    }
  }

  private write(key: Uint8Array, value: Uint8Array | undefined): void {
    const text = textOf(key);
    const cell = this.cells.get(text);
    if (cell === undefined) this.cells.set(text, { key, value, changed: true });
    else this.set(cell, value);
  }
}
