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

  private constructor() {
    // By `load`.
  }

  /** Reads all keys a batch will ask for, each once: clients like to write the same ones. */
  static async load(engine: Engine, keys: readonly Uint8Array[]): Promise<Overlay> {
    const overlay = new Overlay();
    for (const key of keys) {
      const text = textOf(key);
      if (!overlay.cells.has(text))
        overlay.cells.set(text, { key, value: undefined, changed: false });
    }
    const cells = [...overlay.cells.values()];
    const values = cells.length === 0 ? [] : await engine.getMany(cells.map(({ key }) => key));
    for (const [n, cell] of cells.entries()) cell.value = values[n];
    return overlay;
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
