/** A shard over a fake group and a clock that the test moves. */
import type { KvError } from '../../src/errors.js';
import type { Write } from '../../src/shard/command.js';
import {
  Shard,
  type ReadLevel,
  type ReadResult,
  type ScanPage,
  type ScanPageRequest,
  type Written,
} from '../../src/shard/shard.js';
import { ManualClock } from '../support/manual-clock.js';
import { bytes, text } from './command-texts.js';
import { FakeGroup } from './fake-group.js';
import { Replica } from './replica.js';

export interface Answer<T> {
  readonly error: KvError | undefined;
  readonly result: T | undefined;
}

/** What a call has become: unchanged while it waits. */
export class Call<T> {
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  mayHaveApplied = false;
  answers: Answer<T>[] = [];

  readonly done = (error: KvError | undefined, result: T | undefined): void => {
    this.answers.push({ error, result });
  };

  /** The one answer. */
  get answer(): Answer<T> {
    const [first, ...others] = this.answers;
    if (first === undefined || others.length > 0)
      throw new Error(`${this.answers.length} answers instead of one`);
    return first;
  }

  get error(): KvError {
    const { error } = this.answer;
    if (error === undefined) throw new Error('answered without an error');
    return error;
  }

  get result(): T {
    const { error, result } = this.answer;
    if (result === undefined) throw error ?? new Error('answered with nothing');
    return result;
  }
}

export const linearizable: ReadLevel = { kind: 'linearizable' };

export class ServedShard {
  readonly clock: ManualClock;
  readonly replica: Replica;
  readonly group: FakeGroup;
  readonly shard: Shard;
  readonly fatal: Error[] = [];
  readonly logged: string[] = [];

  constructor(replica = Replica.fresh(), clock = new ManualClock()) {
    this.replica = replica;
    this.clock = clock;
    this.group = new FakeGroup(replica, clock);
    this.shard = new Shard({
      group: this.group,
      machine: replica.machine,
      clock,
      log: (_level, _fields, message) => this.logged.push(message),
      onFatal: (error) => this.fatal.push(error),
      birthSlots: () => undefined,
    });
  }

  /** One that leads. */
  static leading(): ServedShard {
    const served = new ServedShard();
    served.group.lead();
    return served;
  }

  write(...writes: readonly Write[]): Call<Written> {
    const call = new Call<Written>();
    this.shard.write(writes, call, call.done);
    return call;
  }

  async written(...writes: readonly Write[]): Promise<Written> {
    const call = this.write(...writes);
    await this.settle();
    return call.result;
  }

  read(keys: readonly string[], level: ReadLevel = linearizable): Call<ReadResult> {
    const call = new Call<ReadResult>();
    this.shard.read(keys.map(bytes), level, call, call.done);
    return call;
  }

  /** Values as text; undefined where there is none. */
  async values(keys: readonly string[], level?: ReadLevel): Promise<(string | undefined)[]> {
    const call = this.read(keys, level);
    await this.settle();
    return call.result.values.map((kv) => (kv === undefined ? undefined : text(kv.value)));
  }

  scan(request: Partial<ScanPageRequest> = {}): Call<ScanPage> {
    const call = new Call<ScanPage>();
    const page: ScanPageRequest = {
      prefix: bytes(''),
      slot: undefined,
      cursor: undefined,
      afterKey: undefined,
      bytesMax: 1 << 20,
      lengthMax: 1000,
      keysOnly: false,
      level: linearizable,
      ...request,
    };
    this.shard.scan(page, call, call.done);
    return call;
  }

  async page(request: Partial<ScanPageRequest> = {}): Promise<ScanPage> {
    const call = this.scan(request);
    await this.until('a page', () => call.answers.length > 0);
    return call.result;
  }

  /** Time passes, timers fire, and what they begin comes to its end. */
  async pass(ms: number): Promise<void> {
    this.clock.jump(ms);
    await this.settle();
  }

  async settle(): Promise<void> {
    await this.clock.settle();
    const [failure] = this.fatal;
    if (failure !== undefined) throw failure;
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    for (let turn = 0; !holds(); turn++) {
      if (turn > 5000) throw new Error(`${what} did not come`);
      await new Promise((resolve) => setImmediate(resolve));
      const [failure] = this.fatal;
      if (failure !== undefined) throw failure;
    }
  }
}
