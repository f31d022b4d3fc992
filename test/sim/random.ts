/**
 * The only source of chance in a simulated run: a seeded generator (xoshiro128**), and streams
 * split from it, so that one part of the world drawing more numbers does not change another part.
 */
export class SimRandom {
  private a: number;
  private b: number;
  private c: number;
  private d: number;

  /** `seed` is taken modulo 2^32. */
  constructor(seed: number) {
    // splitmix32 spreads neighbouring seeds over the whole state.
    let s = seed >>> 0;
    const next = (): number => {
      s = (s + 0x9e3779b9) >>> 0;
      let z = s;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    };
    this.a = next();
    this.b = next();
    this.c = next();
    this.d = next() | 1;
  }

  /** An unsigned 32-bit number. */
  bits(): number {
    const result = Math.imul(rotateLeft(Math.imul(this.b, 5), 7), 9) >>> 0;
    const t = this.b << 9;
    this.c ^= this.a;
    this.d ^= this.b;
    this.b ^= this.c;
    this.a ^= this.d;
    this.c ^= t;
    this.d = rotateLeft(this.d, 11);
    return result;
  }

  /** A number in [0, 1). */
  unit(): number {
    return this.bits() / 0x1_0000_0000;
  }

  /** True with the given probability; 0 never, 1 always. Draws nothing for a probability of 0. */
  chance(probability: number): boolean {
    return probability > 0 && this.unit() < probability;
  }

  /** An integer in [min, max]. */
  integer(min: number, max: number): number {
    return min + Math.floor(this.unit() * (max - min + 1));
  }

  /** A number in [min, max). */
  between(min: number, max: number): number {
    return min + this.unit() * (max - min);
  }

  /**
   * A number in [min, max) that is mostly close to `min`: each doubling of the distance is half as
   * likely. Fits delays and durations whose rare long ones do the damage.
   */
  tailed(min: number, max: number): number {
    let share = this.unit();
    for (let halving = 0; halving < 6 && this.unit() < 0.6; halving++) share /= 2;
    return min + share * (max - min);
  }

  /** One of the items, or undefined if there are none. */
  pick<T>(items: readonly T[]): T | undefined {
    return items.length === 0 ? undefined : items[this.integer(0, items.length - 1)];
  }

  /** One of the items by weight; at least one weight is positive. */
  weighted<T>(items: readonly (readonly [T, number])[]): T {
    let left = this.unit() * items.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [item, weight] of items) {
      left -= weight;
      if (left < 0) return item;
    }
    const last = items.at(-1);
    if (last === undefined) throw new RangeError('nothing to choose from');
    return last[0];
  }

  /** The items in another order. */
  shuffled<T>(items: readonly T[]): T[] {
    const left = [...items];
    const result: T[] = [];
    while (left.length > 0) result.push(...left.splice(this.integer(0, left.length - 1), 1));
    return result;
  }

  /** A stream of its own. */
  split(): SimRandom {
    return new SimRandom(this.bits());
  }
}

function rotateLeft(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}
