/** Sums: an increment that the client sends again after a failure must count once. */
import type { Random } from '../random.js';
import { bytes, KeySupply, textOf, type Actor, type Workload } from './workload.js';

export class CounterWorkload implements Workload {
  private readonly supply: KeySupply;

  constructor(random: Random, width: number) {
    this.supply = new KeySupply('counter', random, width);
  }

  get keys(): readonly string[] {
    return this.supply.used;
  }

  async step(actor: Actor): Promise<void> {
    const key = this.supply.take(actor.random);
    if (actor.random.chance(0.3)) {
      await this.readBack(actor, key);
      return;
    }
    const value = actor.random.integer(1, 9);
    await actor.record({ op: 'add', key, value }, async () => {
      const sum = await actor.kv.increment({ key: bytes(key), delta: value });
      return sum.value;
    });
  }

  async readBack(actor: Actor, key: string): Promise<boolean> {
    const read = await actor.record({ op: 'read', key }, async () => {
      const { kv } = await actor.kv.get({ key: bytes(key), level: actor.level });
      return kv ? Number(textOf(kv.value)) : null;
    });
    return read !== undefined;
  }
}
