/** Keys of one slot are written over and over; scans page through them and must miss none. */
import type { Random } from '../random.js';
import { scanPrefix } from './scanning.js';
import { bytes, KeySupply, textOf, type Actor, type Workload } from './workload.js';

const keysOfScan = 120;

export class ScanWorkload implements Workload {
  private readonly supply: KeySupply;
  private next = 1;

  constructor(random: Random, width: number) {
    this.supply = new KeySupply('scan', random, width);
  }

  get keys(): readonly string[] {
    return this.supply.used;
  }

  async step(actor: Actor): Promise<void> {
    const tag = this.supply.take(actor.random);
    if (actor.random.chance(0.2)) {
      await this.readBack(actor, tag);
      return;
    }
    const key = `{${tag}}${actor.random.integer(1, keysOfScan)}`;
    const value = this.next++;
    await actor.record({ op: 'write', key, value }, async () => {
      await actor.kv.put({ key: bytes(key), value: bytes(String(value)) });
    });
  }

  async readBack(actor: Actor, tag: string): Promise<boolean> {
    const read = await actor.record({ op: 'scan', key: tag }, async () => {
      const found = await scanPrefix(actor, `{${tag}}`);
      return found.map((kv) => [textOf(kv.key), Number(textOf(kv.value))]);
    });
    return read !== undefined;
  }
}
