/** Values that are written, read, and swapped for another if they are what was expected. */
import type { Random } from '../random.js';
import { bytes, KeySupply, textOf, type Actor, type Workload } from './workload.js';

export class RegisterWorkload implements Workload {
  private readonly supply: KeySupply;
  private next = 1;
  /** What some client saw last: a swap that expects it has a chance. */
  private readonly seen = new Map<string, number>();

  constructor(random: Random, width: number) {
    this.supply = new KeySupply('register', random, width);
  }

  get keys(): readonly string[] {
    return this.supply.used;
  }

  async step(actor: Actor): Promise<void> {
    const key = this.supply.take(actor.random);
    const expected = this.seen.get(key);
    if (actor.random.chance(0.45)) await this.readBack(actor, key);
    else if (expected === undefined || actor.random.chance(0.5)) await this.write(actor, key);
    else await this.swap(actor, key, expected);
  }

  async readBack(actor: Actor, key: string): Promise<boolean> {
    const read = await actor.record({ op: 'read', key }, async () => {
      const { kv } = await actor.kv.get({ key: bytes(key), level: actor.level });
      return kv ? Number(textOf(kv.value)) : null;
    });
    if (typeof read === 'number') this.seen.set(key, read);
    return read !== undefined;
  }

  private async write(actor: Actor, key: string): Promise<void> {
    const value = this.next++;
    await actor.record({ op: 'write', key, value }, async () => {
      await actor.kv.put({ key: bytes(key), value: bytes(String(value)) });
      this.seen.set(key, value);
    });
  }

  private async swap(actor: Actor, key: string, expected: number): Promise<void> {
    const value = this.next++;
    const name = bytes(key);
    await actor.record({ op: 'cas', key, value, expected }, async () => {
      const { succeeded } = await actor.kv.txn({
        compare: [{ key: name, value: bytes(String(expected)) }],
        then: [{ put: { key: name, value: bytes(String(value)) } }],
      });
      if (succeeded) this.seen.set(key, value);
      return succeeded;
    });
  }
}
