/** The writes of one atomic batch, in order: the same for every engine. */
import type { EngineBatch } from './engine.js';

/** `value` undefined: delete. */
export interface EngineOperation {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
}

export class OperationList implements EngineBatch {
  readonly operations: EngineOperation[] = [];
  bytes = 0;

  get length(): number {
    return this.operations.length;
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.operations.push({ key, value });
    this.bytes += key.byteLength + value.byteLength;
  }

  delete(key: Uint8Array): void {
    this.operations.push({ key, value: undefined });
    this.bytes += key.byteLength;
  }
}
