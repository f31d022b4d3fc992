/** Elements of a set are keys of one slot: put once, never changed, and read back by a scan. */
import type { Random } from '../random.js';
import { scanPrefix } from './scanning.js';
import { bytes, KeySupply, textOf, type Actor, type Workload } from './workload.js';

export class SetWorkload implements Workload {
  private readonly supply: KeySupply;
  private next = 1;

  constructor(random: Random, width: number) {
    this.supply = new KeySupply('set', random, width);
  }

  get keys(): readonly string[] {
    return this.supply.used;
  }

  async step(actor: Actor): Promise<void> {
    const key = this.supply.take(actor.random);
    if (actor.random.chance(0.15)) {
      await this.readBack(actor, key);
      return;
    }
    const value = this.next++;
    await actor.record({ op: 'add', key, value }, async () => {
      await actor.kv.put({ key: bytes(`{${key}}${value}`), value: bytes('') });
    });
  }

  async readBack(actor: Actor, key: string): Promise<boolean> {
    const prefix = `{${key}}`;
    const read = await actor.record({ op: 'read', key }, async () => {
      const found = await scanPrefix(actor, prefix);
      return found.map((kv) => Number(textOf(kv.key).slice(prefix.length)));
    });
    return read !== undefined;
  }
}
