/** What clients do, over and over, and how all of it is read back at the end. */
import type { QuorateClient } from '../../src/client/index.js';
import type { Random } from '../random.js';
import type { Invocation, Recorder } from '../recorder.js';

/** One client: it does one thing at a time. */
export interface Actor {
  readonly client: number;
  readonly kv: QuorateClient;
  readonly random: Random;
  /** Kind of read, as in ReadLevel. */
  readonly level: number;
  record<T>(what: Omit<Invocation, 'client'>, act: () => Promise<T>): Promise<T | undefined>;
}

export interface Workload {
  /** Carries out one operation. */
  step(actor: Actor): Promise<void>;
  /** Reads everything there is to be known of `key`; false when it could not be read. */
  readBack(actor: Actor, key: string): Promise<boolean>;
  /** Every key that was used. */
  readonly keys: readonly string[];
}

export function actorOf(options: {
  readonly client: number;
  readonly kv: QuorateClient;
  readonly random: Random;
  readonly level: number;
  readonly recorder: Recorder;
}): Actor {
  const { client, recorder } = options;
  return { ...options, record: (what, act) => recorder.record({ client, ...what }, act) };
}

/** Keys in use: each for 200 to 500 operations, then a fresh one takes its place. */
export class KeySupply {
  readonly used: string[] = [];
  private readonly prefix: string;
  private readonly random: Random;
  private readonly current: { key: string; left: number }[] = [];

  constructor(prefix: string, random: Random, width: number) {
    this.prefix = prefix;
    this.random = random;
    for (let n = 0; n < width; n++) this.current.push(this.fresh());
  }

  /** The key of the next operation. */
  take(random: Random): string {
    const at = random.integer(0, this.current.length - 1);
    const chosen = this.current[at] ?? this.fresh();
    chosen.left--;
    if (chosen.left <= 0) this.current[at] = this.fresh();
    return chosen.key;
  }

  private fresh(): { key: string; left: number } {
    const key = `${this.prefix}-${this.used.length}`;
    this.used.push(key);
    return { key, left: this.random.integer(200, 500) };
  }
}

export const bytes = (text: string): Uint8Array => Buffer.from(text, 'utf8');
export const textOf = (value: Uint8Array): string => Buffer.from(value).toString('utf8');
