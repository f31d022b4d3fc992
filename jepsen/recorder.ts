/** Writes down what clients do: one clock for all of them, one line for each operation as it ends. */
import { createWriteStream, type WriteStream } from 'node:fs';
import { KvError } from '../src/client/index.js';
import { historyLine, type Operation, type OperationName } from './history.js';

export interface Invocation {
  readonly client: number;
  readonly op: OperationName;
  readonly key: string;
  readonly value?: unknown;
  readonly expected?: unknown;
}

/** The operation surely had no effect: it was refused, or given up before anything was sent. */
export class NotDone extends Error {
  override readonly name = 'NotDone';
}

export class Recorder {
  readonly operations: Operation[] = [];
  private readonly file: WriteStream;
  private readonly begunAt = process.hrtime.bigint();

  constructor(path: string) {
    this.file = createWriteStream(path);
  }

  /** Nanoseconds since the run began. */
  nowNs(): number {
    return Number(process.hrtime.bigint() - this.begunAt);
  }

  /**
   * Carries it out and writes down what became of it. Undefined when it did not succeed; errors that are
   * no answer of the service reject: they are bugs of the test.
   */
  async record<T>(invocation: Invocation, act: () => Promise<T>): Promise<T | undefined> {
    const callNs = this.nowNs();
    try {
      const output = await act();
      const returnNs = this.nowNs();
      const told = output === undefined ? {} : { output };
      this.add({ ...invocation, ...told, callNs, returnNs, status: 'ok' });
      return output;
    } catch (error) {
      const returnNs = this.nowNs();
      const status = statusOf(error, invocation.op);
      this.add({ ...invocation, callNs, returnNs, status, error: textOf(error) });
      return undefined;
    }
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.file.end(resolve);
    });
  }

  private add(operation: Operation): void {
    this.operations.push(operation);
    this.file.write(historyLine(operation));
  }
}

/** A failed read has told nothing and changed nothing. Of a write only the service knows. */
function statusOf(error: unknown, op: OperationName): 'fail' | 'info' {
  if (error instanceof NotDone) return 'fail';
  if (!(error instanceof KvError)) throw error;
  const isRead = op === 'read' || op === 'scan';
  return isRead || error.outcome === 'notApplied' ? 'fail' : 'info';
}

function textOf(error: unknown): string {
  return error instanceof KvError ? `${error.code}: ${error.message}` : String(error);
}
