/**
 * Elements are appended to lists, each once: read, and put if nothing changed meanwhile. A list tells
 * of every write that was lost, doubled or undone, which a register that is overwritten does not.
 */
import type { Random } from '../random.js';
import { NotDone } from '../recorder.js';
import { bytes, KeySupply, textOf, type Actor, type Workload } from './workload.js';

const conflictsMax = 16;

export class AppendWorkload implements Workload {
  private readonly supply: KeySupply;
  private next = 1;

  constructor(random: Random, width: number) {
    this.supply = new KeySupply('append', random, width);
  }

  get keys(): readonly string[] {
    return this.supply.used;
  }

  async step(actor: Actor): Promise<void> {
    const key = this.supply.take(actor.random);
    if (actor.random.chance(0.4)) {
      await this.readBack(actor, key);
      return;
    }
    const value = this.next++;
    await actor.record({ op: 'append', key, value }, () => append(actor, key, value));
  }

  async readBack(actor: Actor, key: string): Promise<boolean> {
    const read = await actor.record({ op: 'read', key }, async () => {
      const { kv } = await actor.kv.get({ key: bytes(key), level: actor.level });
      return kv ? listOf(kv.value) : [];
    });
    return read !== undefined;
  }
}

/** Each try is a write of its own, and only one that was surely refused is followed by another. */
async function append({ kv, level }: Actor, key: string, element: number): Promise<undefined> {
  for (let conflicts = 0; conflicts < conflictsMax; conflicts++) {
    const before = await valueOf({ kv, level }, key);
    const list = before === undefined ? [] : listOf(before.value);
    const put = await kv.put({
      key: bytes(key),
      value: bytes([...list, element].join(',')),
      ...(before === undefined ? { ifAbsent: true } : { ifRevision: before.revision }),
    });
    if (put.applied) return undefined;
  }
  throw new NotDone(`${conflictsMax} other appends came first`);
}

async function valueOf(
  { kv, level }: Pick<Actor, 'kv' | 'level'>,
  key: string,
): Promise<{ value: Uint8Array; revision: number } | undefined> {
  try {
    return (await kv.get({ key: bytes(key), level })).kv ?? undefined;
  } catch (error) {
    // Nothing was written yet.
    throw new NotDone(`could not be read: ${String(error)}`);
  }
}

function listOf(value: Uint8Array): readonly number[] {
  return textOf(value).split(',').map(Number);
}
