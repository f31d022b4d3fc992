/**
 * A state machine that forgets nothing: each command is written under the next number, so that a
 * command applied twice, skipped or out of order can be seen in the data for ever.
 */
import { machineKey, machineRange } from '../../storage/index.js';
import type { Engine, EngineBatch, KeyRange } from '../../storage/index.js';
import type { Entry } from '../../raft/index.js';
import type { Applied, Leadership, StateMachine } from '../../src/group/state-machine.js';

export interface LedgerResult {
  /** How many commands were applied up to this one. */
  readonly number: number;
  readonly text: string;
}

const numberOf = (number: number): string => String(number).padStart(9, '0');

export class Ledger implements StateMachine<LedgerResult> {
  readonly range: KeyRange;
  readonly leaderships: Leadership[] = [];
  /** Commands that the written batches hold; a cache that must be built again after an install. */
  length = 0;
  private pending = 0;
  /** Awaited before a batch is applied; a test may make it wait, or throw. */
  onApply: (commands: readonly Entry[]) => Promise<void> = () => Promise.resolve();
  private readonly engine: Engine;
  private readonly prefix: Uint8Array;

  constructor(engine: Engine, prefix: Uint8Array) {
    this.engine = engine;
    this.prefix = prefix;
    this.range = machineRange(prefix);
  }

  async load(): Promise<void> {
    this.length = (await this.texts()).length;
    this.pending = this.length;
  }

  async apply(commands: readonly Entry[], batch: EngineBatch): Promise<Applied<LedgerResult>> {
    await this.onApply(commands);
    const results = commands.map((command) => {
      this.pending++;
      batch.put(machineKey(this.prefix, numberOf(this.pending)), command.data);
      return { number: this.pending, text: Buffer.from(command.data).toString() };
    });
    return { results, clears: [] };
  }

  written(): void {
    this.length = this.pending;
  }

  asksForHash(command: Uint8Array): boolean {
    return Buffer.from(command).toString() === 'hash';
  }

  get keys(): number {
    return this.length;
  }

  onLeadership(leadership: Leadership): void {
    this.leaderships.push(leadership);
  }

  /** All commands in the order in which they were applied. */
  async texts(): Promise<readonly string[]> {
    const iterator = this.engine.iterate({ ...this.range, pageBytesMax: 64 * 1024 * 1024 });
    try {
      const pairs = await iterator.next();
      return pairs.map(({ value }) => Buffer.from(value).toString());
    } finally {
      await iterator.close();
    }
  }
}
